//! Google Cloud Storage and Azure Blob Storage, as their documents say that they answer: one object is listed, and
//! fetched by the ETag with which it was listed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::{Arc, mpsc};
use std::thread;

use storage::{Cache, Environment, Limits, Options, Remote, Transfers};

/// Answers listings with `listing` and all else with the bytes `abc`; the requests go to the receiver.
fn service(listing: &'static str) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (requests, seen) = mpsc::channel();
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let request = read_request(&connection);
            _ = requests.send(request.clone());
            answer(&mut connection, &request, listing);
        }
    });
    (port, seen)
}

fn read_request(connection: &TcpStream) -> String {
    let lines = BufReader::new(connection).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase() + "\n").collect()
}

fn answer(connection: &mut TcpStream, request: &str, listing: &str) {
    let is_listing = request.contains("list-type=2") || request.contains("comp=list");
    let (status, body) = if is_listing { ("200 OK", listing) } else { ("206 Partial Content", "abc") };
    let head = "etag: \"0xabc\"\r\nlast-modified: Fri, 27 Nov 2026 02:00:00 GMT\r\nconnection: close\r\n\
                content-range: bytes 0-2/3\r\nx-goog-generation: 1\r\nx-ms-version: 2023-11-03\r\n";
    let length = body.len();
    _ = write!(connection, "HTTP/1.1 {status}\r\n{head}content-length: {length}\r\n\r\n{body}");
}

/// Lists and fetches the one model at `url`; gives the requests.
fn requests(url: &str, endpoint: &str, variables: &[(&str, &str)], listing: &'static str) -> Vec<String> {
    let (port, seen) = service(listing);
    let endpoint = (endpoint.to_owned(), format!("http://127.0.0.1:{port}"));
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let environment: Environment = variables.chain([endpoint]).collect();
    let transfers = Arc::new(Transfers::start(NonZeroUsize::MIN).unwrap());
    let remote = Remote::open(url, &Options { environment, limits: Limits::default() }, &transfers).unwrap();
    let model = remote.list().unwrap().models["a"].clone();
    assert_eq!((model.files.len(), model.files[0].path.as_str(), model.size()), (1, "1/model.onnx", 3));
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 100).unwrap();
    let snapshot = remote.fetch(&model, &cache, &|_| {}).unwrap();
    assert_eq!(fs::read_to_string(snapshot.directory().join("1/model.onnx")).unwrap(), "abc");
    seen.try_iter().collect()
}

#[track_caller]
fn check(requests: &[String], listing: &[&str], get: &[&str]) {
    let [first, second] = requests else { panic!("{requests:?}") };
    listing.iter().for_each(|words| assert!(first.contains(words), "{words} is not in {first}"));
    get.iter().for_each(|words| assert!(second.contains(words), "{words} is not in {second}"));
}

#[test]
fn google_cloud_storage_is_listed_and_read() {
    let listing = "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult><Contents>\
        <Key>p/a/1/model.onnx</Key><Size>3</Size><LastModified>2026-11-27T02:00:00.000Z</LastModified>\
        <ETag>\"0xabc\"</ETag></Contents></ListBucketResult>";
    let variables = [("GOOGLE_SKIP_SIGNATURE", "true")];
    let requests = requests("gs://models/p", "GOOGLE_BASE_URL", &variables, listing);
    let get = ["if-match: \"0xabc\"", "range: bytes=0-2"];
    check(&requests, &["get /models?", "prefix=p%2f"], &get);
}

#[test]
fn azure_blob_storage_is_listed_and_read() {
    // Without quotes around the ETag, as Azure lists it; its answers have them.
    let listing = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"models\">\
        <Prefix>p/</Prefix><Blobs><Blob><Name>p/a/1/model.onnx</Name><Properties>\
        <Last-Modified>Fri, 27 Nov 2026 02:00:00 GMT</Last-Modified><Etag>0xabc</Etag>\
        <Content-Length>3</Content-Length><Content-Type>x/y</Content-Type></Properties></Blob></Blobs>\
        <NextMarker/></EnumerationResults>";
    let variables = [("AZURE_SKIP_SIGNATURE", "true")];
    let requests = requests("as://us4/models/p", "AZURE_STORAGE_ENDPOINT", &variables, listing);
    let get = ["get /models/p/a/1/model.onnx", "if-match: \"0xabc\"", "range: bytes=0-2"];
    check(&requests, &["get /models?", "comp=list", "prefix=p%2f"], &get);
}
