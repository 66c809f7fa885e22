//! The rules by which canaries are rolled back: ours, and those with a fixed window.

use statistics::{Counts, Rate, RateGate};

use crate::hour::{Hour, SECONDS};

/// One error in a thousand is allowed.
pub(crate) const LIMIT: f64 = 0.001;
/// Requests of a minute, the window of the others.
const WINDOW: u64 = 300;

/// When to roll back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// The gate, asked after each failure.
    Gate(RateGate),
    /// Each minute the rate since the start is held against the limit.
    Cumulative,
    /// Each minute the rate of that minute is held against the limit, and so many may be above.
    Windows {
        /// `failureLimit` of Argo Rollouts, and one less than the `threshold` of Flagger.
        allowed: usize,
    },
}

impl Rule {
    pub(crate) fn gate() -> Rule {
        Rule::Gate(RateGate::new(Rate::new(LIMIT).unwrap()))
    }

    /// After how many seconds, if at all.
    pub(crate) fn rolls_back(&self, hour: &Hour) -> Option<f64> {
        let number = match self {
            Rule::Gate(gate) => gate_rejects(gate, hour),
            Rule::Cumulative => minutes(hour).find(|end| above(hour.failures_in(*end), *end)),
            Rule::Windows { allowed } => minutes(hour)
                .filter(|end| above(hour.failures_in(*end) - hour.failures_in(end - WINDOW), WINDOW))
                .nth(*allowed),
        };
        number.map(|number| number as f64 * SECONDS)
    }
}

fn gate_rejects(gate: &RateGate, hour: &Hour) -> Option<u64> {
    let mut failures = (1..).zip(&hour.failures);
    let rejected = failures.find(|(count, number)| gate.test().rejects(Counts::new(*count, **number)));
    rejected.map(|(_, number)| *number)
}

fn minutes(hour: &Hour) -> impl Iterator<Item = u64> {
    (1..=hour.requests / WINDOW).map(|minute| minute * WINDOW)
}

fn above(failures: u64, requests: u64) -> bool {
    failures as f64 > LIMIT * requests as f64
}
