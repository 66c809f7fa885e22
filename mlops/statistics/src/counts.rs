//! Failures among requests: all that a test of a rate has to know.

use std::ops::{Add, AddAssign};

/// So many failures among so many requests; never more failures than requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    failures: u64,
    total: u64,
}

impl Counts {
    /// Counters that are read while others write to them may show a failure before its request: it counts as one.
    pub fn new(failures: u64, total: u64) -> Counts {
        Counts { failures, total: total.max(failures) }
    }

    /// Requests that failed.
    pub fn failures(self) -> u64 {
        self.failures
    }

    /// All requests.
    pub fn total(self) -> u64 {
        self.total
    }

    /// The share that failed; none of none.
    pub fn rate(self) -> f64 {
        if self.total == 0 { 0.0 } else { self.failures as f64 / self.total as f64 }
    }

    /// As real numbers: those that failed, those that did not.
    pub(crate) fn split(self) -> (f64, f64) {
        (self.failures as f64, (self.total - self.failures) as f64)
    }
}

impl Add for Counts {
    type Output = Counts;

    /// What two replicas saw together.
    fn add(self, other: Counts) -> Counts {
        Counts {
            failures: self.failures.saturating_add(other.failures),
            total: self.total.saturating_add(other.total),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        *self = *self + other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_without_its_request_brings_it_along() {
        assert_eq!(Counts::new(3, 2), Counts::new(3, 3));
        assert_eq!(Counts::new(1, 4) + Counts::new(2, 6), Counts::new(3, 10));
        assert_eq!((Counts::default().rate(), Counts::new(1, 4).rate()), (0.0, 0.25));
        let most = Counts::new(u64::MAX, u64::MAX);
        assert_eq!(most + most, most);
    }
}
