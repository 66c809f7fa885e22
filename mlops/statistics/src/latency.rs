//! Is one version slower than another?
//!
//! Latencies are kept in histograms whose buckets are as wide as a hundredth of their values, so histograms of replicas
//! add up, and nothing depends on the order of requests. The bands of [`crate::band`] say how far the true
//! distributions may lie from them, at any time. Wherever a latency may lie within its bucket, it is taken to lie
//! where it speaks for the canary.

use hdrhistogram::Histogram;

use crate::band::radius;
use crate::probability::{Alpha, Rate};
use crate::verdict::Verdict;

/// Latencies in microseconds.
pub type Latencies = Histogram<u64>;

/// An hour, in microseconds: what takes longer is counted as an hour.
const LONGEST: u64 = 3_600_000_000;

/// A histogram for latencies, which takes 26 KiB. Use `saturating_record` to count, and `+=` to add those of replicas.
pub fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, LONGEST, 2).expect("the bounds are in order")
}

/// Compares a canary's latencies with a baseline's, at any time and as often as wanted.
#[derive(Clone, Copy, Debug)]
pub struct LatencyTest {
    /// Half of the errors that are allowed: both bands have to hold.
    alpha: Alpha,
    /// What the baseline's latencies are multiplied by before the canary is called slower.
    allowed: f64,
}

/// The values that a quantile lies between; `None` above all that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    /// The quantile is not below.
    pub least: u64,
    /// The quantile is not above.
    pub most: Option<u64>,
}

/// The same quantile of two versions, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    /// Of the canary.
    pub canary: Between,
    /// Of the baseline.
    pub baseline: Between,
}

/// Where two distributions differ most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    /// The baseline's latency, in microseconds.
    pub at: u64,
    /// The share of the baseline's answers that took at most `at`, less the share of the canary's that took at most
    /// as much and the tolerance.
    pub gap: f64,
    /// What the gap has to be above, so that it is no accident.
    pub band: f64,
}

impl Gap {
    /// True when the canary is slower.
    pub fn is_slower(&self) -> bool {
        self.gap > self.band
    }
}

impl LatencyTest {
    /// The test that errs in at most `alpha` of all rollouts. `tolerance` is how much slower the canary may be: 0.1
    /// for a tenth; what is below 0 or NaN is 0.
    pub fn new(tolerance: f64, alpha: Alpha) -> LatencyTest {
        LatencyTest { alpha: alpha.halved(), allowed: 1.0 + tolerance.max(0.0) }
    }

    /// Fails when the canary's `quantile` is above the baseline's and the tolerance, passes when it is not, and cannot
    /// know while what the two may be overlaps.
    pub fn quantile(&self, quantile: Rate, canary: &Latencies, baseline: &Latencies) -> Verdict<Quantiles> {
        let evidence = Quantiles {
            canary: between(quantile, canary, self.alpha),
            baseline: between(quantile, baseline, self.alpha),
        };
        let above =
            |least: u64, most: Option<u64>| most.is_some_and(|most| least as f64 > self.stretched(most));
        if above(evidence.canary.least, evidence.baseline.most) {
            return Verdict::Fail(evidence);
        }
        match evidence.canary.most {
            Some(most) if most as f64 <= self.stretched(evidence.baseline.least) => Verdict::Pass(evidence),
            _ => Verdict::Inconclusive { evidence, more: None },
        }
    }

    /// Where the canary is slower than the baseline by more than the tolerance, most clearly: at any quantile,
    /// whichever it is. `None` while the baseline has not answered.
    pub fn dominance(&self, canary: &Latencies, baseline: &Latencies) -> Option<Gap> {
        let band = radius(canary.len(), self.alpha) + radius(baseline.len(), self.alpha);
        let (mut canary_steps, mut as_fast) = (steps(canary).peekable(), 0.0);
        let mut greatest: Option<Gap> = None;
        for step in steps(baseline) {
            let limit = self.stretched(step.greatest);
            while let Some(canary) = canary_steps.next_if(|canary| canary.least as f64 <= limit) {
                as_fast = canary.share;
            }
            let gap = step.share - as_fast;
            if greatest.is_none_or(|greatest| gap > greatest.gap) {
                greatest = Some(Gap { at: step.greatest, gap, band });
            }
        }
        greatest
    }

    fn stretched(&self, latency: u64) -> f64 {
        latency as f64 * self.allowed
    }
}

/// The values that the true quantile lies between.
fn between(quantile: Rate, latencies: &Latencies, alpha: Alpha) -> Between {
    let radius = radius(latencies.len(), alpha);
    let (low, high) = (quantile.get() - radius, quantile.get() + radius);
    let reaching = |share: f64| steps(latencies).find(|step| step.share >= share);
    let least = if low > 0.0 { reaching(low) } else { None };
    let most = if high <= 1.0 { reaching(high) } else { None };
    Between { least: least.map_or(0, |step| step.least), most: most.map(|step| step.greatest) }
}

/// A bucket, and the share of all latencies that are in it or below.
#[derive(Clone, Copy, Debug)]
struct Step {
    least: u64,
    greatest: u64,
    share: f64,
}

/// The buckets that hold something, from the least up.
fn steps(latencies: &Latencies) -> impl Iterator<Item = Step> {
    let total = latencies.len() as f64;
    let mut seen = 0;
    latencies.iter_recorded().map(move |bucket| {
        seen += bucket.count_at_value();
        let greatest = bucket.value_iterated_to();
        Step { least: latencies.lowest_equivalent(greatest), greatest, share: seen as f64 / total }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(tolerance: f64) -> LatencyTest {
        LatencyTest::new(tolerance, Alpha::new(0.05).unwrap())
    }

    /// `count` latencies from `fastest` to twice that, evenly.
    fn spread(fastest: u64, count: u64) -> Latencies {
        let mut spread = latencies();
        (0..count).for_each(|index| spread.saturating_record(fastest + fastest * index / count));
        spread
    }

    fn p95() -> Rate {
        Rate::new(0.95).unwrap()
    }

    #[test]
    fn a_slower_canary_fails_and_an_equal_one_passes_within_the_tolerance() {
        let (baseline, slower) = (spread(10_000, 50_000), spread(12_000, 50_000));
        assert!(test(0.1).quantile(p95(), &slower, &baseline).is_fail());
        assert!(test(0.1).quantile(p95(), &baseline, &baseline).is_pass());
        assert!(test(0.3).quantile(p95(), &slower, &baseline).is_pass());
        assert!(!test(0.1).quantile(p95(), &baseline, &slower).is_fail(), "a faster one");
    }

    #[test]
    fn equal_ones_without_a_tolerance_cannot_be_told_apart() {
        let same = spread(10_000, 50_000);
        let verdict = test(0.0).quantile(p95(), &same, &same);
        assert!(!verdict.is_fail() && !verdict.is_pass(), "{verdict:?}");
        let Quantiles { canary, .. } = *verdict.evidence();
        assert!(canary.least < 19_500 && canary.most.unwrap() > 19_500, "{canary:?}");
    }

    #[test]
    fn few_answers_say_nothing() {
        let verdict = test(0.0).quantile(p95(), &spread(90_000, 5), &spread(1_000, 5));
        let nothing = Between { least: 0, most: None };
        assert_eq!(*verdict.evidence(), Quantiles { canary: nothing, baseline: nothing });
        assert!(!verdict.is_fail() && !verdict.is_pass());
        assert_eq!(test(0.0).dominance(&latencies(), &latencies()), None);
        assert!(!test(0.0).dominance(&latencies(), &spread(1_000, 100)).unwrap().is_slower());
    }

    #[test]
    fn dominance_finds_what_is_slower_in_the_middle() {
        let baseline = spread(10_000, 20_000);
        // As slow at its slowest, but seldom fast.
        let mut canary = spread(10_000, 12_000);
        (0..8_000).for_each(|_| canary.saturating_record(19_900));
        let gap = test(0.05).dominance(&canary, &baseline).unwrap();
        assert!(gap.is_slower() && gap.gap > 0.25, "{gap:?}");
        assert!(!test(0.05).quantile(p95(), &canary, &baseline).is_fail());
        assert!(!test(0.05).dominance(&baseline, &canary).unwrap().is_slower(), "the other way round");
        let even = test(0.0).dominance(&baseline, &baseline).unwrap();
        assert!(!even.is_slower() && even.gap.abs() < 1e-12, "{even:?}");
        assert!(!test(2.0).dominance(&canary, &baseline).unwrap().is_slower(), "thrice as slow is allowed");
    }

    #[test]
    fn a_bucket_is_no_wider_than_a_hundredth_and_replicas_add_up() {
        let histogram = latencies();
        for latency in [150, 1_000, 99_999, 12_345_678, LONGEST] {
            let width = histogram.highest_equivalent(latency) - histogram.lowest_equivalent(latency);
            assert!(width as f64 <= latency as f64 / 100.0, "{width} at {latency}");
        }
        let mut sum = spread(1_000, 100);
        sum += spread(50_000, 300);
        sum.saturating_record(u64::MAX);
        assert_eq!(sum.len(), 401);
        assert!(size_of::<u64>() * sum.distinct_values() <= 30_000, "{} buckets", sum.distinct_values());
    }
}
