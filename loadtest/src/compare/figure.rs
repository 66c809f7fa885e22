//! One figure of two measurements: both values, how they differ, and how sure that is.

use super::statistics::{Interval, mean, stretches, welch};
use crate::measurement::{Run, Second};
use crate::report::units;

/// A figure that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    Rate,
    P50,
    P99,
    P99_9,
    Errors,
    ServerCpu,
}

impl Metric {
    pub(super) const ALL: [Metric; 6] =
        [Metric::Rate, Metric::P50, Metric::P99, Metric::P99_9, Metric::Errors, Metric::ServerCpu];

    pub(super) fn name(self) -> &'static str {
        match self {
            Metric::Rate => "req/s",
            Metric::P50 => "p50",
            Metric::P99 => "p99",
            Metric::P99_9 => "p99.9",
            Metric::Errors => "errors",
            Metric::ServerCpu => "server CPU/req",
        }
    }

    /// The value as people read it.
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Metric::Rate => units::number(value),
            Metric::Errors => units::percent(value),
            _ => units::duration(value),
        }
    }

    /// The value of one run; `None` when the run does not tell.
    fn of(self, run: &Run) -> Option<f64> {
        let latency = |micros: f64| (run.latency.count > 0).then_some(micros);
        match self {
            Metric::Rate => Some(run.requests_per_second),
            Metric::P50 => latency(run.latency.p50),
            Metric::P99 => latency(run.latency.p99),
            Metric::P99_9 => latency(run.latency.p99_9),
            Metric::Errors => {
                Some(units::share(run.failed() + run.unanswered, run.requests + run.unanswered))
            }
            Metric::ServerCpu => run.server.as_ref()?.cpu_micros_per_request,
        }
    }

    /// The values of a run's seconds, where the timeline has them.
    fn of_second(self, second: &Second) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "counts of one second are small")]
            Metric::Rate => Some(second.requests.saturating_sub(second.errors) as f64),
            Metric::P50 => Some(second.p50_micros),
            Metric::P99 => Some(second.p99_micros),
            _ => None,
        }
    }

    /// Whether the seconds of a run tell of it.
    pub(super) fn has_seconds(self) -> bool {
        matches!(self, Metric::Rate | Metric::P50 | Metric::P99)
    }

    /// Shares of errors may be 0, so they are compared by their difference; all else by its ratio.
    pub(super) fn is_share(self) -> bool {
        self == Metric::Errors
    }

    fn more_is_better(self) -> bool {
        self == Metric::Rate
    }
}

/// Both values of a metric at one load.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) metric: Metric,
    /// Means over the repeats: geometric where ratios are compared.
    pub(super) before: Option<f64>,
    pub(super) after: Option<f64>,
    pub(super) change: Option<Change>,
}

/// How the second value differs from the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// Relative to the first value (0.1 is a tenth more); of shares, the plain difference.
    pub(super) amount: f64,
    /// Where the true change lies with a probability of 95 %; `None` when nothing tells.
    pub(super) interval: Option<(f64, f64)>,
    /// What the interval was made from.
    pub(super) evidence: Evidence,
}

/// What is known of the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Several runs of the same load on both sides.
    Repeats,
    /// The seconds of single runs: what differs from run to run is not seen.
    Seconds,
    /// One side has no right answer at all, and the other has some: no noise explains that.
    Silence,
    Nothing,
}

/// What to make of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Better,
    Worse,
    WithinNoise,
    Unknown,
}

impl Verdict {
    pub(super) fn name(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::WithinNoise => "within noise",
            Verdict::Unknown => "noise unknown",
        }
    }
}

impl Figure {
    /// Compares the repeats of a load.
    pub(super) fn of(metric: Metric, before: &[&Run], after: &[&Run]) -> Figure {
        let values = |runs: &[&Run]| runs.iter().filter_map(|run| metric.of(run)).collect::<Vec<f64>>();
        let (a, b) = (values(before), values(after));
        let middle = |values: &[f64]| {
            let all_above_zero = values.iter().all(|value| *value > 0.0);
            let geometric = all_above_zero && !metric.is_share();
            let middle = if geometric { mean(&logs(values)).exp() } else { mean(values) };
            (!values.is_empty()).then_some(middle)
        };
        let (first, second) = (middle(&a), middle(&b));
        let change = first.zip(second).and_then(|(first, second)| {
            if metric.is_share() {
                let requests = before.iter().chain(after).map(|run| run.requests + run.unanswered).min();
                return Some(difference(&a, &b, (second - first, requests.unwrap_or_default())));
            }
            match metric {
                _ if first > 0.0 && second > 0.0 => {
                    Some(ratio(metric, [before, after], [&a, &b], (second / first).ln()))
                }
                Metric::Rate if first > 0.0 => Some(silence(-1.0)),
                Metric::Rate if second > 0.0 => Some(silence(f64::INFINITY)),
                _ => None,
            }
        });
        Figure { metric, before: first, after: second, change }
    }

    /// Whether the change is for the better, as far as the noise lets one say.
    pub(super) fn verdict(&self) -> Verdict {
        let Some(change) = &self.change else { return Verdict::Unknown };
        match change.interval {
            None if change.evidence == Evidence::Silence => {
                if (change.amount > 0.0) == self.metric.more_is_better() {
                    Verdict::Better
                } else {
                    Verdict::Worse
                }
            }
            None if change.amount == 0.0 => Verdict::WithinNoise,
            None => Verdict::Unknown,
            Some((low, high)) if low <= 0.0 && high >= 0.0 => Verdict::WithinNoise,
            Some((low, _)) if (low > 0.0) == self.metric.more_is_better() => Verdict::Better,
            Some(_) => Verdict::Worse,
        }
    }
}

/// Of shares of at least so many requests, of which one more or fewer is the least that can be told.
fn difference(before: &[f64], after: &[f64], (amount, requests): (f64, u64)) -> Change {
    let interval = welch(before, after, units::share(1, requests)).map(|found| (found.low, found.high));
    let all_failed = |shares: &[f64]| shares.iter().all(|share| *share >= 1.0);
    let evidence = match interval {
        Some(_) => Evidence::Repeats,
        None if all_failed(before) != all_failed(after) => Evidence::Silence,
        None => Evidence::Nothing,
    };
    Change { amount, interval, evidence }
}

/// Of a side without a right answer and one with some.
fn silence(amount: f64) -> Change {
    Change { amount, interval: None, evidence: Evidence::Silence }
}

/// Compared by logarithms, whose differences are ratios: twice as fast and half as fast are as far from equal.
fn ratio(metric: Metric, runs: [&[&Run]; 2], [before, after]: [&[f64]; 2], log_ratio: f64) -> Change {
    let share = |found: Interval| (found.low.exp_m1(), found.high.exp_m1());
    let amount = log_ratio.exp_m1();
    if let Some(found) = welch(&logs(before), &logs(after), RESOLUTION) {
        return Change { amount, interval: Some(share(found)), evidence: Evidence::Repeats };
    }
    let [a, b] = runs.map(|runs| of_seconds(metric, runs));
    match welch(&a, &b, RESOLUTION) {
        Some(found) => {
            Change { amount, interval: Some(share(found.around(log_ratio))), evidence: Evidence::Seconds }
        }
        None => Change { amount, interval: None, evidence: Evidence::Nothing },
    }
}

/// Logarithms of latencies that a histogram of three digits tells apart; what else is compared is no more exact.
const RESOLUTION: f64 = 1.0 / 1024.0;
/// Fewer whole seconds than this do not show how a run wanders.
const MIN_SECONDS: usize = 5;
/// Into how many stretches a run's seconds are put together.
const STRETCHES: usize = 10;

/// Logarithms of a metric over stretches of the runs; nothing when a run is too short or has a second without
/// answers, which no ratio describes.
fn of_seconds(metric: Metric, runs: &[&Run]) -> Vec<f64> {
    let mut all = Vec::new();
    for run in runs {
        let whole = run.timeline.iter().filter(|second| second.at + 0.99 <= run.seconds);
        let Some(values) = whole.map(|second| metric.of_second(second)).collect::<Option<Vec<f64>>>() else {
            return Vec::new();
        };
        if values.len() < MIN_SECONDS {
            return Vec::new();
        }
        all.extend(stretches(&logs(&values), STRETCHES));
    }
    all
}

fn logs(values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| value.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn runs(rates: &[f64]) -> Vec<Run> {
        let run = |rate: &f64| Run { requests_per_second: *rate, ..sample::run(&sample::closed(4), 1) };
        rates.iter().map(run).collect()
    }

    fn figure(metric: Metric, before: &[Run], after: &[Run]) -> Figure {
        Figure::of(metric, &before.iter().collect::<Vec<_>>(), &after.iter().collect::<Vec<_>>())
    }

    /// From SciPy 1.17.1: Welch's interval of the logarithms of both lists, through `expm1`.
    #[test]
    fn repeats_tell_the_noise_of_a_ratio() {
        let found = figure(Metric::Rate, &runs(&[100.0, 110.0, 105.0]), &runs(&[90.0, 95.0, 92.0]));
        let change = found.change.unwrap();
        let (low, high) = change.interval.unwrap();
        for (found, expected) in [
            (change.amount, -0.120_186_437_120_261_03),
            (low, -0.202_086_683_074_098_55),
            (high, -0.029_879_701_206_910_796),
        ] {
            assert!((found - expected).abs() < 1e-8, "{found}, not {expected}");
        }
        assert_eq!((change.evidence, found.verdict()), (Evidence::Repeats, Verdict::Worse));
    }

    /// However short the runs, and however often they were repeated.
    #[test]
    fn a_side_that_answers_nothing_is_worse() {
        for repeats in [1, 3] {
            let answering = runs(&vec![100.0; repeats]);
            let mut silent = runs(&vec![0.0; repeats]);
            for run in &mut silent {
                run.errors = [("status 500".to_owned(), run.requests)].into();
            }
            for metric in [Metric::Rate, Metric::Errors] {
                let verdict = |before, after| figure(metric, before, after).verdict();
                assert_eq!(verdict(&answering, &silent), Verdict::Worse, "{metric:?}, {repeats} repeats");
                assert_eq!(verdict(&silent, &answering), Verdict::Better, "{metric:?}, {repeats} repeats");
                assert_ne!(verdict(&silent, &silent), Verdict::Worse);
            }
        }
    }

    #[test]
    fn repeats_that_scatter_hide_a_difference() {
        let found = figure(Metric::Rate, &runs(&[80.0, 110.0, 100.0]), &runs(&[105.0, 90.0, 120.0]));
        assert_eq!(found.verdict(), Verdict::WithinNoise);
    }

    #[test]
    fn one_run_is_judged_by_its_seconds() {
        let before = runs(&[1000.0]);
        let mut after = runs(&[1300.0]);
        for second in &mut after[0].timeline {
            second.requests = second.requests * 13 / 10;
        }
        let found = figure(Metric::Rate, &before, &after);
        assert_eq!(found.change.unwrap().evidence, Evidence::Seconds);
        assert_eq!(found.verdict(), Verdict::Better);
        assert_eq!(figure(Metric::Rate, &before, &before).verdict(), Verdict::WithinNoise);
        assert_eq!(figure(Metric::P99_9, &before, &after).change.unwrap().evidence, Evidence::Nothing);
    }

    #[test]
    fn a_stall_or_a_short_run_leaves_the_noise_unknown() {
        let before = runs(&[1000.0]);
        let mut after = runs(&[500.0]);
        after[0].timeline[3].requests = 0;
        assert_eq!(figure(Metric::Rate, &before, &after).verdict(), Verdict::Unknown);
        after[0].timeline.truncate(3);
        assert_eq!(figure(Metric::Rate, &before, &after).verdict(), Verdict::Unknown);
    }

    #[test]
    fn errors_are_compared_by_their_share_and_may_be_none() {
        let before = runs(&[1.0]);
        let mut after = runs(&[1.0]);
        assert_eq!(figure(Metric::Errors, &before, &after).verdict(), Verdict::WithinNoise);
        let tenth = after[0].requests / 10;
        after[0].errors.insert("timeout".to_owned(), tenth);
        let found = figure(Metric::Errors, &before, &after);
        assert!((found.change.unwrap().amount - 0.1).abs() < 1e-3);
        assert_eq!(found.verdict(), Verdict::Unknown, "one run says nothing of how often errors come");
    }

    /// Three runs in the same bucket of a histogram, and three in the next.
    #[test]
    fn neighbouring_buckets_are_no_difference() {
        let (before, mut after) = (runs(&[100.0; 3]), runs(&[100.0; 3]));
        assert_eq!(figure(Metric::P50, &before, &after).verdict(), Verdict::WithinNoise);
        after.iter_mut().for_each(|run| run.latency.p50 *= 1.0 + RESOLUTION);
        assert_eq!(figure(Metric::P50, &before, &after).verdict(), Verdict::WithinNoise);
        after.iter_mut().for_each(|run| run.latency.p50 *= 1.1);
        assert_eq!(figure(Metric::P50, &before, &after).verdict(), Verdict::Worse);
    }

    #[test]
    fn what_one_side_lacks_is_not_compared() {
        let before = runs(&[1.0]);
        let mut after = runs(&[1.0]);
        after[0].server = None;
        let found = figure(Metric::ServerCpu, &before, &after);
        assert!(found.before.is_some() && found.after.is_none() && found.change.is_none());
    }
}
