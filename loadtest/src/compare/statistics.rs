//! How sure a difference of two means is: Welch's interval. Pure numbers; nothing here knows what they measure.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A difference of two means and the interval that holds the true one with a probability of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) difference: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Interval {
    /// As wide as it is, around another difference.
    pub(super) fn around(self, difference: f64) -> Interval {
        let shift = difference - self.difference;
        Interval { difference, low: self.low + shift, high: self.high + shift }
    }
}

/// The mean of `after` less that of `before`, by Welch's method, which does not take both to scatter alike.
/// `None` with fewer than two values on a side: nothing is known of how they scatter.
///
/// Values nearer to each other than `resolution` cannot be told apart, so that even the mean of equal ones is not known
/// better.
pub(super) fn welch(before: &[f64], after: &[f64], resolution: f64) -> Option<Interval> {
    let (a, b) = (Spread::of(before, resolution)?, Spread::of(after, resolution)?);
    let difference = b.mean - a.mean;
    let variance = a.variance_of_mean + b.variance_of_mean;
    // Welch and Satterthwaite's degrees of freedom.
    let freedom = variance.powi(2)
        / (a.variance_of_mean.powi(2) / (a.count - 1.0) + b.variance_of_mean.powi(2) / (b.count - 1.0));
    let quantile = StudentsT::new(0.0, 1.0, freedom).ok()?.inverse_cdf(0.975);
    let half = quantile * variance.sqrt();
    Some(Interval { difference, low: difference - half, high: difference + half })
}

struct Spread {
    count: f64,
    mean: f64,
    variance_of_mean: f64,
}

impl Spread {
    fn of(values: &[f64], resolution: f64) -> Option<Spread> {
        if values.len() < 2 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let (count, mean) = (len(values), mean(values));
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        // The variance of a value that lies anywhere in a bucket; more values in the same do not say where.
        let least = (resolution.powi(2) / 12.0).max(f64::MIN_POSITIVE);
        Some(Spread { count, mean, variance_of_mean: (squares / (count - 1.0) / count).max(least) })
    }
}

/// The mean; 0 of nothing.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / len(values).max(1.0)
}

#[expect(clippy::cast_precision_loss, reason = "there are few repeats and seconds")]
fn len(values: &[f64]) -> f64 {
    values.len() as f64
}

/// The means of at most `count` stretches of neighbouring values, all as long; values left over at the end are
/// left out. Neighbours in time resemble each other, so single ones would make a mean seem surer than it is.
pub(super) fn stretches(values: &[f64], count: usize) -> Vec<f64> {
    let length = values.len().div_ceil(count).max(1);
    values.chunks_exact(length).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &[f64], after: &[f64], expected: [f64; 3]) {
        let found = welch(before, after, 0.0).unwrap();
        for (found, expected) in [found.difference, found.low, found.high].into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7 * expected.abs().max(1.0), "{found}, not {expected}");
        }
    }

    /// From SciPy 1.17.1: `ttest_ind(after, before, equal_var=False).confidence_interval(0.95)`.
    #[test]
    fn welch_agrees_with_scipy() {
        check(
            &[10.0, 11.0, 12.0, 10.5, 11.5],
            &[12.0, 12.5, 13.5, 12.8, 13.1],
            [1.779_999_999_999_999_4, 0.756_355_758_875_975_5, 2.803_644_241_124_023],
        );
        check(
            &[5.0, 5.1],
            &[5.0, 5.3],
            [0.100_000_000_000_000_53, -1.227_210_888_954_732, 1.427_210_888_954_733],
        );
        check(
            &[1.0, 2.0, 3.0, 4.0],
            &[2.5, 2.5, 2.6],
            [0.033_333_333_333_333_215, -2.017_508_607_434_527_4, 2.084_175_274_101_194],
        );
    }

    #[test]
    fn one_value_says_nothing_of_how_values_scatter() {
        assert_eq!(welch(&[1.0], &[1.0, 2.0], 0.1), None);
        assert_eq!(welch(&[1.0, f64::NEG_INFINITY], &[1.0, 2.0], 0.1), None);
    }

    /// Values in the same bucket look alike; that they are equal is not known.
    #[test]
    fn equal_values_are_not_certain() {
        let found = welch(&[1.0, 1.0], &[1.05, 1.05], 0.1).unwrap();
        assert!(found.low < 0.0 && found.high > 0.1, "{found:?}");
        let found = welch(&[1.0; 5], &[2.0; 5], 0.1).unwrap();
        assert!(found.low < 1.0 && found.low > 0.8 && found.high > 1.0, "{found:?}");
    }

    #[test]
    fn stretches_are_means_of_neighbours() {
        assert_eq!(stretches(&[1.0, 3.0, 5.0, 7.0, 9.0], 2), [3.0]);
        assert_eq!(stretches(&[1.0, 3.0, 5.0, 7.0], 2), [2.0, 6.0]);
        assert_eq!(stretches(&[1.0, 3.0], 10), [1.0, 3.0]);
        assert_eq!(stretches(&[], 10), [] as [f64; 0]);
    }

    /// The interval holds the true difference about 95 times of 100, and not always.
    #[test]
    fn the_interval_is_neither_too_narrow_nor_too_wide() {
        let mut state = 42_u64;
        let mut next = || {
            let mut sum = 0.0;
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sum += (state >> 11) as f64 / (1_u64 << 53) as f64;
            }
            sum - 6.0 // nearly normal
        };
        let hits = (0..2000).filter(|_| {
            let before: Vec<f64> = (0..4).map(|_| next()).collect();
            let after: Vec<f64> = (0..6).map(|_| 3.0 + 2.0 * next()).collect();
            let found = welch(&before, &after, 0.0).unwrap();
            found.low <= 3.0 && found.high >= 3.0
        });
        let hits = hits.count();
        assert!((1860..1940).contains(&hits), "{hits} of 2000");
    }
}
