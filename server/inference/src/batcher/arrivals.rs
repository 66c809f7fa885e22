//! How soon another request is likely to come while one waits.
//!
//! A batch may wait for company only while company is likely. The rate at which requests come in all says too
//! little: a lone client that sends its next request when it has its answer has a high rate, and never sends
//! while one waits. So what is estimated is the rate *while at least one request is in flight*. It needs no
//! trial: it is seen whether the batcher waits or not.

use std::time::{Duration, Instant};

/// Observations are halved when they hold this many arrivals or seconds, so that the estimate follows the
/// traffic within some tens of requests.
const MEMORY_ARRIVALS: f64 = 64.0;
const MEMORY_SECONDS: f64 = 1.0;

/// An estimate of the rate of arrivals while something is in flight.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    in_flight: usize,
    /// When the time in `seconds` ends; set while something is in flight.
    counted_until: Option<Instant>,
    /// Arrivals that found another request in flight.
    arrivals: f64,
    /// Time with something in flight.
    seconds: f64,
}

impl Arrivals {
    /// A request came.
    pub(crate) fn arrived(&mut self, now: Instant) {
        if self.in_flight > 0 {
            self.arrivals += 1.0;
        }
        self.count(now);
        self.in_flight += 1;
        self.counted_until = Some(now);
    }

    /// `requests` were answered, or left.
    pub(crate) fn left(&mut self, requests: usize, now: Instant) {
        self.count(now);
        self.in_flight = self.in_flight.saturating_sub(requests);
        if self.in_flight == 0 {
            self.counted_until = None;
        }
    }

    /// How many more requests are likely to come within `time` while one waits.
    pub(crate) fn expected(&self, time: Duration) -> f64 {
        if self.seconds == 0.0 { 0.0 } else { self.arrivals / self.seconds * time.as_secs_f64() }
    }

    fn count(&mut self, now: Instant) {
        let Some(until) = self.counted_until else { return };
        self.seconds += now.saturating_duration_since(until).as_secs_f64();
        self.counted_until = Some(now.max(until));
        if self.arrivals > MEMORY_ARRIVALS || self.seconds > MEMORY_SECONDS {
            self.arrivals /= 2.0;
            self.seconds /= 2.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_lone_client_has_no_company_however_fast_it_asks() {
        let mut arrivals = Arrivals::default();
        let mut now = Instant::now();
        for _ in 0..1000 {
            arrivals.arrived(now);
            now += micros(50);
            arrivals.left(1, now);
            now += micros(20);
        }
        assert_eq!(arrivals.expected(micros(500)), 0.0);
    }

    #[test]
    fn requests_at_equal_distances_are_expected_at_their_rate_though_few_meet() {
        let mut arrivals = Arrivals::default();
        let start = Instant::now();
        // One every 100 µs, each in flight for 120 µs: each meets the one before.
        for n in 0..200_u64 {
            let now = start + micros(100 * n);
            arrivals.arrived(now);
            if n > 0 {
                arrivals.left(1, now + micros(20));
            }
        }
        let expected = arrivals.expected(micros(500));
        assert!((4.0..=6.0).contains(&expected), "{expected}");
    }

    #[test]
    fn the_estimate_forgets() {
        let mut arrivals = Arrivals::default();
        let mut now = Instant::now();
        for _ in 0..200 {
            arrivals.arrived(now);
            now += micros(10);
        }
        arrivals.left(200, now);
        assert!(arrivals.expected(micros(500)) > 10.0);
        for _ in 0..2000 {
            arrivals.arrived(now);
            now += micros(1000);
            arrivals.left(1, now);
        }
        assert!(arrivals.expected(micros(500)) < 0.5);
    }
}
