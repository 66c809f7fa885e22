//! The real `volley`, started on free ports, watched through its log, and stopped as an orchestrator would.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::raw_http::{Answer, Connection};

/// Far more than anything here takes, so that only what hangs runs into it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test.
pub(crate) fn volley() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volley"));
    // Settings of whoever runs the tests are not the tests' own.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VOLLEY_") {
            command.env_remove(name);
        }
    }
    command
}

/// Asks again and again until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited for {PATIENCE:?} until {what}");
        thread::yield_now();
    }
}

/// A server that is about to be started.
#[derive(Debug)]
pub(crate) struct Setup {
    command: Command,
    may_complain: bool,
}

impl Setup {
    pub(crate) fn over(repository: &Path) -> Setup {
        let mut command = volley();
        command.arg("--model-repository").arg(repository);
        command.args(["--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]);
        command.args(["--http-port=0", "--grpc-port=0", "--metrics-port=0"]);
        Setup { command, may_complain: false }
    }

    /// The last of several values holds.
    pub(crate) fn option(mut self, option: &str) -> Setup {
        self.command.arg(option);
        self
    }

    pub(crate) fn repository(mut self, repository: &Path) -> Setup {
        self.command.arg("--model-repository").arg(repository);
        self
    }

    /// Lets the log hold warnings and errors, which otherwise fail the test.
    pub(crate) fn may_complain(mut self) -> Setup {
        self.may_complain = true;
        self
    }

    /// Returns once every port is announced.
    pub(crate) fn listen(self) -> Server {
        let mut server = self.spawn();
        for protocol in ["http", "grpc", "metrics"] {
            let line = server.wait_for_line(&format!("listening protocol={protocol} address="));
            let address = line.rsplit_once("address=").expect("just looked for").1.to_owned();
            match protocol {
                "http" => server.http = address,
                "grpc" => server.grpc = address,
                _ => server.metrics = address,
            }
        }
        server
    }

    /// Returns once the models are loaded and the server says that it is ready.
    pub(crate) fn start(self) -> Server {
        let mut server = self.listen();
        server.wait_for_line("the first load is over");
        assert_eq!(server.get("/v2/health/ready").status, 200, "not ready:\n{}", server.log());
        server
    }

    /// Waits for the end of a server that cannot start.
    pub(crate) fn run_to_its_end(self) -> Ended {
        self.spawn().wait_for_the_end()
    }

    fn spawn(mut self) -> Server {
        let mut child = self.command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (sender, incoming) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Server {
            child: Some(child),
            incoming,
            lines: Vec::new(),
            may_complain: self.may_complain,
            http: String::new(),
            grpc: String::new(),
            metrics: String::new(),
        }
    }
}

/// A server that runs. Dropping it stops it, and fails the test when it does not stop in order or has
/// complained.
#[derive(Debug)]
pub(crate) struct Server {
    /// Taken when its end is awaited.
    child: Option<Child>,
    incoming: Receiver<String>,
    lines: Vec<String>,
    may_complain: bool,
    pub(crate) http: String,
    pub(crate) grpc: String,
    pub(crate) metrics: String,
}

/// How a server ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) log: String,
}

impl Server {
    /// What was logged and looked at so far.
    pub(crate) fn log(&self) -> String {
        self.lines.join("\n")
    }

    /// Returns the next line that holds `words`.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, words: &str) -> String {
        loop {
            match self.incoming.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.lines.push(line);
                    let line = self.lines.last().expect("just pushed");
                    if line.contains(words) {
                        return line.clone();
                    }
                }
                Err(_) => panic!("no line of the log says {words:?}:\n{}", self.log()),
            }
        }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.http)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.connect().get(path)
    }

    pub(crate) fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.connect().post(path, "", body)
    }

    /// A small request is answered at once, whatever others do.
    #[track_caller]
    pub(crate) fn still_serves(&self) {
        let started = Instant::now();
        let answer = self.post("/v2/models/identity/infer", SMALL_REQUEST);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["outputs"][0]["data"], serde_json::json!([1.5, -2.0]));
        assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    }

    /// The value of a metric, given with its labels as it is written.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let answer = Connection::open(&self.metrics).get("/metrics");
        let line = answer.text().lines().find_map(|line| line.strip_prefix(name))?.to_owned();
        line.trim().parse().ok()
    }

    /// Bytes of memory that are in use now.
    pub(crate) fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most bytes of memory that were ever in use.
    pub(crate) fn most_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    fn id(&self) -> u32 {
        self.child.as_ref().expect("it is taken only with the server").id()
    }

    pub(crate) fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits until the process has ended.
    pub(crate) fn wait_for_the_end(mut self) -> Ended {
        self.read_to_the_end();
        let mut child = self.child.take().expect("it is taken only here and by drop");
        let code = child.wait().unwrap().code();
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
        Ended { code, log }
    }

    /// Reads the log until the process closes it; kills a process that takes too long.
    fn read_to_the_end(&mut self) {
        let started = Instant::now();
        loop {
            match self.incoming.recv_timeout(PATIENCE.saturating_sub(started.elapsed())) {
                Ok(line) => self.lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    self.child.as_mut().expect("it runs").kill().unwrap();
                    panic!("the server did not end:\n{}", self.log());
                }
            }
        }
    }
}

/// For the model `identity`.
pub(crate) const SMALL_REQUEST: &str =
    r#"{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,2],"data":[1.5,-2]}]}"#;

/// Lines that say that something is wrong begin with their level.
fn complains(line: &&String) -> bool {
    (line.starts_with('W') || line.starts_with('E')) && line[1..].starts_with(|c: char| c.is_ascii_digit())
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if thread::panicking() {
            child.kill().unwrap();
            child.wait().unwrap();
            self.lines.extend(self.incoming.try_iter());
            eprintln!("the server's log:\n{}", self.log());
            return;
        }
        self.child = Some(child);
        self.terminate();
        self.read_to_the_end();
        let code = self.child.take().expect("just put back").wait().unwrap().code();
        let log = self.log();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        let complaint = self.lines.iter().find(complains);
        assert!(self.may_complain || complaint.is_none(), "it complained:\n{log}");
    }
}
