//! From values to places on an axis, and the values worth a label.

/// How values are laid out on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// At equal distances.
    Linear { from: f64, to: f64 },
    /// Equal factors at equal distances; `from` is above 0.
    Log { from: f64, to: f64 },
    /// Percentiles, each nine as wide as the one before: 90, 99, 99.9. `nines` is the last one shown.
    Percentile { nines: f64 },
}

/// Above this ratio of the largest to the smallest value, small ones are no longer told apart on a linear scale.
const LOG_ABOVE: f64 = 25.0;

impl Scale {
    /// From 0 to a round value above all of `values`.
    pub(crate) fn from_zero(values: impl IntoIterator<Item = f64>) -> Scale {
        let top = values.into_iter().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let step = step(if top > 0.0 { top } else { 1.0 });
        Scale::Linear { from: 0.0, to: step * (top / step).ceil().max(1.0) }
    }

    /// From 0 when that shows all of `values`, else logarithmic.
    pub(crate) fn fitting(values: impl IntoIterator<Item = f64>) -> Scale {
        let values: Vec<f64> = values.into_iter().filter(|value| value.is_finite() && *value > 0.0).collect();
        let (low, high) =
            (values.iter().copied().fold(f64::MAX, f64::min), values.iter().copied().fold(0.0, f64::max));
        if values.is_empty() || high / low < LOG_ABOVE {
            return Scale::from_zero(values);
        }
        Scale::Log { from: round_below(low), to: round_above(high) }
    }

    /// Where `value` lies, from 0 (the axis' start) to 1 (its end); what lies outside is drawn at the border.
    pub(crate) fn part(&self, value: f64) -> f64 {
        let part = match *self {
            Scale::Linear { from, to } => (value - from) / (to - from),
            Scale::Log { from, to } => (value.max(from) / from).ln() / (to / from).ln(),
            Scale::Percentile { nines } => -(1.0 - value / 100.0).max(0.0).log10() / nines,
        };
        if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) }
    }

    /// Values that get a label and a line.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        match *self {
            Scale::Linear { from, to } => {
                let step = step(to - from);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "there are at most ten steps"
                )]
                let count = ((to - from) / step + 1e-9).floor() as u32;
                (0..=count).map(|index| from + step * f64::from(index)).collect()
            }
            Scale::Log { from, to } => log_ticks(from, to),
            Scale::Percentile { nines } => {
                let all = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.999_9_f64];
                all.into_iter().filter(|tick| -(1.0 - tick / 100.0).log10() <= nines + 1e-9).collect()
            }
        }
    }

    /// The name of the axis with the kind of scale, where that is not what one expects.
    pub(crate) fn name(&self, name: &str) -> String {
        if matches!(self, Scale::Log { .. }) { format!("{name}, log scale") } else { name.to_owned() }
    }
}

/// A round step that divides `span` into four to ten parts.
fn step(span: f64) -> f64 {
    let rough = span / 5.0;
    let size = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|factor| factor * size >= rough * 0.999);
    size * factor.unwrap_or(10.0)
}

/// Decades, and 2 and 5 times them when there are few.
fn log_ticks(from: f64, to: f64) -> Vec<f64> {
    let factors: &[f64] = if to / from > 3e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let mut ticks = Vec::new();
    let mut decade = 10_f64.powf(from.log10().floor());
    while decade <= to * 1.001 {
        ticks.extend(factors.iter().map(|factor| factor * decade));
        decade *= 10.0;
    }
    ticks.retain(|tick| *tick >= from * 0.999 && *tick <= to * 1.001);
    ticks
}

const ROUND: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

fn round_below(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let factor = ROUND.into_iter().rev().find(|factor| factor * decade <= value * 1.001);
    decade * factor.unwrap_or(1.0)
}

fn round_above(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let factor = ROUND.into_iter().find(|factor| factor * decade >= value * 0.999);
    decade * factor.unwrap_or(10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round_and_reach_the_end() {
        for (top, ticks) in [
            (7.3, vec![0.0, 2.0, 4.0, 6.0, 8.0]),
            (0.9, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
            (20_000.0, vec![0.0, 5_000.0, 10_000.0, 15_000.0, 20_000.0]),
        ] {
            let found = Scale::from_zero([1e-9, top]).ticks();
            assert_eq!(found.len(), ticks.len(), "{top}: {found:?}");
            assert!(found.iter().zip(&ticks).all(|(a, b)| (a - b).abs() < 1e-9 * top), "{top}: {found:?}");
        }
    }

    #[test]
    fn nothing_and_zero_have_a_scale_too() {
        for scale in [Scale::from_zero([]), Scale::from_zero([0.0]), Scale::fitting([0.0, f64::NAN])] {
            assert!(scale.ticks().len() >= 2, "{scale:?}");
            assert_eq!((scale.part(0.0), scale.part(f64::NAN)), (0.0, 0.0));
        }
    }

    #[test]
    fn values_far_apart_get_a_logarithmic_scale() {
        assert!(matches!(Scale::fitting([10.0, 100.0]), Scale::Linear { .. }));
        let scale = Scale::fitting([120.0, 7_000.0]);
        assert_eq!(scale, Scale::Log { from: 100.0, to: 10_000.0 });
        assert_eq!(scale.ticks().len(), 7);
        assert!((scale.part(1_000.0) - 0.5).abs() < 1e-12);
        assert_eq!(Scale::fitting([1.0, 1e6]).ticks().len(), 7);
    }

    #[test]
    fn each_nine_is_as_wide_as_the_one_before() {
        let scale = Scale::Percentile { nines: 4.0 };
        for (percentile, part) in [(0.0, 0.0), (90.0, 0.25), (99.0, 0.5), (99.99, 1.0), (100.0, 1.0)] {
            assert!((scale.part(percentile) - part).abs() < 1e-9, "{percentile}");
        }
        assert_eq!(scale.ticks(), [0.0, 50.0, 90.0, 99.0, 99.9, 99.99]);
    }
}
