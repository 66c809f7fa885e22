//! Is the rate of failures above a limit? A test that may be asked after each request.
//!
//! The mixture e-process against `p <= p0`: how much likelier the failures are when their rate is drawn from a
//! distribution above the limit than when it is the limit. Under the hypothesis its expectation is at most 1
//! whenever it is looked at, so by Ville's inequality it reaches `1/alpha` at any time with a probability of at most
//! `alpha` (Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic statistics and safe anytime-valid inference", 2023).
//! The distribution is Beta(1/2, (1-p0)/(2 p0)) above p0: without the cut its mean is the limit, and it is wide enough
//! for rates that are a little and very much too high.

use crate::beta::{Beta, Point, ln_rest};
use crate::counts::Counts;
use crate::deviance::deviance;
use crate::probability::{Alpha, Rate};

/// Rejects that a rate is at most the limit, as soon as the failures say so.
///
/// It holds for requests each of which fails with at most the limit's probability, whatever happened before. Failures
/// that come in bursts, such as those of all requests of one batch, count for more than they are.
#[derive(Clone, Copy, Debug)]
pub struct RateTest {
    limit: Rate,
    alpha: Alpha,
    at: Point,
    prior: Beta,
    ln_prior_tail: f64,
    ln_threshold: f64,
}

impl RateTest {
    /// The test of `limit` that errs in at most `alpha` of all rollouts, however often it is asked in each.
    pub fn new(limit: Rate, alpha: Alpha) -> RateTest {
        let at = Point::new(limit.get());
        let prior = Beta { a: 0.5, b: at.y / (2.0 * at.x) };
        let ln_prior_tail = above_limit(prior, at).ln();
        RateTest { limit, alpha, at, prior, ln_prior_tail, ln_threshold: -alpha.get().ln() }
    }

    /// The highest rate that is not rejected in the long run.
    pub fn limit(&self) -> Rate {
        self.limit
    }

    /// How often it may reject a rate at the limit.
    pub fn alpha(&self) -> Alpha {
        self.alpha
    }

    /// The logarithm of the evidence against the limit: 0 before any request, and enough from `ln(1/alpha)` on.
    pub fn ln_e(&self, counts: Counts) -> f64 {
        let (failures, successes) = counts.split();
        let posterior = Beta { a: self.prior.a + failures, b: self.prior.b + successes };
        if counts.total() == 0 {
            return 0.0;
        }
        // In all that follows p0^a (1-p0)^b has been taken out of the integrals: it is the same before and after.
        if !posterior.swapped().mean_is_above(self.at.swapped()) {
            let ln_kernel = posterior.ln_kernel(self.at);
            let ln_below = ln_kernel + posterior.tail(self.at).ln();
            return ln_rest(ln_below.min(0.0)) - ln_kernel - self.ln_prior_tail;
        }
        above_limit(posterior, self.at).ln() - self.ln_prior_tail
    }

    /// True when the evidence suffices: the rate is above the limit.
    ///
    /// A success lowers the evidence, so asking after each failure is asking after each request.
    pub fn rejects(&self, counts: Counts) -> bool {
        let (failures, successes) = counts.split();
        let total = counts.total() as f64;
        let expected = total * self.at.x;
        if failures <= expected {
            return false;
        }
        // No mixture explains the failures better than the best rate does, and that is soon computed.
        let most = deviance(failures, expected) + deviance(successes, total * self.at.y);
        most >= self.ln_threshold && self.ln_e(counts) >= self.ln_threshold
    }

    /// The least number of failures among `total` requests that is rejected; `None` while not even all would be.
    pub fn boundary(&self, total: u64) -> Option<u64> {
        let rejects = |failures| self.rejects(Counts::new(failures, total));
        if !rejects(total) {
            return None;
        }
        let (mut too_few, mut enough) = (0, total);
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            if rejects(middle) { enough = middle } else { too_few = middle }
        }
        Some(enough)
    }
}

/// The integral above the limit over `p0^a (1-p0)^b`, when the mean is not above it.
fn above_limit(distribution: Beta, limit: Point) -> f64 {
    distribution.swapped().tail(limit.swapped())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn test(limit: f64) -> RateTest {
        RateTest::new(Rate::new(limit).unwrap(), Alpha::new(0.05).unwrap())
    }

    #[test]
    fn failures_in_a_row_reject_and_successes_between_them_take_evidence_away() {
        let test = test(0.001);
        assert_eq!(test.ln_e(Counts::default()), 0.0);
        assert!(!test.rejects(Counts::new(2, 2)) && test.rejects(Counts::new(3, 3)));
        assert!(!test.rejects(Counts::new(3, 3_000)));
        assert_eq!((test.boundary(0), test.boundary(2), test.boundary(3)), (None, None, Some(3)));
        // From scipy: ln E is 2.69 for 31 and 3.23 for 32, and ln 20 is 3.00.
        assert_eq!(test.boundary(18_000), Some(32));
    }

    #[test]
    fn no_counts_yield_a_nan() {
        let most = u64::MAX;
        for limit in [1e-9, 1e-3, 0.5, 1.0 - 1e-9] {
            for counts in [(0, most), (most, most), (most / 2, most), (1, most), (1, 1), (most / 1000, most)]
            {
                let evidence = test(limit).ln_e(Counts::new(counts.0, counts.1));
                assert!(evidence.is_finite(), "{evidence} for {counts:?} at {limit}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_boundary_is_where_the_evidence_suffices(
            limit in prop_oneof![1e-6..1e-3, 1e-3..0.5],
            total in prop_oneof![1_u64..1_000, 1_000_u64..1_000_000_000],
        ) {
            let (test, enough) = (test(limit), 20_f64.ln());
            match test.boundary(total) {
                None => prop_assert!(test.ln_e(Counts::new(total, total)) < enough),
                Some(failures) => {
                    // The screen before the evidence is computed lets no rejection go unseen.
                    prop_assert!(test.ln_e(Counts::new(failures, total)) >= enough);
                    prop_assert!(test.ln_e(Counts::new(failures - 1, total)) < enough);
                }
            }
        }

        #[test]
        fn a_failure_adds_to_the_evidence_and_a_success_takes_away(
            limit in 1e-5..0.5,
            total in 0_u64..100_000,
            share in 0.0..1.0,
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of few")]
            let failures = (total as f64 * share * share * share) as u64;
            let test = test(limit);
            let before = test.ln_e(Counts::new(failures, total));
            prop_assert!(test.ln_e(Counts::new(failures + 1, total + 1)) > before);
            prop_assert!(test.ln_e(Counts::new(failures, total + 1)) < before);
        }
    }
}
