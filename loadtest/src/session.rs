//! One call of the program after its arguments: runs in turn or a search, and the measurement they make.

mod searching;

use std::collections::BTreeMap;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::args::LoadArgs;
use crate::load::{self, Mode, Running, Setting};
use crate::measurement::{Measurement, Run};
use crate::outcome::{self, Timeline, Window};
use crate::plan::{Plan, Planned};
use crate::progress::{Progress, RunProgress};
use crate::recorder::Tally;
use crate::search::Search;
use crate::server_side::{Probe, Readings};
use crate::stop::Stop;
use crate::target::Target;

/// How often is looked whether the load has begun.
const UNTIL_BEGUN: Duration = Duration::from_millis(2);

/// What every run of a session shares.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) args: &'a LoadArgs,
    pub(crate) target: &'a Target,
    pub(crate) probe: Probe,
    pub(crate) progress: &'a Progress,
    pub(crate) stop: &'a Stop,
    /// Where what is not load is done.
    pub(crate) control: &'a Runtime,
}

impl Session<'_> {
    /// Does what `plan` says, and adds what came of it to `measurement`, which is whole after each run.
    ///
    /// # Errors
    /// When the generator itself cannot go on.
    pub(crate) fn execute(&self, plan: Plan, measurement: &mut Measurement) -> anyhow::Result<()> {
        let repeats = usize::from(self.args.extent.repeats);
        match plan {
            Plan::Runs(runs) => {
                for planned in &runs {
                    for repeat in 0..repeats {
                        if !self.stop.is_set() {
                            let run = self.run(planned, repeat)?;
                            measurement.runs.extend(self.begun(run));
                        }
                    }
                }
            }
            Plan::Search { bounds, precision } => {
                self.search(Search::new(bounds, precision), measurement)?;
            }
        }
        measurement.interrupted = self.stop.reason();
        Ok(())
    }

    /// Applies one load and gathers what came of it.
    fn run(&self, planned: &Planned, repeat: usize) -> anyhow::Result<Run> {
        let setting = Setting {
            spec: self.spec(planned, repeat),
            endpoint: self.target.endpoint.clone(),
            workload: self.target.workload.clone(),
            stop: self.stop.clone(),
        };
        let start = self.control.block_on(self.probe.read());
        let closes = setting.spec.duration.map(|duration| setting.spec.warmup + duration);
        let mut readings = Readings::new(start, setting.spec.warmup, closes);
        let mut shown = self.progress.begin(&planned.load);
        let running = load::start(&setting)?;
        let timeline = self.watch(&running, &mut readings, &mut shown, setting.spec.threads);
        let tallies = running.finish()?;
        let window = measured(&setting, &tallies, shown.finish(), self.stop.is_set());
        let slo = self.args.check.slo.as_ref();
        let mut run = outcome::run((planned.load.clone(), repeat), &tallies, timeline, window, slo);
        let models = &self.target.workload.models;
        let names: Vec<&str> = models.iter().map(|model| model.model.as_str()).collect();
        run.silent_models = outcome::silent_models(&tallies, &names);
        let ended: u64 = tallies.iter().map(|tally| tally.ended_in_window).sum();
        let late = readings.remark();
        let after = readings.after.unwrap_or_else(|| self.control.block_on(self.probe.read()));
        let observed = self.probe.between(&readings.before, &after, ended);
        observed.remarks.iter().chain(&late).for_each(|remark| self.progress.remark(remark));
        run.server = observed.server;
        self.progress.ended(&run);
        Ok(run)
    }

    /// `run`, unless it was stopped before anything in it was measured.
    fn begun(&self, run: Run) -> Option<Run> {
        let nothing = run.requests == 0 && run.unanswered == 0;
        (!nothing || !self.stop.is_set()).then_some(run)
    }

    /// Takes what the threads see until they end, and reads the server's counters when they are due.
    fn watch(
        &self,
        running: &Running,
        readings: &mut Readings,
        shown: &mut RunProgress,
        threads: usize,
    ) -> Timeline {
        let mut timeline = Timeline::new(threads);
        loop {
            let wait = match (readings.next(), running.elapsed()) {
                (_, None) => {
                    shown.connecting(running.connected());
                    UNTIL_BEGUN
                }
                (None, _) => Duration::MAX,
                (Some(due), Some(now)) => due.saturating_sub(now),
            };
            match running.pieces.recv_timeout(wait) {
                Ok(piece) => {
                    if let Some(second) = timeline.add(piece) {
                        shown.second(second);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return timeline,
                Err(RecvTimeoutError::Timeout) => {
                    let due = readings.next().zip(running.elapsed());
                    if due.is_some_and(|(due, now)| due <= now) {
                        let reading = self.control.block_on(self.probe.read());
                        readings.take(reading, running.elapsed().unwrap_or_default());
                    }
                }
            }
        }
    }

    /// Each repeat has other arrivals and another order, the same for the same seed.
    fn spec(&self, planned: &Planned, repeat: usize) -> load::Spec {
        let mut spec = planned.spec.clone();
        let seed = spec.seed.wrapping_add(repeat as u64);
        spec.seed = seed;
        if let Mode::Open { pattern: crate::arrivals::Pattern::Poisson { seed: of_arrivals, .. }, .. } =
            &mut spec.mode
        {
            *of_arrivals = seed;
        }
        spec
    }
}

/// The window of a run: as long as was asked, or until what ended it.
fn measured(setting: &Setting, tallies: &[Tally], elapsed: Duration, stopped: bool) -> Window {
    let spec = &setting.spec;
    let asked = spec.duration.map(|duration| duration.as_secs_f64());
    let after_warmup = elapsed.saturating_sub(spec.warmup).as_secs_f64();
    let last = tallies.iter().map(|tally| tally.last).max().unwrap_or_default();
    let until_last = Duration::from_nanos(last).saturating_sub(spec.warmup).as_secs_f64();
    let seconds = match (asked, spec.requests) {
        _ if stopped => asked.map_or(after_warmup, |asked| asked.min(after_warmup)),
        (Some(asked), None) => asked,
        (Some(asked), Some(_)) => asked.min(until_last),
        (None, _) => until_last,
    };
    let counted = spec.requests.is_some();
    Window { seconds, warmup: spec.warmup.as_secs_f64(), whole: !stopped, counted }
}

/// An empty measurement of `target`.
pub(crate) fn measurement(target: &Target, args: &LoadArgs) -> Measurement {
    let shares = target.workload.models.iter();
    let mut models = BTreeMap::new();
    for model in shares {
        *models.entry(model.model.clone()).or_default() += model.share;
    }
    let now = time::OffsetDateTime::now_utc();
    let started = now.replace_nanosecond(0).unwrap_or(now);
    Measurement {
        schema: crate::measurement::SCHEMA.to_owned(),
        command: std::env::args().collect(),
        started: started.format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
        machine: crate::machine::this(args.extent.threads.into()),
        target: crate::measurement::Target {
            url: target.url.clone(),
            protocol: args.target.protocol.to_string(),
            server: target.server.clone(),
            models,
            request_bytes: target.workload.mean_bytes(),
        },
        runs: Vec::new(),
        found: None,
        interrupted: None,
    }
}
