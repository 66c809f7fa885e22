//! Exit statuses, and the one line that says why.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod server;

use std::net::TcpListener;
use std::sync::{Condvar, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use server::{Reply, Server, answer, command, right, run};

#[track_caller]
fn fails(args: &str, status: i32, words: &str) {
    let output = command(args).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{args}: {err}");
    assert!(err.contains(words), "{args}: {err}");
}

#[test]
fn bad_usage_is_two() {
    fails("", 2, "--model");
    fails("--model m --rate x", 2, "--rate");
    fails("--model m --rate 0", 2, "--rate is a number of requests each second, above 0");
    fails("--model m --rate 1 --concurrency 1", 2, "cannot be used with");
    fails("--model m --slo p99<20", 2, "\"20\" is no duration");
    fails("--model m --find-rate", 2, "--slo");
    fails("--model m --trace no/such", 2, "cannot read no/such");
}

#[test]
fn a_server_that_is_not_there_is_one_line() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for protocol in ["http-json", "grpc"] {
        let ran = run(&format!("http://127.0.0.1:{port}"), &format!("--protocol {protocol}"));
        assert_eq!((ran.status, ran.out.as_str()), (1, ""));
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
        assert!(ran.err.contains(&format!("cannot connect to http://127.0.0.1:{port}")), "{}", ran.err);
    }
    fails("--model m --url https://localhost", 1, "does not speak TLS");
    fails("--model m --url http://no-such-host.invalid", 1, "its host has no address");
}

#[test]
fn a_model_or_a_shape_that_is_not_there_is_one_line() {
    let server = Server::start(|_| {
        Reply::Bytes(answer("400 Bad Request", r#"{"error":"unexpected shape for input 'x'"}"#))
    });
    let refused = run(&server.url, "");
    assert_eq!(refused.status, 1);
    assert_eq!(
        refused.err.trim(),
        r#"volley-load: model "m" refuses the request: status 400: unexpected shape for input 'x'"#
    );
    let shape = run(&server.url, "--shape x=1,3");
    assert_eq!(shape.status, 1);
    assert!(shape.err.contains("its shape is [1,3], but input \"x\" of model \"m\" takes FP32 [-1,2]"));
}

/// A signal ends a run that would take an hour, and the figures so far are there.
#[test]
fn an_interrupted_run_keeps_its_figures() {
    static SEEN: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());
    let server = Server::start(|n| {
        *SEEN.0.lock().unwrap() = n;
        SEEN.1.notify_all();
        right()
    });
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("out.json");
    let mut command = command(&format!("--model m --url {} -c 2 -d 1h --warmup 0", server.url));
    command.arg("--json").arg(&json);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    drop(SEEN.1.wait_while(SEEN.0.lock().unwrap(), |seen| *seen < 500).unwrap());
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ran = server::ran(child.wait_with_output().unwrap(), &json);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("ended early: interrupted by a signal"), "{}", ran.err);
    assert!(ran.figure("/requests") > 100.0);
    assert_eq!(ran.errors(), []);
    assert!(ran.figure("/seconds") < 600.0 && ran.figure("/requests_per_second") > 1.0);
    assert!(ran.out.contains("req/s"), "{}", ran.out);
}

#[test]
fn help_is_grouped() {
    let output = command("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for heading in ["Server:", "Load (", "Runs:", "Inputs:", "Checks:", "Results:"] {
        assert!(help.contains(heading), "{heading}: {help}");
    }
}
