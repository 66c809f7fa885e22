//! When requests of an open loop are due: a pure iterator of times, in nanoseconds from the start of the run.
//!
//! Each thread takes its share of the same load, so that the union over the threads is what was asked for.

use std::sync::Arc;

/// The shape of a load over time.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// `rate` each second, at equal distances.
    Constant { rate: f64 },
    /// `rate` each second on average, at random: the distances are exponentially distributed.
    Poisson { rate: f64, seed: u64 },
    /// `from` each second for `hold` seconds, then rising or falling evenly to `to` over `seconds`.
    Ramp { from: f64, to: f64, hold: f64, seconds: f64 },
    /// At these times.
    Trace(Arc<[u64]>),
}

/// One thread's share of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Which thread, from 0.
    pub(crate) lane: usize,
    /// Of how many.
    pub(crate) lanes: usize,
}

/// The times at which one thread's requests are due, never decreasing.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    pattern: Pattern,
    share: Share,
    /// How many this share has had.
    taken: usize,
    /// The last time of a Poisson process, in seconds.
    at: f64,
    random: fastrand::Rng,
    /// No time is at or after this, in nanoseconds.
    until: u64,
}

impl Arrivals {
    /// The share of `pattern` that is due before `until` nanoseconds.
    pub(crate) fn new(pattern: Pattern, share: Share, until: u64) -> Arrivals {
        let seed = match pattern {
            Pattern::Poisson { seed, .. } => seed,
            _ => 0,
        };
        let random = fastrand::Rng::with_seed(mixed(Stream::Arrivals, seed, share.lane as u64));
        Arrivals { pattern, share, taken: 0, at: 0.0, random, until }
    }

    /// The place of this share's next request among those of all shares.
    fn index(&self) -> usize {
        self.taken.saturating_mul(self.share.lanes).saturating_add(self.share.lane)
    }
}

impl Iterator for Arrivals {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let index = self.index();
        let at = match &self.pattern {
            Pattern::Constant { rate } => nanos(precise(index) / rate),
            Pattern::Poisson { rate, .. } => {
                // The sum of independent Poisson processes is one, at the sum of their rates.
                let rate = rate / precise(self.share.lanes);
                self.at -= (1.0 - self.random.f64()).ln() / rate;
                nanos(self.at)
            }
            Pattern::Ramp { from, to, hold, seconds } => {
                nanos(ramp_time(*from, *to, *hold, *seconds, precise(index))?)
            }
            Pattern::Trace(times) => *times.get(index)?,
        };
        self.taken += 1;
        (at < self.until).then_some(at)
    }
}

/// When a ramp reaches its `index`th request: where the integral of its rate is `index`.
fn ramp_time(from: f64, to: f64, hold: f64, seconds: f64, index: f64) -> Option<f64> {
    let held = from * hold;
    if index < held {
        return Some(index / from);
    }
    let due = index - held;
    let rise = (to - from) / seconds;
    let discriminant = from.mul_add(from, 2.0 * rise * due);
    if due == 0.0 {
        return Some(hold);
    }
    // The stable form of the root: it has no difference of near numbers when the ramp is almost level.
    (discriminant >= 0.0).then(|| hold + 2.0 * due / (from + discriminant.sqrt()))
}

/// The arrivals of one thread with a look at the next: its position is the backlog, whatever its length.
#[derive(Debug)]
pub(crate) struct Schedule {
    arrivals: Arrivals,
    next: Option<u64>,
}

impl Schedule {
    pub(crate) fn new(mut arrivals: Arrivals) -> Schedule {
        let next = arrivals.next();
        Schedule { arrivals, next }
    }

    /// When the oldest request that nobody took is due; `None` when all were taken.
    pub(crate) fn peek(&self) -> Option<u64> {
        self.next
    }

    /// Leaves what is still to come.
    pub(crate) fn end(&mut self) {
        self.next = None;
    }

    /// Takes the oldest request that is due at `now`; gives when it was due.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<u64> {
        self.next.filter(|due| *due <= now)?;
        std::mem::replace(&mut self.next, self.arrivals.next())
    }
}

/// What random numbers are for: each has its own, so that one does not follow from another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Arrivals = 1,
    Models = 2,
    Contents = 3,
}

/// A seed of its own for each use and lane.
pub(crate) fn mixed(stream: Stream, seed: u64, lane: u64) -> u64 {
    let salt = (stream as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
    seed ^ salt ^ lane.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, as wanted here")]
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 requests")]
fn precise(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn all(pattern: &Pattern, lanes: usize, until: u64) -> Vec<u64> {
        let share = |lane| Share { lane, lanes };
        let mut times: Vec<u64> =
            (0..lanes).flat_map(|lane| Arrivals::new(pattern.clone(), share(lane), until)).collect();
        times.sort_unstable();
        times
    }

    #[test]
    fn constant_arrivals_are_equally_far_apart() {
        let times = all(&Pattern::Constant { rate: 4.0 }, 1, SECOND);
        assert_eq!(times, [0, 250_000_000, 500_000_000, 750_000_000]);
    }

    #[test]
    fn threads_share_a_load_without_changing_it() {
        let trace = Pattern::Trace((0..1000).map(|at| at * 7).collect());
        let ramp = Pattern::Ramp { from: 10.0, to: 500.0, hold: 1.0, seconds: 4.0 };
        for pattern in [Pattern::Constant { rate: 997.0 }, ramp, trace] {
            assert_eq!(all(&pattern, 3, 5 * SECOND), all(&pattern, 1, 5 * SECOND), "{pattern:?}");
        }
    }

    /// Gaps of a Poisson process are exponential: their mean and deviation are 1/rate, and 1/e of them are longer.
    #[test]
    fn poisson_arrivals_come_as_independent_users_do() {
        for lanes in [1, 4] {
            let times = all(&Pattern::Poisson { rate: 1000.0, seed: 7 }, lanes, 200 * SECOND);
            let count = times.len() as f64;
            // Five deviations of a Poisson count of 200,000.
            assert!((count - 200_000.0).abs() < 5.0 * 200_000_f64.sqrt(), "{count}");
            let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e9).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let deviation =
                (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
            assert!((mean * 1000.0 - 1.0).abs() < 0.02 && (deviation * 1000.0 - 1.0).abs() < 0.02);
            for multiple in [0.5_f64, 1.0, 2.0, 4.0] {
                let longer = gaps.iter().filter(|gap| **gap * 1000.0 > multiple).count() as f64;
                let share = longer / gaps.len() as f64;
                assert!((share - (-multiple).exp()).abs() < 0.005, "{multiple}: {share}");
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_arrivals_again_and_another_seed_others() {
        let times = |seed| all(&Pattern::Poisson { rate: 100.0, seed }, 2, SECOND);
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
    }

    proptest! {
        /// The number of requests before `t` is the integral of the rate to `t`.
        #[test]
        fn a_ramp_has_as_many_requests_as_its_integral(
            from in 0.0_f64..500.0, to in 0.0_f64..500.0, hold in 0.0_f64..3.0, at in 0.01_f64..1.0,
        ) {
            prop_assume!(from + to > 1.0);
            let seconds = 10.0;
            let t = at * seconds;
            let rate = |t: f64| from + (to - from) * t / seconds;
            let integral = from * hold + t * f64::midpoint(from, rate(t));
            let pattern = Pattern::Ramp { from, to, hold, seconds };
            let times = all(&pattern, 1, ((hold + t) * 1e9) as u64);
            prop_assert!((times.len() as f64 - integral).abs() <= 1.001, "{} of {integral}", times.len());
            prop_assert!(times.is_sorted());
        }

        #[test]
        fn what_is_taken_is_due_and_in_order(rate in 1.0_f64..1e4, steps: Vec<u32>) {
            let arrivals = Arrivals::new(Pattern::Poisson { rate, seed: 3 }, Share { lane: 0, lanes: 1 }, SECOND);
            let expected: Vec<u64> = arrivals.clone().collect();
            let (mut schedule, mut now, mut taken) = (Schedule::new(arrivals), 0_u64, Vec::new());
            for step in steps {
                now += u64::from(step);
                while let Some(due) = schedule.take_due(now) {
                    prop_assert!(due <= now);
                    taken.push(due);
                }
                prop_assert!(schedule.peek().is_none_or(|due| due > now));
            }
            prop_assert_eq!(&taken[..], &expected[..taken.len()]);
        }
    }

    #[test]
    fn a_trace_is_replayed_at_its_times() {
        let trace = Pattern::Trace([5, 5, 9, 40].into());
        assert_eq!(all(&trace, 1, 40), [5, 5, 9]);
        assert_eq!(all(&trace, 1, 41), [5, 5, 9, 40]);
    }
}
