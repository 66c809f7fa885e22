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

/// Files that are not there, are something else, or do not fit together.
#[test]
fn a_file_that_cannot_be_compared_is_bad_usage() {
    let server = Server::start(|_| right());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, concurrency) in [("one.json", 1), ("two.json", 2)] {
        let ran = run(&server.url, &format!("-c {concurrency} -n 10 --warmup 0"));
        std::fs::write(path(name), ran.json.to_string()).unwrap();
    }
    let (one, two) = (path("one.json"), path("two.json"));
    fails(&format!("compare {one} no/such.json"), 2, "cannot read no/such.json");
    std::fs::write(path("other.json"), "{}").unwrap();
    fails(&format!("compare {one} {}", path("other.json")), 2, "is not a measurement of volley-load");
    fails(&format!("compare {one} {two}"), 2, "no load in common: one has 1 in flight, two has 2 in flight");
    fails(
        &format!("compare {one} {one} --html no/such/page.html"),
        2,
        "--html: cannot write no/such/page.html",
    );
}

/// What fits no protocol, no model or no memory is known when requests are prepared.
#[test]
fn a_file_that_cannot_be_sent_is_bad_usage() {
    let server = Server::start(|_| right());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json").display().to_string();
    std::fs::write(&file, r#"{"inputs":[{"name":"x"}]}"#).unwrap();
    let args = format!("--model m --url {} -n 1 --input {file}", server.url);
    fails(&format!("{args} --protocol http-binary"), 2, "model \"m\"");
    fails(&format!("--model m --url {} --input no/such.npy", server.url), 2, "no/such.npy");
    fails(&format!("--model m --url {} --expect no/such.json", server.url), 2, "no/such.json");
    assert_eq!(server.seen(), 0);
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
    fails("--model m --url https://localhost", 2, "does not speak TLS");
    fails("--model m --url ftp://x", 2, "its scheme is \"ftp\"");
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
        r#"volley-load: model "m" refuses the first request: status 400: unexpected shape for input 'x'"#
    );
    let shape = run(&server.url, "--shape x=1,3");
    assert_eq!(shape.status, 2);
    assert!(shape.err.contains("its shape is [1,3], but input \"x\" of model \"m\" takes FP32 [-1,2]"));
}

/// Which of a model's versions is not there, is said.
#[test]
fn a_version_that_is_not_there_is_named() {
    let server = Server::start(|_| right());
    fails(&format!("--model m:9 --url {}", server.url), 1, "the server has no model \"m:9\"");
}

/// A model that takes numbers as text can do nothing with letters, and says so in words of its own.
#[test]
fn random_strings_that_fail_come_with_a_hint() {
    let metadata =
        r#"{"name":"m","inputs":[{"name":"word","datatype":"BYTES","shape":[-1,1]}],"outputs":[]}"#;
    for status in ["400 Bad Request", "500 Internal Server Error"] {
        let reply = move |_| Reply::Bytes(answer(status, r#"{"error":"not a number"}"#));
        let server = Server::telling(Some(metadata), reply);
        let hinted = run(&server.url, "-n 10 --warmup 0");
        assert!(hinted.err.contains("not a number (its strings are random letters"), "{}", hinted.err);
        assert!(hinted.err.contains("give --range word=0:100"), "{}", hinted.err);
        let ranged = run(&server.url, "-n 10 --warmup 0 --range word=0:100");
        assert!(ranged.err.contains("not a number") && !ranged.err.contains("--range"), "{}", ranged.err);
    }
}

#[test]
fn what_is_no_text_of_prometheus_is_told() {
    let server = Server::start(|_| right());
    let ran = run(&server.url, &format!("-n 10 --warmup 0 --metrics-url {}/text", server.url));
    assert!(ran.err.contains("/text cannot be read: what is there is no text of Prometheus"), "{}", ran.err);
    assert_eq!((ran.status, ran.out.as_str(), ran.err.lines().count()), (2, "", 1), "{}", ran.err);
    let ran = run(&server.url, "-n 10 --warmup 0 --quiet --server-pid 1073741823");
    assert_eq!((ran.status, ran.err.lines().count()), (2, 1), "{}", ran.err);
    assert!(ran.err.contains("--server-pid: there is no process 1073741823"), "{}", ran.err);
}

#[test]
fn a_server_that_does_not_answer_the_first_request_is_one_line() {
    let hanging = Server::start(|_| Reply::Nothing);
    let ran = run(&hanging.url, "--timeout 300ms");
    assert_eq!((ran.status, ran.out.as_str(), ran.err.lines().count()), (1, "", 1), "{}", ran.err);
    assert!(ran.err.contains("does not answer the first request within 300ms"), "{}", ran.err);
    let closing = Server::start(|_| Reply::Last(Vec::new()));
    let ran = run(&closing.url, "");
    assert!(ran.err.contains("the connection was closed without an answer"), "{}", ran.err);
}

/// A port that speaks something else, or nothing, is told so, and soon.
#[test]
fn a_port_that_is_not_a_v2_servers_is_told_from_one_that_is() {
    let bytes = Server::start(|_| right());
    let ran = run(&bytes.url, "--protocol grpc");
    assert!(ran.err.contains("leave out --protocol grpc"), "{}", ran.err);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for protocol in ["http-json", "grpc"] {
        let ran = run(&url, &format!("--timeout 300ms --protocol {protocol}"));
        assert!(ran.err.contains("no complete answer within 300ms"), "{}", ran.err);
    }
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closing.local_addr().unwrap());
    std::thread::spawn(move || closing.incoming().for_each(drop));
    let ran = run(&url, "");
    assert!(ran.err.contains("add --protocol grpc") && ran.status == 1, "{}", ran.err);
}

/// A web server, or the metrics of a server: what was asked and answered is said, and what to do, in one line.
#[test]
fn a_server_of_another_kind_is_told_by_what_it_answers() {
    let page = || Reply::Bytes(answer("404 Not Found", "404 page not found"));
    let lost = Server::with_metadata(false, move |_| page());
    let question = format!("GET {}/v2/models/m was answered with status 404: unknown", lost.url);
    let ran = run(&lost.url, "");
    assert_eq!((ran.status, ran.out.as_str(), ran.err.lines().count()), (2, "", 1), "{}", ran.err);
    assert!(ran.err.contains(&format!("{question}; is a V2 inference server there?")), "{}", ran.err);
    assert!(ran.err.contains("else its address with --url"), "{}", ran.err);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    std::fs::write(&file, r#"{"inputs":[]}"#).unwrap();
    let ran = run(&lost.url, &format!("--input {}", file.display()));
    assert_eq!((ran.status, ran.err.lines().count()), (1, 1), "{}", ran.err);
    let refusal = r#"model "m" refuses the first request: status 404: 404 page not found"#;
    assert!(
        ran.err.contains(&format!("{refusal} ({question}; is a V2 inference server there?")),
        "{}",
        ran.err
    );
    let metrics = Server::telling(Some(""), move |_| page());
    let ran = run(&metrics.url, "");
    assert_eq!((ran.status, ran.err.lines().count()), (1, 1), "{}", ran.err);
    assert!(ran.err.contains("was answered, but not as a V2 inference server does"), "{}", ran.err);
    assert!(ran.err.contains("with --url") && !ran.err.contains("grpc"), "{}", ran.err);
}

/// Every request of a file is tried, so that one that is wrong is named before the load.
#[test]
fn a_wrong_request_of_a_file_is_named() {
    let server = Server::with_metadata(false, |n| match n {
        1 => Reply::Bytes(answer("400 Bad Request", r#"{"error":"no such input"}"#)),
        _ => right(),
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    std::fs::write(&file, "{\"inputs\":[]}\n".repeat(3)).unwrap();
    let ran = run(&server.url, &format!("-n 10 --input {}", file.display()));
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("refuses request 2: status 400: no such input"), "{}", ran.err);
}

/// What a server says cannot move the cursor of who reads it.
#[test]
fn a_servers_words_are_shown_without_control_characters() {
    let body = r#"{"error":"\u001b[2Jgone\u0007\r\u009b1m"}"#;
    let server = Server::start(move |_| Reply::Bytes(answer("400 Bad Request", body)));
    let ran = run(&server.url, "");
    assert!(ran.err.contains("gone"), "{}", ran.err);
    assert!(!ran.err.trim_end().chars().any(char::is_control), "{:?}", ran.err);
    let wrong = server::ANSWER.replace(r#""y""#, r#""y\u001b[2J""#);
    let server = Server::start(move |_| Reply::Bytes(answer("200 OK", &wrong)));
    let folder = tempfile::tempdir().unwrap();
    let expected = folder.path().join("expected.json");
    std::fs::write(&expected, server::ANSWER.replace(r#""y""#, r#""y\u001b[1J""#)).unwrap();
    let ran = run(&server.url, &format!("-n 1 --warmup 0 --expect {}", expected.display()));
    assert!(ran.err.contains("is missing"), "{}", ran.err);
    assert!(!ran.err.replace('\n', "").chars().any(char::is_control), "{:?}", ran.err);
}

#[test]
fn what_cannot_be_written_is_known_before_the_load() {
    let server = Server::start(|_| right());
    let ran = run(&server.url, "-n 10 --csv no/such/folder.csv");
    assert_eq!((ran.status, server.seen()), (2, 0));
    assert!(ran.err.contains("cannot write no/such/folder.csv"), "{}", ran.err);
}

/// A table that cannot be shown does not take the results with it.
#[test]
fn results_are_kept_when_standard_output_is_full() {
    let server = Server::start(|_| right());
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("out.json");
    let mut command = command(&format!("--model m --url {} -n 10 --warmup 0", server.url));
    command.arg("--json").arg(&json).stdout(std::fs::File::create("/dev/full").unwrap());
    let ran = server::ran(command.output().unwrap(), &json);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("cannot write the table"), "{}", ran.err);
    assert_eq!(ran.figure("/requests").to_bits(), 10_f64.to_bits());
}

/// The first signal ends what is done before the load, too: here the server never says what its model takes, or
/// never answers the first request.
#[test]
fn a_signal_before_the_load_ends_the_program() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (asked, waiting) = std::sync::mpsc::channel();
    let metadata = {
        let (asked, silent) = (asked.clone(), silent.try_clone().unwrap());
        std::thread::spawn(move || {
            // The first connection only sees whether the server is there.
            let streams: Vec<_> = silent.incoming().take(2).collect();
            asked.send(()).unwrap();
            streams
        })
    };
    let hanging = Server::start(move |_| {
        asked.send(()).unwrap();
        Reply::Nothing
    });
    let silent = format!("http://{}", silent.local_addr().unwrap());
    for url in [&silent, &hanging.url] {
        let mut command = command(&format!("--model m --url {url} --timeout 1h"));
        let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        waiting.recv().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains("interrupted by a signal"), "{err}");
    }
    drop(metadata.join().unwrap());
}

/// What is left of a schedule that nobody could send has a thousand million requests.
#[test]
fn a_signal_ends_the_count_of_what_was_never_sent() {
    static SEEN: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());
    let server = Server::start(|n| {
        *SEEN.0.lock().unwrap() = n;
        SEEN.1.notify_all();
        right()
    });
    let mut command =
        command(&format!("--model m --url {} --rate 1e8 -d 100s --warmup 0 --timeout 5s", server.url));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    // Where the program ends before, this would have no end of its own.
    let within = std::time::Duration::from_secs(60);
    let seen = SEEN.1.wait_timeout_while(SEEN.0.lock().unwrap(), within, |seen| *seen < 50).unwrap().0;
    assert!(*seen >= 50, "only {seen} requests came");
    drop(seen);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A signal ends a run that would take an hour, and the figures so far are there.
#[test]
fn an_interrupted_run_keeps_its_figures() {
    static SEEN: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());
    keeps_its_figures(&SEEN, Signal::INT);
}

/// A search that is ended tells what it knows, and does not judge the run that was cut short.
#[test]
fn an_interrupted_search_tells_what_it_knows() {
    static SEEN: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());
    let server = Server::start(|n| {
        *SEEN.0.lock().unwrap() = n;
        SEEN.1.notify_all();
        right()
    });
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("out.json");
    // Each rate is tried for a second: with some 60 requests answered, the second is under way.
    let search = "--find-rate 50:60 --slo p50<10s -d 1s --warmup 0";
    let mut command = command(&format!("--model m --url {} {search}", server.url));
    command.arg("--json").arg(&json);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    drop(SEEN.1.wait_while(SEEN.0.lock().unwrap(), |seen| *seen < 75).unwrap());
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ran = server::ran(child.wait_with_output().unwrap(), &json);
    assert_eq!(ran.status, 1);
    assert_eq!(ran.json["found"]["cut_off"], true, "{}", ran.json);
    assert!(ran.out.contains("/s met it; the search was cut off"), "{}", ran.out);
}

/// So does the end of the terminal.
#[test]
fn a_run_whose_terminal_is_gone_keeps_its_figures() {
    static SEEN: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());
    keeps_its_figures(&SEEN, Signal::HUP);
}

#[track_caller]
fn keeps_its_figures(seen: &'static (Mutex<u64>, Condvar), sent: Signal) {
    let server = Server::start(|n| {
        *seen.0.lock().unwrap() = n;
        seen.1.notify_all();
        right()
    });
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("out.json");
    let mut command = command(&format!("--model m --url {} -c 2 -d 1h --warmup 0 --slo p99<1s", server.url));
    command.arg("--json").arg(&json);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    drop(seen.1.wait_while(seen.0.lock().unwrap(), |seen| *seen < 500).unwrap());
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, sent).unwrap();
    let ran = server::ran(child.wait_with_output().unwrap(), &json);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("ended early: interrupted by a signal"), "{}", ran.err);
    assert!(ran.figure("/requests") > 100.0);
    assert!(ran.json["runs"][0].get("objectives").is_none(), "{}", ran.json);
    assert!(ran.out.contains("its last run may be partial, and then"), "{}", ran.out);
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
