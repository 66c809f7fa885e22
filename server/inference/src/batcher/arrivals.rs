//! How likely another request is to come while one waits.
//!
//! A batch may wait for company only while company is likely. The rate at which requests come says too little: a
//! lone client that sends its next request when it has its answer has a high rate, and never sends while one
//! waits. So two things are observed, both the same whether the batcher waits or not: the rate of arrivals *while
//! at least one request is in flight*, and how many were in flight at most of late. When that many wait, everyone
//! who has sent of late is there, and nobody is left to come.

use std::time::{Duration, Instant};

use super::{Company, silence};

/// Observations of the rate are halved when they hold this many arrivals or seconds, so that the estimate follows
/// the traffic within some tens of requests.
const MEMORY_ARRIVALS: f64 = 64.0;
const MEMORY_SECONDS: f64 = 1.0;

/// How long the most in flight are remembered: for one to two of these, or of twice the longest run of late, since
/// clients that wait for a run cannot send.
const PEAK_WINDOW: Duration = Duration::from_millis(100);

/// What the arrivals of one model version were like.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    in_flight: usize,
    /// When the time in `seconds` ends; set while something is in flight.
    counted_until: Option<Instant>,
    /// Arrivals that found another request in flight.
    arrivals: f64,
    /// Time with something in flight.
    seconds: f64,
    last: Option<Instant>,
    /// The longest of late from the last arrival before an answer to the answer.
    run: Duration,
    peak: Peak,
}

impl Arrivals {
    /// A request came.
    pub(super) fn arrived(&mut self, now: Instant) {
        if self.in_flight > 0 {
            self.arrivals += 1.0;
        }
        self.count(now);
        self.in_flight += 1;
        self.counted_until = Some(now);
        self.last = Some(now);
        self.peak.saw(self.in_flight, now, self.window());
    }

    /// `requests` were answered, or left.
    pub(super) fn left(&mut self, requests: usize, now: Instant) {
        if requests > 0 {
            let run = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
            self.run = run.max(self.run - self.run / 8);
        }
        self.count(now);
        self.in_flight = self.in_flight.saturating_sub(requests);
        if self.in_flight == 0 {
            self.counted_until = None;
        }
    }

    /// How long company may be hoped for while `waiting` requests wait; `None` when nobody is likely to come.
    pub(super) fn company(&self, waiting: usize, now: Instant) -> Option<Company> {
        let running = self.in_flight.saturating_sub(waiting);
        let requests = self.peak.of_late(now, self.window()).saturating_sub(running);
        if waiting >= requests || self.arrivals == 0.0 || self.seconds == 0.0 {
            return None;
        }
        let until = self.last?.checked_add(silence(self.arrivals / self.seconds)?)?;
        (until > now).then_some(Company { until, requests })
    }

    fn window(&self) -> Duration {
        PEAK_WINDOW.max(self.run.saturating_mul(2))
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

/// The most requests in flight in this window of time, and in the one before.
#[derive(Debug, Default)]
struct Peak {
    began: Option<Instant>,
    now: usize,
    before: usize,
}

impl Peak {
    fn saw(&mut self, in_flight: usize, now: Instant, window: Duration) {
        let age = self.began.map_or(Duration::MAX, |began| now.saturating_duration_since(began));
        if age > window {
            self.before = if age > window.saturating_mul(2) { 0 } else { self.now };
            self.now = 0;
            self.began = Some(now);
        }
        self.now = self.now.max(in_flight);
    }

    fn of_late(&self, now: Instant, window: Duration) -> usize {
        let age = self.began.map_or(Duration::MAX, |began| now.saturating_duration_since(began));
        let forgotten = age > window.saturating_mul(2);
        if forgotten { 0 } else { self.now.max(self.before) }
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
            assert_eq!(arrivals.company(1, now), None);
            now += micros(50);
            arrivals.left(1, now);
            now += micros(20);
        }
    }

    /// Clients that send their next request when they have their answer: all of them run at once, then come again.
    #[test]
    fn a_closed_loop_is_waited_for_until_all_are_there() {
        for run in [micros(200), Duration::from_millis(400)] {
            closed_loop(run);
        }
    }

    fn closed_loop(run: Duration) {
        let mut arrivals = Arrivals::default();
        let mut now = Instant::now();
        for round in 0..10 {
            for waiting in 1..=8 {
                now += micros(5);
                arrivals.arrived(now);
                if round > 1 {
                    let company = arrivals.company(waiting, now);
                    assert_eq!(company.map(|company| company.requests), (waiting < 8).then_some(8));
                }
            }
            now += run;
            arrivals.left(8, now);
        }
    }

    #[test]
    fn a_stream_is_waited_for_and_its_end_is_noticed() {
        let mut arrivals = Arrivals::default();
        let start = Instant::now();
        let mut now = start;
        // One every 100 µs, each in flight for 250 µs.
        for n in 0..200_u64 {
            now = start + micros(100 * n);
            arrivals.arrived(now);
            if n >= 3 {
                arrivals.left(1, now + micros(50));
            }
        }
        let company = arrivals.company(1, now).unwrap();
        let hope = company.until - now;
        assert!((micros(200)..micros(400)).contains(&hope), "{hope:?}");
        assert_eq!(arrivals.company(1, now + micros(500)), None);
    }

    #[test]
    fn the_most_in_flight_are_forgotten() {
        let mut arrivals = Arrivals::default();
        let start = Instant::now();
        (0..8).for_each(|n| arrivals.arrived(start + micros(n)));
        arrivals.left(8, start + micros(50));
        for n in 1..20_u32 {
            let now = start + n * PEAK_WINDOW / 4;
            arrivals.arrived(now);
            arrivals.left(1, now + micros(10));
        }
        assert_eq!(arrivals.peak.of_late(start + 5 * PEAK_WINDOW, PEAK_WINDOW), 1);
    }
}
