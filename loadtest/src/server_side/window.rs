//! When the counters of a server are read: as the measured time of a run opens and closes, so that neither its warm-up
//! nor what is answered after its end is in the difference.

use std::time::Duration;

use super::Reading;

/// The readings around the measured time of one run.
#[derive(Debug)]
pub(crate) struct Readings {
    opens: Duration,
    closes: Option<Duration>,
    pub(crate) before: Reading,
    pub(crate) after: Option<Reading>,
    /// Whether the reading as it opens is still to come.
    opening: bool,
    /// How late a reading was at most.
    late: Duration,
}

impl Readings {
    /// `start` was read before the load began. The measured time opens and closes so long after that; without an end
    /// the last reading is after the run.
    pub(crate) fn new(start: Reading, opens: Duration, closes: Option<Duration>) -> Readings {
        let opening = opens > Duration::ZERO;
        Readings { opens, closes, before: start, after: None, opening, late: Duration::ZERO }
    }

    /// When the next reading is due, from the begin of the load.
    pub(crate) fn next(&self) -> Option<Duration> {
        if self.opening {
            return Some(self.opens);
        }
        self.closes.filter(|_| self.after.is_none())
    }

    /// Takes the reading that was due, which was complete at `at`.
    pub(crate) fn take(&mut self, reading: Reading, at: Duration) {
        self.late = self.late.max(at.saturating_sub(self.next().unwrap_or(at)));
        if self.opening {
            self.opening = false;
            self.before = reading;
        } else {
            self.after = Some(reading);
        }
    }

    /// A sentence on readings that came so late that it matters.
    pub(crate) fn remark(&self) -> Option<String> {
        let window = self.closes?.saturating_sub(self.opens);
        (self.late > window / 10).then(|| {
            format!(
                "The server's figures were read {:.1} s late, and are not quite of the measured time.",
                self.late.as_secs_f64()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reading(named: bool) -> Reading {
        Reading { metrics_named: named, ..Reading::default() }
    }

    #[test]
    fn counters_are_read_as_the_measured_time_opens_and_closes() {
        let mut readings = Readings::new(reading(false), SECOND, Some(11 * SECOND));
        assert_eq!(readings.next(), Some(SECOND));
        readings.take(reading(true), SECOND * 5 / 4);
        assert!(readings.before.metrics_named, "that of the start is replaced");
        assert_eq!(readings.next(), Some(11 * SECOND));
        readings.take(reading(false), 11 * SECOND);
        assert_eq!((readings.next(), readings.remark()), (None, None));
        assert!(readings.after.is_some());
    }

    #[test]
    fn without_a_warm_up_or_an_end_those_around_the_run_are_taken() {
        assert_eq!(Readings::new(reading(true), Duration::ZERO, None).next(), None);
        assert_eq!(Readings::new(reading(true), Duration::ZERO, Some(SECOND)).next(), Some(SECOND));
    }

    #[test]
    fn a_late_reading_is_said() {
        let mut readings = Readings::new(reading(false), SECOND, Some(2 * SECOND));
        readings.take(reading(false), 3 * SECOND);
        assert!(readings.remark().unwrap().contains("2.0 s late"));
    }
}
