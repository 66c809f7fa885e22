//! The rate limiter: models run at the same time only as far as what they take allows, and in turns.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::onnx_file;
use crate::raw_http::{Connection, post};
use crate::real_server::{Server, Setup, volley, wait_until};
use crate::repository_files::{Repository, work};

const ON: &str = "--rate-limit=execution_count";

/// Adds a model that takes as long as it is told to (see [`work`]), with one instance and this `rate_limiter`.
fn with(repository: Repository, model: &str, limiter: &str) -> Repository {
    repository.write(&format!("{model}/1/model.onnx"), onnx_file::work());
    let one_thread = r#"parameters { key: "intra_op_thread_count" value { string_value: "1" } }"#;
    let group = format!("instance_group {{ count: 1 rate_limiter {{ {limiter} }} }}");
    repository.write(&format!("{model}/config.pbtxt"), format!("{group} {one_thread}"));
    repository
}

/// Models of which each takes one of the resource `r`, with the names and priorities given.
fn models(models: &[(&str, u32)]) -> Repository {
    models.iter().fold(Repository::empty(), |repository, (model, priority)| {
        with(repository, model, &format!(r#"resources {{ name: "r" count: 1 }} priority: {priority}"#))
    })
}

/// Sends a request that takes a time which grows with the cube of `size`.
fn send(server: &Server, model: &str, size: usize) -> Connection {
    send_to(&server.http, model, size)
}

fn send_to(address: &str, model: &str, size: usize) -> Connection {
    let mut connection = Connection::open(address);
    connection.send(post(&format!("/v2/models/{model}/infer"), "", work(size).as_bytes()));
    connection
}

fn value(server: &Server, metric: &str, model: &str) -> f64 {
    server.metric(&format!(r#"{metric}{{model="{model}",version="1"}}"#)).unwrap_or(-1.0)
}

/// Returns once `count` requests wait for an instance of `model`, and an instance for its turn.
fn wait_for_waiting(server: &Server, model: &str, count: u32) {
    wait_until("they wait", || {
        value(server, "nv_inference_pending_request_count", model) > f64::from(count) - 0.5
            && value(server, "volley_rate_limiter_waiting_instances", model) > 0.5
    });
}

/// Returns once `model` holds the one that there is of `r`, in a run of this `size`.
fn hold(server: &Server, model: &str, size: usize) -> Connection {
    let holding = send(server, model, size);
    wait_until("it runs", || of_r(server, "used") == Some(1.0));
    holding
}

/// How much there is (`limit`) or is held (`used`) of `r`.
fn of_r(server: &Server, what: &str) -> Option<f64> {
    server.metric(&format!(r#"volley_rate_limiter_resource_{what}{{resource="r",device="0"}}"#))
}

/// How long the runs of both models took together, for each second in which both were asked for as much as they could
/// do.
fn at_once(server: &Server) -> f64 {
    let computed = |model: &str| {
        let stats = server.get(&format!("/v2/models/{model}/stats")).json();
        stats["model_stats"][0]["inference_stats"]["compute_infer"]["ns"].as_f64().unwrap()
    };
    for model in ["a", "b"] {
        assert_eq!(send(server, model, 10).answer().status, 200);
    }
    let (before, started) = (computed("a") + computed("b"), Instant::now());
    let address = server.http.as_str();
    thread::scope(|scope| {
        // So many that one always waits: a client that gets no processor makes no instance idle.
        for model in ["a", "b"].repeat(5) {
            scope.spawn(move || {
                while started.elapsed() < Duration::from_secs(2) {
                    assert_eq!(send_to(address, model, 500).answer().status, 200);
                }
            });
        }
    });
    let elapsed = started.elapsed();
    (computed("a") + computed("b") - before) / 1e9 / elapsed.as_secs_f64()
}

#[test]
fn models_that_share_a_resource_never_run_at_the_same_time_unless_there_is_enough() {
    let repository = models(&[("a", 1), ("b", 1)]);
    let server = Setup::over(repository.path()).option(ON).start();
    assert_eq!((of_r(&server, "limit"), of_r(&server, "used")), (Some(1.0), Some(0.0)));
    let one_at_a_time = at_once(&server);
    assert!(one_at_a_time <= 1.0, "{one_at_a_time} ran at once, on average");
    let server = Setup::over(repository.path()).option(ON).option("--rate-limit-resource=R:2").start();
    assert_eq!(of_r(&server, "limit"), Some(2.0));
    let together = at_once(&server);
    assert!(together > 1.1, "{together} ran at once, on average");
}

#[test]
fn who_has_half_the_priority_has_half_the_turns() {
    let server = Setup::over(models(&[("holder", 1), ("one", 1), ("two", 2)]).path()).option(ON).start();
    let mut holding = hold(&server, "holder", 4500);
    let answered = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for model in ["two", "one"] {
            for _ in 0..12 {
                let (mut connection, answered) = (send(&server, model, 600), &answered);
                scope.spawn(move || {
                    assert_eq!(connection.answer().status, 200);
                    answered.lock().unwrap().push(model);
                });
            }
            wait_for_waiting(&server, model, 12);
        }
        assert_eq!(holding.answer().status, 200);
    });
    let answered = answered.into_inner().unwrap();
    let last = answered.iter().rposition(|model| *model == "one").unwrap();
    let others = answered[..last].iter().filter(|model| **model == "two").count();
    // Answers that leave one after the other may be read in another order.
    assert!((4..=8).contains(&others), "{others} of 12 at half the priority: {answered:?}");
}

#[test]
fn a_stopped_server_answers_what_waits_for_its_turn() {
    let server = Setup::over(models(&[("holder", 1), ("waits", 1)]).path()).option(ON).start();
    let mut connections = vec![hold(&server, "holder", 3000)];
    connections.extend((0..3).map(|_| send(&server, "waits", 400)));
    wait_for_waiting(&server, "waits", 3);
    server.terminate();
    let ended = thread::spawn(move || server.wait_for_the_end());
    for mut connection in connections {
        assert_eq!(connection.answer().status, 200);
    }
    let ended = ended.join().unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.log.contains("finished=4 unfinished=0"), "{}", ended.log);
}

#[test]
fn what_waits_for_its_turn_at_the_time_limit_is_refused() {
    let server = Setup::over(models(&[("holder", 1), ("waits", 1)]).path())
        .option(ON)
        .option("--exit-timeout-secs=1")
        .start();
    let mut holding = hold(&server, "holder", 6000);
    let mut waits = send(&server, "waits", 400);
    wait_for_waiting(&server, "waits", 1);
    server.terminate();
    let answers = [holding.try_answer(), waits.try_answer()];
    let ended = server.wait_for_the_end();
    assert!(ended.log.contains("finished=0 unfinished=2 waiting=1 running=1"), "{}", ended.log);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    answers.into_iter().for_each(|answer| answer.unwrap().refuses(503, &["shutting down"]));
}

#[test]
fn a_client_that_leaves_is_waited_for_by_nobody() {
    let server = Setup::over(models(&[("holder", 1), ("waits", 1)]).path()).option(ON).start();
    let mut holding = hold(&server, "holder", 4500);
    let leaves = send(&server, "waits", 400);
    wait_for_waiting(&server, "waits", 1);
    drop(leaves);
    wait_until("it does not wait any more", || {
        value(&server, "volley_rate_limiter_waiting_instances", "waits") == 0.0
    });
    assert_eq!(of_r(&server, "used"), Some(1.0), "the other still runs");
    assert_eq!(holding.answer().status, 200);
    assert_eq!(send(&server, "waits", 10).answer().status, 200);
}

#[test]
fn a_model_that_takes_more_than_there_is_is_not_served_and_says_why() {
    let repository = with(models(&[("fits", 1)]), "much", r#"resources { name: "r" count: 4 }"#);
    let limits = [ON, "--rate-limit-resource=r:3:0", "--rate-limit-resource=spare:1"];
    let setup = Setup::over(repository.path()).may_complain().option("--strict-readiness=false");
    let server = limits.into_iter().fold(setup, Setup::option).start();
    let why = "much/config.pbtxt: instance_group \"much_0\" asks in rate_limiter.resources for 4 of the resource \"r\" of \
               device 0, but --rate-limit-resource gives 3; give at least r:4, or ask for less";
    let index = server.post("/v2/repository/index", "").json();
    assert_eq!((&index[1]["name"], &index[1]["state"]), (&"much".into(), &"UNAVAILABLE".into()), "{index}");
    assert_eq!(index[1]["reason"], why);
    assert_eq!(send(&server, "fits", 10).answer().status, 200);
    server.terminate();
    let log = server.wait_for_the_end().log;
    assert!(log.contains(why.split_once('"').unwrap().0), "{log}");
    let unasked =
        "--rate-limit-resource gives what no loaded model asks for in rate_limiter.resources resource=spare";
    assert_eq!(log.matches(unasked).count(), 1, "{log}");

    let checked = volley().arg("check").arg(repository.path()).args(limits).output().unwrap();
    let told = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("error  much 1: {why}")), "{told}");
    let unlimited = volley().arg("check").arg(repository.path()).output().unwrap();
    let told = String::from_utf8(unlimited.stdout).unwrap();
    assert_eq!(unlimited.status.code(), Some(0), "{told}");
    assert!(told.contains("instance_group.rate_limiter (--rate-limit is off"), "{told}");
}

#[test]
fn without_a_rate_limiter_nothing_waits_and_each_model_that_has_one_is_named() {
    let repository = models(&[("a", 1), ("b", 1)]);
    let server = Setup::over(repository.path()).may_complain().start();
    assert!(at_once(&server) > 1.1);
    assert_eq!((of_r(&server, "limit"), of_r(&server, "used")), (None, None));
    assert_eq!(value(&server, "volley_rate_limiter_waiting_instances", "a"), -1.0);
    server.terminate();
    let log = server.wait_for_the_end().log;
    assert_eq!(log.matches("instance_group.rate_limiter (--rate-limit is off").count(), 2, "{log}");
}

#[test]
fn flags_that_contradict_each_other_are_refused_at_once() {
    let repository = models(&[("a", 1)]);
    for (options, words) in [
        (&["--rate-limit-resource=r:1"][..], "rate-limit is off; give --rate-limit=execution_count"),
        (&[ON, "--rate-limit-resource=r:-1"], "--rate-limit-resource is \"r:-1\", but it must be NAME:COUNT"),
        (&[ON, "--rate-limit-resource=r"], "--rate-limit-resource is \"r\", but it must be NAME:COUNT"),
        (
            &[ON, "--rate-limit-resource=r:1", "--rate-limit-resource=r:2"],
            "gives both 1 and 2 of \"r\"; give one of them",
        ),
        (&["--rate-limit=priority"], "--rate-limit is \"priority\", but it must be off or execution_count"),
    ] {
        let setup = Setup::over(repository.path());
        let ended = options.iter().fold(setup, |setup, option| setup.option(option)).run_to_its_end();
        assert_eq!(ended.code, Some(64), "{}", ended.log);
        assert!(ended.log.contains(words), "{}", ended.log);
    }
}
