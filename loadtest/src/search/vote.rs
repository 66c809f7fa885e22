//! What several runs of one rate say together.

/// Repeated runs of one rate, which decide by majority. A miss is never believed alone.
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
        // Something else on the machine makes a run miss more easily than meet: one that missed has two more to decide.
        let runs = if self.missed == 0 { self.repeats } else { self.repeats.max(3) };
        if self.met * 2 > runs {
            Some(true)
        } else if self.missed * 2 >= runs {
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

    #[test]
    fn a_miss_is_repeated_before_it_is_believed() {
        let decided = |repeats, runs: &[bool]| {
            let mut vote = Vote::new(repeats);
            runs.iter().for_each(|met| vote.cast(*met));
            vote.decided()
        };
        for repeats in [1, 2] {
            assert_eq!(decided(repeats, &[false]), None);
            assert_eq!(decided(repeats, &[false, false]), Some(false));
            assert_eq!(decided(repeats, &[false, true]), None);
            assert_eq!(decided(repeats, &[false, true, true]), Some(true));
        }
        assert_eq!((decided(1, &[true]), decided(2, &[true])), (Some(true), None));
    }

    proptest! {
        #[test]
        fn a_vote_is_decided_as_soon_as_it_is_and_not_before(runs in prop::collection::vec(any::<bool>(), 3..9)) {
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
}
