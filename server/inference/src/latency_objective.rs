//! `latency_objective_ms`: batches as large as may be, while their requests are answered in time.
//!
//! A request that comes when a batch has just begun waits for it, then for its own batch: two runs. So a run may take
//! half of the objective, and a batch may wait for company for what its own run leaves of that half.

use std::time::Duration;

use crate::batcher::Limits;
use crate::cost::CostModel;

/// In how much time requests are to be answered, from when they come to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyObjective {
    /// The time.
    pub time: Duration,
    /// Items in a batch at most, whatever the objective.
    pub max_batch_size: u64,
}

/// How many times as large as one that has run another request is taken to be at most.
const LARGEST_TO_SMALLEST: u64 = 1024;

impl LatencyObjective {
    /// How batches of rows of `size` are bounded to meet it; `None` while the cost of runs is not known.
    pub(crate) fn limits(&self, cost: &CostModel, size: u64) -> Option<Limits> {
        let half = self.time / 2;
        // More rows than a batch may have of this size: the next may be of larger ones.
        let rows = cost.rows_within(half, size, self.max_batch_size.saturating_mul(LARGEST_TO_SMALLEST))?;
        let delay = half.saturating_sub(cost.expected(rows.min(self.max_batch_size), size)?);
        Some(Limits { work: rows.saturating_mul(size), delay })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_half_of_the_objective_and_waits_for_what_it_leaves() {
        let mut cost = CostModel::default();
        let objective = |millis| LatencyObjective { time: Duration::from_millis(millis), max_batch_size: 32 };
        assert_eq!(objective(20).limits(&cost, 1), None);
        for rows in (1..=32).cycle().take(320) {
            cost.saw(rows, 1, Duration::from_millis(1 + rows));
        }
        let limits = objective(21).limits(&cost, 1).unwrap();
        assert_eq!(limits.work, 9);
        assert!(limits.delay < Duration::from_millis(1), "{limits:?}");
        let generous = objective(200).limits(&cost, 1).unwrap();
        assert!(generous.work > 32, "of larger rows as many may run within the time: {generous:?}");
        assert!((60..70).contains(&generous.delay.as_millis()), "{generous:?}");
        assert_eq!(objective(1).limits(&cost, 1).unwrap(), Limits { work: 1, delay: Duration::ZERO });
    }
}
