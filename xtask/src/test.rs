//! `cargo xtask test`: every check there is, the cheapest to fail first.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{child, models, python};

/// `cargo xtask test`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stages to run; all when none is named.
    #[arg(value_enum)]
    stages: Vec<Stage>,
    /// Run the later stages although one failed.
    #[arg(long)]
    keep_going: bool,
}

/// A part of the test run, in the order of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Stage {
    /// The formatting is rustfmt's
    Fmt,
    /// Clippy has nothing to say
    Clippy,
    /// The Rust tests pass, those in the documentation and those that need an S3 too, what they compare with is what
    /// other programs say, and each bench runs once
    Rust,
    /// The documentation has no broken link
    Docs,
    /// The fuzz targets compile, and, where there is a C++ compiler, survive a short run that is always the same
    Fuzz,
    /// The public Python clients work against the release build
    Python,
}

/// Runs the stages of `args`; the last line printed is the total.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let mut stages =
        if args.stages.is_empty() { Stage::value_variants().to_vec() } else { args.stages.clone() };
    stages.sort_unstable();
    stages.dedup();

    let mut total = Tally::default();
    let mut remarks = Vec::new();
    for stage in stages {
        println!("\n=== {} ===", stage.name());
        let outcome = stage.run(workspace);
        total += outcome.tally;
        remarks.extend(outcome.remark.map(|remark| format!("{}: {remark}", stage.name())));
        if outcome.tally.failed > 0 && !args.keep_going {
            break;
        }
    }

    println!();
    remarks.iter().for_each(|remark| println!("{remark}"));
    println!("{total}");
    Ok(if total.failed == 0 && total.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of a stage, and what to say about it at the end.
#[derive(Debug)]
struct Outcome {
    tally: Tally,
    remark: Option<String>,
}

impl Stage {
    fn name(self) -> String {
        self.to_possible_value().expect("no stage is hidden").get_name().to_owned()
    }

    /// Runs the stage. One that cannot run, or that tests nothing, has failed.
    fn run(self, workspace: &Workspace) -> Outcome {
        let tally = match self {
            Stage::Fmt => check(&mut workspace.cargo(&["fmt", "--all", "--check"])),
            Stage::Clippy => check(&mut clippy(workspace)),
            Stage::Rust => rust(workspace),
            Stage::Docs => check(&mut docs(workspace)),
            Stage::Fuzz if !has_cpp_compiler() => return fuzz_without_running(workspace),
            Stage::Fuzz => fuzz_sources(workspace).and_then(|mut tally| {
                tally += fuzz(workspace)?;
                Ok(tally)
            }),
            Stage::Python => python_clients(workspace),
        };
        Outcome::of(tally)
    }
}

impl Outcome {
    fn of(tally: Result<Tally>) -> Outcome {
        match tally {
            Ok(tally) if tally.is_empty() => {
                Outcome { tally: Tally::of(false), remark: Some("failed: it tested nothing".to_owned()) }
            }
            Ok(tally) => Outcome { tally, remark: (tally.failed > 0).then(|| "failed".to_owned()) },
            Err(error) => Outcome { tally: Tally::of(false), remark: Some(format!("failed: {error:#}")) },
        }
    }
}

/// A stage that is one check.
fn check(command: &mut Command) -> Result<Tally> {
    Ok(Tally::of(child::stream(command, |_| {})?.success()))
}

fn clippy(workspace: &Workspace) -> Command {
    workspace.cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn docs(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo(&["doc", "--no-deps", "--workspace"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    command
}

/// The tests of every crate; nextest runs them in less time where it is installed.
fn rust(workspace: &Workspace) -> Result<Tally> {
    let nextest = succeeds(&mut workspace.cargo(&["nextest", "--version"]));
    let unit: &[&str] = if nextest {
        &["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests", "pass"]
    } else {
        &["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]
    };
    let mut tally = rust_tests(&mut workspace.cargo(unit))?;
    tally += rust_tests(&mut workspace.cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]))?;
    tally += object_storage(workspace)?;
    tally += check(&mut statistics_oracle(workspace)?)?;
    // Without `--bench`, Criterion runs each bench once and measures nothing.
    tally += check(&mut workspace.cargo(&["test", "--package", "benches", "--bench", "time"]))?;
    Ok(tally)
}

/// The tests that need an S3, which a Python program plays; elsewhere they are marked as ignored.
fn object_storage(workspace: &Workspace) -> Result<Tally> {
    let mut tests = workspace.cargo(&[
        "test",
        "--package",
        "storage",
        "--test",
        "s3",
        "--no-fail-fast",
        "--",
        "--ignored",
    ]);
    tests.env("VOLLEY_PYTHON", python::interpreter(workspace)?);
    let tally = rust_tests(&mut tests)?;
    ensure!(!tally.is_empty(), "no test of server/storage/tests/s3 is marked as ignored");
    Ok(tally)
}

/// What the formulas of mlops/statistics are tested against is what other programs say.
fn statistics_oracle(workspace: &Workspace) -> Result<Command> {
    let mut oracle = workspace.command(python::interpreter(workspace)?);
    oracle.args(["xtask/python/statistics_oracle.py", "--check", "mlops/statistics/tests/oracle"]);
    Ok(oracle)
}

/// Counts as the runner does. A runner that fails without a failed test, because something does not compile,
/// is itself the failure.
fn rust_tests(command: &mut Command) -> Result<Tally> {
    let mut tally = Tally::default();
    let status = child::stream(command, |line| tally.read_rust(line))?;
    if !status.success() && tally.failed == 0 {
        tally += Tally::of(false);
    }
    Ok(tally)
}

/// The fuzz targets, in a workspace of their own.
const FUZZ_TARGETS: [&str; 2] = ["infer_body", "config_pbtxt"];

/// The instrumentation that libFuzzer steers by; the stable compiler has it too.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table";

/// The targets are a workspace of their own, which the other stages do not look at.
const FUZZ_WORKSPACE: [&str; 2] = ["--manifest-path", "fuzz/Cargo.toml"];

/// The fuzz targets have the formatting of rustfmt and compile, so that they do not rot where they cannot run.
fn fuzz_sources(workspace: &Workspace) -> Result<Tally> {
    let mut tally = check(workspace.cargo(&["fmt", "--check"]).args(FUZZ_WORKSPACE))?;
    let mut compiles = workspace.cargo(&["check", "--bins"]);
    compiles.args(FUZZ_WORKSPACE);
    // Nothing is linked, so libFuzzer need not be built: this names one that is not there.
    compiles.env("CUSTOM_LIBFUZZER_PATH", workspace.target.join("no/libfuzzer.a"));
    tally += check(&mut compiles)?;
    Ok(tally)
}

/// What can be said of the fuzz targets without a C++ compiler.
fn fuzz_without_running(workspace: &Workspace) -> Outcome {
    let mut outcome = Outcome::of(fuzz_sources(workspace));
    outcome.remark.get_or_insert_with(|| {
        "checked, but not run: libFuzzer needs a C++ compiler (Debian: apt-get install g++)".to_owned()
    });
    outcome
}

/// Builds each fuzz target and runs it from its seeds, as often and with the same random numbers each time.
fn fuzz(workspace: &Workspace) -> Result<Tally> {
    // With a target named, build scripts and macros are left without instrumentation, which cannot be linked.
    let cargo = |chore: &str| {
        let mut cargo = workspace.cargo(&[chore]);
        cargo.args(FUZZ_WORKSPACE).args(["--target", "host-tuple"]);
        cargo.env("RUSTFLAGS", COVERAGE);
        cargo
    };
    child::run(cargo("build").arg("--bins"))?;
    let mut tally = Tally::default();
    for target in FUZZ_TARGETS {
        let found = workspace.target.join("fuzz").join(target);
        if found.exists() {
            fs::remove_dir_all(&found)?;
        }
        fs::create_dir_all(&found)?;
        let mut run = cargo("run");
        run.args(["--quiet", "--bin", target, "--"]);
        run.args(["-runs=200000", "-seed=1", "-timeout=10", "-rss_limit_mb=1024", "-max_len=4096"]);
        run.args(["-print_final_stats=1", "-print_funcs=0", "-verbosity=0"]);
        run.arg(format!("-artifact_prefix={}/", found.display()));
        run.arg(&found).arg(Path::new("fuzz/seeds").join(target));
        println!("fuzzing {target}");
        tally += check(&mut run)?;
    }
    Ok(tally)
}

fn has_cpp_compiler() -> bool {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    succeeds(Command::new(compiler).arg("--version"))
}

/// The clients' own tests, against the program that users run.
fn python_clients(workspace: &Workspace) -> Result<Tally> {
    let programs = ["build", "--release", "--package", "volley", "--package", "volley-load"];
    child::run(&mut workspace.cargo(&programs))?;
    let out = workspace.target.join("test");
    let (models, report) = (out.join("models"), out.join("pytest.xml"));
    fs::create_dir_all(&out)?;
    if report.exists() {
        fs::remove_file(&report)?;
    }
    models::generate(workspace, "test_models.py", &models, &[])?;

    let mut pytest = workspace.command(python::interpreter(workspace)?);
    pytest.args(["-m", "pytest", "-p", "no:cacheprovider", "clients/python/tests"]);
    pytest.arg(format!("--junitxml={}", report.display()));
    pytest.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    pytest.env("VOLLEY_BIN", workspace.release("volley")).env("VOLLEY_TEST_MODELS", &models);
    pytest.env("VOLLEY_LOAD_BIN", workspace.release("volley-load"));
    if std::env::var_os("VOLLEY_SATURATION_SECONDS").is_none() {
        pytest.env("VOLLEY_SATURATION_SECONDS", "300"); // those who run one test by hand have five
    }
    let status = child::stream(&mut pytest, |_| {})?;
    let counts = fs::read_to_string(&report).context("pytest wrote no report")?;
    let mut tally = Tally::from_junit(&counts).context("pytest's report has no counts")?;
    if !status.success() && tally.failed == 0 {
        tally += Tally::of(false);
    }
    Ok(tally)
}

/// True when the program is there and content.
fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
