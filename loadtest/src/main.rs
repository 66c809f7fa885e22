//! `volley-load`: sends inference requests to a V2 server, and says what came of them.
//!
//! Read in this order: `args` and `plan` (what was asked), `target` and `input` (what is sent), `session` (runs and
//! searches), `load` and `transport` (sending), `recorder`, `errors`, `outcome` and `pace` (what came of it), `report` and
//! `outputs` (where it is shown).
#![forbid(unsafe_code)]

mod args;
mod arrivals;
mod clock;
mod compare;
mod distinct;
mod errors;
mod expect;
mod input;
mod load;
mod machine;
mod measurement;
mod outcome;
mod outputs;
mod pace;
mod plan;
mod progress;
mod recorder;
mod report;
mod search;
mod server_side;
mod session;
mod signals;
mod slo;
mod stop;
mod target;
mod thread_time;
mod trace;
mod transport;
mod usage;
mod workload;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Parser;
use mimalloc::MiMalloc;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::args::{Cli, Command, LoadArgs};
use crate::measurement::{Measurement, Run};
use crate::outputs::Outputs;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::units;
use crate::server_side::{Probe, ProbeTarget};
use crate::session::Session;
use crate::stop::Stop;
use crate::target::Target;
use crate::workload::Workload;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What the exit status says.
const FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;
const MISSED: u8 = 3;
/// Requests of a file that are tried before the load.
const TRIED: usize = 32;
/// Characters of an error.
const LONGEST_ERROR: usize = 4000;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Some(Command::Compare(args)) => compare::run(args),
        None => match Plan::new(&cli.load) {
            Ok(plan) => measure(&cli.load, plan),
            Err(error) => return failed(&error, BAD_USAGE),
        },
    };
    done.unwrap_or_else(|error| failed(&error, if usage::is_bad(&error) { BAD_USAGE } else { FAILED }))
}

fn failed(error: &anyhow::Error, status: u8) -> ExitCode {
    // A server's words may be in it. Without standard error nobody can be told.
    let _ = writeln!(io::stderr(), "volley-load: {}", units::plain(&format!("{error:#}"), LONGEST_ERROR));
    ExitCode::from(status)
}

fn measure(args: &LoadArgs, plan: Plan) -> anyhow::Result<ExitCode> {
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = measured(args, plan, &control);
    // The look-up of a name cannot be stopped, and is not waited for.
    control.shutdown_background();
    done
}

/// One measurement from the first look at the server to the files.
fn measured(args: &LoadArgs, plan: Plan, control: &Runtime) -> anyhow::Result<ExitCode> {
    let stop = Stop::default();
    signals::watch(stop.clone())?;
    let mut outputs = Outputs::open(&args.output).map_err(usage::bad)?;
    let progress = Progress::new(args.output.quiet);
    let target = control.block_on(stop.unless(Target::find(args)))??;
    // Random requests are alike; those of a file may each be wrong.
    let each = if args.input.is_random() { 1 } else { TRIED };
    let trying = stop.unless(target.try_out(args.extent.timeout, each));
    LocalSet::new().block_on(control, trying)??;
    let wanted = probe_target(&target, args);
    let probe = control.block_on(stop.unless(Probe::find(&wanted, &args.target.probe)))?;
    let probe = probe.map_err(|why| usage::bad(anyhow!(why)))?;
    probe.remarks().iter().for_each(|remark| progress.remark(remark));
    let mut measurement = session::measurement(&target, args);
    let session = Session { args, target: &target, probe, progress: &progress, stop: &stop, control };
    let executed = session.execute(plan, &mut measurement);
    if let Err(error) = &executed {
        measurement.interrupted = Some(format!("{error:#}"));
    }
    let written = outputs.write(&measurement, &mut io::stdout());
    match (executed.and_then(|()| verdict(&measurement, &target.workload)), written) {
        (verdict, Ok(())) => verdict,
        (Ok(_), Err(error)) => Err(error),
        (Err(verdict), Err(error)) => Err(anyhow!("{verdict:#}; {error:#}")),
    }
}

fn probe_target(target: &Target, args: &LoadArgs) -> ProbeTarget {
    let models = args.target.model.iter().map(|model| model.name.clone()).collect();
    ProbeTarget { url: target.url.clone(), grpc: !args.target.protocol.is_http(), models }
}

/// The exit status, with a line for what makes it one.
fn verdict(measurement: &Measurement, workload: &Workload) -> anyhow::Result<ExitCode> {
    if let Some(reason) = &measurement.interrupted {
        return Err(anyhow!("the measurement ended early: {reason}"));
    }
    let silent = measurement.runs.iter().find(|run| run.requests == run.failed());
    // A search goes where a server answers nothing any more.
    if let Some(run) = silent.filter(|_| measurement.found.is_none()) {
        let why = report::table::kinds(run).into_iter().next();
        let why = why.map_or_else(|| "none was answered".to_owned(), |(kind, _)| kind);
        let hint: String = workload.models.iter().map(|model| model.hint(&why)).collect();
        return Err(anyhow!("{}: no request was answered well: {why}{hint}", report::remarks::run_name(run)));
    }
    // An objective on errors says how many wrong answers are too many; without one, none is right.
    let on_errors =
        |run: &Run| run.objectives.iter().any(|judged| judged.objective.trim().starts_with("errors"));
    if let Some(run) = measurement.runs.iter().find(|run| run.wrong_answers > 0 && !on_errors(run)) {
        let (name, wrong) = (report::remarks::run_name(run), units::count(run.wrong_answers));
        return Err(anyhow!(
            "{name}: {wrong} answers are wrong: {}",
            run.wrong_example.as_deref().unwrap_or_default()
        ));
    }
    let missed = match &measurement.found {
        Some(found) => found.rate.is_none(),
        None => measurement.runs.iter().flat_map(|run| &run.objectives).any(|judged| !judged.met),
    };
    Ok(if missed { ExitCode::from(MISSED) } else { ExitCode::SUCCESS })
}
