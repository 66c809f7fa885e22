//! The repository's own chores: test, models, bench, peers.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command talks on its standard output")]

mod bench;
mod child;
mod models;
mod peers;
mod ports;
mod python;
mod tally;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// The repository's own chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Run every check, or the stages named.
    Test(test::Args),
    /// Generate models that are too big to commit, under target/models.
    Models(models::Args),
    /// Measure the release build (Linux).
    Bench(bench::Args),
    /// Measure the release build beside other model servers (Linux).
    Peers(peers::Args),
}

fn main() -> ExitCode {
    let chore = Args::parse().chore;
    let outcome = Workspace::find().and_then(|workspace| match chore {
        Chore::Test(args) => test::run(&workspace, &args),
        Chore::Models(args) => models::run(&workspace, &args),
        Chore::Bench(args) => bench::run(&workspace, &args),
        Chore::Peers(args) => peers::run(&workspace, &args),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
