//! Runs of one rate after the other, until the highest that meets the objectives is found.

use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use super::Session;
use crate::measurement::{FoundRate, Measurement};
use crate::plan::{self, Planned};
use crate::search::{Rest, Search, Step, Vote, lengthened};
use crate::slo::Objectives;

/// Lone requests that tell how fast a server is at rest.
const LONE_REQUESTS: usize = 5;
/// How long a server may take to come to rest between two runs.
const SETTLE: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(100);

impl Session<'_> {
    pub(super) fn search(&self, mut search: Search, measurement: &mut Measurement) -> anyhow::Result<()> {
        let repeats = usize::from(self.args.extent.repeats);
        let rest = Rest::of((0..LONE_REQUESTS).filter_map(|_| self.lone_request()).collect());
        'search: while let Step::Try(rate) = search.next() {
            let planned = self.planned(rate);
            let mut vote = Vote::new(repeats);
            while vote.decided().is_none() {
                // Each run of a rate has other arrivals, also when the rate is tried again later.
                let repeat = measurement.runs.iter().filter(|run| run.load == planned.load).count();
                self.settle(rest);
                let run = self.run(&planned, repeat)?;
                let met = run.objectives.iter().all(|judged| judged.met);
                measurement.runs.extend(self.begun(run));
                if self.stop.is_set() {
                    break 'search;
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
            cut_off: search.next() != Step::Done,
        });
        Ok(())
    }

    /// A run at `rate` that is long enough for the percentiles of the objectives.
    fn planned(&self, rate: f64) -> Planned {
        let mut planned = plan::open(rate, self.args.shape.arrivals, &self.args.extent);
        let samples = self.args.check.slo.as_ref().map_or(0, Objectives::samples);
        planned.spec.duration = planned.spec.duration.map(|asked| lengthened(asked, rate, samples));
        planned
    }

    /// Waits until the server answers a lone request as fast as before the search.
    fn settle(&self, rest: Option<Rest>) {
        let Some(rest) = rest else { return };
        let began = Instant::now();
        while !self.stop.is_set() && !self.lone_request().is_some_and(|took| rest.shows(took)) {
            if began.elapsed() > SETTLE {
                let seconds = SETTLE.as_secs();
                self.progress
                    .remark(&format!("The server is slower than before the search, {seconds} s later."));
                return;
            }
            // Ends early when the measurement is to end.
            let pause = async { tokio::time::sleep(LOOK).await };
            let _ = self.control.block_on(self.stop.unless(pause));
        }
    }

    /// How long the server takes for a request while nothing else is sent; `None` when it does not answer.
    fn lone_request(&self) -> Option<Duration> {
        let answering = self.stop.unless(self.target.answer_time(SETTLE.min(self.args.extent.timeout)));
        LocalSet::new().block_on(self.control, answering).ok()?
    }
}
