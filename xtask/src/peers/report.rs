//! What the comparison found: the one value that the terminal, the results file and the page show.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Serialize;
use time::OffsetDateTime;

use super::exchange::MODEL;
use super::{Args, generator, peer};
use crate::workspace::Workspace;

/// All rows, and where they come from.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) model: &'static str,
    /// The processor.
    pub(super) machine: String,
    pub(super) cores: usize,
    pub(super) generator_threads: usize,
    pub(super) memory_gib: u64,
    /// Kernel and its version.
    pub(super) system: String,
    /// Processes that wanted to run before the comparison began, over a minute: 0 on a quiet machine.
    pub(super) load_before: f64,
    pub(super) commit: String,
    pub(super) date: String,
    /// What to type to measure again.
    pub(super) command: String,
    /// Packages that were installed for the servers, with their versions.
    pub(super) versions: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// One server.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) protocol: &'static str,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Measured(Figures),
    /// Why there are no figures.
    Failed(String),
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    /// From the start of the program until the first right answer, where it was started here.
    pub(super) ready_after_seconds: Option<f64>,
    /// Memory of all its processes after the loads; what they share counts once.
    pub(super) resident_bytes: Option<u64>,
    /// By concurrency, rising as it was asked for.
    pub(super) loads: Vec<Loaded>,
    /// What a reader should know of the measurement, each a clause.
    pub(super) remarks: Vec<String>,
}

/// A server under one load: medians of the repeats, and sums of counts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Loaded {
    pub(super) concurrency: usize,
    pub(super) requests_per_second: f64,
    pub(super) p50_micros: f64,
    pub(super) p99_micros: f64,
    /// Processor time of all processes of the server for each request.
    pub(super) cpu_micros_per_request: Option<f64>,
    pub(super) generator_cpu_micros_per_request: f64,
    /// The share of the time, from 0 to 1, that its busiest thread ran.
    pub(super) generator_busy: Option<f64>,
    /// What other programs used of the machine meanwhile, from 0 to 1: such figures are too low.
    pub(super) others: Option<f64>,
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// The most frequent failure.
    pub(super) error: Option<String>,
}

impl Report {
    /// A report without rows, on this machine and commit, now.
    pub(super) fn begin(workspace: &Workspace, args: &Args) -> Result<Report> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cores = std::thread::available_parallelism()?.get();
        Ok(Report {
            model: MODEL,
            machine: value(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown processor").to_owned(),
            cores,
            generator_threads: generator::threads(cores),
            memory_gib: kibibytes(&read("/proc/meminfo"), "MemTotal").unwrap_or(0).div_ceil(1 << 20),
            system: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
            commit: commit(workspace)?,
            date: OffsetDateTime::now_utc().date().to_string(),
            command: command(args),
            versions: versions(workspace, args)?,
            rows: Vec::new(),
        })
    }
}

impl Row {
    pub(super) fn is_measured(&self) -> bool {
        self.figures().is_some()
    }

    pub(super) fn figures(&self) -> Option<&Figures> {
        match &self.outcome {
            Outcome::Measured(figures) => Some(figures),
            Outcome::Failed(_) => None,
        }
    }
}

impl Figures {
    /// The most that other programs used of the machine during a load, from 0 to 1.
    pub(super) fn others(&self) -> Option<f64> {
        self.loads.iter().filter_map(|load| load.others).max_by(f64::total_cmp)
    }

    pub(super) fn failed(&self) -> u64 {
        self.loads.iter().map(|load| load.failed).sum()
    }
}

impl Loaded {
    /// When the generator is as busy as this, the server may do more than was asked of it.
    const BUSY: f64 = 0.8;

    /// Whether the figures may be the generator's limit.
    pub(super) fn is_generator_busy(&self) -> bool {
        self.generator_busy > Some(Loaded::BUSY)
    }
}

/// For the terminal, while the next server is measured.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = match &self.outcome {
            Outcome::Measured(figures) => figures,
            Outcome::Failed(why) => return writeln!(f, "  not measured: {why}"),
        };
        for load in &figures.loads {
            write!(
                f,
                "  {:>4} in flight: {:>8.0} req/s, p50 {:>8.0} µs, p99 {:>8.0} µs",
                load.concurrency, load.requests_per_second, load.p50_micros, load.p99_micros
            )?;
            if let Some(cpu) = load.cpu_micros_per_request {
                write!(f, ", {cpu:.0} µs CPU a request")?;
            }
            if let Some(others @ 0.05..) = load.others {
                write!(f, ", {:.0} % of the machine used by others", others * 100.0)?;
            }
            if let Some(busy) = load.generator_busy.filter(|_| load.is_generator_busy()) {
                write!(f, ", generator busy {:.0} %", busy * 100.0)?;
            }
            if let (failed @ 1.., Some(error)) = (load.failed, &load.error) {
                write!(f, ", {failed} of {} failed: {error}", load.requests)?;
            }
            writeln!(f)?;
        }
        figures.remarks.iter().try_for_each(|remark| writeln!(f, "  {remark}"))
    }
}

/// The value of `key` in a file of lines `key : value`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'))?;
    Some(line.trim())
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    value(text, key)?.strip_suffix("kB")?.trim().parse().ok()
}

/// The commit that is checked out, and whether what was measured differs from it.
fn commit(workspace: &Workspace) -> Result<String> {
    let described = workspace
        .command("git")
        .args(["describe", "--always", "--dirty", "--exclude", "*"])
        .output()
        .context("cannot run git")?;
    Ok(String::from_utf8_lossy(&described.stdout).trim().to_owned())
}

/// The command line that asks for the same again; addresses of others are theirs.
fn command(args: &Args) -> String {
    let concurrency: Vec<String> = args.concurrency.iter().map(ToString::to_string).collect();
    let mut command = "cargo xtask peers".to_owned();
    if !args.only.is_empty() {
        command += &format!(" --only {}", args.only.join(","));
    }
    command += &format!(
        " --seconds {} --repeats {} --concurrency {}",
        args.seconds,
        args.repeats,
        concurrency.join(",")
    );
    if args.triton_url.is_some() {
        command += " --triton-url URL";
    }
    command
}

/// Python and the packages that the requirements of the servers pin, each once.
fn versions(workspace: &Workspace, args: &Args) -> Result<Vec<String>> {
    let python = Command::new("python3").arg("--version").output().context("cannot run python3")?;
    let mut versions = vec![String::from_utf8_lossy(&python.stdout).trim().to_owned()];
    for peer in peer::chosen(&args.only, args.triton_url.as_deref())? {
        let peer::Program::Python(python) = peer.program else { continue };
        let requirements = Path::new("benches/peers").join(python.directory).join("requirements.txt");
        let text = fs::read_to_string(workspace.root.join(&requirements))
            .with_context(|| format!("cannot read {}", requirements.display()))?;
        for version in pinned(&text) {
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
    }
    Ok(versions)
}

/// The packages of a requirements file, as `name version`.
fn pinned(requirements: &str) -> impl Iterator<Item = String> {
    let lines = requirements.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.split_once("==")?).map(|(name, version)| format!("{name} {version}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_lines() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2.0GHz\nMemTotal:       24576000 kB\n";
        assert_eq!(value(text, "model name"), Some("A CPU @ 2.0GHz"));
        assert_eq!(kibibytes(text, "MemTotal"), Some(24_576_000));
        assert_eq!(value(text, "model"), None);
    }

    #[test]
    fn what_is_pinned_is_listed() {
        let text = "# why\nray[serve]==2.60.0\n\nnumpy==2.4.6\nunpinned\n";
        assert_eq!(pinned(text).collect::<Vec<_>>(), ["ray[serve] 2.60.0", "numpy 2.4.6"]);
    }
}
