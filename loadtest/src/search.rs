//! The search for the highest rate that meets an objective: which rate to try next, from what the others gave.

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
    /// The highest rate that met it.
    met: Option<f64>,
    /// The lowest rate that missed it.
    missed: Option<f64>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Try this rate.
    Try(f64),
    /// Nothing: the search is over.
    Done,
}

impl Search {
    /// A search between `bounds`, or from a low rate up, and down if that misses.
    pub(crate) fn new(bounds: Option<(f64, f64)>, precision: f64) -> Search {
        Search { bounds, precision, met: None, missed: None }
    }

    /// The highest rate that met the objective.
    pub(crate) fn met(&self) -> Option<f64> {
        self.met
    }

    /// The lowest rate that missed it.
    pub(crate) fn missed(&self) -> Option<f64> {
        self.missed
    }

    /// What to do after all that was observed.
    pub(crate) fn next(&self) -> Step {
        match (self.met, self.missed) {
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

    /// Takes note of what `rate` gave.
    pub(crate) fn observe(&mut self, rate: f64, met: bool) {
        if met {
            self.met = Some(self.met.map_or(rate, |other| other.max(rate)));
        } else {
            self.missed = Some(self.missed.map_or(rate, |other| other.min(rate)));
        }
    }
}

/// Repeated runs of one rate, which decide by majority.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vote {
    repeats: usize,
    met: usize,
    missed: usize,
}

impl Vote {
    pub(crate) fn new(repeats: usize) -> Vote {
        Vote { repeats, met: 0, missed: 0 }
    }

    /// Counts one run.
    pub(crate) fn cast(&mut self, met: bool) {
        if met {
            self.met += 1;
        } else {
            self.missed += 1;
        }
    }

    /// The decision, as soon as the runs that are left cannot change it. A draw misses.
    pub(crate) fn decided(&self) -> Option<bool> {
        if self.met * 2 > self.repeats {
            Some(true)
        } else if self.missed * 2 >= self.repeats {
            Some(false)
        } else {
            None
        }
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

        #[test]
        fn a_vote_is_decided_as_soon_as_it_is_and_not_before(runs in prop::collection::vec(any::<bool>(), 1..9)) {
            let majority = runs.iter().filter(|met| **met).count() * 2 > runs.len();
            let mut vote = Vote::new(runs.len());
            for (done, met) in runs.iter().enumerate() {
                if let Some(decided) = vote.decided() {
                    prop_assert_eq!(decided, majority, "before run {}", done);
                }
                vote.cast(*met);
            }
            prop_assert_eq!(vote.decided(), Some(majority));
        }
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
