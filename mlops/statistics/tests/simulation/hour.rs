//! An hour of a canary: which of its requests fail.

use fastrand::Rng;

/// Requests of an hour at five a second.
pub(crate) const REQUESTS: u64 = 18_000;
/// Seconds from one to the next.
pub(crate) const SECONDS: f64 = 0.2;

/// The numbers of the requests that fail, the first is 1.
#[derive(Clone, Debug)]
pub(crate) struct Hour {
    pub(crate) failures: Vec<u64>,
    pub(crate) requests: u64,
}

impl Hour {
    /// An hour in which each request fails with the probability `rate`, whatever the others do.
    pub(crate) fn draw(rate: f64, random: &mut Rng) -> Hour {
        Hour::of(REQUESTS, rate, random)
    }

    /// The same for so many requests.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a distance; too large is the end"
    )]
    pub(crate) fn of(requests: u64, rate: f64, random: &mut Rng) -> Hour {
        let (mut failures, mut number) = (Vec::new(), 0_u64);
        loop {
            // From one failure to the next it is geometrically distributed; f64() may be 0 and is never 1.
            let successes = (1.0 - random.f64()).ln() / (-rate).ln_1p();
            number = number.saturating_add(1).saturating_add(successes as u64);
            if number > requests {
                return Hour { failures, requests };
            }
            failures.push(number);
        }
    }

    /// How many fail among the first `requests`.
    pub(crate) fn failures_in(&self, requests: u64) -> u64 {
        self.failures.partition_point(|number| *number <= requests) as u64
    }
}
