//! Many hours of canaries with the same true error rate, and what a rule does about them.

use fastrand::Rng;
use statistics::Counts;

use crate::hour::Hour;
use crate::rules::Rule;

/// Hours of a trial.
pub(crate) const RUNS: usize = 2_000;
/// What all hours are drawn from.
pub(crate) const SEED: u64 = 20_261_127;

/// What became of the canaries.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// Seconds until each was rolled back, in order; those that were not are infinite.
    rolled_back: Vec<f64>,
    /// The share that passed at the end of the hour, which only the gate decides.
    pub(crate) promoted: f64,
}

impl Trial {
    /// What `rule` does about canaries with errors at `rate`, at five requests a second.
    pub(crate) fn of(rate: f64, rule: &Rule) -> Trial {
        let mut random = Rng::with_seed(SEED);
        let hours = (0..RUNS).map(|_| Hour::draw(rate, &mut random));
        Trial::over(hours, rule)
    }

    /// The same at `requests` an hour.
    pub(crate) fn at(requests: u64, rate: f64, rule: &Rule) -> Trial {
        let mut random = Rng::with_seed(SEED);
        let hours = (0..RUNS).map(|_| Hour::of(requests, rate, &mut random));
        Trial::over(hours, rule)
    }

    fn over(hours: impl Iterator<Item = Hour>, rule: &Rule) -> Trial {
        let mut promoted = 0;
        let mut rolled_back: Vec<f64> = hours
            .map(|hour| {
                let after = rule.rolls_back(&hour);
                promoted += usize::from(after.is_none() && passes(rule, &hour));
                after.unwrap_or(f64::INFINITY)
            })
            .collect();
        rolled_back.sort_by(f64::total_cmp);
        Trial { promoted: promoted as f64 / rolled_back.len() as f64, rolled_back }
    }

    /// The share that was rolled back.
    pub(crate) fn rolled_back(&self) -> f64 {
        let count = self.rolled_back.iter().filter(|seconds| seconds.is_finite()).count();
        count as f64 / self.rolled_back.len() as f64
    }

    /// After how many seconds half of them were rolled back, if so many were.
    pub(crate) fn median(&self) -> Option<f64> {
        Some(self.rolled_back[self.rolled_back.len() / 2]).filter(|seconds| seconds.is_finite())
    }
}

fn passes(rule: &Rule, hour: &Hour) -> bool {
    let Rule::Gate(gate) = rule else { return false };
    gate.conclude(Counts::new(hour.failures.len() as u64, hour.requests)).is_pass()
}
