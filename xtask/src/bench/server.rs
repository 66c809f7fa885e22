//! A server under measurement: a child on a port of its own, its memory, its processor time.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::directory;
use crate::ports;
use crate::workspace::Workspace;

/// Microseconds in a tick of `/proc/PID/stat`; Linux shows user space 100 ticks a second on every machine.
const TICK_MICROS: f64 = 10_000.0;

/// Tries before a server counts as one that never gets ready, and the pause between two.
const READY_TRIES: u32 = 30_000;
const READY_PAUSE: Duration = Duration::from_millis(1);

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
    log: PathBuf,
    /// From the start of the program until it said that it is ready.
    pub(super) ready_after: Duration,
}

impl Server {
    /// The bare echo server, ready.
    pub(super) fn floor(workspace: &Workspace) -> Result<Server> {
        let [port] = ports::free()?;
        let mut command = workspace.command(workspace.release("http_floor"));
        Server::start(command.arg("--port").arg(port.to_string()), port, log(workspace, "http_floor"))
    }

    /// Volley serving `models`, ready.
    pub(super) fn volley(workspace: &Workspace, models: &Path) -> Result<Server> {
        let [http, grpc, metrics] = ports::free()?;
        let mut command = workspace.command(workspace.release("volley"));
        command.arg("--model-repository").arg(models);
        for (option, port) in [("--http-port", http), ("--grpc-port", grpc), ("--metrics-port", metrics)] {
            command.arg(option).arg(port.to_string());
        }
        Server::start(&mut command, http, log(workspace, "volley"))
    }

    fn start(command: &mut Command, port: u16, log: PathBuf) -> Result<Server> {
        let output = File::create(&log)?;
        let errors = output.try_clone()?;
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
        let mut server = Server { child, port, log, ready_after: Duration::ZERO };
        server.wait_until_ready()?;
        server.ready_after = started.elapsed();
        Ok(server)
    }

    #[expect(clippy::disallowed_methods, reason = "another process can only be asked again")]
    fn wait_until_ready(&mut self) -> Result<()> {
        for _ in 0..READY_TRIES {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the server ended with {status} before it was ready; its log is {}",
                    self.log.display()
                );
            }
            if self.get("/v2/health/ready").is_ok() {
                return Ok(());
            }
            std::thread::sleep(READY_PAUSE);
        }
        bail!("the server is not ready after {READY_TRIES} tries; its log is {}", self.log.display())
    }

    /// The body of the answer to `GET path`, which must be a 200.
    pub(super) fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no head")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        ensure!(status == "200", "GET {path} was answered {status}: {body}");
        Ok(body.to_owned())
    }

    /// Processor time that the server has used until now, in microseconds.
    pub(super) fn cpu_micros(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        Ok(cpu_ticks(&stat).context("/proc/PID/stat is not as expected")? * TICK_MICROS)
    }

    /// Resident memory, in MiB.
    pub(super) fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        Ok(resident_kib(&status).context("/proc/PID/status has no VmRSS")? / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log(workspace: &Workspace, name: &str) -> PathBuf {
    directory(workspace).join(format!("{name}.log"))
}

/// User and system time in the text of `/proc/PID/stat`: fields 14 and 15, of which the second, the name, may
/// hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut tick = || fields.next()?.parse::<f64>().ok();
    Some(tick()? + tick()?)
}

fn resident_kib(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_user_plus_system() {
        let stat = "42 (a) name) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 7 8 20 0 9 0 12345 1000 200";
        assert_eq!(cpu_ticks(stat), Some(300.0));
        assert_eq!(cpu_ticks("42 (cut) S 1"), None);
    }

    #[test]
    fn resident_memory_is_one_line_of_the_status() {
        assert_eq!(resident_kib("VmHWM:\t  9999 kB\nVmRSS:\t    2048 kB\n"), Some(2048.0));
        assert_eq!(resident_kib("VmHWM:\t  9999 kB\n"), None);
    }
}
