//! Whether a server kept up with an open loop. What it cannot answer in time waits, and is answered after the end while
//! the rest is waited for: without a look at this, a rate far above its capacity would have no errors.

use crate::measurement::Judged;

/// The share of what was due that must be answered while the load is applied.
const ENOUGH: f64 = 0.98;

/// What was due in a run and what was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Requests due in the measured time.
    pub(crate) due: f64,
    /// Requests that ended in it, well or badly, whenever they were due.
    pub(crate) ended: f64,
    /// Seconds in which they were due.
    pub(crate) seconds: f64,
    /// Seconds of load before it.
    pub(crate) warmup: f64,
    /// A low quartile of the answers', in seconds: what it is without a queue that grows over the run.
    pub(crate) low_latency: f64,
}

impl Pace {
    /// The objective that every open loop has beside its own, when it is missed.
    pub(crate) fn missed(&self) -> Option<Judged> {
        let missing = self.due - self.ended;
        (self.due > 0.0 && missing > (1.0 - ENOUGH) * self.due + self.in_flight()).then(|| Judged {
            objective: "keeps up with the rate".to_owned(),
            found: format!(
                "{:.1}% of what was due was answered in the measured time, the rest later or never",
                100.0 * self.ended / self.due
            ),
            met: false,
        })
    }

    /// By how much fewer may end than are due though the server keeps up: those in flight at the end, which by Little's
    /// law are the rate times the latency, and a quarter of all at most: a run that is not even four times as long as its
    /// latency shows no rate that was kept up. A warm-up that is longer than the latency leaves as many at the start, and then
    /// only their number's own scatter differs.
    fn in_flight(&self) -> f64 {
        let usual = self.due / self.seconds.max(f64::MIN_POSITIVE) * self.low_latency;
        let scatter = 1.0 + 5.0 * usual.sqrt();
        let in_flight = if self.warmup >= self.low_latency { scatter } else { usual + scatter };
        in_flight.min(self.due / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers at most `capacity` a second, one after another, asked for `rate` a second.
    fn pace(rate: f64, capacity: f64, seconds: f64, warmup: f64) -> Pace {
        let (due, served) = (rate * seconds, rate.min(capacity));
        // The queue grows evenly from the start of the warm-up.
        let waits = |at: f64| 1.0 / capacity + at * (rate / capacity - 1.0).max(0.0);
        let low_latency = waits(warmup + 0.25 * seconds);
        let ended = if warmup > 0.0 { served * seconds } else { served * (seconds - 1.0 / capacity) };
        Pace { due, ended, seconds, warmup, low_latency }
    }

    #[test]
    fn a_server_that_is_asked_for_more_than_it_can_does_not_keep_up() {
        for warmup in [0.0, 1.0] {
            for capacity in [50.0, 1_000.0, 100_000.0] {
                for share in [0.1, 0.5, 0.9, 1.0] {
                    let kept = pace(capacity * share, capacity, 10.0, warmup).missed();
                    assert_eq!(kept, None, "{share} of {capacity}");
                }
                for share in [1.25, 1.5, 1.8, 2.0, 2.2, 4.0, 100.0] {
                    let missed = pace(capacity * share, capacity, 10.0, warmup).missed();
                    assert!(missed.is_some_and(|judged| !judged.met), "{share} of {capacity}, {warmup}");
                }
            }
        }
    }

    #[test]
    fn what_is_in_flight_at_the_end_of_a_short_run_is_no_backlog() {
        // 20 a second, each takes half a second, any number at once: ten are in flight.
        let short = Pace { due: 80.0, ended: 70.0, seconds: 4.0, warmup: 0.0, low_latency: 0.5 };
        assert_eq!(short.missed(), None);
        let nothing = Pace { due: 0.0, ended: 0.0, ..short };
        assert_eq!(nothing.missed(), None);
    }

    #[test]
    fn it_is_said_in_words() {
        let missed = pace(400.0, 200.0, 10.0, 1.0).missed().unwrap();
        assert_eq!(
            missed.found,
            "50.0% of what was due was answered in the measured time, the rest later or never"
        );
    }
}
