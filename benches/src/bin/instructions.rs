//! How many instructions does each hot path take? Runs one of them, for callgrind to count.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "it lists its paths")]

use std::process::ExitCode;

use benches::HotPath;
use clap::{Parser, Subcommand};

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs one hot path of the server.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints of each path its name, the rounds that are enough for it, and whether it has threads.
    List,
    /// Runs a path.
    Run {
        /// Its name.
        path: String,
        /// How often.
        #[arg(long)]
        rounds: u32,
    },
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::List => {
            let threads = |path: &HotPath| if path.threaded { "threads" } else { "thread" };
            let line = |path: &HotPath| println!("{} {} {}", path.name, path.rounds, threads(path));
            benches::all().iter().for_each(line);
            ExitCode::SUCCESS
        }
        Command::Run { path: name, rounds } => {
            let Some(path) = benches::all().into_iter().find(|path| path.name == name) else {
                eprintln!("error: no path is called {name:?}; list says which there are");
                return ExitCode::FAILURE;
            };
            let mut work = path.prepare();
            (0..rounds).for_each(|_| work());
            ExitCode::SUCCESS
        }
    }
}
