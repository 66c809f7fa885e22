//! The instructions of each hot path, as callgrind counts them: all threads, user space only.

use std::fs;
use std::path::Path as FilePath;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use super::figure::{Figure, Unit};
use super::{Args, directory, require};
use crate::child;
use crate::workspace::Workspace;

const PROGRAM: &str = "instructions";

/// Rounds before those that count: what is made once, such as the table of routes, is made in them.
const WARM_UP: u32 = 3;

/// Counts of one thread are the same from run to run, but for hash tables, which are seeded anew.
const NOISE: f64 = 0.02;

/// Threads meet each other earlier or later; their counts lie up to 4 % apart.
const THREADS_NOISE: f64 = 0.05;

/// A path as the program lists it.
#[derive(Debug, PartialEq)]
struct Path {
    name: String,
    rounds: u32,
    noise: f64,
}

/// Runs each path twice, a few rounds and many; their difference is what the rounds between cost. That leaves
/// out the start of the program and counts every thread, whatever the compiler inlined.
pub(super) fn run(workspace: &Workspace, args: &Args) -> Result<Vec<Figure>> {
    require("valgrind")?;
    child::run(&mut workspace.cargo(&["build", "--release", "--package", "benches", "--bin", PROGRAM]))?;
    let profiles = directory(workspace).join("callgrind");
    fs::create_dir_all(&profiles)?;
    let mut figures = Vec::new();
    for Path { name, rounds, noise } in
        paths(workspace)?.into_iter().filter(|path| path.name.contains(&args.only))
    {
        let profile = profiles.join(format!("{}.out", name.replace('/', "_")));
        let few = count(workspace, &name, WARM_UP, &profile)?;
        let many = count(workspace, &name, WARM_UP + rounds, &profile)?;
        let value = (many - few) / f64::from(rounds);
        let name = format!("instructions/{name}");
        figures.push(Figure { name, value, unit: Unit::Instructions, noise });
    }
    ensure!(!figures.is_empty(), "no hot path's name holds {:?}", args.only);
    println!("callgrind_annotate reads the profiles in {}", workspace.relative(&profiles).display());
    Ok(figures)
}

fn paths(workspace: &Workspace) -> Result<Vec<Path>> {
    let output = workspace.command(workspace.release(PROGRAM)).arg("list").output()?;
    ensure!(output.status.success(), "{PROGRAM} list ended with {}", output.status);
    let list = String::from_utf8(output.stdout)?;
    list.lines().map(|line| path(line).with_context(|| format!("{PROGRAM} listed {line:?}"))).collect()
}

/// Reads a line of the list: `decode/json/1x64 100 thread`.
fn path(line: &str) -> Option<Path> {
    let mut words = line.split(' ');
    let (name, rounds) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    let noise = match words.next()? {
        "thread" => NOISE,
        "threads" => THREADS_NOISE,
        _ => return None,
    };
    Some(Path { name, rounds, noise })
}

/// The instructions of the whole program when it runs `path` for `rounds`.
fn count(workspace: &Workspace, path: &str, rounds: u32, profile: &FilePath) -> Result<f64> {
    let mut valgrind = workspace.command("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind"]);
    valgrind.arg(format!("--callgrind-out-file={}", profile.display()));
    valgrind.arg(workspace.release(PROGRAM)).args(["run", path, "--rounds", &rounds.to_string()]);
    let output = valgrind.stdin(Stdio::null()).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind ended with {} at {path}: {errors}", output.status);
    let profile =
        fs::read_to_string(profile).with_context(|| format!("callgrind wrote nothing: {errors}"))?;
    total(&profile).with_context(|| format!("callgrind's profile of {path} has no total"))
}

/// The sum over all functions, which ends a profile.
fn total(profile: &str) -> Option<f64> {
    profile.lines().rev().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_the_last_line() {
        let profile = "# callgrind format\nevents: Ir\nfn=(1) main\n3 5\n\ntotals: 123456\n";
        assert_eq!(total(profile), Some(123_456.0));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn the_list_says_which_counts_are_noisy() {
        let listed = |line| path(line).map(|path| (path.name, path.rounds, path.noise));
        assert_eq!(listed("decode/json 100 thread"), Some(("decode/json".to_owned(), 100, NOISE)));
        assert_eq!(listed("infer/alone 9 threads"), Some(("infer/alone".to_owned(), 9, THREADS_NOISE)));
        assert_eq!(listed("decode/json 100"), None);
    }
}
