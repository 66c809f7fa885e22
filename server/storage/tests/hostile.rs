//! Services that answer what none should: whatever they say, nothing grows without bound, nothing is a mixture, and what is
//! not all is not taken for it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use storage::{Cache, Environment, Limits, Options, Remote, RemoteModel, StorageError, Transfers};

/// A connection whose request was read, and what was asked.
struct Asked {
    connection: TcpStream,
    head: String,
}

impl Asked {
    fn is_listing(&self) -> bool {
        self.head.contains("list-type=2")
    }

    /// Where the range begins that was asked for, and where it ends.
    fn range(&self) -> (usize, usize) {
        let (_, range) = self.head.split_once("range: bytes=").unwrap();
        let (first, last) = range.lines().next().unwrap().split_once('-').unwrap();
        (first.parse().unwrap(), last.parse::<usize>().unwrap() + 1)
    }

    /// Answers with a listing of one page, which holds `objects`: their names, sizes and ETags.
    fn list(&mut self, objects: &[(&str, usize, Option<&str>)], rest: &str) {
        let mut page = "<ListBucketResult>".to_owned();
        for (key, size, etag) in objects {
            let etag = etag.map_or_else(String::new, |etag| format!("<ETag>{etag}</ETag>"));
            write!(
                page,
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>{etag}\
                 <Size>{size}</Size></Contents>"
            )
            .unwrap();
        }
        let page = format!("{page}{rest}</ListBucketResult>");
        self.say(&format!("200 OK\r\ncontent-length: {}", page.len()));
        _ = self.connection.write_all(page.as_bytes());
    }

    /// Answers with `status` and the headers after it; a body may follow.
    fn say(&mut self, status: &str) {
        _ = write!(self.connection, "HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
    }

    /// Answers with the part that was asked for of an object of `size` bytes, and stops after `most` of them.
    fn part(&mut self, size: usize, etag: &str, byte: u8, most: usize) {
        let (first, end) = self.range();
        let last = end - 1;
        self.say(&format!(
            "206 Partial Content\r\netag: {etag}\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             content-range: bytes {first}-{last}/{size}\r\ncontent-length: {}",
            end - first
        ));
        _ = self.connection.write_all(&vec![byte; most.min(end - first)]);
    }

    /// Sends chunks until nobody reads them any more.
    fn send_for_ever(&mut self) {
        let chunk = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
        while self.connection.write_all(&chunk).is_ok() {}
    }
}

/// The port of a service that answers each request by `answer`.
fn service(answer: impl Fn(Asked) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || read_head(connection).map(|asked| answer(asked)));
        }
    });
    port
}

fn read_head(mut connection: TcpStream) -> io::Result<Asked> {
    let (mut head, mut piece) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    Ok(Asked { connection, head })
}

fn limits() -> Limits {
    Limits {
        idle: Duration::from_secs(5),
        request: Duration::from_secs(10),
        retries: 0,
        retry_within: Duration::from_secs(1),
        ..Limits::default()
    }
}

fn remote(port: u16, limits: Limits) -> Remote {
    let variables = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let environment: Environment =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let transfers = Arc::new(Transfers::start(NonZeroUsize::new(2).unwrap()).unwrap());
    Remote::open(&format!("s3://127.0.0.1:{port}/models"), &Options { environment, limits }, &transfers)
        .unwrap()
}

fn listed(remote: &Remote) -> RemoteModel {
    remote.list().unwrap().models["a"].clone()
}

fn fetch(remote: &Remote) -> Result<Vec<u8>, StorageError> {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 1 << 30).unwrap();
    let snapshot = remote.fetch(&listed(remote), &cache, &|_| {})?;
    Ok(fs::read(snapshot.directory().join("1/model.onnx")).unwrap())
}

#[test]
fn an_error_of_endless_words_is_read_as_far_as_it_counts() {
    let port = service(|mut asked| {
        asked.say("403 Forbidden\r\ntransfer-encoding: chunked");
        let words = "<Error><Code>AccessDenied</Code>";
        _ = write!(asked.connection, "{:x}\r\n{words}\r\n", words.len());
        asked.send_for_ever();
    });
    let began = Instant::now();
    let error = remote(port, limits()).list().unwrap_err();
    assert!(matches!(&error, StorageError::Denied { reason, .. } if reason == "AccessDenied"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_small_file_that_does_not_end_is_another_than_was_listed() {
    let port = service(|mut asked| {
        if asked.is_listing() {
            return asked.list(&[("a/1/SHA256SUMS", 10, Some("e"))], "");
        }
        let headers = "etag: e\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-length: 10";
        asked.say(&format!("200 OK\r\n{headers}\r\ntransfer-encoding: chunked"));
        asked.send_for_ever();
    });
    let remote = remote(port, limits());
    let began = Instant::now();
    let error = remote.read(&listed(&remote), "1/SHA256SUMS", 100).unwrap_err();
    assert!(matches!(error, StorageError::Changed { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_listing_that_is_cut_and_does_not_go_on_is_not_all() {
    let cut = "<IsTruncated>true</IsTruncated>";
    let empty = "<IsTruncated>true</IsTruncated><NextContinuationToken></NextContinuationToken>";
    for rest in [cut, empty] {
        let port = service(move |mut asked| asked.list(&[("a/1/model.onnx", 1, Some("e"))], rest));
        let error = remote(port, limits()).list().unwrap_err();
        let StorageError::Service { reason, .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains("cut off"), "{reason}");
    }
    let port = service(|mut asked| {
        let rest = "<IsTruncated>false</IsTruncated>";
        asked.list(&[("a/1/model.onnx", 1, Some("e"))], rest);
    });
    assert_eq!(listed(&remote(port, limits())).files.len(), 1);
}

#[test]
fn a_name_without_end_is_refused_in_few_words() {
    for (key, words) in
        [("b".repeat(100_000) + "\\", "backslash"), ("a/1/".to_owned() + &"b/".repeat(1000) + "c", "1024")]
    {
        let port = service(move |mut asked| asked.list(&[(&key, 1, Some("e"))], ""));
        let error = remote(port, limits()).list().unwrap_err();
        assert!(matches!(&error, StorageError::RefusedName { .. }), "{error:?}");
        let words_of_it = error.to_string();
        assert!(words_of_it.contains(words) && words_of_it.len() < 2000, "{} bytes", words_of_it.len());
    }
}

#[test]
fn parts_of_two_writings_are_no_file_though_the_listing_has_no_etag() {
    let count = AtomicUsize::new(0);
    let port = service(move |mut asked| {
        if asked.is_listing() {
            return asked.list(&[("a/1/model.onnx", 100, None)], "");
        }
        let number = count.fetch_add(1, Ordering::Relaxed);
        let (etag, byte) = if number == 0 { ("old", b'o') } else { ("new", b'n') };
        asked.part(100, etag, byte, usize::MAX);
    });
    let error = fetch(&remote(port, Limits { part_size: 50, ..limits() })).unwrap_err();
    assert!(matches!(error, StorageError::Changed { .. }), "{error}");
}

#[test]
fn a_part_that_comes_in_pieces_is_gone_on_with() {
    const SIZE: usize = 5 << 20;
    let port = service(|mut asked| match asked.is_listing() {
        true => asked.list(&[("a/1/model.onnx", SIZE, Some("e"))], ""),
        false => asked.part(SIZE, "e", b'x', 2 << 20),
    });
    let bytes = fetch(&remote(port, limits())).unwrap();
    assert!(bytes == vec![b'x'; SIZE], "the bytes are others");
    // What hardly comes is given up.
    let port = service(|mut asked| match asked.is_listing() {
        true => asked.list(&[("a/1/model.onnx", SIZE, Some("e"))], ""),
        false => asked.part(SIZE, "e", b'x', 1000),
    });
    let error = fetch(&remote(port, limits())).unwrap_err();
    assert!(matches!(error, StorageError::Unreachable { .. }), "{error:?}");
}
