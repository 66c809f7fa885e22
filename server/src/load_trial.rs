//! Trial loads: a version is first loaded in a process of its own, so that what crashes there does not crash here.
//!
//! That process is this program once more, as `volley check` over a repository that has nothing else. Its death by a
//! signal is the only verdict: what fails in good order fails again where it is loaded, which says why.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use inference::backend::LoadError;
use inference::trial::{Trial, TrialOf};
use parking_lot::{Condvar, Mutex};
use proto::ModelConfig;
use proto::config_text;
use proto::v2::ModelVersionPolicy;
use proto::v2::model_version_policy::{PolicyChoice, Specific};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::beside::{self, CONFIG};
use crate::config::{self, RepositoryConfig};

/// Of what a process says before it dies, the last so many bytes are told.
const TOLD: usize = 4096;

/// The processes in which versions are tried. There are no more than loads at one time.
#[derive(Debug)]
pub struct LoadTrials {
    /// How the server reads models.
    flags: [String; 3],
    /// Held while a process is started, killed or reaped: none is missed, and none is killed that only has the number of
    /// one that is gone.
    running: Mutex<Running>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Running {
    given_up: bool,
    /// Trials, with what they leave on the disk.
    trials: usize,
    processes: Vec<Pid>,
}

/// A trial, until it is dropped.
struct UnderWay<'a>(&'a LoadTrials);

impl LoadTrials {
    /// None yet, of versions that are read as `config` says.
    pub fn new(config: &RepositoryConfig) -> LoadTrials {
        LoadTrials { flags: config.to_load_one(), running: Mutex::default(), ended: Condvar::new() }
    }

    /// Has the kernel keep the ends of processes until they are looked at: who began this server may have had them
    /// ignored. For a thread of the runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub fn watch_ends() -> io::Result<()> {
        signal(SignalKind::child()).map(drop) // it stays watched
    }

    /// Kills those under way, and begins no other: the server stops.
    pub fn give_up(&self) {
        let mut running = self.running.lock();
        running.given_up = true;
        for process in &running.processes {
            let _ = kill_process(*process, Signal::KILL); // one that has died by itself is as good
        }
    }

    /// Waits until none is under way, and nothing of them is left on the disk. False when that takes longer than `most`.
    pub fn have_ended(&self, most: Duration) -> bool {
        let mut running = self.running.lock();
        !self.ended.wait_while_for(&mut running, |running| running.trials > 0, most).timed_out()
    }

    fn begin(&self) -> UnderWay<'_> {
        self.running.lock().trials += 1;
        UnderWay(self)
    }

    /// Starts the process that loads what is in `repository`; none once they are given up.
    fn start(&self, repository: &Path) -> io::Result<Option<Child>> {
        let mut command = Command::new(this_program()?);
        command.arg0("volley").args(["check", "--as-trial"]).args(&self.flags).arg(repository);
        // What they say is in the flags, as far as it is about one model.
        for variable in config::variables() {
            command.env_remove(variable);
        }
        // A Ctrl-C at the terminal is for the server, which ends it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = self.running.lock();
        if running.given_up {
            return Ok(None);
        }
        let child = command.spawn()?;
        running.processes.push(Pid::from_child(&child));
        Ok(Some(child))
    }

    /// Waits for the end of `child`; none where it was given up.
    fn end_of(&self, mut child: Child) -> io::Result<Option<ExitStatus>> {
        let process = Pid::from_child(&child);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let ended = retry_on_intr(|| waitid(WaitId::Pid(process), options));
        let mut running = self.running.lock();
        running.processes.retain(|other| *other != process);
        ended?;
        let status = child.wait()?;
        Ok((!running.given_up).then_some(status))
    }

    fn status_and_last_words(&self, of: &TrialOf<'_>) -> io::Result<Option<(ExitStatus, Vec<u8>)>> {
        let repository = repository(of)?;
        let Some(mut child) = self.start(repository.path())? else { return Ok(None) };
        let said = child.stderr.take().map(last_of).unwrap_or_default();
        Ok(self.end_of(child)?.map(|status| (status, said)))
    }
}

impl Trial for LoadTrials {
    fn run(&self, of: &TrialOf<'_>) -> Result<(), LoadError> {
        let what = format!("{}/{}", of.name, of.version);
        let _under_way = self.begin();
        match self.status_and_last_words(of) {
            Ok(Some((status, said))) => verdict(what, status, &said),
            Ok(None) => Err(LoadError::GivenUp),
            Err(error) => Err(LoadError::Untried { what, reason: error.to_string() }),
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.running.lock().trials -= 1;
        self.0.ended.notify_all();
    }
}

/// Makes this process a trial: it ends by `exit` with the server that began it, and before it where the kernel has no
/// memory left for both.
pub fn begin_here(exit: fn(u8) -> !) {
    // Linux alone has these. Everyone may make himself more likely to be chosen.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let _ = fs::write("/proc/self/comm", "volley-trial"); // what the kernel calls it when it is
    let follow = move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink()); // the server holds the other end, and writes nothing
        exit(1)
    };
    let _ = thread::Builder::new().name("trial".to_owned()).spawn(follow);
}

/// This program, whatever lies by now where it was started from.
fn this_program() -> io::Result<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() { Ok(running) } else { env::current_exe() }
}

/// A repository with that version alone. It goes with what is returned.
fn repository(of: &TrialOf<'_>) -> io::Result<TempDir> {
    let root = TempDir::with_prefix("volley-trial-")?;
    let (model, number) = (root.path().join(of.name.as_str()), of.version.to_string());
    fs::create_dir(&model)?;
    beside::show(&of.model_directory, &model, true)?;
    symlink(fs::canonicalize(of.model_directory.join(&number))?, model.join(&number))?;
    let alone = Specific { versions: vec![i64::try_from(of.version.get()).unwrap_or(i64::MAX)] };
    let policy = ModelVersionPolicy { policy_choice: Some(PolicyChoice::Specific(alone)) };
    let config = ModelConfig { version_policy: Some(policy), ..of.config.clone() };
    fs::write(model.join(CONFIG), config_text::print(&config))?;
    Ok(root)
}

/// The last of what `source` gives until it ends.
fn last_of(mut source: impl Read) -> Vec<u8> {
    let (mut last, mut piece) = (Vec::new(), [0; TOLD]);
    loop {
        match source.read(&mut piece) {
            Ok(0) => return last,
            Ok(read) => {
                last.extend_from_slice(&piece[..read]);
                last.drain(..last.len().saturating_sub(TOLD));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return last,
        }
    }
}

/// What the end of the trial of `what` says of it.
fn verdict(what: String, status: ExitStatus, said: &[u8]) -> Result<(), LoadError> {
    let Some(signal) = status.signal() else { return Ok(()) };
    Err(LoadError::TrialDied { what, signal: named(signal), said: last_words(said), advice: advice(signal) })
}

/// The number of a signal, and its name where it is one of those that end a load.
fn named(signal: i32) -> String {
    const NAMES: [(Signal, &str); 12] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::TERM, "SIGTERM"),
        (Signal::SYS, "SIGSYS"),
    ];
    let name = NAMES.iter().find(|(other, _)| other.as_raw() == signal);
    name.map_or_else(|| signal.to_string(), |(_, name)| format!("{signal} ({name})"))
}

/// What to do about it.
fn advice(signal: i32) -> &'static str {
    let is = |other: Signal| other.as_raw() == signal;
    if is(Signal::KILL) {
        "most likely the kernel had no memory for it: give the server more, or free some, and load it again"
    } else if is(Signal::TERM) || is(Signal::INT) || is(Signal::HUP) || is(Signal::QUIT) {
        "somebody ended it: load it again"
    } else {
        "the model, or a sample of its model_warmup, crashes ONNX Runtime: export it anew, or leave the sample out"
    }
}

/// What it said last as one line, to stand behind a sentence.
fn last_words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return String::new();
    }
    let words = lines.join("; ").replace(char::is_control, " ");
    format!(" (it said: {words})")
}

#[cfg(test)]
mod tests {
    use model::{ModelName, ModelVersion};

    use super::*;

    /// What is told of a trial whose process ended with `status`, as the kernel encodes it.
    fn told(status: i32, said: &[u8]) -> Option<String> {
        verdict("m/2".to_owned(), ExitStatus::from_raw(status), said).err().map(|error| error.to_string())
    }

    #[test]
    fn only_a_death_by_signal_is_a_verdict() {
        assert_eq!(told(0, b""), None);
        assert_eq!(told(1 << 8, b"volley: 1 problem\n"), None);
        let with_core = 8 | 0x80;
        let floating_point = "the trial process of m/2 died of signal 8 (SIGFPE) while it loaded or warmed up, so it is \
                              not loaded here and what serves goes on; the model, or a sample of its model_warmup, \
                              crashes ONNX Runtime: export it anew, or leave the sample out";
        assert_eq!(told(8, b"").as_deref(), Some(floating_point));
        assert_eq!(told(with_core, b"\n").as_deref(), Some(floating_point));
        let killed = told(9, b"").unwrap();
        assert!(killed.contains("signal 9 (SIGKILL)") && killed.contains("no memory"), "{killed}");
        assert!(told(15, b"").unwrap().ends_with("somebody ended it: load it again"));
    }

    #[test]
    fn signals_have_their_names_and_others_their_numbers() {
        let names = [4, 6, 8, 9, 11, 40].map(named);
        assert_eq!(names, ["4 (SIGILL)", "6 (SIGABRT)", "8 (SIGFPE)", "9 (SIGKILL)", "11 (SIGSEGV)", "40"]);
    }

    #[test]
    fn the_last_words_are_one_line_and_not_many() {
        let died = told(6, b"terminate called\n  what():  no \x1b[31mroom\n\xff\n").unwrap();
        assert!(
            died.contains("warmed up (it said: terminate called; what():  no  [31mroom; \u{fffd}), so"),
            "{died}"
        );
        let much = [vec![b'a'; 3 * TOLD], vec![b'z'; 10]].concat();
        let last = last_of(&*much);
        assert!(last.len() == TOLD && last.ends_with(b"azzzzzzzzzz"));
        assert_eq!(last_of(&b""[..]), b"");
    }

    #[test]
    fn a_version_is_tried_alone_with_what_is_beside_it_and_the_configuration_given() {
        let model = tempfile::tempdir().unwrap();
        for directory in ["1", "2", "warmup"] {
            fs::create_dir(model.path().join(directory)).unwrap();
        }
        fs::write(model.path().join("2/model.onnx"), "two").unwrap();
        fs::write(model.path().join("warmup/x"), "x").unwrap();
        fs::write(model.path().join(CONFIG), "max_batch_size: 1").unwrap();
        let config = ModelConfig { max_batch_size: 7, ..ModelConfig::default() };
        let tried = repository(&TrialOf {
            name: &ModelName::parse("m").unwrap(),
            version: ModelVersion::new(2).unwrap(),
            model_directory: model.path().to_owned(),
            config: &config,
        })
        .unwrap();
        let there = tried.path().join("m");
        assert_eq!(fs::read_to_string(there.join("2/model.onnx")).unwrap(), "two");
        assert_eq!(fs::read_to_string(there.join("warmup/x")).unwrap(), "x");
        assert!(!there.join("1").exists());
        let written = config_text::parse(&fs::read_to_string(there.join(CONFIG)).unwrap(), CONFIG).unwrap();
        let Some(PolicyChoice::Specific(alone)) = written.version_policy.unwrap().policy_choice else {
            panic!("not that version alone")
        };
        assert_eq!((written.max_batch_size, alone.versions), (7, vec![2]));
        let root = tried.path().to_owned();
        drop(tried);
        assert!(!root.exists() && model.path().join("2/model.onnx").exists());
    }
}
