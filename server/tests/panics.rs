//! A panic is one line of the log. A test of its own process, since a process has one log and one panic hook.

#![allow(clippy::unwrap_used)]

use std::thread;

use volley::logging::{self, LogConfig, LogFormat};

/// It bypassed the log: not JSON, not in the file, and many lines.
#[test]
fn a_panic_is_one_line_of_the_log_with_its_thread_and_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("volley.log");
    let log = logging::start(&LogConfig {
        file: Some(file.clone()),
        format: LogFormat::Json,
        info: false,
        warning: false,
        error: true,
        verbose: 0,
        access: false,
    })
    .unwrap();
    let panics = || panic!("two\nlines of {}", "words");
    thread::Builder::new().name("m_0".to_owned()).spawn(panics).unwrap().join().unwrap_err();
    drop(log);
    let written = std::fs::read_to_string(&file).unwrap();
    let [line] = written.lines().collect::<Vec<_>>()[..] else { panic!("{written:?}") };
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["message"], "panicked: two\nlines of words");
    assert_eq!(line["thread"], "m_0");
    assert!(line["location"].as_str().unwrap().contains("panics.rs:"), "{line}");
}
