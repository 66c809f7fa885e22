//! Starts moto in a process of its own, and tells it what the bucket holds.

use std::io::{BufRead as _, BufReader, Write as _};
use std::num::NonZeroUsize;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};

use serde_json::{Value, json};
use storage::{Environment, Limits, Options, Remote, Transfers};

/// A server, which ends with this value or with this process.
pub(crate) struct Moto {
    process: Mutex<Child>,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    port: u16,
}

/// The server of the tests that do not mind others; each has buckets of its own.
pub(crate) fn shared() -> &'static Moto {
    static SHARED: LazyLock<Moto> = LazyLock::new(Moto::start);
    &SHARED
}

impl Moto {
    pub(crate) fn start() -> Moto {
        let python = std::env::var_os("VOLLEY_PYTHON").expect(
            "VOLLEY_PYTHON must name a Python with the packages of clients/python/requirements.txt; \
             cargo xtask test sets it",
        );
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3/moto_server.py");
        let mut command = Command::new(python);
        command.arg(program).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let orders = process.stdin.take().unwrap();
        let mut answers = BufReader::new(process.stdout.take().unwrap());
        let mut port = String::new();
        answers.read_line(&mut port).unwrap();
        let port = port.trim().parse().expect("moto prints its port; what it printed above says why not");
        Moto { process: Mutex::new(process), pipes: Mutex::new((orders, answers)), port }
    }

    /// The repository at `place`, which is `BUCKET/PREFIX`.
    pub(crate) fn remote(&self, place: &str, limits: Limits) -> Remote {
        self.remote_as(place, "any", "any", limits)
    }

    /// The same for a user of these credentials, by the endpoint in the environment instead of that in the URL.
    pub(crate) fn remote_as(&self, place: &str, id: &str, secret: &str, limits: Limits) -> Remote {
        let by_url = id == "any";
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let variables =
            [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_REGION", "us-east-1")];
        let mut variables: Vec<(String, String)> =
            variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let url = if by_url {
            format!("s3://127.0.0.1:{}/{place}", self.port)
        } else {
            variables.push(("AWS_ENDPOINT_URL".to_owned(), endpoint));
            format!("s3://{place}")
        };
        let environment: Environment = variables.into_iter().collect();
        let transfers = Arc::new(Transfers::start(NonZeroUsize::new(4).unwrap()).unwrap());
        Remote::open(&url, &Options { environment, limits }, &transfers).unwrap()
    }

    pub(crate) fn create(&self, bucket: &str) {
        self.order(&json!({"do": "create", "bucket": bucket}));
    }

    /// Puts [`content`] at `key`.
    pub(crate) fn put(&self, bucket: &str, key: &str, size: usize, seed: usize) {
        self.order(&json!({"do": "put", "bucket": bucket, "keys": [key], "size": size, "seed": seed}));
    }

    pub(crate) fn put_text(&self, bucket: &str, key: &str, text: &str) {
        self.order(&json!({"do": "put", "bucket": bucket, "keys": [key], "text": text}));
    }

    /// Has `order` done, and gives the answer.
    pub(crate) fn order(&self, order: &Value) -> Value {
        let (orders, answers) = &mut *self.pipes.lock().unwrap();
        writeln!(orders, "{order}").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).expect("moto answers; what it printed above says why not")
    }

    pub(crate) fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        _ = process.kill();
        _ = process.wait();
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The bytes that [`Moto::put`] puts, as `moto_server.py` makes them.
pub(crate) fn content(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at + seed) % 251).unwrap()).collect()
}
