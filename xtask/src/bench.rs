//! `cargo xtask bench`: what the server costs, beside a floor, and beside what it cost before.

mod baseline;
mod criterion;
mod figure;
mod http;
mod instructions;
mod server;
mod startup;
mod wrk;

use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use self::baseline::Baseline;
use self::figure::Figure;
use crate::workspace::Workspace;

/// `cargo xtask bench`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure; everything when nothing is named.
    #[arg(value_enum)]
    subjects: Vec<Subject>,
    /// Keep the figures as the baseline; those of subjects that were not measured stay as they are.
    #[arg(long)]
    save: bool,
    /// The baseline to compare with, or to save.
    #[arg(long, default_value = "default", value_parser = baseline::name)]
    baseline: String,
    /// Only the hot paths whose name holds this text, for criterion and instructions.
    #[arg(long, default_value = "")]
    only: String,
    /// Seconds of load per measurement of http.
    #[arg(long, default_value = "5")]
    seconds: NonZero<u32>,
    /// Measurements of which the median is taken; 3 for http, 5 for startup.
    #[arg(long)]
    repeats: Option<NonZero<usize>>,
    /// Connections that send at the same time, for http.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,128")]
    connections: Vec<NonZero<u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Subject {
    /// Instructions of each hot path, counted by callgrind: the same on a busy machine
    Instructions,
    /// Time of each hot path
    Criterion,
    /// Requests per second, latency and CPU per request of HTTP JSON, beside a bare hyper echo
    Http,
    /// Time until ready and memory when idle, with the sample models
    Startup,
}

/// Measures what `args` names and compares it with the baseline. A subject that cannot be measured is named
/// at the end and does not keep the others from it.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    ensure!(cfg!(target_os = "linux"), "the benches read /proc; run them on Linux");
    std::fs::create_dir_all(directory(workspace))?;
    let mut subjects = match args.subjects.as_slice() {
        [] => Subject::value_variants().to_vec(),
        named => named.to_vec(),
    };
    subjects.sort_unstable();
    subjects.dedup();

    let path = directory(workspace).join("baselines").join(format!("{}.json", args.baseline));
    let mut baseline = Baseline::read(&path)?;
    let (mut measured, mut failures) = (Vec::new(), Vec::new());
    for subject in subjects {
        println!("\n=== {} ===", subject.name());
        match subject.measure(workspace, args) {
            Ok(figures) => {
                println!("\n{}", baseline.table(&figures));
                measured.extend(figures);
            }
            Err(error) => failures.push(format!("{}: {error:#}", subject.name())),
        }
    }

    println!();
    if args.save && !measured.is_empty() {
        baseline.replace(measured, &commit(workspace));
        baseline.write(&path)?;
        println!("saved as {}", workspace.relative(&path).display());
    }
    failures.iter().for_each(|failure| println!("not measured: {failure}"));
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Subject {
    fn name(self) -> String {
        self.to_possible_value().expect("no subject is hidden").get_name().to_owned()
    }

    fn measure(self, workspace: &Workspace, args: &Args) -> Result<Vec<Figure>> {
        match self {
            Subject::Instructions => instructions::run(workspace, args),
            Subject::Criterion => criterion::run(workspace, args),
            Subject::Http => http::run(workspace, args),
            Subject::Startup => startup::run(workspace, args),
        }
    }
}

/// Where logs, models and results of the benches are.
fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bench")
}

/// Asks for `program` before anything is built for it.
///
/// # Errors
/// When it cannot be run; the error says how to install it.
fn require(program: &str) -> Result<()> {
    let mut version = Command::new(program);
    version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Some programs fail when they are asked for their version; they are there all the same.
    version
        .status()
        .map(drop)
        .with_context(|| format!("cannot run {program}; install it (Debian: apt-get install {program})"))
}

/// The commit that is checked out, marked when files were changed since; empty outside a git checkout.
fn commit(workspace: &Workspace) -> String {
    let described = workspace.command("git").args(["describe", "--always", "--dirty"]).output();
    described.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The middle of `values`; between two of them when their number is even.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_program_that_is_missing_is_one_line_that_says_what_to_do() {
        let error = format!("{:#}", require("no-such-program").unwrap_err());
        assert!(error.starts_with("cannot run no-such-program; install it (Debian: apt-get"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}
