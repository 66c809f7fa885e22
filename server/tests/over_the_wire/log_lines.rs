//! A line that concerns a request carries its id, wherever it is written.

use crate::raw_http::post;
use crate::real_server::{Server, Setup, wait_until};
use crate::repository_files::{Repository, samples, work};

/// The next line of the log, in JSON, whose message is `message`.
#[track_caller]
fn line(server: &mut Server, message: &str) -> serde_json::Value {
    let line = server.wait_for_line(&format!(r#""message":"{message}""#));
    serde_json::from_str(&line).unwrap()
}

/// A server that is told to write JSON once it has announced its ports.
fn started(setup: Setup) -> Server {
    let server = setup.start();
    assert_eq!(server.post("/v2/logging", r#"{"log_format":"json","log_verbose_level":1}"#).status, 200);
    server
}

#[test]
fn what_a_backend_says_during_a_request_carries_its_id() {
    let mut server = started(Setup::over(&samples()));
    let ones = ["1"; 16].join(",");
    let input = |name| format!(r#"{{"name":"{name}","datatype":"INT32","shape":[1,16],"data":[{ones}]}}"#);
    let request =
        format!(r#"{{"inputs":[{},{}],"outputs":[{{"name":"OUTPUT1"}}]}}"#, input("INPUT0"), input("INPUT1"));
    let answer = server.connect().post("/v2/models/simple/infer", "x-request-id: r-6\r\n", request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let line = line(&mut server, "made a session for these outputs only");
    assert_eq!((&line["request_id"], &line["outputs"]), (&"r-6".into(), &"OUTPUT1".into()), "{line}");
}

#[test]
fn what_an_instance_says_of_a_request_carries_its_id() {
    let repository = Repository::empty().with_work();
    let mut server = started(Setup::over(repository.path()));
    let mut connection = server.connect();
    connection.send(post("/v2/models/work/infer", "x-request-id: left\r\n", work(3000).as_bytes()));
    let in_flight = r#"volley_inference_requests_in_flight{model="work",version="1"}"#;
    wait_until("it is taken up", || server.metric(in_flight) == Some(1.0));
    drop(connection);
    let line = line(&mut server, "the client left before its answer was ready");
    assert_eq!(line["request_id"], "left", "{line}");
}
