//! Clients that stop: each is given up on after `--client-timeout`, and costs the others nothing.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::raw_http::{Connection, post};
use crate::real_server::{SMALL_REQUEST, Server, Setup, wait_until};
use crate::repository_files::samples;

const INFER: &str = "/v2/models/identity/infer";

/// A server that waits a second for its clients.
fn impatient() -> Setup {
    Setup::over(&samples()).option("--client-timeout=1")
}

/// Long enough for the server to give up on a client, far less than its default of 30 seconds.
const GIVEN_UP: Duration = Duration::from_secs(10);

#[track_caller]
fn is_given_up(server: &Server, mut connection: Connection) -> Vec<u8> {
    let started = Instant::now();
    server.still_serves();
    let rest = connection.rest();
    assert!(started.elapsed() < GIVEN_UP, "given up after {:?}", started.elapsed());
    server.still_serves();
    rest
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_head_is_given_up() {
    let server = impatient().start();
    for head in ["G", "GET /v2 HT", "GET /v2 HTTP/1.1\r\nHost: test\r\n"] {
        let mut connection = server.connect();
        connection.send(head);
        is_given_up(&server, connection);
    }
    let mut grpc = Connection::open(&server.grpc);
    grpc.send("PRI * HT");
    is_given_up(&server, grpc);
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_body_is_answered_408() {
    let server = impatient().start();
    for (path, sent) in [(INFER, 0), (INFER, 10), ("/v2/logging", 1), ("/v2/repository/index", 0)] {
        let request = post(path, "", SMALL_REQUEST.as_bytes());
        let cut = request.len() - SMALL_REQUEST.len() + sent;
        let mut connection = server.connect();
        connection.send(&request[..cut]);
        server.still_serves();
        let answer = connection.answer();
        answer.refuses(408, &["1s", &format!("{sent} bytes")]);
        is_given_up(&server, connection);
    }
}

#[test]
fn a_client_that_stops_between_chunks_is_answered_408() {
    let server = impatient().start();
    let mut connection = server.connect();
    connection.send(
        "POST /v2/models/identity/infer HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"i\r\n",
    );
    connection.answer().refuses(408, &["3 bytes"]);
    is_given_up(&server, connection);
}

#[test]
fn a_client_that_sends_byte_after_byte_is_answered_408() {
    let server = impatient().start();
    let request = post(INFER, "", &[b' '; 100_000]);
    let head = request.len() - 100_000;
    let mut connection = server.connect();
    connection.send(&request[..head]);
    connection.stream().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let started = Instant::now();
    let answered = loop {
        assert!(started.elapsed() < GIVEN_UP, "it still waits for the next byte");
        // Sends at the pace at which no answer comes.
        if connection.stream().peek(&mut [0]).is_ok() {
            break connection.answer();
        }
        connection.send(" ");
    };
    answered.refuses(408, &["1s"]);
    server.still_serves();
}

#[test]
fn a_client_that_does_not_read_its_answer_is_given_up_and_its_answer_freed() {
    let server = impatient().option("--log-verbose=1").start();
    let mut server = server;
    let values = 8 << 20;
    let json = format!(
        r#"{{"inputs":[{{"name":"INPUT0","datatype":"FP32","shape":[1,{values}],"parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
        4 * values
    );
    let headers = format!("Inference-Header-Content-Length: {}\r\n", json.len());
    let body = [json.as_bytes(), &vec![0; 4 * values]].concat();
    let before = server.resident();
    let mut connection = server.connect();
    connection.send(post(INFER, &headers, &body));
    server.still_serves();
    server.wait_for_line("closing a connection whose client has stalled");
    server.still_serves();
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 150 << 20, "{} MB more", grown >> 20);
    // What was under way still comes; the rest does not.
    let mut got = Vec::new();
    let _ = connection.stream().read_to_end(&mut got);
    assert!(got.len() < body.len(), "all {} bytes came", got.len());
}

#[test]
fn a_connection_that_waits_for_its_next_request_may_stay() {
    let server = impatient().start();
    let mut connection = server.connect();
    assert_eq!(connection.post(INFER, "", SMALL_REQUEST).status, 200);
    let mut scraper = Connection::open(&server.metrics);
    assert_eq!(scraper.get("/metrics").status, 200);
    // Longer than the server waits for a client in the middle of a request.
    connection.stream().set_read_timeout(Some(Duration::from_millis(2500))).unwrap();
    let silence = connection.stream().peek(&mut [0]).unwrap_err();
    assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(connection.post(INFER, "", SMALL_REQUEST).status, 200);
    assert_eq!(scraper.get("/metrics").status, 200);
}

#[test]
fn clients_beyond_the_limit_wait_until_a_stalled_one_is_given_up() {
    let server = impatient().option("--max-connections=8").start();
    let stalled: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = server.connect();
            connection.send("GET /v2 HT");
            connection
        })
        .collect();
    server.still_serves();
    drop(stalled);
}

/// Eight clients that asked once and kept their connections shut everyone else out, health probes too.
#[test]
fn idle_connections_make_room_for_those_that_wait() {
    let server = Setup::over(&samples()).option("--max-connections=8").start();
    let ready = |connection: &mut Connection| {
        assert_eq!(connection.get("/v2/health/ready").status, 200);
    };
    let mut idle: Vec<_> = (0..8).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(ready);
    server.still_serves();
    // As many as had to go were closed, and no more.
    let open = |connection: &mut Connection| {
        connection.stream().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        connection.stream().peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let open = idle.iter_mut().map(open).filter(|open| *open).count();
    assert_eq!(open, 7);
}

#[test]
fn a_crowd_of_stalled_clients_delays_nobody() {
    let server = impatient().start();
    let before = server.resident();
    let request = post(INFER, "", SMALL_REQUEST.as_bytes());
    let stalled: Vec<_> = (0..300)
        .map(|number| {
            let mut connection = server.connect();
            connection.send(&request[..number % request.len()]);
            connection
        })
        .collect();
    server.still_serves();
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 50 << 20, "{} MB more", grown >> 20);
    drop(stalled);
    server.still_serves();
}

/// Half a body of a megabyte.
fn half_a_body(server: &Server) -> Connection {
    let request = post(INFER, "", &vec![b' '; 1 << 20]);
    let mut connection = server.connect();
    connection.send(&request[..request.len() / 2]);
    connection
}

#[test]
fn requests_together_take_no_more_memory_than_they_may() {
    let server = Setup::over(&samples()).option("--max-request-memory=1000000").start();
    let held = || server.metric("volley_request_memory_bytes").unwrap();
    let first = half_a_body(&server);
    wait_until("the first is counted", || held() > 400_000.0);
    let second = half_a_body(&server);
    wait_until("the second is counted", || held() > 800_000.0);
    let mut third = half_a_body(&server);
    third.answer().refuses(503, &["1000000 bytes", "--max-request-memory"]);
    server.still_serves();
    drop((first, second));
    wait_until("what they took is given back", || held() == 0.0);
    let padded = |spaces| format!("{SMALL_REQUEST}{}", " ".repeat(spaces));
    assert_eq!(server.post(INFER, padded(700_000)).status, 503, "JSON counts twice");
    assert_eq!(server.post(INFER, padded(400_000)).status, 200);
}

/// Whoever was refused in the middle of a body saw a broken pipe: the connection was closed on what was still coming.
#[test]
fn who_is_refused_for_memory_while_sending_gets_the_answer_and_keeps_the_connection() {
    let server = Setup::over(&samples()).option("--max-request-memory=1000000").start();
    // More than the sockets hold.
    let large = vec![b' '; 40 << 20];
    let mut connection = server.connect();
    let words = ["1000000 bytes", "--max-request-memory"];
    connection.post(INFER, "", &large).refuses(503, &words);
    assert_eq!(connection.post(INFER, "Expect: 100-continue\r\n", &large).status, 100);
    connection.answer().refuses(503, &words);
    assert_eq!(connection.post(INFER, "", SMALL_REQUEST).status, 200);
    wait_until("what they took is given back", || server.metric("volley_request_memory_bytes") == Some(0.0));
}

/// As [`post`], in chunks.
fn post_chunked(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
    let chunk = |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    let chunks: Vec<u8> = body.chunks(60_000).flat_map(chunk).collect();
    [head.as_bytes(), &chunks, b"0\r\n\r\n"].concat()
}

#[test]
fn who_is_refused_while_sending_chunks_gets_the_answer_and_keeps_the_connection() {
    let server = Setup::over(&samples()).option("--max-request-memory=1000000").start();
    let large = vec![b' '; 40 << 20];
    let mut connection = server.connect();
    connection.send(post_chunked(INFER, "", &large));
    connection.answer().refuses(503, &["--max-request-memory"]);
    connection.send(post_chunked("/v2/models/nobody/infer", "", &large));
    connection.answer().refuses(404, &["nobody"]);
    connection.send(post_chunked(INFER, "Expect: 100-continue\r\n", SMALL_REQUEST.as_bytes()));
    assert_eq!(connection.answer().status, 100);
    let answer = connection.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    assert_eq!(connection.post(INFER, "", SMALL_REQUEST).status, 200);
}

/// What nobody has begun to read is not asked for, and may be without end.
#[test]
fn who_waits_with_chunks_for_a_word_is_refused_without_one() {
    let server = Setup::over(&samples()).start();
    let mut connection = server.connect();
    connection.send(
        "POST /v2/models/nobody/infer HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\
         Expect: 100-continue\r\n\r\n",
    );
    let answer = connection.answer();
    answer.refuses(404, &["nobody"]);
    assert_eq!(answer.header("connection"), Some("close"));
    is_given_up(&server, connection);
}

#[test]
fn a_stop_does_not_wait_for_a_body_that_is_forgotten() {
    let server = Setup::over(&samples()).start();
    let mut connection = server.connect();
    let request = post("/v2/models/nobody/infer", "", &[b' '; 60 << 20]);
    // More than the sockets hold: it is being forgotten.
    let (begin, rest) = request.split_at(20 << 20);
    connection.send(begin);
    server.terminate();
    connection.stream().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let started = Instant::now();
    // As fast as who means to send it all.
    for piece in rest.chunks(16 << 10) {
        if connection.stream().peek(&mut [0]).is_ok() {
            break;
        }
        connection.send(piece);
    }
    connection.answer().refuses(404, &["nobody"]);
    assert!(started.elapsed() < GIVEN_UP, "it took {:?}", started.elapsed());
    assert_eq!(server.wait_for_the_end().code, Some(0));
}
