//! Requests that are wrong as HTTP: cut, oversized, compressed badly, in pieces, in bulk.

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::raw_http::post;
use crate::real_server::{SMALL_REQUEST, Server, Setup};
use crate::repository_files::{Repository, samples};

const INFER: &str = "/v2/models/identity/infer";

fn server() -> Server {
    Setup::over(&samples()).start()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `megabytes` of zeros, as gzip.
fn bomb(megabytes: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; 1 << 20];
    (0..megabytes).for_each(|_| encoder.write_all(&zeros).unwrap());
    encoder.finish().unwrap()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

const CHUNKED: &str =
    "POST /v2/models/identity/infer HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_truncated_body_is_refused_with_how_much_of_it_came() {
    let server = server();
    for sent in [0, 1, SMALL_REQUEST.len() - 1] {
        let request = post(INFER, "", SMALL_REQUEST.as_bytes());
        let cut = request.len() - SMALL_REQUEST.len() + sent;
        let mut connection = server.connect();
        connection.send(&request[..cut]);
        connection.half_close();
        connection.answer().refuses(400, &["broke off", &format!("{sent} bytes")]);
        connection.rest();
        server.still_serves();
    }
    let mut connection = server.connect();
    connection.send([CHUNKED.as_bytes(), b"a\r\n12345"].concat());
    connection.half_close();
    connection.answer().refuses(400, &["broke off"]);
    connection.rest();
    server.still_serves();
}

#[test]
fn a_body_larger_than_the_limit_is_refused_announced_or_not() {
    let server = Setup::over(&samples()).option("--http-max-input-size=1000000").start();
    let words = ["1000000 bytes", "--http-max-input-size"];
    let mut announced = server.connect();
    announced
        .send("POST /v2/models/identity/infer HTTP/1.1\r\nHost: test\r\nContent-Length: 1000001\r\n\r\n");
    let answer = announced.answer(); // before any of it is sent
    answer.refuses(400, &words);
    assert!(answer.error().contains("1000001"), "{}", answer.error());

    let mut absurd = server.connect();
    absurd.send(
        "POST /v2/models/identity/infer HTTP/1.1\r\nHost: test\r\nContent-Length: 18446744073709551614\r\n\r\n",
    );
    assert!([400, 431].contains(&absurd.answer().status));

    let mut chunked = server.connect();
    chunked.send(CHUNKED);
    let piece = chunk(&[b' '; 50_000]);
    // Once the server has refused, it may no longer take the rest.
    while chunked.try_send(&piece).is_ok() {}
    chunked.answer().refuses(400, &words);
    server.still_serves();

    let at_the_limit = format!("{SMALL_REQUEST}{}", " ".repeat(1_000_000 - SMALL_REQUEST.len()));
    assert_eq!(server.post(INFER, &at_the_limit).status, 200);
    for path in ["/v2/logging", "/v2/repository/index"] {
        server.post(path, vec![b' '; 65_537]).refuses(400, &["65537 bytes", "65536 bytes"]);
    }
}

#[test]
fn a_body_that_decompresses_without_end_is_refused_in_bounded_memory() {
    const LIMIT: usize = 16 << 20;
    let server = Setup::over(&samples()).option(&format!("--http-max-input-size={LIMIT}")).start();
    let bomb = bomb(64);
    assert!(bomb.len() < 1 << 20);
    let before = server.resident();
    for _ in 0..12 {
        let answer = server.connect().post(INFER, "Content-Encoding: gzip\r\n", &bomb);
        answer.refuses(400, &["decompressed", &format!("{LIMIT} bytes"), "--http-max-input-size"]);
        server.still_serves();
    }
    // The allocator keeps some of what it had for one of them, but not of every one.
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 6 * LIMIT as u64, "{} MB more", grown >> 20);
}

#[test]
fn compressed_bodies_are_read_and_broken_ones_are_refused() {
    let server = server();
    let request = |encoding: &str, body: &[u8]| {
        server.connect().post(INFER, &format!("Content-Encoding: {encoding}\r\n"), body)
    };
    let whole = gzip(SMALL_REQUEST.as_bytes());
    assert_eq!(request("gzip", &whole).status, 200);
    let mut deflated = ZlibEncoder::new(Vec::new(), Compression::default());
    deflated.write_all(SMALL_REQUEST.as_bytes()).unwrap();
    assert_eq!(request("deflate", &deflated.finish().unwrap()).status, 200);

    request("gzip", SMALL_REQUEST.as_bytes()).refuses(400, &["Gzip"]);
    request("gzip", &whole[..whole.len() / 2]).refuses(400, &["Gzip"]);
    request("gzip", &[]).refuses(400, &[]);
    request("gzip", &[&whole[..], b"trailing"].concat()).refuses(400, &[]);
    request("deflate", b"\xff\xff\xff").refuses(400, &["Deflate"]);
    let mut wrong_sum = whole.clone();
    let at = wrong_sum.len() - 5;
    wrong_sum[at] ^= 1;
    request("gzip", &wrong_sum).refuses(400, &["Gzip"]);
    server.still_serves();
}

#[test]
fn an_encoding_that_is_not_read_is_answered_with_those_that_are() {
    let server = server();
    for encoding in ["br", "zstd", "gzip, gzip", "x"] {
        let headers = format!("Content-Encoding: {encoding}\r\n");
        let answer = server.connect().post(INFER, &headers, SMALL_REQUEST);
        answer.refuses(501, &[&format!("'{encoding}'"), "gzip", "deflate"]);
        assert_eq!(answer.header("accept-encoding"), Some("gzip, deflate"));
    }
    let twice = "Content-Encoding: gzip\r\nContent-Encoding: deflate\r\n";
    let answer = server.connect().post(INFER, twice, SMALL_REQUEST);
    answer.refuses(501, &["'gzip, deflate'"]);
    let mut not_ascii = server.connect();
    let request = post(INFER, "Content-Encoding: ?\r\n", SMALL_REQUEST.as_bytes());
    not_ascii.send(request.iter().map(|byte| if *byte == b'?' { 0xe9 } else { *byte }).collect::<Vec<_>>());
    not_ascii.answer().refuses(501, &["compression type"]);
    server.still_serves();
}

#[test]
fn a_body_in_100_000_tiny_chunks_is_one_body() {
    let server = server();
    let before = server.resident();
    let body = format!("{SMALL_REQUEST}{}", " ".repeat(100_000 - SMALL_REQUEST.len()));
    let mut request = CHUNKED.as_bytes().to_vec();
    body.bytes().for_each(|byte| request.extend(chunk(&[byte])));
    request.extend(chunk(&[]));
    let started = Instant::now();
    let mut connection = server.connect();
    connection.send(&request);
    let answer = connection.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 50 << 20, "{} MB more", grown >> 20);
    server.still_serves();
}

#[test]
fn chunks_that_are_none_are_refused() {
    let server = server();
    for chunks in ["x\r\n", "-1\r\n", "ffffffffffffffffff\r\n", "2\r\nabcdef\r\n0\r\n\r\n"] {
        let mut connection = server.connect();
        connection.send([CHUNKED, chunks].concat());
        if let Ok(answer) = connection.try_answer() {
            assert_eq!(answer.status, 400, "{chunks:?}: {}", answer.text());
        }
        connection.rest();
        server.still_serves();
    }
}

#[test]
fn a_head_larger_than_the_limit_is_refused() {
    let server = server();
    let long = "x".repeat(100_000);
    for request in [
        format!("GET /v2 HTTP/1.1\r\nHost: test\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /v2 HTTP/1.1\r\nHost: test\r\n{}\r\n", "X-Many: 1\r\n".repeat(10_000)),
        format!("GET /v2/models/{long} HTTP/1.1\r\nHost: test\r\n\r\n"),
    ] {
        let mut connection = server.connect();
        // The server may refuse before it has everything.
        let _ = connection.try_send(&request);
        let status = connection.answer().status;
        assert!([414, 431].contains(&status), "{status} for {:.40}", request);
        server.still_serves();
    }
}

#[test]
fn what_is_not_http_is_refused() {
    let server = server();
    let tls_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let requests: [&[u8]; 8] = [
        &tls_hello,
        b"\r\n\r\nnonsense\r\n\r\n",
        b"GET /v2/models/\xff\xfe/ready HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\nHost: test\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /v2/logging HTTP/1.1\r\nHost: test\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/logging HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /v2/logging HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: nonsense\r\n\r\n",
    ];
    for request in requests {
        let mut connection = server.connect();
        connection.send(request);
        let status = connection.answer().status;
        assert!((400..500).contains(&status), "{status} for {:?}", String::from_utf8_lossy(request));
        server.still_serves();
    }
    server.get("/v2/models/%ff%fe/ready").refuses(404, &[]);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = server();
    let number = |number: usize| {
        let body = SMALL_REQUEST.replace("1.5", &number.to_string());
        let body = if number % 10 == 7 { body.replace("INPUT0", "INPUT7") } else { body };
        post(INFER, "", body.as_bytes())
    };
    let mut connection = server.connect();
    connection.send((0..100).flat_map(number).collect::<Vec<_>>());
    for number in 0..100 {
        let answer = connection.answer();
        if number % 10 == 7 {
            answer.refuses(400, &["INPUT7"]);
        } else {
            assert_eq!(answer.json()["outputs"][0]["data"][0], serde_json::json!(f64::from(number)));
        }
    }
}

#[test]
fn a_refused_request_leaves_its_connection_usable() {
    let server = server();
    let mut connection = server.connect();
    connection.post(INFER, "", "{").refuses(400, &[]);
    connection.post("/v2/models/nothing/infer", "", SMALL_REQUEST).refuses(404, &["'nothing'"]);
    assert_eq!(connection.post(INFER, "", SMALL_REQUEST).status, 200);
}

#[test]
fn a_model_that_is_not_there_is_told_whatever_follows() {
    let server = server();
    let path = "/v2/models/nothing/infer";
    // More than the sockets hold: it is taken, but neither kept nor read as anything.
    let large = vec![0; 40 << 20];
    let before = server.most_resident();
    let mut connection = server.connect();
    for headers in ["", "Content-Encoding: gzip\r\n"] {
        connection.post(path, headers, &large).refuses(404, &["'nothing'"]);
    }
    assert_eq!(connection.post(INFER, "", SMALL_REQUEST).status, 200, "the connection goes on");
    let grown = server.most_resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{} MB more", grown >> 20);
}

#[test]
fn who_asks_before_sending_is_told_before_sending() {
    let server = server();
    let mut connection = server.connect();
    connection.send(
        "POST /v2/models/nothing/infer HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n\
         Content-Length: 1000000\r\n\r\n",
    );
    let answer = connection.answer();
    answer.refuses(404, &["'nothing'"]);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(connection.rest(), b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn http_2_with_prior_knowledge_is_spoken_on_the_http_port() {
    let repository = Repository::of(&["identity"]);
    let server = Setup::over(repository.path()).start();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let ask = async |body: &'static str| {
        let uri = format!("http://{}{INFER}", server.http);
        let request = http::Request::post(uri).body(Full::from(body)).unwrap();
        let response = client.request(request).await.unwrap();
        (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
    };
    let (status, body) = ask(SMALL_REQUEST).await;
    assert_eq!((status, body.ends_with(b"}")), (200, true));
    assert_eq!(ask("{").await.0, 400);
    drop(client);
    server.still_serves();
}
