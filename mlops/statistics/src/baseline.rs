//! Does a canary have more than its share of the errors?
//!
//! Two versions that serve the same traffic at the same time, such as a canary and a slice of the requests of the same
//! size that the stable version serves: of the errors of both, the canary's are to be as many as its share of the
//! requests. Whatever is wrong with the traffic or the machine is wrong for both, so it is no evidence.

use crate::probability::{Alpha, Rate};
use crate::shares::ShareTest;

/// Rejects that a canary has at most its share of the errors.
#[derive(Clone, Debug)]
pub struct BaselineTest {
    test: ShareTest,
    share: f64,
}

impl BaselineTest {
    /// The test of a canary that gets `share` of the requests of both: what the traffic is divided by, not what was
    /// counted. Counts from before the share was changed are to be left out.
    pub fn new(share: Rate) -> BaselineTest {
        let share = share.get();
        // One count on each side of the shares: errors are few, and the differences that matter are large.
        let test = ShareTest::new(&[share, 1.0 - share], 2.0).expect("both shares are above 0");
        BaselineTest { test, share }
    }

    /// The logarithm of the evidence that the canary has more than its share of the errors. None, when it has less.
    pub fn ln_evidence(&self, canary: u64, baseline: u64) -> f64 {
        let expected = self.share * (canary as f64 + baseline as f64);
        let evidence = self.test.ln_bayes_factor(&[canary, baseline]);
        if canary as f64 > expected { evidence } else { evidence.min(0.0) }
    }

    /// True when the evidence suffices; it may be asked at any time.
    pub fn rejects(&self, canary: u64, baseline: u64, alpha: Alpha) -> bool {
        self.ln_evidence(canary, baseline) >= -alpha.get().ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worse_canary_is_rejected() {
        let (test, alpha) = (BaselineTest::new(Rate::new(0.5).unwrap()), Alpha::new(0.05).unwrap());
        // Against none, n errors have the evidence 2^n / (n+1): 28 for 8, 16 for 7, and 20 is enough.
        assert!(test.rejects(8, 0, alpha) && !test.rejects(7, 0, alpha));
        assert!(test.rejects(11, 1, alpha) && !test.rejects(10, 1, alpha));
        assert!(!test.rejects(1, 12, alpha), "a better one is none");
        assert!(!test.rejects(0, 0, alpha) && !test.rejects(500, 500, alpha) && !test.rejects(3, 0, alpha));
        let small = BaselineTest::new(Rate::new(0.05).unwrap());
        assert!(small.rejects(6, 10, alpha), "a twentieth of the requests, and a third of the errors");
        assert!(!small.rejects(50, 950, alpha));
    }
}
