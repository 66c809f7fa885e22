//! A server that runs: started in a process group of its own, and ended with all that it started.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::process_tree::{self, Process};
use crate::ports;

/// Ray starts a dozen processes, which takes most of a minute on two busy cores.
const START_WITHIN: Duration = Duration::from_secs(180);
/// Between two questions whether a server is there yet: what its start-up time is exact to.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// What a server may take to end by itself before it is killed.
const END_WITHIN: Duration = Duration::from_secs(10);
/// Lines of a log that are told when a server did not start.
const LOG_LINES: usize = 3;

/// Held while a process starts; an interruption takes it for good, so that nothing starts behind its back.
static STARTING: Mutex<()> = Mutex::new(());

/// Whether what descendants leave behind comes to this process.
static ADOPTING: AtomicBool = AtomicBool::new(false);

/// A server; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    started: Instant,
    log: PathBuf,
}

impl Running {
    /// Starts `command`, with its output in `log`.
    pub(super) fn start(command: &mut Command, log: PathBuf) -> Result<Running> {
        let output = File::create(&log)?;
        let errors = output.try_clone()?;
        own_group(command).stdin(Stdio::null()).stdout(output).stderr(errors);
        let starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let started = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
        drop(starting);
        Ok(Running { child, started, log })
    }

    /// Asks until `answered` says well, and tells how long that took from the start of the program.
    #[expect(clippy::disallowed_methods, reason = "another process can only be asked again")]
    pub(super) fn wait_until(&mut self, answered: impl Fn() -> Result<()>) -> Result<Duration> {
        loop {
            let refused = match answered() {
                Ok(()) => return Ok(self.started.elapsed()),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status} before it answered: {}", last_lines(&self.log));
            }
            if self.started.elapsed() > START_WITHIN {
                let seconds = START_WITHIN.as_secs();
                bail!("no right answer within {seconds} s: {refused:#}; {}", last_lines(&self.log));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// The process that was started.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server with all its workers: the one that was started and what is below it or was adopted from it.
    pub(super) fn processes(&self) -> Vec<Process> {
        process_tree::descendants(std::process::id())
            .into_iter()
            .filter(|process| ADOPTING.load(Ordering::Relaxed) || process.pid == self.pid())
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        signal(self.pid(), Signal::TERM);
        end_below(if ADOPTING.load(Ordering::Relaxed) { std::process::id() } else { self.pid() }, END_WITHIN);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes `command` start a process group, which a signal from the terminal does not reach.
fn own_group(command: &mut Command) -> &mut Command {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    command
}

/// Makes this process the parent of whatever its descendants leave behind: Ray and others start daemons.
pub(super) fn adopt_orphans() -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("cannot adopt the orphans of servers")?;
    ADOPTING.store(true, Ordering::Relaxed);
    Ok(())
}

/// Ends every server and this process when it is told to end.
pub(super) fn end_all_when_interrupted() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot wait for signals")?;
    std::thread::spawn(move || {
        if let Some(number) = signals.forever().next() {
            let _starting = STARTING.lock();
            end_below(std::process::id(), Duration::ZERO);
            std::process::exit(128 + number);
        }
    });
    Ok(())
}

/// Waits for the end where an interruption is ending everything; else does nothing.
pub(super) fn pass_unless_interrupted() {
    drop(STARTING.lock());
}

/// Waits until no descendant of `root` is left; those that are left after `patience` are killed.
#[expect(clippy::disallowed_methods, reason = "a process that is not a child can only be looked for again")]
fn end_below(root: u32, patience: Duration) {
    let asked = Instant::now();
    loop {
        let left = process_tree::alive(root);
        if left.is_empty() {
            return;
        }
        if asked.elapsed() >= patience {
            for process in left {
                signal(process.pid, Signal::KILL);
            }
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// A process that has ended in the meantime needs no signal.
fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a server lets go of `port`, so that the next measurement meets no remains of it. Its last connections may
/// take as long as `patience` to close.
#[expect(clippy::disallowed_methods, reason = "a port can only be tried again")]
pub(super) fn becomes_free(port: u16, patience: Duration) -> bool {
    let started = Instant::now();
    while !ports::is_free(port) {
        if started.elapsed() >= patience {
            return false;
        }
        std::thread::sleep(ASK_EVERY);
    }
    true
}

/// What the log ends with, on one line.
fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn log() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        (directory, log)
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn workers_end_with_their_server_even_against_their_will() {
        let (_directory, log) = log();
        // A worker in a session of its own that does not listen to SIGTERM.
        let script = "setsid sh -c 'trap : TERM; echo $$; while :; do sleep 60; done' & wait";
        let mut server = Running::start(&mut shell(script), log.clone()).unwrap();
        let started = || std::fs::read_to_string(&log)?.trim().parse::<u32>().context("no worker yet");
        server.wait_until(|| started().map(drop)).unwrap();
        let (root, worker) = (server.pid(), started().unwrap());
        assert!(process_tree::alive(root).iter().any(|process| process.pid == worker));
        end_below(root, Duration::ZERO);
        assert_eq!(process_tree::alive(root), []);
        drop(server);
        assert!(process_tree::alive(std::process::id()).iter().all(|process| process.pid != root));
    }

    #[test]
    fn a_server_that_ends_is_told_by_its_last_words() {
        let (_directory, log) = log();
        let mut server =
            Running::start(&mut shell("echo one; echo; echo no model >&2; exit 3"), log).unwrap();
        let error = server.wait_until(|| bail!("refused")).unwrap_err().to_string();
        assert_eq!(error, "it ended with exit status: 3 before it answered: one / no model");
    }

    #[test]
    fn a_port_in_use_is_waited_for_and_told() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!becomes_free(port, Duration::ZERO));
        drop(listener);
        assert!(becomes_free(port, Duration::ZERO));
    }
}
