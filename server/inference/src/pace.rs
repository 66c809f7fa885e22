//! Whether runs of a model take less time than to wake the thread that would run them.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// What a thread that serves connections may spend on the run of a batch: to wake another for it and to be woken by
/// that takes about as long where all cores are busy.
pub(crate) const BRIEF: Duration = Duration::from_micros(100);

/// What a long run weighs against brief ones, so that a model counts as brief when nine of ten are; machines
/// interrupt the briefest.
const LONG_WEIGHS: i32 = 9;

/// A score beyond this changes nothing, so that a change shows within as many runs.
const CERTAIN: i32 = 64;

/// How long the runs of one model version take, roughly.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Above 0 when runs are brief. Threads that race lose an observation, which does no harm.
    score: AtomicI32,
}

impl Pace {
    /// A run took `duration`.
    pub(crate) fn saw(&self, duration: Duration) {
        let change = if duration < BRIEF { 1 } else { -LONG_WEIGHS };
        let score = self.score.load(Ordering::Relaxed).saturating_add(change).clamp(-CERTAIN, CERTAIN);
        self.score.store(score, Ordering::Relaxed);
    }

    /// Whether the next run is likely to be brief.
    pub(crate) fn is_brief(&self) -> bool {
        self.score.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(durations: &[(u64, usize)]) -> bool {
        let pace = Pace::default();
        for (micros, times) in durations {
            (0..*times).for_each(|_| pace.saw(Duration::from_micros(*micros)));
        }
        pace.is_brief()
    }

    #[test]
    fn brief_runs_are_noticed_and_a_few_long_ones_forgiven() {
        assert!(!after(&[]), "nothing is known yet");
        assert!(after(&[(5, 1)]));
        assert!(after(&[(5, 1000), (4000, 5)]));
        assert!(!after(&[(5, 1000), (4000, 8)]), "it has become slow");
        assert!(!after(&[(4000, 1000), (5, 60)]));
        assert!(after(&[(4000, 1000), (5, 70)]), "it has become brief");
    }
}
