//! `cargo xtask bench`: what the server costs, measured beside a floor in the same run.

mod http;
mod server;
mod startup;
mod wrk;

use std::num::NonZero;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::workspace::Workspace;

/// `cargo xtask bench`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure.
    #[arg(value_enum, default_value_t = Subject::Http)]
    subject: Subject,
    /// Seconds of load per measurement.
    #[arg(long, default_value = "5")]
    seconds: NonZero<u32>,
    /// Measurements of which the median is taken; 3 for http, 5 for startup.
    #[arg(long)]
    repeats: Option<NonZero<usize>>,
    /// Connections that send at the same time.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,128")]
    connections: Vec<NonZero<u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Requests per second, latency and CPU per request of HTTP JSON, beside a bare hyper echo
    Http,
    /// Time until ready and memory when idle, with the sample models
    Startup,
}

/// Measures what `args` names.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    ensure!(cfg!(target_os = "linux"), "the benches read /proc; run them on Linux");
    std::fs::create_dir_all(directory(workspace))?;
    match args.subject {
        Subject::Http => http::run(workspace, args)?,
        Subject::Startup => startup::run(workspace, args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where logs, models and results of the benches are.
fn directory(workspace: &Workspace) -> std::path::PathBuf {
    workspace.target.join("bench")
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
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
