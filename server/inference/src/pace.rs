//! Whether runs of a model take less time than to wake the thread that would run them.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a thread that serves connections may spend on the run of a batch: to wake another for it and to be woken by
/// that takes about as long where all cores are busy.
pub(crate) const BRIEF: Duration = Duration::from_micros(100);

/// What a long run weighs against brief ones, so that a model counts as brief when nine of ten are; machines
/// interrupt the briefest.
const LONG_WEIGHS: i32 = 9;

/// A score beyond this changes nothing, so that a change shows within as many runs.
const CERTAIN: i32 = 64;

/// A run that takes more of the processor than this has held up whoever else the thread serves.
const HOLDS_UP: Duration = Duration::from_millis(1);

/// How long no such thread runs the model after that, first; each time twice as long.
const BARRED: Duration = Duration::from_secs(1);

/// Times that the bar grows: to nine hours.
const MOST_DOUBLINGS: u32 = 15;

/// How long the runs of one model version take, roughly.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Above 0 when runs are brief. Threads that race lose an observation, which does no harm.
    score: AtomicI32,
    barred: Barred,
}

/// Until when no thread that serves connections runs the model, since a run has held one up: what takes long for some
/// values and not for others would do so again.
#[derive(Debug)]
struct Barred {
    began: Instant,
    /// Milliseconds since then.
    until: AtomicU64,
    times: AtomicU32,
}

impl Default for Barred {
    fn default() -> Barred {
        Barred { began: Instant::now(), until: AtomicU64::new(0), times: AtomicU32::new(0) }
    }
}

impl Pace {
    /// A run took `duration`.
    pub(crate) fn saw(&self, duration: Duration) {
        let change = if duration < BRIEF { 1 } else { -LONG_WEIGHS };
        let score = self.score.load(Ordering::Relaxed).saturating_add(change).clamp(-CERTAIN, CERTAIN);
        self.score.store(score, Ordering::Relaxed);
    }

    /// A run took `processor` from a thread that serves connections, at `now`.
    pub(crate) fn took_from_others(&self, processor: Duration, now: Instant) {
        if processor > HOLDS_UP {
            let times = self.barred.times.fetch_add(1, Ordering::Relaxed).min(MOST_DOUBLINGS);
            let until = now.saturating_duration_since(self.barred.began) + BARRED * (1 << times);
            let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
            self.barred.until.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// Whether the next run is likely to be brief, and such a thread may make it at `now`.
    pub(crate) fn is_brief(&self, now: Instant) -> bool {
        let until = self.barred.until.load(Ordering::Relaxed);
        let is_barred = || now.saturating_duration_since(self.barred.began) < Duration::from_millis(until);
        self.score.load(Ordering::Relaxed) > 0 && (until == 0 || !is_barred())
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
        pace.is_brief(Instant::now())
    }

    /// A model whose cost depends on what it is asked froze every connection of the thread, again and again.
    #[test]
    fn who_held_up_a_thread_is_barred_for_longer_each_time() {
        let (pace, start) = (Pace::default(), Instant::now());
        (0..64).for_each(|_| pace.saw(Duration::from_micros(5)));
        pace.took_from_others(HOLDS_UP, start);
        assert!(pace.is_brief(start), "that is no more than it may take");
        let mut now = start;
        for doubled in [1, 2, 4, 8] {
            pace.took_from_others(Duration::from_secs(5), now);
            let bar = BARRED * doubled;
            assert!(!pace.is_brief(now + bar - Duration::from_millis(2)));
            now += bar + Duration::from_millis(2);
            assert!(pace.is_brief(now));
        }
        (0..100).for_each(|_| pace.took_from_others(Duration::from_secs(5), now));
        assert!(!pace.is_brief(now + Duration::from_secs(9 * 3600)));
        assert!(pace.is_brief(now + Duration::from_secs(10 * 3600)));
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
