//! Counts what the arms of a rollout answer, as they answer it, and tells at once when a gate fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use statistics::latency::latencies;
use statistics::{Counts, Latencies, Rate, RateTest};
use traffic::{Arm, Choice, RoutedBy};

use crate::counts::{Arms, Sums};
use crate::gate::Measure;
use crate::plan::Plan;

/// How a request ended that says something of the version that it went to. A request that is the client's fault, or that
/// the client gave up, says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered within that time.
    Answered(Duration),
    /// It failed by fault of the version.
    Failed,
}

/// What this process has counted for one rollout since it began.
#[derive(Debug)]
pub struct Tally {
    canary: ArmTally,
    baseline: ArmTally,
    stable: ArmTally,
    gates: Vec<Watch>,
}

#[derive(Debug)]
struct ArmTally {
    answered: AtomicU64,
    failed: AtomicU64,
    drawn: AtomicU64,
    drawn_failed: AtomicU64,
    /// For each gate.
    slow: Box<[AtomicU64]>,
    /// Only where a gate compares them.
    latencies: Option<Mutex<Latencies>>,
}

/// What is looked at for each gate while requests are answered.
#[derive(Debug)]
enum Watch {
    Errors(RateTest),
    Slower {
        than: Duration,
        test: RateTest,
    },
    /// It takes more than one count to judge.
    Later,
}

impl Tally {
    /// Nothing is counted yet for `plan`.
    pub fn new(plan: &Plan) -> Tally {
        let compares_latencies =
            plan.gates.iter().any(|gate| matches!(gate.measure, Measure::LatencyAgainst { .. }));
        let arm = || ArmTally::new(plan.gates.len(), compares_latencies);
        let watch = |gate: &crate::gate::Gate| match gate.measure {
            Measure::ErrorRate { limit } => Watch::Errors(RateTest::new(limit, gate.alpha)),
            Measure::Latency { quantile, limit } => {
                let rest = Rate::new(1.0 - quantile.get()).unwrap_or(quantile);
                Watch::Slower { than: limit, test: RateTest::new(rest, gate.alpha) }
            }
            Measure::ErrorsAgainst { .. } | Measure::LatencyAgainst { .. } => Watch::Later,
        };
        let gates = plan.gates.iter().map(watch).collect();
        Tally { canary: arm(), baseline: arm(), stable: arm(), gates }
    }

    /// Counts one request; true when a gate fails by it.
    pub fn record(&self, choice: &Choice, outcome: Outcome) -> bool {
        let arm = self.arm(choice.arm);
        let by_rule = matches!(choice.by, RoutedBy::Rule(_));
        let failed = outcome == Outcome::Failed;
        let answered = arm.count(failed, by_rule);
        let is_canary = choice.arm == Arm::Canary;
        let Outcome::Answered(took) = outcome else {
            let counts = || Counts::new(arm.failed.load(Ordering::Relaxed), answered);
            let fails = |watch: &Watch| matches!(watch, Watch::Errors(test) if test.rejects(counts()));
            return is_canary && self.gates.iter().any(fails);
        };
        if let Some(latencies) = arm.latencies.as_ref().filter(|_| !by_rule) {
            latencies.lock().saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
        let mut fails = false;
        for (watch, slow) in self.gates.iter().zip(&arm.slow) {
            if let Watch::Slower { than, test } = watch
                && took > *than
            {
                let slow = slow.fetch_add(1, Ordering::Relaxed) + 1;
                let without_failures = answered.saturating_sub(arm.failed.load(Ordering::Relaxed));
                fails |= is_canary && test.rejects(Counts::new(slow, without_failures));
            }
        }
        fails
    }

    /// All of it.
    pub fn arms(&self) -> Arms {
        Arms { canary: self.canary.sums(), baseline: self.baseline.sums(), stable: self.stable.sums() }
    }

    fn arm(&self, arm: Arm) -> &ArmTally {
        match arm {
            Arm::Canary => &self.canary,
            Arm::Baseline => &self.baseline,
            Arm::Stable => &self.stable,
        }
    }
}

impl ArmTally {
    fn new(gates: usize, with_latencies: bool) -> ArmTally {
        let zero = || AtomicU64::new(0);
        ArmTally {
            answered: zero(),
            failed: zero(),
            drawn: zero(),
            drawn_failed: zero(),
            slow: (0..gates).map(|_| zero()).collect(),
            latencies: with_latencies.then(|| Mutex::new(latencies())),
        }
    }

    /// How many it has answered with this one.
    fn count(&self, failed: bool, by_rule: bool) -> u64 {
        // A failure first: whoever reads in between sees one too many, and never one too few.
        if failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        if !by_rule {
            if failed {
                self.drawn_failed.fetch_add(1, Ordering::Relaxed);
            }
            self.drawn.fetch_add(1, Ordering::Relaxed);
        }
        self.answered.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn sums(&self) -> Sums {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Sums {
            answered: read(&self.answered),
            failed: read(&self.failed),
            slow: self.slow.iter().map(read).collect(),
            drawn: read(&self.drawn),
            drawn_failed: read(&self.drawn_failed),
            latencies: self.latencies.as_ref().map_or_else(latencies, |latencies| latencies.lock().clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::ModelVersion;
    use traffic::Slot;

    use super::*;

    const PLAN: &str = r#"gates = [
        { error_rate = { below = 0.001 } },
        { latency = { below = "100ms" } },
        { latency = { against = "baseline" } },
    ]"#;

    fn choice(arm: Arm, by: RoutedBy) -> Choice {
        Choice { version: ModelVersion::new(2).unwrap(), arm, by, mirror: None }
    }

    fn drawn(arm: Arm) -> Choice {
        choice(arm, RoutedBy::Slot(Slot::new(0).unwrap()))
    }

    fn milliseconds(milliseconds: u64) -> Outcome {
        Outcome::Answered(Duration::from_millis(milliseconds))
    }

    #[test]
    fn the_third_failure_in_a_row_of_the_canary_is_told_and_the_stable_versions_never() {
        let tally = Tally::new(&Plan::from_toml(PLAN).unwrap());
        let told = |arm| (0..5).map(|_| tally.record(&drawn(arm), Outcome::Failed)).collect::<Vec<_>>();
        assert_eq!(told(Arm::Stable), [false; 5]);
        assert_eq!(told(Arm::Baseline), [false; 5]);
        assert_eq!(told(Arm::Canary), [false, false, true, true, true]);
        assert_eq!(tally.arms().canary.errors(), Counts::new(5, 5));
    }

    #[test]
    fn answers_that_take_too_long_are_told() {
        let tally = Tally::new(&Plan::from_toml(PLAN).unwrap());
        let slow = (1..100).find(|_| tally.record(&drawn(Arm::Canary), milliseconds(101)));
        assert!((3..=8).contains(&slow.unwrap()), "{slow:?}");
        let canary = tally.arms().canary;
        assert_eq!(
            (canary.slower(0).failures(), canary.slower(1)),
            (0, Counts::new(slow.unwrap(), slow.unwrap()))
        );
        assert_eq!(canary.latencies.len(), slow.unwrap());
    }

    #[test]
    fn all_is_counted_and_what_came_by_a_rule_is_not_compared() {
        let tally = Tally::new(&Plan::from_toml(PLAN).unwrap());
        for _ in 0..10 {
            assert!(!tally.record(&drawn(Arm::Canary), milliseconds(100)));
            assert!(!tally.record(&choice(Arm::Canary, RoutedBy::Rule(0)), milliseconds(5)));
        }
        assert!(!tally.record(&choice(Arm::Canary, RoutedBy::Rule(0)), Outcome::Failed));
        let canary = tally.arms().canary;
        assert_eq!((canary.errors(), canary.drawn_errors()), (Counts::new(1, 21), Counts::new(0, 10)));
        assert_eq!((canary.slower(1), canary.latencies.len()), (Counts::new(0, 20), 10));
    }

    #[test]
    fn threads_count_all() {
        let tally = Tally::new(&Plan::from_toml(PLAN).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..1_000).for_each(|_| _ = tally.record(&drawn(Arm::Baseline), milliseconds(1)))
                });
            }
        });
        let baseline = tally.arms().baseline;
        assert_eq!((baseline.drawn, baseline.answered, baseline.latencies.len()), (4_000, 4_000, 4_000));
    }
}
