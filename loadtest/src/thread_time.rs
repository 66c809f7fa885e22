//! What a thread of load used of its processor, and how long it waited for one: whether the generator itself was
//! short of time.

use std::fs;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// What the calling thread had used at one time, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadTime {
    /// On the run's clock.
    at: u64,
    used: u64,
    /// Time that it could have run and another thread had the processor; where the kernel tells.
    waited: Option<u64>,
}

/// What a thread used over some time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadUse {
    pub(crate) over: u64,
    pub(crate) used: u64,
    pub(crate) waited: Option<u64>,
}

impl ThreadTime {
    /// That of the calling thread at `at`.
    pub(crate) fn read(at: u64) -> ThreadTime {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
        let (seconds, nanos) = (u64::try_from(tv_sec), u64::try_from(tv_nsec));
        let used = seconds.unwrap_or_default() * 1_000_000_000 + nanos.unwrap_or_default();
        let waited = fs::read_to_string("/proc/thread-self/schedstat").ok();
        ThreadTime { at, used, waited: waited.and_then(|text| waited_nanos(&text)) }
    }

    /// What was used since `before`.
    pub(crate) fn since(&self, before: &ThreadTime) -> ThreadUse {
        ThreadUse {
            over: self.at.saturating_sub(before.at),
            used: self.used.saturating_sub(before.used),
            waited: self.waited.zip(before.waited).map(|(now, then)| now.saturating_sub(then)),
        }
    }
}

impl ThreadUse {
    /// Less than this says nothing of a thread.
    const NOTABLE: u64 = 100_000_000;

    /// The share of the time that the thread ran; `None` when it was not watched long enough.
    pub(crate) fn busy(&self) -> Option<f64> {
        self.share(self.used)
    }

    /// The share of the time that it waited for a processor.
    pub(crate) fn waiting(&self) -> Option<f64> {
        self.share(self.waited?)
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a hundred days are exact")]
    fn share(&self, part: u64) -> Option<f64> {
        (self.over >= Self::NOTABLE).then(|| part as f64 / self.over as f64)
    }
}

/// The second of the three numbers of a thread's schedstat.
fn waited_nanos(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_thread_that_computes_is_busy_and_one_that_waits_is_not() {
        let began = Instant::now();
        let now = || u64::try_from(began.elapsed().as_nanos()).unwrap();
        let start = ThreadTime::read(now());
        while ThreadTime::read(0).since(&start).used < 200_000_000 {}
        let computed = ThreadTime::read(now());
        let (_never, condition) = (std::sync::mpsc::channel::<()>().0, std::sync::mpsc::channel::<()>());
        let _ = condition.1.recv_timeout(Duration::from_millis(200));
        let waited = ThreadTime::read(now()).since(&computed);
        let computed = computed.since(&start);
        // Other programs may have had the processor meanwhile; then the thread waited.
        let had = computed.busy().unwrap() + computed.waiting().unwrap_or_default();
        assert!(had > 0.5 && waited.busy().unwrap() < 0.2, "{computed:?} {waited:?}");
    }

    #[test]
    fn shares_are_of_the_time_watched() {
        let used = ThreadUse { over: 1_000_000_000, used: 900_000_000, waited: Some(50_000_000) };
        assert_eq!((used.busy(), used.waiting()), (Some(0.9), Some(0.05)));
        assert_eq!(ThreadUse { over: 1_000_000, ..used }.busy(), None, "too short to say");
        assert_eq!(waited_nanos("123 456 7\n"), Some(456));
        assert_eq!(waited_nanos("123"), None);
    }
}
