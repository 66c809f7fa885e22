//! Requests whose content is wrong: each is refused in a sentence, and the next one is answered.

use crate::raw_http::Answer;
use crate::real_server::{Server, Setup};
use crate::repository_files::{Repository, samples};

const IDENTITY: &str = "/v2/models/identity/infer";
const SIMPLE: &str = "/v2/models/simple/infer";
const STRINGS: &str = "/v2/models/simple_string/infer";

fn server() -> Server {
    Setup::over(&samples()).start()
}

/// A request with the one input `INPUT0`, which has `members`.
fn with_input(members: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"INPUT0",{members}}}]}}"#)
}

fn fp32(shape: &str, data: &str) -> String {
    with_input(&format!(r#""datatype":"FP32","shape":{shape},"data":{data}"#))
}

/// Posts a body of which the first `json_length` bytes are said to be JSON.
fn post_binary(server: &Server, path: &str, json_length: &str, body: &[u8]) -> Answer {
    server.connect().post(path, &format!("Inference-Header-Content-Length: {json_length}\r\n"), body)
}

#[track_caller]
fn refused(server: &Server, path: &str, body: impl AsRef<[u8]>, words: &[&str]) {
    server.post(path, body).refuses(400, words);
    server.still_serves();
}

#[test]
fn data_that_does_not_fit_its_shape_is_refused_with_both_numbers() {
    let server = server();
    let refused = |body: String, words: &[&str]| refused(&server, IDENTITY, body, words);
    refused(fp32("[1,3]", "[1,2]"), &["'INPUT0'", "2 elements", "[1,3]", "3 elements"]);
    refused(fp32("[1,2]", "[1,2,3]"), &["'INPUT0'", "[1,2]", "2 elements"]);
    refused(fp32("[1,2]", "[[1,2],[3]]"), &["'INPUT0'"]);
    refused(fp32("[1,2]", "[]"), &["'INPUT0'", "0 elements", "2 elements"]);
    refused(fp32("[2]", "[1,2]"), &["'INPUT0'", "[-1,-1]", "[2]"]);
    refused(fp32("[1,1,2]", "[1,2]"), &["'INPUT0'", "[-1,-1]", "[1,1,2]"]);
    refused(fp32("[9,1]", "[1,2,3,4,5,6,7,8,9]"), &["<= 8", "got 9"]);
}

#[test]
fn data_of_another_type_is_refused_with_both_types() {
    let server = server();
    let refused = |body: String, words: &[&str]| refused(&server, IDENTITY, body, words);
    refused(with_input(r#""datatype":"INT32","shape":[1,1],"data":[1]"#), &["'INPUT0'", "'INT32'", "'FP32'"]);
    refused(with_input(r#""datatype":"FP99","shape":[1,1],"data":[1]"#), &["'INPUT0'", "'FP99'"]);
    refused(with_input(r#""datatype":"UINT8","shape":[1,1],"data":[256]"#), &["'INPUT0'", "256", "UINT8"]);
    refused(with_input(r#""datatype":"INT64","shape":[1,1],"data":[1.5]"#), &["'INPUT0'", "1.5", "INT64"]);
    refused(fp32("[1,1]", r#"["one"]"#), &["'INPUT0'", "FP32"]);
    refused(fp32("[1,1]", "[null]"), &["'INPUT0'", "FP32"]);
    refused(fp32("[1,1]", "{}"), &["'INPUT0'"]);
}

#[test]
fn shapes_that_no_tensor_has_are_refused() {
    let server = server();
    let refused = |shape: &str, words: &[&str]| refused(&server, IDENTITY, fp32(shape, "[1]"), words);
    refused("[-1,1]", &["'INPUT0'", "-1", "dimension 0"]);
    refused("[1,-9223372036854775808]", &["'INPUT0'", "-9223372036854775808"]);
    refused("[9223372036854775808]", &["'INPUT0'", "9223372036854775808"]);
    refused("[3037000500,3037000500]", &["'INPUT0'", "[3037000500,3037000500]"]);
    refused("[9223372036854775807,9223372036854775807]", &["'INPUT0'"]);
    refused("[4611686018427387904,1]", &["'INPUT0'", "4611686018427387904"]);
    refused("[1.5]", &["'INPUT0'", "1.5"]);
    refused(r#"["1"]"#, &["shape"]);
    refused(&format!("[{}1]", "1,".repeat(1000)), &["'INPUT0'", "64 dimensions"]);
    refused(&format!("[1{}]", "0".repeat(10_000)), &["'INPUT0'"]);
}

#[test]
fn a_huge_shape_reserves_no_memory() {
    let server = server();
    let before = server.resident();
    for shape in ["[8,100000000000]", "[1,4000000000]", "[8,9000000]"] {
        refused(&server, IDENTITY, fp32(shape, "[1,2]"), &["'INPUT0'"]);
        let json = with_input(&format!(
            r#""datatype":"FP32","shape":{shape},"parameters":{{"binary_data_size":8}}"#
        ));
        let body = [json.as_bytes(), &[0; 8]].concat();
        post_binary(&server, IDENTITY, &json.len().to_string(), &body)
            .refuses(400, &["'INPUT0'", "8 bytes", shape]);
    }
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 50 << 20, "{grown} bytes more");
}

#[test]
fn lengths_that_lie_inside_bytes_tensors_are_refused() {
    let server = server();
    let request = |data: &[u8]| {
        let json = with_input(&format!(
            r#""datatype":"BYTES","shape":[1,16],"parameters":{{"binary_data_size":{}}}"#,
            data.len()
        ));
        post_binary(&server, STRINGS, &json.len().to_string(), &[json.as_bytes(), data].concat())
    };
    request(&[255, 255, 255, 255, b'x']).refuses(400, &["'INPUT0'", "4294967295", "1 are left"]);
    request(&[9, 0, 0, 0, b'1', b'2']).refuses(400, &["'INPUT0'", "offset 0", "9 bytes", "2 are left"]);
    request(&[1, 0, 0, 0, b'1', 7]).refuses(400, &["'INPUT0'", "offset 5", "1 bytes are left"]);
    request(&[0; 4 * 15]).refuses(400, &["'INPUT0'", "15 elements", "16 elements"]);
    request(&[0; 4 * 17]).refuses(400, &["'INPUT0'", "17 elements", "16 elements"]);
    request(&[]).refuses(400, &["'INPUT0'", "0 elements", "16 elements"]);
    server.still_serves();
}

#[test]
fn a_header_length_that_lies_is_refused() {
    let server = server();
    let json = with_input(r#""datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}"#);
    let length = json.len();
    let body = [json.as_bytes(), &[0; 8]].concat();
    let request = |json_length: &str| post_binary(&server, IDENTITY, json_length, &body);
    assert_eq!(request(&length.to_string()).status, 200);
    for not_a_length in ["-1", "+5", "ten", "1.5", "", "0x10", "18446744073709551616", "1 2"] {
        request(not_a_length).refuses(400, &["Inference-Header-Content-Length", not_a_length]);
    }
    let all = body.len().to_string();
    request(&(body.len() + 1).to_string()).refuses(400, &[&(body.len() + 1).to_string(), &all]);
    request("18446744073709551615").refuses(400, &["18446744073709551615", &all]);
    request("1").refuses(400, &["JSON"]);
    request(&(length - 1).to_string()).refuses(400, &["JSON"]);
    request(&all).refuses(400, &["JSON"]);
    let twice = |other: usize| request(&format!("{length}\r\nInference-Header-Content-Length: {other}"));
    assert_eq!(twice(length).status, 200);
    twice(length + 1).refuses(400, &[&length.to_string(), &(length + 1).to_string(), "one value"]);
    server.still_serves();
}

#[test]
fn binary_data_sizes_that_lie_are_refused() {
    let server = server();
    let request = |size: &str, data: &[u8]| {
        let parameters = format!(r#""parameters":{{"binary_data_size":{size}}}"#);
        let json = with_input(&format!(r#""datatype":"FP32","shape":[1,2],{parameters}"#));
        post_binary(&server, IDENTITY, &json.len().to_string(), &[json.as_bytes(), data].concat())
    };
    request("8", &[0; 7]).refuses(400, &["'INPUT0'", "8 bytes", "7 bytes"]);
    request("8", &[0; 9]).refuses(400, &["9 bytes", "8 bytes"]);
    request("4", &[0; 4]).refuses(400, &["'INPUT0'", "4 bytes", "8 bytes"]);
    request("-8", &[0; 8]).refuses(400, &["'INPUT0'", "-8"]);
    request("18446744073709551615", &[0; 8]).refuses(400, &["'INPUT0'", "18446744073709551615"]);
    server.still_serves();
}

#[test]
fn unknown_models_and_versions_are_named() {
    let server = server();
    let infer = |place: &str| server.post(&format!("/v2/models/{place}/infer"), r#"{"inputs":[]}"#);
    infer("nothing").refuses(404, &["'nothing'"]);
    infer("..%2F..%2Fetc").refuses(404, &["'../../etc'"]);
    infer(&"n".repeat(2000)).refuses(404, &["nnn"]);
    infer("digits/versions/99").refuses(404, &["'digits'", "99"]);
    infer("digits/versions/0").refuses(400, &["'0'", "version"]);
    infer("digits/versions/18446744073709551616").refuses(400, &["'18446744073709551616'", "version"]);
    assert_eq!(infer("digits/versions/two").status, 404);
    server.get("/v2/models/nothing").refuses(404, &["'nothing'"]);
    server.get("/v2/models/digits/versions/99/config").refuses(404, &["'digits'", "99"]);
    server.get("/v2/models/nothing/stats").refuses(400, &["'nothing'"]);
    server.still_serves();
}

#[test]
fn unknown_missing_and_doubled_tensors_are_named() {
    let server = server();
    let input = |name: &str| {
        let zeros = vec!["0"; 16].join(",");
        format!(r#"{{"name":"{name}","datatype":"INT32","shape":[1,16],"data":[{zeros}]}}"#)
    };
    let request = |inputs: &[&str], outputs: &str| {
        let inputs: Vec<_> = inputs.iter().map(|name| input(name)).collect();
        format!(r#"{{"inputs":[{}],"outputs":[{outputs}]}}"#, inputs.join(","))
    };
    let both = ["INPUT0", "INPUT1"];
    let refused = |body: String, words: &[&str]| refused(&server, SIMPLE, body, words);
    refused(request(&["INPUT0", "INPUT1", "INPUT9"], ""), &["'INPUT9'", "simple"]);
    refused(request(&["INPUT0"], ""), &["2 inputs", "1 inputs", "INPUT1"]);
    refused(request(&[], ""), &["2 inputs", "0 inputs"]);
    refused(request(&["INPUT0", "INPUT1", "INPUT0"], ""), &["'INPUT0'", "twice"]);
    refused(request(&both, r#"{"name":"OUTPUT9"}"#), &["'OUTPUT9'", "simple", "OUTPUT1"]);
    refused(request(&both, r#"{"name":"OUTPUT0"},{"name":"OUTPUT0"}"#), &["'OUTPUT0'", "twice"]);
    refused(request(&both, "{}"), &["output 0", "'name'"]);
    refused("{}".to_owned(), &["'inputs'"]);
    refused(r#"{"inputs":[],"inputs":[]}"#.to_owned(), &["'inputs'", "twice"]);
}

#[test]
fn json_that_is_none_is_refused_where_it_breaks() {
    let server = server();
    for body in ["", "{", "null", "[]", "{}{}", "{\"inputs\":[}", "\u{feff}{}", "{'inputs':[]}", "{\"id\":1}"]
    {
        refused(&server, IDENTITY, body, &[]);
    }
    let invalid_utf8 = fp32("[1,1]", "[1]").replace("INPUT0", "\u{1}").into_bytes();
    let invalid_utf8: Vec<u8> =
        invalid_utf8.into_iter().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
    refused(&server, IDENTITY, invalid_utf8, &["UTF-8"]);
    refused(&server, IDENTITY, fp32("[1,1]", "[1]").replace("INPUT0", r"\ud800"), &["escape"]);
    refused(&server, "/v2/logging", b"{\"log_file\":\"\xff\"}", &["JSON"]);
    refused(&server, "/v2/repository/index", b"\xff\xfe", &["JSON"]);
}

#[test]
fn json_nested_100_000_deep_is_refused_without_a_deep_stack() {
    let server = server();
    const DEEP: usize = 100_000;
    let arrays = format!("{}{}", "[".repeat(DEEP), "]".repeat(DEEP));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(DEEP), "}".repeat(DEEP));
    for deep in [&arrays, &objects] {
        for body in [
            deep.clone(),
            fp32("[1,1]", deep),
            fp32(deep, "[1]"),
            with_input(&format!(r#""data":{deep},"datatype":"FP32","shape":[1,1]"#)),
            with_input(&format!(r#""parameters":{{"a":{deep}}}"#)),
            format!(r#"{{"unknown":{deep},"inputs":[]}}"#),
            format!(r#"{{"parameters":{{"a":{deep}}},"inputs":[]}}"#),
            "[".repeat(DEEP),
        ] {
            let answer = server.post(IDENTITY, &body);
            assert_eq!(answer.status, 400, "{}", answer.text());
            assert!(answer.error().len() < 1000, "it repeats what was sent");
        }
        for path in ["/v2/repository/index", "/v2/logging"] {
            let answer = server.post(path, format!(r#"{{"ready":{}}}"#, &deep[..deep.len().min(60_000)]));
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
            assert!(answer.error().len() < 1000, "it repeats what was sent");
        }
    }
    server.still_serves();
}

#[test]
fn a_refusal_never_repeats_more_than_a_little_of_what_was_sent() {
    let server = server();
    let long = "x".repeat(1 << 20);
    let bodies = [
        fp32("[1,1]", &format!(r#"["{long}"]"#)),
        fp32("[1,1]", "[1]").replace("INPUT0", &long),
        with_input(&format!(r#""datatype":"{long}","shape":[1,1],"data":[1]"#)),
        format!(r#"{{"inputs":[],"{long}":1,"{long}":2}}"#),
        format!(r#"{{"parameters":{{"{long}":null}},"inputs":[]}}"#),
        format!(r#"{{"inputs":[],"outputs":[{{"name":"{long}"}}]}}"#),
        format!(r#"{{"id":"{long}","inputs":[]}}"#),
    ];
    for body in bodies {
        let answer = server.post(IDENTITY, &body);
        assert_eq!(answer.status, 400);
        let (length, start) = (answer.body.len(), String::from_utf8_lossy(&answer.body[..80]).into_owned());
        assert!(length < 64 << 10, "{length} bytes: {start}");
    }
    server.still_serves();
}

#[test]
fn settings_that_do_not_exist_are_refused_and_change_nothing() {
    let server = server();
    let before = server.get("/v2/logging").json();
    for (body, words) in [
        (r#"{"log_colour":true}"#, "log_colour"),
        (r#"{"log_info":7}"#, "log_info"),
        (r#"{"log_info":[]}"#, "log_info"),
        (r#"{"log_info":false,"log_verbose_level":-1}"#, "log_verbose_level"),
        (r#"{"log_info":false,"log_format":"xml"}"#, "log_format"),
        ("[]", "object"),
    ] {
        refused(&server, "/v2/logging", body, &[words]);
        assert_eq!(server.get("/v2/logging").json(), before, "{body}");
    }
}

#[test]
fn an_index_that_is_asked_for_wrongly_is_refused_with_the_value() {
    let server = server();
    let ask = |body: &str| server.post("/v2/repository/index", body);
    for value in ["1", r#""true""#, "[true]", r#"{"ready":true}"#] {
        ask(&format!(r#"{{"ready":{value}}}"#)).refuses(400, &["'ready'", value, "true or false"]);
    }
    for body in [r#"{"ready":null}"#, r#"{"ready":false}"#, r#"{"ready":true}"#, "{}", ""] {
        assert_eq!(ask(body).status, 200, "{body}");
    }
}

#[test]
fn a_question_is_not_parsed_into_many_times_its_size() {
    let server = server();
    let before = server.most_resident();
    let many = format!(r#"{{"ready":[{}0]}}"#, "0,".repeat(30 << 20));
    for path in ["/v2/repository/index", "/v2/logging"] {
        server.post(path, &many).refuses(400, &["65536 bytes", &format!("{} bytes", many.len())]);
        server.still_serves();
    }
    let grown = server.most_resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{} MB more", grown >> 20);
}

#[test]
fn a_raw_binary_request_that_does_not_fit_is_refused() {
    let server = server();
    let request =
        |model: &str, body: &[u8]| post_binary(&server, &format!("/v2/models/{model}/infer"), "0", body);
    assert_eq!(request("identity", &[0; 8]).status, 200);
    request("identity", &[0; 7]).refuses(400, &["'INPUT0'", "7 bytes", "4 bytes"]);
    request("digits", &[0; 4]).refuses(400, &["'image'", "4 bytes", "256 bytes"]);
    request("simple", &[0; 64]).refuses(400, &["simple", "one input", "2"]);
    request("nothing", &[0; 4]).refuses(404, &["'nothing'"]);
    server.still_serves();
}

#[test]
fn what_later_work_brings_says_so() {
    let server = Setup::over(Repository::of(&["identity"]).path()).start();
    let refused = |path: &str, words: &str| server.post(path, "{}").refuses(501, &[words]);
    for verb in ["load", "unload"] {
        let path = format!("/v2/repository/models/identity/{verb}");
        server.post(&path, "{}").refuses(503, &["not allowed", "--model-control-mode=explicit"]);
    }
    refused("/v2/models/identity/generate", "generate");
    refused("/v2/trace/setting", "trace");
    refused("/v2/systemsharedmemory/region/r/register", "shared memory");
    refused("/v2/cudasharedmemory/unregister", "shared memory");
    assert_eq!(server.get("/v2/nothing").status, 404);
    let answer = server.get("/v2/models/identity/infer");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}
