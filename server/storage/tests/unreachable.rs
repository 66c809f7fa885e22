//! Services that do not answer: whatever they do, a call ends in time and says why.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use storage::{Environment, Limits, Options, Remote, StorageError, Transfers};

/// Lists a bucket of the service at `port`, with limits of tenths of a second.
fn list(port: u16, credentials: &[(&str, &str)]) -> StorageError {
    let variables = credentials.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let environment: Environment = variables.collect();
    let limits = Limits {
        connect: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        request: Duration::from_millis(600),
        retries: 1,
        retry_within: Duration::from_secs(1),
        ..Limits::default()
    };
    let transfers = Arc::new(Transfers::start(NonZeroUsize::MIN).unwrap());
    let url = format!("s3://127.0.0.1:{port}/models");
    let remote = Remote::open(&url, &Options { environment, limits }, &transfers).unwrap();
    let started = Instant::now();
    let error = remote.list().unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(error.to_string().starts_with(&url) && error.to_string().len() < 300, "{error}");
    error
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];

/// The port of a service that does `act` with each connection.
fn service(act: fn(&mut TcpStream)) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut connections = Vec::new();
        for mut connection in listener.incoming().flatten() {
            act(&mut connection);
            connections.push(connection); // it stays open
        }
    });
    port
}

/// Reads a request, and answers with `status` and a `body`.
fn answer(connection: &mut TcpStream, status: &str, body: &str) {
    _ = connection.read(&mut [0; 8192]);
    let length = body.len();
    _ = write!(
        connection,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
}

#[track_caller]
fn unreachable(error: &StorageError, words: &str) {
    let StorageError::Unreachable { reason, .. } = error else { panic!("{error:?}") };
    assert!(reason.contains(words), "{reason}");
}

#[test]
fn a_port_that_nobody_listens_on_refuses() {
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    };
    unreachable(&list(port, &KEYS), "refused");
}

#[test]
fn a_service_that_says_nothing_is_left() {
    unreachable(&list(service(|_| {}), &KEYS), "too long");
}

#[test]
fn a_service_that_stops_midway_is_left() {
    let port = service(|connection| {
        _ = connection.read(&mut [0; 8192]);
        _ = write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n<List");
    });
    let error = list(port, &KEYS);
    assert!(error.is_passing(), "{error}");
}

#[test]
fn an_answer_that_is_no_listing_is_told() {
    let answers: [fn(&mut TcpStream); 3] = [
        |connection| answer(connection, "200 OK", ""),
        |connection| answer(connection, "200 OK", "<html>Welcome</html>"),
        |connection| answer(connection, "200 OK", "<ListBucketResult><Contents><Size>-1</Size>"),
    ];
    for act in &answers {
        let error = list(service(*act), &KEYS);
        assert!(matches!(error, StorageError::Service { .. }), "{error:?}");
    }
    let StorageError::Service { reason, .. } = list(service(answers[1]), &KEYS) else { panic!() };
    assert!(reason.contains("is no listing"), "{reason}");
}

#[test]
fn a_service_that_fails_is_told_by_its_status() {
    let error = list(
        service(|connection| {
            answer(connection, "503 Slow", "<Error><Code>SlowDown</Code><Message>x</Message></Error>");
        }),
        &KEYS,
    );
    let StorageError::Service { reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("503") && reason.contains("SlowDown"), "{reason}");
}

#[test]
fn credentials_that_nobody_gives_are_told() {
    // Where a cloud's machine would ask for its credentials, nobody listens here.
    let port = service(|_| {});
    let error = list(port, &[("AWS_METADATA_ENDPOINT", "http://169.254.169.254:1")]);
    assert!(
        matches!(&error, StorageError::Denied { reason, .. } if reason.contains("no credentials are set")),
        "{error:?}"
    );
}
