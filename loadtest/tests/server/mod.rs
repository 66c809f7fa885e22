//! A server of a few lines that does as it is told, and the program run against it.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// The metadata of every model.
pub(crate) const METADATA: &str = r#"{"name":"m","versions":["1"],"platform":"test",
    "inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],
    "outputs":[{"name":"y","datatype":"FP32","shape":[-1,1]}]}"#;

/// The answer to every inference.
pub(crate) const ANSWER: &str =
    r#"{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":[0.5]}]}"#;

/// What the server does with one inference.
pub(crate) enum Reply {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, and the connection is closed.
    Last(Vec<u8>),
    /// Nothing, ever; the connection stays open.
    Nothing,
    /// The whole server ends, as if it crashed.
    Die,
}

/// A server on a port that the system picked.
pub(crate) struct Server {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    seen: AtomicU64,
    dead: AtomicBool,
    counts: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
    paths: Mutex<Vec<String>>,
    port: u16,
}

/// An HTTP answer with `body`.
pub(crate) fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The right answer.
pub(crate) fn right() -> Reply {
    Reply::Bytes(answer("200 OK", ANSWER))
}

impl Server {
    /// A server that replies to the n-th inference, from 0, as `reply` says. `reply` may block.
    pub(crate) fn start(reply: impl Fn(u64) -> Reply + Send + Sync + 'static) -> Server {
        Server::with_metadata(true, reply)
    }

    /// As [`Server::start`]; it also counts the inferences it has answered, and tells.
    pub(crate) fn counting(reply: impl Fn(u64) -> Reply + Send + Sync + 'static) -> Server {
        let server = Server::start(reply);
        server.shared.counts.store(true, Ordering::SeqCst);
        server
    }

    /// As [`Server::start`]; without metadata every route but inference is unknown.
    pub(crate) fn with_metadata(
        metadata: bool,
        reply: impl Fn(u64) -> Reply + Send + Sync + 'static,
    ) -> Server {
        Server::telling(metadata.then_some(METADATA), reply)
    }

    /// As [`Server::start`], with this metadata.
    pub(crate) fn telling(
        metadata: Option<&'static str>,
        reply: impl Fn(u64) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            seen: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            counts: AtomicBool::new(false),
            connections: Mutex::default(),
            paths: Mutex::default(),
            port,
        });
        let reply = Arc::new(reply);
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.dead.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                accepting.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (shared, reply) = (Arc::clone(&accepting), Arc::clone(&reply));
                thread::spawn(move || shared.serve(stream, metadata, &*reply));
            }
        });
        Server { url: format!("http://127.0.0.1:{port}"), shared }
    }

    /// Inferences seen.
    pub(crate) fn seen(&self) -> u64 {
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// The paths of the inferences seen.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.shared.paths.lock().unwrap().clone()
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream, metadata: Option<&str>, reply: &dyn Fn(u64) -> Reply) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        let _ = writer.set_nodelay(true);
        while let Some((method, path)) = request(&mut reader) {
            let bytes = match (method.as_str(), metadata) {
                ("GET", Some(metadata)) if path == "/v2/models/m" => answer("200 OK", metadata),
                ("GET", _) if path.starts_with("/v2/models/m/versions/") => {
                    answer("404 Not Found", r#"{"error":"model 'm' has no such version"}"#)
                }
                ("GET", _) if path == "/text" => answer("200 OK", "<html>nothing</html>"),
                ("GET", _) if self.counts.load(Ordering::SeqCst) && path == "/v2/models/m/stats" => {
                    answer("200 OK", &self.statistics())
                }
                ("GET", _) => answer("404 Not Found", r#"{"error":"unknown"}"#),
                _ => {
                    self.paths.lock().unwrap().push(path);
                    match reply(self.seen.fetch_add(1, Ordering::SeqCst)) {
                        Reply::Bytes(bytes) => bytes,
                        Reply::Last(bytes) => {
                            let _ = writer.write_all(&bytes);
                            let _ = writer.shutdown(Shutdown::Both);
                            return;
                        }
                        Reply::Nothing => continue,
                        Reply::Die => return self.die(),
                    }
                }
            };
            if writer.write_all(&bytes).is_err() {
                return;
            }
        }
    }

    fn statistics(&self) -> String {
        let seen = self.seen.load(Ordering::SeqCst);
        format!(
            r#"{{"model_stats":[{{"name":"m","version":"1","inference_count":{seen},"execution_count":{seen},
            "inference_stats":{{"success":{{"count":{seen},"ns":{seen}}}}}}}]}}"#
        )
    }

    fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        // Lets the accepting thread see it, and let go of the port.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Reads one request; gives its method and path.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut first = String::new();
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    let mut words = first.split(' ');
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}

/// What a run of the program gave.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    /// The JSON file, when it was written.
    pub(crate) json: Value,
}

impl Ran {
    /// The first run.
    pub(crate) fn run(&self) -> &Value {
        assert!(self.json["runs"][0].is_object(), "no run: {} {}", self.out, self.err);
        &self.json["runs"][0]
    }

    /// A figure of the first run, such as `/latency/max`, in the file's unit.
    pub(crate) fn figure(&self, path: &str) -> f64 {
        let value = self.run().pointer(path).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no {path} in {}", self.run()))
    }

    /// The kinds of errors of the first run, with their counts.
    pub(crate) fn errors(&self) -> Vec<(String, u64)> {
        let errors = self.run()["errors"].as_object().unwrap();
        errors.iter().map(|(kind, count)| (kind.clone(), count.as_u64().unwrap())).collect()
    }
}

/// The program with `args`, ready to run.
pub(crate) fn command(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volley-load"));
    command.args(args.split_whitespace()).stdin(Stdio::null());
    command
}

/// Runs the program against the model `m` of a server at `url`, with further `args`.
pub(crate) fn run(url: &str, args: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("out.json");
    let mut command = command(&format!("--model m --url {url} {args}"));
    command.arg("--json").arg(&json);
    ran(command.output().unwrap(), &json)
}

/// What `output` and the file at `json` say.
pub(crate) fn ran(output: Output, json: &std::path::Path) -> Ran {
    let json = std::fs::read(json).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap());
    Ran {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        json: json.unwrap_or_default(),
    }
}
