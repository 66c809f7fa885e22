//! What a gate says: fail, pass, or that it cannot know yet, and the evidence that this stands on.

use crate::counts::Counts;
use crate::interval;
use crate::probability::{Alpha, Rate};
use crate::rate::RateTest;

/// What the evidence says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict<E> {
    /// There is evidence that it is worse than allowed.
    Fail(E),
    /// There is evidence that it is better than the limit.
    Pass(E),
    /// There is evidence of neither.
    Inconclusive {
        /// What there is.
        evidence: E,
        /// About how many more requests it takes to pass, if all goes on as before; `None` when it would not.
        more: Option<u64>,
    },
}

impl<E> Verdict<E> {
    /// What the verdict stands on.
    pub fn evidence(&self) -> &E {
        match self {
            Verdict::Fail(evidence) | Verdict::Pass(evidence) | Verdict::Inconclusive { evidence, .. } => {
                evidence
            }
        }
    }

    /// True when there is a reason to roll back.
    pub fn is_fail(&self) -> bool {
        matches!(self, Verdict::Fail(_))
    }

    /// True when there is a reason to promote.
    pub fn is_pass(&self) -> bool {
        matches!(self, Verdict::Pass(_))
    }
}

/// What is known of a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateEvidence {
    /// What was seen.
    pub counts: Counts,
    /// What the rate is held against.
    pub limit: Rate,
    /// The evidence that the rate is above the limit, as [`RateTest::ln_e`].
    pub ln_e: f64,
    /// What the rate is below, as [`interval::upper`].
    pub upper: f64,
}

/// A limit that a rate has to stay below: of errors, of answers that took longer than allowed (p95 < 100 ms says that
/// fewer than 5 % take longer than 100 ms), of outputs that make no sense.
#[derive(Clone, Copy, Debug)]
pub struct RateGate {
    test: RateTest,
    pass_alpha: Alpha,
}

impl RateGate {
    /// How often a rollout may fail although its rate is at the limit, for however long it is watched: five times in a
    /// hundred. One at half of the limit fails in one of a thousand hours at five requests a second; the third
    /// failure in a row rolls back. One in a hundred would make it the fourth, and take a third longer to find a rate
    /// of ten times the limit.
    pub const FAIL_ALPHA: f64 = 0.05;
    /// How often a rollout may pass although its rate is at the limit.
    pub const PASS_ALPHA: f64 = 0.05;

    /// The gate of `limit` with the usual levels of error.
    pub fn new(limit: Rate) -> RateGate {
        let alpha = |value| Alpha::new(value).expect("the levels above are levels");
        RateGate::with_alphas(limit, alpha(RateGate::FAIL_ALPHA), alpha(RateGate::PASS_ALPHA))
    }

    /// The gate of `limit` that fails by mistake in `fail` of all rollouts at most, and passes in `pass`.
    pub fn with_alphas(limit: Rate, fail: Alpha, pass: Alpha) -> RateGate {
        RateGate { test: RateTest::new(limit, fail), pass_alpha: pass }
    }

    /// The part that may be asked after each failure.
    pub fn test(&self) -> &RateTest {
        &self.test
    }

    /// The verdict while requests come in, at any time and as often as wanted: never a pass.
    pub fn watch(&self, counts: Counts) -> Verdict<RateEvidence> {
        let evidence = self.evidence(counts);
        if self.test.rejects(counts) {
            return Verdict::Fail(evidence);
        }
        let more = interval::more_needed(counts, self.test.limit(), self.pass_alpha);
        Verdict::Inconclusive { evidence, more }
    }

    /// The verdict when the time is over. To ask again after an extension is another chance to pass by mistake.
    pub fn conclude(&self, counts: Counts) -> Verdict<RateEvidence> {
        match self.watch(counts) {
            Verdict::Inconclusive { evidence, more: Some(0) } => Verdict::Pass(evidence),
            verdict => verdict,
        }
    }

    fn evidence(&self, counts: Counts) -> RateEvidence {
        RateEvidence {
            counts,
            limit: self.test.limit(),
            ln_e: self.test.ln_e(counts),
            upper: interval::upper(counts, self.pass_alpha),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> RateGate {
        RateGate::new(Rate::new(0.001).unwrap())
    }

    #[test]
    fn without_traffic_nothing_passes() {
        let Verdict::Inconclusive { evidence, more } = gate().conclude(Counts::default()) else { panic!() };
        assert_eq!((evidence.ln_e, evidence.upper, more), (0.0, 1.0, Some(2995)));
    }

    #[test]
    fn the_third_failure_in_a_row_fails_and_the_second_does_not() {
        assert!(!gate().watch(Counts::new(2, 2)).is_fail());
        assert!(gate().watch(Counts::new(3, 3)).is_fail());
        for (alpha, failures) in [(0.05, 3), (0.01, 4), (0.001, 5)] {
            let test = RateTest::new(Rate::new(0.001).unwrap(), Alpha::new(alpha).unwrap());
            assert!(!test.rejects(Counts::new(failures - 1, failures - 1)), "{alpha}");
            assert!(test.rejects(Counts::new(failures, failures)), "{alpha}");
        }
    }

    #[test]
    fn only_the_conclusion_passes() {
        let good = Counts::new(0, 2995);
        assert!(gate().conclude(good).is_pass() && !gate().watch(good).is_pass());
        assert!(!gate().conclude(Counts::new(0, 2994)).is_pass());
    }

    #[test]
    fn between_the_two_it_says_how_many_more() {
        let at_the_limit = gate().conclude(Counts::new(18, 18_000));
        assert!(matches!(at_the_limit, Verdict::Inconclusive { more: None, .. }), "{at_the_limit:?}");
        let Verdict::Inconclusive { evidence, more } = gate().conclude(Counts::new(3, 6000)) else {
            panic!()
        };
        assert!((5_500..6_500).contains(&more.unwrap()), "{more:?}");
        assert!(evidence.upper > 0.001 && evidence.ln_e < 0.0, "{evidence:?}");
    }
}
