//! The life of the process: it answers before its models are loaded, and stops only after it has answered.

use std::thread;
use std::time::{Duration, Instant};

use crate::onnx_file;
use crate::raw_http::{Answer, Connection, post};
use crate::real_server::{SMALL_REQUEST, Server, Setup, wait_until};
use crate::repository_files::{Repository, samples, work};

const IN_FLIGHT: &str = "volley_inference_requests_in_flight";
const WAITING: &str = "nv_inference_pending_request_count";

/// A metric of the model `work`.
fn value(server: &Server, metric: &str) -> f64 {
    server.metric(&format!(r#"{metric}{{model="work",version="1"}}"#)).unwrap_or(0.0)
}

/// Sends `count` requests that each take a while; returns once the server has them all, at one of them.
fn busy(server: &Server, count: u32, size: usize) -> Vec<Connection> {
    let send = |_| {
        let mut connection = server.connect();
        connection.send(post("/v2/models/work/infer", "", work(size).as_bytes()));
        connection
    };
    let mut connections = vec![send(0)];
    wait_until("the first is taken up", || value(server, IN_FLIGHT) > 0.5 && value(server, WAITING) < 0.5);
    connections.extend((1..count).map(send));
    wait_until("all are in flight", || value(server, IN_FLIGHT) > f64::from(count) - 0.5);
    connections
}

#[track_caller]
fn is_the_cube(answer: &Answer, size: f32) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let total = answer.json()["outputs"][0]["data"][0].as_f64().unwrap();
    let expected = f64::from(size.powi(3));
    // FP32 cannot add up that many ones exactly.
    assert!((total / expected - 1.0).abs() < 0.05, "{total} is not {expected}");
}

#[test]
fn the_server_is_live_before_its_models_are_loaded_and_ready_after() {
    let repository = Repository::of(&["identity"]);
    repository.write("slow/1/model.onnx", onnx_file::slow_to_load(3500));
    let mut server = Setup::over(repository.path()).listen();
    assert_eq!(server.get("/v2/health/live").status, 200);
    assert_eq!(server.get("/v2/health/ready").status, 400);
    server.wait_for_line("ready model=identity");
    server.still_serves();
    assert_eq!(server.get("/v2/health/ready").status, 400);
    let index = server.post("/v2/repository/index", "").json();
    assert_eq!(index[1]["state"], "LOADING", "{index}");
    assert_eq!(server.get("/v2/models/slow/ready").status, 400);
    // Clients and meshes retry this answer; they would give up on 404.
    for path in ["/v2/models/slow/infer", "/v2/models/slow/versions/1/infer"] {
        server.post(path, r#"{"inputs":[]}"#).refuses(503, &["slow", "not at ready state"]);
    }
    server.post("/v2/models/nope/infer", r#"{"inputs":[]}"#).refuses(404, &["'nope' is not found"]);
    server.wait_for_line("the first load is over");
    assert_eq!(server.get("/v2/health/ready").status, 200);
    assert_eq!(server.get("/v2/models/slow/ready").status, 200);
}

#[test]
fn a_server_that_is_stopped_while_it_loads_stops() {
    let repository = Repository::of(&["identity"]);
    repository.write("slow/1/model.onnx", onnx_file::slow_to_load(6000));
    let mut server = Setup::over(repository.path()).may_complain().option("--exit-timeout-secs=1").listen();
    server.wait_for_line("ready model=identity");
    server.terminate();
    let ended = server.wait_for_the_end();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(
        !ended.log.contains("the first load is over"),
        "the stop did not wait for the load: {}",
        ended.log
    );
}

#[test]
fn a_stopped_server_answers_everything_it_has_taken_and_exits_0() {
    let repository = Repository::empty().with_work();
    let server = Setup::over(repository.path()).start();
    let idle = server.connect();
    let busy = busy(&server, 4, 2000);
    server.terminate();
    let http = server.http.clone();
    let ended = thread::spawn(move || server.wait_for_the_end());
    for mut connection in busy {
        let answer = connection.answer();
        is_the_cube(&answer, 2000.0);
        assert_eq!(connection.rest(), b"", "the connection ends after its answer");
    }
    let ended = ended.join().unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.log.contains("finished=4 unfinished=0"), "{}", ended.log);
    assert!(std::net::TcpStream::connect(http).is_err(), "the port is free");
    drop(idle);
}

#[test]
fn during_the_drain_delay_the_server_is_not_ready_but_answers() {
    let server = Setup::over(&samples()).option("--drain-delay=2").start();
    let mut kept = server.connect();
    assert_eq!(kept.get("/v2/health/ready").status, 200);
    server.terminate();
    wait_until("it is no longer ready", || server.get("/v2/health/ready").status == 400);
    assert_eq!(server.get("/v2/health/live").status, 200);
    server.still_serves();
    assert_eq!(kept.post("/v2/models/identity/infer", "", SMALL_REQUEST).status, 200);
    let ended = server.wait_for_the_end();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
}

#[test]
fn clients_that_keep_their_connections_leave_during_the_drain_delay_without_an_error() {
    let server = Setup::over(&samples()).option("--drain-delay=2").start();
    let mut kept = server.connect();
    assert_eq!(kept.post("/v2/models/identity/infer", "", SMALL_REQUEST).header("connection"), None);
    server.terminate();
    wait_until("it is no longer ready", || server.get("/v2/health/ready").status == 400);
    // As a client with a pool does: a connection is used until the server says that it ends.
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1500) {
        let answer = kept.post("/v2/models/identity/infer", "", SMALL_REQUEST);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(kept.rest(), b"");
        kept = server.connect();
    }
    drop(kept);
    let ended = server.wait_for_the_end();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
}

#[test]
fn what_is_not_finished_at_the_time_limit_is_refused_and_told() {
    let repository = Repository::empty().with_work();
    let server = Setup::over(repository.path()).option("--exit-timeout-secs=1").start();
    let mut busy = busy(&server, 2, 6000);
    server.terminate();
    let answers: Vec<_> = busy.iter_mut().map(Connection::try_answer).collect();
    let ended = server.wait_for_the_end();
    assert!(ended.log.contains("finished=0 unfinished=2 waiting=1 running=1"), "{}", ended.log);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    answers.into_iter().for_each(|answer| answer.unwrap().refuses(503, &["shutting down"]));
}

#[test]
fn a_port_in_use_is_told_in_one_line() {
    let server = Setup::over(&samples()).start();
    let port = server.http.rsplit_once(':').unwrap().1;
    for option in ["http", "grpc", "metrics"] {
        let second = Setup::over(&samples()).option(&format!("--{option}-port={port}")).run_to_its_end();
        assert_eq!(second.code, Some(1), "{}", second.log);
        let (told, rest): (Vec<_>, Vec<_>) =
            second.log.lines().partition(|line| line.starts_with("volley: "));
        assert!(
            matches!(told[..], [line] if line.contains(&server.http) && line.contains("in use")),
            "{told:?}"
        );
        assert!(rest.iter().all(|line| line.starts_with('I')), "{rest:?}");
    }
    server.still_serves();
}

#[test]
fn a_full_queue_answers_at_once() {
    let repository = Repository::of(&["identity"]).with_work();
    let server = Setup::over(repository.path()).option("--max-queue-size=2").start();
    let busy = busy(&server, 3, 2000);
    let refusal = server.post("/v2/models/work/infer", work(10));
    refusal.refuses(503, &["'work'", "2 requests"]);
    server.still_serves();
    busy.into_iter().for_each(|mut connection| is_the_cube(&connection.answer(), 2000.0));
}

#[test]
fn what_the_model_cannot_execute_is_its_failure_and_no_one_elses() {
    let repository = Repository::of(&["identity"]).with_work();
    let server = Setup::over(repository.path()).may_complain().start();
    let negative = work(1).replace("[1,1]", "[-1,-1]");
    server.post("/v2/models/work/infer", negative).refuses(500, &["'work'", "failed to execute"]);
    server.still_serves();
    is_the_cube(&server.post("/v2/models/work/infer", work(10)), 10.0);
}
