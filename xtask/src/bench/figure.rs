//! One measured number, and whether it differs from another measurement of the same.

use super::median;

/// Times on a machine that does other things, too, differ by this much without a reason.
const LEAST_NOISE: f64 = 0.05;

/// A measured number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    /// `subject/part/case`.
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: Unit,
    /// The share of the value by which it may differ from run to run.
    pub(super) noise: f64,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Instructions,
    Nanoseconds,
    Microseconds,
    Milliseconds,
    PerSecond,
    /// Of the floor's requests per second.
    OfFloor,
    Mebibytes,
}

impl Unit {
    const ALL: [Unit; 7] = [
        Unit::Instructions,
        Unit::Nanoseconds,
        Unit::Microseconds,
        Unit::Milliseconds,
        Unit::PerSecond,
        Unit::OfFloor,
        Unit::Mebibytes,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Unit::Instructions => "instr",
            Unit::Nanoseconds => "ns",
            Unit::Microseconds => "µs",
            Unit::Milliseconds => "ms",
            Unit::PerSecond => "/s",
            Unit::OfFloor => "of floor",
            Unit::Mebibytes => "MiB",
        }
    }

    /// The unit called `name`.
    pub(super) fn parse(name: &str) -> Option<Unit> {
        Unit::ALL.into_iter().find(|unit| unit.name() == name)
    }

    const fn more_is_better(self) -> bool {
        matches!(self, Unit::PerSecond | Unit::OfFloor)
    }
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Better,
    Same,
    Worse,
}

impl Figure {
    /// The median of `values`, measured one after the other; how far they lie apart is the noise.
    pub(super) fn of(name: String, unit: Unit, values: &[f64]) -> Figure {
        let value = median(values.iter().copied());
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Figure { name, value, unit, noise: ((most - least) / value).max(LEAST_NOISE) }
    }

    /// A time of which a spread is known, in its unit.
    pub(super) fn spread(name: String, unit: Unit, value: f64, spread: f64) -> Figure {
        Figure { name, value, unit, noise: (spread / value).max(LEAST_NOISE) }
    }

    /// How many times `before` this is.
    pub(super) fn ratio(&self, before: &Figure) -> f64 {
        if self.value == before.value { 1.0 } else { self.value / before.value }
    }

    /// Whether it differs from `before` by more than the noise of the noisier of the two.
    pub(super) fn compare(&self, before: &Figure) -> Verdict {
        let ratio = self.ratio(before);
        let noise = self.noise.max(before.noise);
        // As far down as up: half is as different as twice.
        let more = ratio > 1.0 + noise;
        let less = ratio < 1.0 / (1.0 + noise);
        match (more, less) {
            (false, false) => Verdict::Same,
            (more, _) if more == self.unit.more_is_better() => Verdict::Better,
            _ => Verdict::Worse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(unit: Unit, value: f64, noise: f64) -> Figure {
        Figure { name: "a".to_owned(), value, unit, noise }
    }

    #[test]
    fn only_what_is_beyond_the_noise_differs() {
        let check = |unit, before, now, expected| {
            let (before, now) = (figure(unit, before, 0.02), figure(unit, now, 0.01));
            assert_eq!(now.compare(&before), expected, "{now:?} after {before:?}");
        };
        check(Unit::Instructions, 1000.0, 1019.0, Verdict::Same);
        check(Unit::Instructions, 1000.0, 1021.0, Verdict::Worse);
        check(Unit::Instructions, 1000.0, 979.0, Verdict::Better);
        check(Unit::PerSecond, 1000.0, 979.0, Verdict::Worse);
        check(Unit::OfFloor, 0.5, 0.6, Verdict::Better);
        check(Unit::Instructions, 0.0, 0.0, Verdict::Same);
        check(Unit::Instructions, 0.0, 1.0, Verdict::Worse);
    }

    #[test]
    fn runs_that_lie_apart_are_noisy() {
        let figure = Figure::of("a".to_owned(), Unit::Milliseconds, &[90.0, 100.0, 120.0]);
        assert_eq!((figure.value, figure.noise), (100.0, 0.3));
        assert_eq!(Figure::of("a".to_owned(), Unit::Milliseconds, &[100.0]).noise, LEAST_NOISE);
        assert_eq!(Figure::spread("a".to_owned(), Unit::Nanoseconds, 10.0, 2.0).noise, 0.2);
    }

    #[test]
    fn every_unit_is_found_by_its_name() {
        assert!(Unit::ALL.into_iter().all(|unit| Unit::parse(unit.name()) == Some(unit)));
        assert_eq!(Unit::parse("instructions"), None);
    }
}
