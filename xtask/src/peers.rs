//! `cargo xtask peers`: Volley beside other model servers, on this machine, in one run.
//!
//! The same generator sends the same requests for the same model to each server in turn, never to two at once.
//! A server that cannot be installed or started is a row that says why.

mod exchange;
mod generator;
mod measure;
mod page;
mod peer;
mod plot;
mod process_tree;
mod report;
mod running;
mod table;

use std::fs;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::workspace::Workspace;
use crate::{child, models};

use exchange::{Exchange, MODEL};
use report::Report;

/// `cargo xtask peers`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Servers to measure, by name; all when none is named.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Seconds of load per measurement.
    #[arg(long, default_value = "5")]
    seconds: NonZero<u32>,
    /// Measurements of which the median is taken.
    #[arg(long, default_value = "3")]
    repeats: NonZero<usize>,
    /// Requests in flight at the same time.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,128")]
    concurrency: Vec<NonZero<usize>>,
    /// A running Triton that serves the model `mlp` of `cargo xtask models`, to be measured too.
    #[arg(long, value_name = "URL")]
    triton_url: Option<String>,
    /// Measure and print, but leave docs/performance.md as it is.
    #[arg(long)]
    trial: bool,
}

/// Measures the servers that `args` names.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    ensure!(cfg!(target_os = "linux"), "the comparison reads /proc; run it on Linux");
    let peers = peer::chosen(&args.only, args.triton_url.as_deref())?;
    running::adopt_orphans()?;
    running::end_all_when_interrupted()?;
    build(workspace)?;
    let directory = directory(workspace);
    fs::create_dir_all(&directory)?;
    models::generate(workspace, "models.py", &directory.join("models"), &[MODEL.to_owned()])?;
    let exchange = Exchange::make(workspace, &directory)?;

    let mut report = Report::begin(workspace, args)?;
    for peer in &peers {
        running::pass_unless_interrupted();
        println!("{}", peer.title);
        let row = measure::measure(workspace, args, &exchange, peer);
        print!("{row}");
        report.rows.push(row);
    }
    println!("\n{}", table::markdown(&report));
    let results = directory.join("results.json");
    fs::write(&results, serde_json::to_string_pretty(&report)? + "\n")?;
    println!("written to {}", workspace.relative(&results).display());
    if !args.trial {
        page::write(workspace, &report)?;
    }
    Ok(if report.rows.iter().any(report::Row::is_measured) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds what is of this repository: the server, the floors and the generator.
fn build(workspace: &Workspace) -> Result<()> {
    let packages = ["--package", "volley", "--package", "benches", "--package", "volley-load", "--bins"];
    child::run(workspace.cargo(&["build", "--release"]).args(packages))
}

/// Where models, logs and results are.
fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("peers")
}
