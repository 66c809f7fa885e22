//! The search for the highest rate that meets an objective: which rate to try next, from what the others gave.

mod vote;

use std::time::Duration;

pub(crate) use self::vote::Vote;

/// Where a search begins when nobody says.
const FIRST_RATE: f64 = 100.0;
/// No rate beyond this is tried: no single server answers as much.
pub(crate) const HIGHEST_RATE: f64 = 1e8;
/// No rate below this is tried: a run would see almost no request.
const LOWEST_RATE: f64 = 1.0;

/// A search for the highest rate that meets an objective.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    bounds: Option<(f64, f64)>,
    /// How near, relative to the rate found, the rate that missed must be.
    precision: f64,
    /// Rates that met it, rising, and below all that missed it.
    met: Vec<f64>,
    /// The lowest rate that missed it.
    missed: Option<f64>,
    /// The rate that met it a second time: the only one that may be found.
    confirmed: Option<f64>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Try this rate, which may have been tried before.
    Try(f64),
    /// Nothing: the search is over.
    Done,
}

impl Search {
    /// A search between `bounds`, or from a low rate up, and down if that misses.
    pub(crate) fn new(bounds: Option<(f64, f64)>, precision: f64) -> Search {
        Search { bounds, precision, met: Vec::new(), missed: None, confirmed: None }
    }

    /// The highest rate that met the objective.
    pub(crate) fn met(&self) -> Option<f64> {
        self.met.last().copied()
    }

    /// The lowest rate that missed it.
    pub(crate) fn missed(&self) -> Option<f64> {
        self.missed
    }

    /// What to do after all that was observed. The rate that would be found is tried once more: of many rates tried, the
    /// highest that met it is the one that was most likely lucky.
    pub(crate) fn next(&self) -> Step {
        match (self.narrowed(), self.met()) {
            (Step::Done, Some(met)) if self.confirmed != Some(met) => Step::Try(met),
            (step, _) => step,
        }
    }

    fn narrowed(&self) -> Step {
        match (self.met(), self.missed) {
            (Some(met), Some(missed)) if missed - met <= met * self.precision => Step::Done,
            (Some(met), Some(missed)) if missed > met * 2.0 => Step::Try((met * missed).sqrt()),
            (Some(met), Some(missed)) => Step::Try(f64::midpoint(met, missed)),
            (None, None) => Step::Try(self.bounds.map_or(FIRST_RATE, |(low, _)| low)),
            (Some(met), None) => match self.bounds {
                Some((_, high)) if met >= high => Step::Done,
                Some((_, high)) => Step::Try(high),
                None if met * 2.0 > HIGHEST_RATE => Step::Done,
                None => Step::Try(met * 2.0),
            },
            (None, Some(missed)) => match self.bounds {
                Some(_) => Step::Done,
                None if missed / 2.0 < LOWEST_RATE => Step::Done,
                None => Step::Try(missed / 2.0),
            },
        }
    }

    /// Takes note of what `rate` gave. A rate that met it and then misses it has missed it.
    pub(crate) fn observe(&mut self, rate: f64, met: bool) {
        if !met {
            self.met.retain(|other| *other < rate);
            self.missed = Some(self.missed.map_or(rate, |other| other.min(rate)));
        } else if self.met.contains(&rate) {
            self.confirmed = Some(rate);
        } else {
            self.met.push(rate);
            self.met.sort_unstable_by(f64::total_cmp);
        }
    }
}

/// How long a run at `rate` takes to have enough `samples`: as long as was asked, or up to six times that.
pub(crate) fn lengthened(asked: Duration, rate: f64, samples: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 samples")]
    let needed = Duration::try_from_secs_f64(samples as f64 / rate).unwrap_or(Duration::MAX);
    needed.clamp(asked, asked.saturating_mul(6))
}

/// Whether a server is at rest again between two rates: what one overloaded, the next would be blamed for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    /// How long it takes to answer a lone request.
    usual: Duration,
}

impl Rest {
    /// From how long lone requests took before the search; `None` without one.
    pub(crate) fn of(mut times: Vec<Duration>) -> Option<Rest> {
        times.sort_unstable();
        times.get(times.len() / 2).map(|usual| Rest { usual: *usual })
    }

    /// Whether a server that took so long for a lone request is at rest.
    pub(crate) fn shows(self, took: Duration) -> bool {
        took <= self.usual * 2 + Duration::from_millis(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches a server that meets the objective up to `capacity`; gives what was found and the rates tried.
    fn searched(bounds: Option<(f64, f64)>, precision: f64, capacity: f64) -> (Search, Vec<f64>) {
        let (mut search, mut tried) = (Search::new(bounds, precision), Vec::new());
        while let Step::Try(rate) = search.next() {
            tried.push(rate);
            assert!(tried.len() < 100, "it does not end: {tried:?}");
            search.observe(rate, rate <= capacity);
        }
        (search, tried)
    }

    proptest! {
        #[test]
        fn what_is_found_is_the_capacity_within_the_precision(
            capacity in 1.0_f64..1e6, precision in 0.001_f64..0.5,
        ) {
            let (search, tried) = searched(None, precision, capacity);
            let (met, missed) = (search.met().unwrap(), search.missed().unwrap());
            prop_assert!(met <= capacity && capacity < missed);
            prop_assert!(missed - met <= met * precision);
            prop_assert!(tried.len() < 40, "{tried:?}");
        }

        #[test]
        fn bounds_are_kept(low in 1.0_f64..1000.0, width in 1.0_f64..100.0, capacity in 1.0_f64..1e5) {
            let high = low * width;
            let (search, tried) = searched(Some((low, high)), 0.05, capacity);
            prop_assert!(tried.iter().all(|rate| (low..=high).contains(rate)));
            prop_assert_eq!(search.met().is_none(), capacity < low);
            prop_assert_eq!(search.missed().is_none(), capacity >= high);
        }
    }

    /// The rate that would be found met the objective by luck: it is tried again, and another is found below.
    #[test]
    fn a_lucky_rate_is_not_found() {
        let (mut search, mut tried) = (Search::new(Some((100.0, 200.0)), 0.05), Vec::new());
        while let Step::Try(rate) = search.next() {
            let lucky = !tried.contains(&rate) && rate < 180.0;
            tried.push(rate);
            assert!(tried.len() < 100, "it does not end: {tried:?}");
            search.observe(rate, lucky || rate <= 120.0);
        }
        let found = search.met().unwrap();
        assert!(found <= 120.0 && search.missed().unwrap() - found <= 0.05 * found, "{search:?}");
        assert_eq!(tried.iter().filter(|rate| **rate == found).count(), 2, "it was confirmed");
    }

    #[test]
    fn a_slow_rate_takes_longer_and_not_for_ever() {
        let second = Duration::from_secs(1);
        assert_eq!(lengthened(10 * second, 1000.0, 1000), 10 * second);
        assert_eq!(lengthened(10 * second, 50.0, 1000), 20 * second);
        assert_eq!(lengthened(10 * second, 1.0, 10_000), 60 * second);
    }

    #[test]
    fn a_server_is_at_rest_when_it_is_as_fast_as_before() {
        let millis = |times: &[u64]| times.iter().map(|time| Duration::from_millis(*time)).collect();
        let rest = Rest::of(millis(&[90, 5, 4, 6, 5])).unwrap();
        assert!(rest.shows(Duration::from_millis(11)) && !rest.shows(Duration::from_millis(12)));
        assert!(Rest::of(Vec::new()).is_none());
    }

    #[test]
    fn a_server_that_never_meets_it_ends_the_search() {
        let (search, tried) = searched(None, 0.05, 0.0);
        assert_eq!(search.met(), None);
        assert!(tried.last().unwrap() < &2.0);
        let (search, tried) = searched(Some((10.0, 20.0)), 0.05, 0.0);
        assert_eq!((search.met(), tried), (None, vec![10.0]));
    }

    #[test]
    fn a_server_without_an_end_ends_the_search() {
        let (search, _) = searched(None, 0.05, f64::INFINITY);
        assert_eq!(search.missed(), None);
    }
}
