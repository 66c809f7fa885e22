//! What measurements of another system say of a new version, by the rules of Argo Rollouts' analysis runs, so that its
//! templates mean here what they mean there. (Where no condition is given, its code and not its documentation.)

use crate::condition::{Condition, Unanswerable, Value};

/// What is said of one measurement, of a metric, or of all metrics; from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricPhase {
    /// It is as it must be.
    Successful,
    /// More measurements are wanted.
    Running,
    /// None was taken yet.
    Pending,
    /// Neither good nor bad.
    Inconclusive,
    /// It could not be measured.
    Error,
    /// It is not as it must be.
    Failed,
}

/// What a metric must be, and how often it may not be.
#[derive(Clone, Debug, Default)]
pub struct Criteria {
    /// It is good when this holds.
    pub success: Option<Condition>,
    /// It is bad when this holds.
    pub failure: Option<Condition>,
    /// How many are taken; for as long as they are wanted, where it is not said.
    pub count: Option<u32>,
    /// How many may be bad; any number with `None`.
    pub failure_limit: Option<u32>,
    /// How many may be neither; any number with `None`.
    pub inconclusive_limit: Option<u32>,
    /// How many in a row may not come about.
    pub consecutive_error_limit: u32,
    /// So many good ones in a row are enough.
    pub consecutive_success_limit: Option<u32>,
}

/// What was measured so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measurements {
    /// Good ones.
    pub successful: u32,
    /// Bad ones.
    pub failed: u32,
    /// Neither.
    pub inconclusive: u32,
    /// Those that did not come about since the last that did.
    pub consecutive_errors: u32,
    /// Good ones since the last that was not.
    pub consecutive_successes: u32,
}

impl Criteria {
    /// How many in a row may not come about, if nothing is said of it.
    pub const CONSECUTIVE_ERRORS: u32 = 4;

    /// What one result says.
    ///
    /// # Errors
    /// When a condition cannot be asked of it.
    pub fn judge(&self, result: &Value) -> Result<MetricPhase, Unanswerable> {
        let ask = |condition: &Option<Condition>| {
            condition.as_ref().map(|condition| condition.holds(result)).transpose()
        };
        Ok(match (ask(&self.success)?, ask(&self.failure)?) {
            (None, None) | (Some(true), None | Some(false)) | (None, Some(false)) => MetricPhase::Successful,
            (_, Some(true)) | (Some(false), None) => MetricPhase::Failed,
            (Some(false), Some(false)) => MetricPhase::Inconclusive,
        })
    }

    /// What all of `taken` say together.
    pub fn assess(&self, taken: &Measurements) -> MetricPhase {
        let exceeds = |count: u32, limit: Option<u32>| limit.is_some_and(|limit| count > limit);
        // The later of these go before the earlier ones.
        if taken.consecutive_errors > self.consecutive_error_limit {
            return MetricPhase::Error;
        }
        if exceeds(taken.inconclusive, self.inconclusive_limit) {
            return MetricPhase::Inconclusive;
        }
        if exceeds(taken.failed, self.failure_limit) {
            return MetricPhase::Failed;
        }
        let enough = self.consecutive_success_limit.filter(|limit| *limit > 0);
        if enough.is_some_and(|limit| taken.consecutive_successes >= limit) {
            return MetricPhase::Successful;
        }
        let all = taken.successful + taken.failed + taken.inconclusive;
        if self.count.is_none_or(|count| all < count) {
            return if *taken == Measurements::default() {
                MetricPhase::Pending
            } else {
                MetricPhase::Running
            };
        }
        match (enough, self.failure_limit) {
            (Some(_), Some(_)) => MetricPhase::Inconclusive,
            (Some(_), None) => MetricPhase::Failed,
            (None, _) => MetricPhase::Successful,
        }
    }
}

impl Measurements {
    /// Counts one that said `phase`.
    pub fn add(&mut self, phase: MetricPhase) {
        let successes = self.consecutive_successes;
        (self.consecutive_errors, self.consecutive_successes) = match phase {
            MetricPhase::Error => (self.consecutive_errors + 1, 0),
            MetricPhase::Successful => (0, successes + 1),
            _ => (0, 0),
        };
        match phase {
            MetricPhase::Successful => self.successful += 1,
            MetricPhase::Failed => self.failed += 1,
            MetricPhase::Inconclusive => self.inconclusive += 1,
            MetricPhase::Error | MetricPhase::Running | MetricPhase::Pending => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MetricPhase::{Error, Failed, Inconclusive, Pending, Running, Successful};
    use super::*;

    fn criteria(success: &str, failure: &str) -> Criteria {
        let condition = |text: &str| (!text.is_empty()).then(|| Condition::parse(text).unwrap());
        Criteria {
            success: condition(success),
            failure: condition(failure),
            failure_limit: Some(0),
            inconclusive_limit: Some(0),
            consecutive_error_limit: Criteria::CONSECUTIVE_ERRORS,
            ..Criteria::default()
        }
    }

    /// What is said after each of `phases`.
    fn said(criteria: &Criteria, phases: &[MetricPhase]) -> Vec<MetricPhase> {
        let mut taken = Measurements::default();
        let say = |phase: &MetricPhase| {
            taken.add(*phase);
            criteria.assess(&taken)
        };
        phases.iter().map(say).collect()
    }

    #[test]
    fn one_result_is_good_bad_or_neither() {
        let judge =
            |success, failure, result| criteria(success, failure).judge(&Value::Number(result)).unwrap();
        for (success, failure, result, phase) in [
            ("result >= 0.95", "", 0.96, Successful),
            ("result >= 0.95", "", 0.94, Failed),
            ("", "result < 0.9", 0.95, Successful),
            ("", "result < 0.9", 0.85, Failed),
            ("result >= 0.95", "result < 0.9", 0.96, Successful),
            ("result >= 0.95", "result < 0.9", 0.92, Inconclusive),
            ("result >= 0.95", "result < 0.9", 0.8, Failed),
            ("result >= 0.5", "result >= 0.4", 0.6, Failed),
            ("", "", 7.0, Successful),
            ("result >= 0.95", "", f64::NAN, Failed),
            ("result >= 0.95", "result < 0.9", f64::NAN, Inconclusive),
        ] {
            assert_eq!(judge(success, failure, result), phase, "{success:?} {failure:?} {result}");
        }
        assert!(criteria("result[0] > 1", "").judge(&Value::Numbers(Vec::new())).is_err());
    }

    #[test]
    fn a_metric_is_over_when_a_limit_is_exceeded_or_all_were_taken() {
        let three = Criteria { count: Some(3), ..criteria("", "") };
        assert_eq!(three.assess(&Measurements::default()), Pending);
        assert_eq!(said(&three, &[Successful, Successful, Successful]), [Running, Running, Successful]);
        assert_eq!(said(&three, &[Successful, Failed]), [Running, Failed]);
        assert_eq!(said(&three, &[Inconclusive]), [Inconclusive]);
        let lenient = Criteria { failure_limit: Some(1), inconclusive_limit: None, ..three };
        assert_eq!(said(&lenient, &[Failed, Inconclusive, Successful]), [Running, Running, Successful]);
        assert_eq!(said(&lenient, &[Failed, Failed]), [Running, Failed]);
        let never = Criteria { failure_limit: None, ..lenient };
        assert_eq!(said(&never, &[Failed, Failed, Failed]), [Running, Running, Successful]);
    }

    #[test]
    fn errors_count_in_a_row_and_not_towards_the_number() {
        let two = Criteria { count: Some(2), ..criteria("", "") };
        assert_eq!(said(&two, &[Error; 5])[3..], [Running, Error]);
        assert_eq!(
            said(&two, &[Error, Error, Error, Error, Successful, Error, Successful])[4..],
            [Running, Running, Successful]
        );
    }

    #[test]
    fn so_many_good_ones_in_a_row_are_enough() {
        let in_a_row = Criteria {
            count: Some(5),
            consecutive_success_limit: Some(2),
            failure_limit: None,
            ..criteria("", "")
        };
        assert_eq!(said(&in_a_row, &[Successful, Failed, Successful, Successful])[3], Successful);
        assert_eq!(said(&in_a_row, &[Failed, Successful, Failed, Successful, Failed])[4], Failed);
        let both = Criteria { failure_limit: Some(4), ..in_a_row };
        assert_eq!(said(&both, &[Failed, Successful, Failed, Successful, Failed])[4], Inconclusive);
    }

    #[test]
    fn the_worst_of_several_is_said_of_all() {
        let all = [Successful, Running, Pending, Inconclusive, Error, Failed];
        assert!(all.is_sorted());
        assert_eq!([Successful, Error, Running].into_iter().max(), Some(Error));
    }
}
