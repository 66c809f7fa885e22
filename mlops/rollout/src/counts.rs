//! What was counted: sums, so that those of replicas and of runs before a restart add up.

use statistics::latency::latencies;
use statistics::{Counts, Latencies};

/// What one arm answered.
#[derive(Clone, Debug)]
pub struct Sums {
    /// Requests that are judged: answered, or failed by fault of the version.
    pub answered: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Of those that did not: how many took longer than the limit of each latency gate, in the order of the plan's gates.
    /// 0 for gates of another kind.
    pub slow: Vec<u64>,
    /// Those that came by their slot, and not by a rule: what may be compared with another arm.
    pub drawn: u64,
    /// Those of them that failed.
    pub drawn_failed: u64,
    /// How long those took that did not fail, in microseconds.
    pub latencies: Latencies,
}

impl Sums {
    /// Nothing was counted yet, for `gates` gates.
    pub fn new(gates: usize) -> Sums {
        Sums {
            answered: 0,
            failed: 0,
            slow: vec![0; gates],
            drawn: 0,
            drawn_failed: 0,
            latencies: latencies(),
        }
    }

    /// Adds what another replica counted.
    pub fn add(&mut self, other: &Sums) {
        self.answered = self.answered.saturating_add(other.answered);
        self.failed = self.failed.saturating_add(other.failed);
        self.drawn = self.drawn.saturating_add(other.drawn);
        self.drawn_failed = self.drawn_failed.saturating_add(other.drawn_failed);
        self.slow.resize(self.slow.len().max(other.slow.len()), 0);
        for (slow, more) in self.slow.iter_mut().zip(&other.slow) {
            *slow = slow.saturating_add(*more);
        }
        self.latencies += &other.latencies;
    }

    /// Failures among all that is judged.
    pub fn errors(&self) -> Counts {
        Counts::new(self.failed, self.answered)
    }

    /// Answers that took too long for the gate at `gate`, among all that did not fail.
    pub fn slower(&self, gate: usize) -> Counts {
        Counts::new(self.slow.get(gate).copied().unwrap_or(0), self.answered.saturating_sub(self.failed))
    }

    /// Failures among those that came by their slot.
    pub fn drawn_errors(&self) -> Counts {
        Counts::new(self.drawn_failed, self.drawn)
    }
}

/// What all arms answered.
#[derive(Clone, Debug)]
pub struct Arms {
    /// Of the version that is tried.
    pub canary: Sums,
    /// Of as many callers of the stable version.
    pub baseline: Sums,
    /// Of all other callers of the stable version.
    pub stable: Sums,
}

impl Arms {
    /// Nothing was counted yet, for `gates` gates.
    pub fn new(gates: usize) -> Arms {
        Arms { canary: Sums::new(gates), baseline: Sums::new(gates), stable: Sums::new(gates) }
    }

    /// Adds what another replica counted.
    pub fn add(&mut self, other: &Arms) {
        self.canary.add(&other.canary);
        self.baseline.add(&other.baseline);
        self.stable.add(&other.stable);
    }
}
