//! The program over HTTP, against servers that behave and that do not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod server;

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use server::{ANSWER, METADATA, Reply, Server, answer, right, run};

#[test]
fn a_server_that_answers_gives_figures_and_no_errors() {
    let server = Server::start(|_| right());
    for protocol in ["http-json", "http-binary"] {
        let ran =
            run(&server.url, &format!("-c 4 -d 300ms --warmup 100ms --threads 2 --protocol {protocol}"));
        assert_eq!((ran.status, ran.errors().len()), (0, 0), "{}{}", ran.out, ran.err);
        assert!(ran.figure("/requests") > 10.0 && ran.figure("/latency/count") > 10.0);
        let rate = ran.figure("/requests") / ran.figure("/seconds");
        assert!((ran.figure("/requests_per_second") / rate - 1.0).abs() < 0.2);
        assert!(ran.out.contains("req/s"), "{}", ran.out);
    }
}

#[test]
fn every_way_to_end_an_answer_is_understood() {
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{}\r\n{:x};ext=1\r\n{}\r\n0\r\ntrailer: 1\r\n\r\n",
        &ANSWER[..16],
        ANSWER.len() - 16,
        &ANSWER[16..]
    );
    let closing =
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{ANSWER}", ANSWER.len());
    let until_close = format!("HTTP/1.1 200 OK\r\n\r\n{ANSWER}");
    let interim = format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    let server = Server::start(move |n| match n % 5 {
        0 => Reply::Bytes(chunked.clone().into_bytes()),
        1 => Reply::Last(closing.clone().into_bytes()),
        2 => Reply::Last(until_close.clone().into_bytes()),
        3 => Reply::Bytes(interim.clone().into_bytes()),
        _ => right(),
    });
    let folder = tempfile::tempdir().unwrap();
    let expected = folder.path().join("expected.json");
    std::fs::write(&expected, ANSWER).unwrap();
    let ran = run(&server.url, &format!("-c 1 -n 120 --warmup 0 --expect {}", expected.display()));
    assert_eq!((ran.status, ran.errors()), (0, vec![]), "{}", ran.err);
    assert_eq!(ran.figure("/requests").to_bits(), 120_f64.to_bits());
}

#[test]
fn a_number_of_requests_is_kept_in_either_loop_and_over_threads() {
    let server = Server::start(|_| right());
    for load in ["-c 7", "--rate 2000", "--rate 2000 --arrivals poisson"] {
        let before = server.seen();
        let ran = run(&server.url, &format!("{load} -n 101 --threads 2 --warmup 0"));
        assert_eq!(ran.figure("/latency/count").to_bits(), 101_f64.to_bits(), "{load}: {}", ran.err);
        // One request before the load tries the server out.
        assert_eq!(server.seen() - before, 102, "{load}");
    }
}

#[test]
fn refusals_are_counted_by_what_the_server_says() {
    let server = Server::start(|n| match n % 3 {
        2 => Reply::Bytes(answer("503 Service Unavailable", r#"{"error":"queue is full"}"#)),
        _ => right(),
    });
    let ran = run(&server.url, "-c 2 -n 300 --warmup 0");
    assert_eq!(ran.status, 0, "{}", ran.err);
    let [(kind, count)] = &ran.errors()[..] else { panic!("{:?}", ran.errors()) };
    assert_eq!(kind, "status 503: queue is full");
    assert!(count.abs_diff(100) <= 1, "{count}");
    let missed = run(&server.url, "-c 2 -n 300 --warmup 0 --slo errors<1%");
    assert_eq!(missed.status, 3);
    assert!(missed.out.contains("missed  errors<1%"), "{}", missed.out);
    let met = run(&server.url, "-c 2 -n 300 --warmup 0 --slo errors<50%,p99<10s,throughput>1/s");
    assert_eq!(met.status, 0, "{}", met.out);
}

/// Each refusal has a text of its own, and two threads see them.
#[test]
fn refusals_that_name_their_request_are_one_kind() {
    let server = Server::start(|n| match n % 3 {
        2 => Reply::Bytes(answer(
            "503 Service Unavailable",
            &format!(r#"{{"error":"request {n} is too many"}}"#),
        )),
        _ => right(),
    });
    let ran = run(&server.url, "-c 4 -n 900 --warmup 0 --threads 2");
    let [(kind, count)] = &ran.errors()[..] else { panic!("{:?}", ran.errors()) };
    assert!(kind.starts_with("status 503, texts that differ, such as: request "), "{kind}");
    assert!(count.abs_diff(300) <= 2, "{count}");
}

#[test]
fn a_server_that_only_refuses_fails_the_run() {
    let server =
        Server::start(|_| Reply::Bytes(answer("503 Service Unavailable", r#"{"error":"queue is full"}"#)));
    let ran = run(&server.url, "-c 1 -n 10 --warmup 0");
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("no request was answered well: status 503: queue is full"), "{}", ran.err);
}

/// A server that holds every answer from the 200th request on, until 500 more have come: a second and more at 500
/// each second. A generator that waits for answers before it sends would see one slow request.
#[test]
fn a_stall_shows_in_full_in_an_open_loop() {
    static GATE: (Mutex<(u64, Option<Instant>, Duration)>, Condvar) =
        (Mutex::new((0, None, Duration::ZERO)), Condvar::new());
    let server = Server::start(|n| {
        let (gate, opened) = &GATE;
        let mut state = gate.lock().unwrap();
        state.0 = state.0.max(n);
        if n >= 200 && state.1.is_none() {
            state.1 = Some(Instant::now());
        }
        if n == 700 {
            state.2 = state.1.unwrap().elapsed();
            opened.notify_all();
        }
        drop(opened.wait_while(state, |state| (200..700).contains(&n) && state.0 < 700).unwrap());
        right()
    });
    let ran = run(&server.url, "--rate 500 -d 3s --warmup 0 --max-connections 1000");
    let stall = GATE.0.lock().unwrap().2.as_secs_f64() * 1e6;
    assert!(stall > 0.9e6, "500 requests come in a second: {stall}");
    assert_eq!((ran.status, ran.errors()), (0, vec![]), "{}", ran.err);
    assert!(ran.figure("/latency/max") > 0.99 * stall, "{} of {stall}", ran.figure("/latency/max"));
    assert!(ran.figure("/latency/p99_9") > 0.98 * stall);
    // A third of all requests came during the stall, evenly.
    assert!(ran.figure("/latency/p90") > 0.6 * stall, "{} of {stall}", ran.figure("/latency/p90"));
    assert!(ran.figure("/latency/p50") < 0.1 * stall);
    assert!(ran.figure("/requests") > 1400.0);
}

/// With one connection, what is due waits in the generator, and its wait counts.
#[test]
fn a_backlog_counts_from_when_requests_were_due() {
    let server = Server::start(|n| {
        if n == 10 {
            // A server that takes a second once.
            let (never, condition) = (Mutex::new(()), Condvar::new());
            drop(condition.wait_timeout(never.lock().unwrap(), Duration::from_secs(1)).unwrap());
        }
        right()
    });
    let ran = run(&server.url, "--rate 200 -d 2s --warmup 0 --max-connections 1");
    assert!(ran.figure("/latency/max") >= 1e6);
    // 200 of 400 requests were due in that second.
    assert!(ran.figure("/latency/p75") > 0.3e6, "{}", ran.figure("/latency/p75"));
    assert!(ran.figure("/send_lag/p50") < 0.1e6, "the connection was not free: {}", ran.run());
    assert_eq!(ran.figure("/requests").to_bits(), 400_f64.to_bits());
}

#[test]
fn a_server_that_never_answers_shows_as_hung() {
    let server = Server::start(|n| if n == 0 { right() } else { Reply::Nothing });
    let ran = run(&server.url, "--rate 100 -d 500ms --warmup 0 --timeout 1s --max-connections 4");
    assert_eq!(ran.status, 1, "{}", ran.out);
    let lost = ran.figure("/unanswered") + ran.errors().iter().map(|(_, count)| *count as f64).sum::<f64>();
    assert_eq!(lost.to_bits(), 50_f64.to_bits(), "{}", ran.run());
    assert_eq!(ran.figure("/latency/count").to_bits(), 50_f64.to_bits(), "all are in the latency");
    assert!(ran.figure("/latency/p50") > 0.9e6);
    let server = Server::start(|n| if n == 0 { right() } else { Reply::Nothing });
    let closed = run(&server.url, "-c 2 -d 1s --warmup 0 --timeout 300ms");
    assert_eq!(closed.status, 1);
    assert!(closed.errors().iter().any(|(kind, count)| kind == "timeout" && *count >= 4), "{}", closed.run());
}

#[test]
fn a_server_that_dies_ends_the_measurement_with_the_figures_so_far() {
    for load in ["-c 4", "--rate 500"] {
        let server = Server::start(|n| if n < 100 { right() } else { Reply::Die });
        let ran = run(&server.url, &format!("{load} -d 30s --warmup 0"));
        assert_eq!(ran.status, 1, "{load}");
        let last = ran.err.lines().last().unwrap();
        assert!(last.contains("the server is gone: cannot connect: connection refused"), "{load}: {last}");
        assert!(ran.json["interrupted"].as_str().unwrap().contains("the server is gone"));
        assert!(ran.figure("/latency/count") >= 90.0, "{load}: {}", ran.run());
        assert!(ran.figure("/seconds") < 20.0);
    }
}

#[test]
fn what_is_not_http_is_an_error_of_its_own() {
    let server = Server::start(|n| match n {
        0 => right(),
        _ if n % 2 == 0 => Reply::Last(b"220 smtp\r\n\r\n".to_vec()),
        _ => Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort".to_vec()),
    });
    let ran = run(&server.url, "-c 1 -n 40 --warmup 0");
    assert_eq!(
        ran.errors(),
        [
            ("the answer is not HTTP".to_owned(), 20),
            ("the connection was closed in the middle of an answer".to_owned(), 20)
        ]
    );
}

#[test]
fn wrong_answers_are_errors_with_an_example() {
    let wrong = ANSWER.replace("0.5", "0.75");
    let server = Server::start(move |n| match n % 4 {
        3 => Reply::Bytes(answer("200 OK", &wrong)),
        _ => right(),
    });
    let folder = tempfile::tempdir().unwrap();
    let expected = folder.path().join("expected.json");
    std::fs::write(&expected, ANSWER).unwrap();
    let ran = run(&server.url, &format!("-c 1 -n 40 --warmup 0 --expect {}", expected.display()));
    assert!((9.0..=11.0).contains(&ran.figure("/wrong_answers")));
    assert_eq!(ran.errors()[0].0, "wrong answer: output \"y\" has other values");
    // Nothing said how many may be wrong.
    assert_eq!(ran.status, 1, "{}", ran.err);
    assert!(ran.err.contains("answers are wrong: request "), "{}", ran.err);
    let example = ran.run()["wrong_example"].as_str().unwrap();
    assert!(
        example.contains(" of \"m\": ") && example.contains("element 0 is 0.75 instead of 0.5"),
        "{example}"
    );
    assert!(ran.out.contains("the first wrong answer: request "), "{}", ran.out);
    assert!(ran.err.contains("of \"m\": output \"y\" has other values: element 0"), "said once: {}", ran.err);
    let allowed = run(
        &server.url,
        &format!("-c 1 -n 40 --warmup 0 -q --slo errors<50% --expect {}", expected.display()),
    );
    assert_eq!(allowed.status, 0, "{}{}", allowed.out, allowed.err);
    let lenient =
        run(&server.url, &format!("-c 1 -n 40 --warmup 0 --tolerance 0.3 --expect {}", expected.display()));
    assert_eq!(lenient.errors(), []);
}

/// Reading and comparing a large answer takes the generator longer than the server takes to send it.
#[test]
fn the_check_of_an_answer_is_no_latency_of_the_next() {
    let elements = vec!["0.5"; 200_000].join(",");
    let large = format!(
        r#"{{"model_name":"m","outputs":[{{"name":"y","datatype":"FP32","shape":[1,200000],"data":[{elements}]}}]}}"#
    );
    let folder = tempfile::tempdir().unwrap();
    let expected = folder.path().join("expected.json");
    std::fs::write(&expected, &large).unwrap();
    let bytes = answer("200 OK", &large);
    let server = Server::start(move |_| Reply::Bytes(bytes.clone()));
    let ran = run(&server.url, &format!("-c 1 -n 20 --warmup 0 --expect {}", expected.display()));
    assert_eq!(ran.errors(), [], "{}", ran.err);
    let answering = ran.figure("/latency/mean") * ran.figure("/latency/count") / 1e6;
    assert!(answering < 0.8 * ran.figure("/seconds"), "{answering} s of {} s", ran.figure("/seconds"));
}

#[test]
fn a_server_without_metadata_takes_requests_from_a_file() {
    let server = Server::with_metadata(false, |_| right());
    let folder = tempfile::tempdir().unwrap();
    let request = folder.path().join("request.json");
    std::fs::write(&request, r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}"#)
        .unwrap();
    for protocol in ["http-json", "http-binary"] {
        let ran = run(
            &server.url,
            &format!("-n 20 --warmup 0 --protocol {protocol} --input {}", request.display()),
        );
        assert_eq!((ran.status, ran.errors()), (0, vec![]), "{}", ran.err);
    }
    let random = run(&server.url, "-n 20");
    assert_eq!(random.status, 2);
    assert!(random.err.contains("give its requests with --input"), "{}", random.err);
}

#[test]
fn models_are_asked_by_weight_and_version() {
    let server = Server::with_metadata(false, |_| right());
    let folder = tempfile::tempdir().unwrap();
    let request = folder.path().join("request.json");
    std::fs::write(&request, r#"{"inputs":[]}"#).unwrap();
    let ran =
        run(&server.url, &format!("--model other:3=4 -n 1000 --warmup 0 --input {}", request.display()));
    assert_eq!(ran.status, 0, "{}", ran.err);
    let other = server.paths().iter().filter(|path| *path == "/v2/models/other/versions/3/infer").count();
    // Five deviations of a binomial count are 64.
    assert!(other.abs_diff(800) < 70, "{other}");
    assert_eq!(ran.json["target"]["models"]["other:3"], 0.8);
}

/// Each request takes 5 ms of the only connection: 200 a second at most.
#[test]
fn the_highest_rate_that_meets_an_objective_is_found() {
    let server = Server::start(|_| {
        let (never, condition) = (Mutex::new(()), Condvar::new());
        drop(condition.wait_timeout(never.lock().unwrap(), Duration::from_millis(5)).unwrap());
        right()
    });
    let args = "--find-rate 20:2000 --precision 40% --slo p90<60ms -d 700ms --warmup 0 --max-connections 1";
    let ran = run(&server.url, &format!("{args} --timeout 2s"));
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
    let found = ran.json["found"]["rate"].as_f64().unwrap();
    assert!((60.0..320.0).contains(&found), "{}", ran.json["found"]);
    assert!(ran.json["found"]["missed_at"].as_f64().unwrap() > found);
    assert!(ran.out.contains("holds up to"), "{}", ran.out);
}

/// One request of all takes long, as when something else had the processor: the rate that it was in is tried again.
#[test]
fn one_bad_moment_does_not_end_a_search() {
    let server = Server::start(|n| {
        if n == 30 {
            let (never, condition) = (Mutex::new(()), Condvar::new());
            drop(condition.wait_timeout(never.lock().unwrap(), Duration::from_secs(2)).unwrap());
        }
        right()
    });
    let ran = run(&server.url, "--find-rate 50:100 --slo max<1500ms -d 1s --warmup 0");
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
    assert_eq!(ran.json["found"]["rate"], 100.0);
    let rates = ran.json["runs"].as_array().unwrap().iter().map(|run| run["load"]["rate"].as_f64().unwrap());
    assert_eq!(rates.collect::<Vec<_>>(), [50.0, 50.0, 50.0, 100.0, 100.0], "and the last is confirmed");
}

/// After the first run the server is slow for a while, and the second waits for it.
#[test]
fn a_search_waits_until_the_server_is_at_rest() {
    let server = Server::start(|n| {
        // One that tries, five alone, one more before the run, and the run's 50.
        if (57..60).contains(&n) {
            let (never, condition) = (Mutex::new(()), Condvar::new());
            drop(condition.wait_timeout(never.lock().unwrap(), Duration::from_millis(700)).unwrap());
        }
        right()
    });
    let ran = run(&server.url, "--find-rate 50:100 --slo max<650ms -d 1s --warmup 0");
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
    let met = |run: &serde_json::Value| run["objectives"][0]["met"].as_bool().unwrap();
    assert!(ran.json["runs"].as_array().unwrap().iter().all(met), "{}", ran.err);
    assert!(server.seen() >= 57 + 3 + 1 + 2 * 100, "{}", server.seen());
}

/// 200 a second can be answered and 400 are due: all are answered in the end, as the rest is waited for.
#[test]
fn a_rate_that_a_server_does_not_keep_up_with_is_a_miss() {
    let slow = |_| {
        let (never, condition) = (Mutex::new(()), Condvar::new());
        drop(condition.wait_timeout(never.lock().unwrap(), Duration::from_millis(5)).unwrap());
        right()
    };
    let server = Server::counting(slow);
    let args = "-d 2s --warmup 500ms --max-connections 1 --slo errors<1%";
    let ran = run(&server.url, &format!("--rate 400 {args}"));
    assert_eq!((ran.status, ran.errors()), (3, vec![]), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("missed  keeps up with the rate"), "{}", ran.out);
    assert!(ran.out.contains("of what was due was answered in the measured time"), "{}", ran.out);
    // Some 400 in the measured time, of 1000 from the warm-up to the last answer.
    let counted = ran.figure("/server/models/m/requests");
    assert!((200.0..=500.0).contains(&counted), "{counted}");
    let ran = run(&server.url, &format!("--rate 50 {args}"));
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
    assert!(ran.figure("/server/models/m/requests") <= 110.0, "{}", ran.run());
}

#[test]
fn a_trace_and_a_ramp_send_what_they_say() {
    let server = Server::start(|_| right());
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.csv");
    let times: Vec<String> = (0..50).map(|at| format!("{}", 100.0 + f64::from(at) * 0.02)).collect();
    std::fs::write(&trace, times.join("\n")).unwrap();
    let ran = run(&server.url, &format!("--trace {} --trace-speed 2", trace.display()));
    assert_eq!(ran.figure("/requests").to_bits(), 50_f64.to_bits(), "{}", ran.err);
    assert!((ran.figure("/seconds") - 0.5).abs() < 0.01);
    // All at once: there is a rate all the same.
    std::fs::write(&trace, "5\n5\n5\n").unwrap();
    let ran = run(&server.url, &format!("--trace {}", trace.display()));
    assert!(ran.figure("/requests_per_second") > 1.0, "{}", ran.run());
    let ran = run(&server.url, "--ramp 0:400 -d 1s");
    assert!((199.0..=201.0).contains(&ran.figure("/requests")), "the integral: {}", ran.run());
}

#[test]
fn every_report_is_written() {
    let server = Server::start(|_| right());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let ran =
        run(&server.url, &format!("-n 50 --warmup 0 --csv {} --html {}", file("a.csv"), file("a.html")));
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(std::fs::read_to_string(file("a.csv")).unwrap().lines().count() == 2);
    assert!(std::fs::read_to_string(file("a.html")).unwrap().starts_with("<!DOCTYPE html>"));
    std::fs::write(file("a.json"), ran.json.to_string()).unwrap();
    let same = server::command(&format!("compare {} {}", file("a.json"), file("a.json"))).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stderr));
}

#[test]
fn the_metadata_of_the_test_server_are_json() {
    assert!(serde_json::from_str::<serde_json::Value>(METADATA).is_ok());
}
