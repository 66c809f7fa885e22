//! One call of the program after its arguments: runs in turn or a search, and the measurement they make.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::args::LoadArgs;
use crate::load::{self, Mode, Setting};
use crate::measurement::{FoundRate, Measurement, Run};
use crate::outcome::{self, Timeline};
use crate::plan::{self, Plan, Planned};
use crate::progress::Progress;
use crate::search::{Search, Step, Vote};
use crate::server_side::Probe;
use crate::stop::Stop;
use crate::target::Target;

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
                            measurement.runs.push(run);
                        }
                    }
                }
            }
            Plan::Search { bounds, precision } => {
                self.search(Search::new(bounds, precision), repeats, measurement)?;
            }
        }
        measurement.interrupted = self.stop.reason();
        Ok(())
    }

    fn search(
        &self,
        mut search: Search,
        repeats: usize,
        measurement: &mut Measurement,
    ) -> anyhow::Result<()> {
        while let Step::Try(rate) = search.next() {
            let planned = plan::open(rate, self.args.shape.arrivals, &self.args.extent);
            let mut vote = Vote::new(repeats);
            for repeat in 0..repeats {
                if vote.decided().is_some() {
                    break;
                }
                let run = self.run(&planned, repeat)?;
                let met = run.objectives.iter().all(|judged| judged.met);
                measurement.runs.push(run);
                if self.stop.is_set() {
                    return Ok(());
                }
                vote.cast(met);
            }
            search.observe(rate, vote.decided().unwrap_or(false));
        }
        measurement.found = self.args.check.slo.as_ref().map(|slo| FoundRate {
            objective: slo.to_string(),
            rate: search.met(),
            missed_at: search.missed(),
            repeats,
        });
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
        let before = self.control.block_on(self.probe.read());
        let mut shown = self.progress.begin(&planned.load);
        let running = load::start(&setting)?;
        let mut timeline = Timeline::new(setting.spec.threads);
        for piece in &running.pieces {
            if let Some(second) = timeline.add(piece) {
                shown.second(second);
            }
        }
        let tallies = running.finish()?;
        let elapsed = shown.finish();
        let seconds = measured(&setting, &tallies, elapsed, self.stop.is_set());
        let slo = self.args.check.slo.as_ref();
        let mut run = outcome::run((planned.load.clone(), repeat), &tallies, timeline, seconds, slo);
        if let Some(example) = tallies.iter().find_map(|tally| tally.example.as_ref()) {
            self.progress.remark(&format!("first {example}"));
        }
        let after = self.control.block_on(self.probe.read());
        let ended: u64 = tallies.iter().map(|tally| tally.ended).sum();
        let observed = self.probe.between(&before, &after, ended);
        observed.remarks.iter().for_each(|remark| self.progress.remark(remark));
        run.server = observed.server;
        self.progress.ended(&run);
        Ok(run)
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

/// Seconds of the window: as long as was asked, or until what ended it.
fn measured(setting: &Setting, tallies: &[crate::recorder::Tally], elapsed: Duration, stopped: bool) -> f64 {
    let spec = &setting.spec;
    let asked = spec.duration.map(|duration| duration.as_secs_f64());
    let after_warmup = elapsed.saturating_sub(spec.warmup).as_secs_f64();
    if stopped {
        return asked.map_or(after_warmup, |asked| asked.min(after_warmup));
    }
    let last = tallies.iter().map(|tally| tally.last).max().unwrap_or_default();
    let until_last = Duration::from_nanos(last).saturating_sub(spec.warmup).as_secs_f64();
    match (asked, spec.requests) {
        (Some(asked), None) => asked,
        (Some(asked), Some(_)) => asked.min(until_last),
        (None, _) => until_last,
    }
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
        machine: crate::machine::this(),
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
