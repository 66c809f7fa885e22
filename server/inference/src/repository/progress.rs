//! How far a load has come, for those who wait for it: told as often as it is news.

use std::fmt;
use std::time::{Duration, Instant};

use model::{ModelName, ModelVersion};
use parking_lot::Mutex;
use tracing::info;

use super::Repository;
use super::snapshot::{State, VersionState};

/// Between two looks of the index at how far it has come; what takes less is not told.
const INDEX_EVERY: Duration = Duration::from_secs(1);

/// Between two lines of the log and two events, at most.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// A tenth more is worth a line earlier than that.
const SAY_STEP: u64 = 10;

/// What a load does, once its files are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A process of its own loads it, to see whether that ends it. It does not say how far it is.
    Trying,
    /// The backend reads a model whose files have so many bytes. It does not say how far it is.
    Opening { bytes: u64 },
    /// Samples run on the instances: so many runs are done, of so many.
    WarmingUp { done: u64, total: u64 },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Step::Trying => write!(f, "trying it in a process of its own"),
            Step::Opening { bytes } => write!(f, "opening its files, {:.1} MiB", mebibytes(bytes)),
            Step::WarmingUp { done, total } => {
                write!(f, "warming up: {done} of {total} runs ({} %)", hundredths(done, total))
            }
        }
    }
}

impl Repository {
    /// Who tells how far the load of `version` has come.
    pub(super) fn teller<'a>(&'a self, name: &'a ModelName, version: ModelVersion) -> impl Fn(Step) + 'a {
        let pace = Mutex::new(Pace::new(Instant::now()));
        move |step| match step {
            // Said before it begins, for it says nothing while it lasts.
            Step::Trying | Step::Opening { .. } => self.note(name, version, &step.to_string()),
            Step::WarmingUp { done, total } => match pace.lock().due(done, total, Instant::now()) {
                Due::Nothing => {}
                Due::Noted => self.note(name, version, &step.to_string()),
                Due::Said => self.say(name, version, step.to_string()),
            },
        }
    }

    /// Tells the index what the load of `version` does.
    pub(super) fn note(&self, name: &ModelName, version: ModelVersion, doing: &str) {
        self.update(name, |entry| {
            if let Some(known) = entry.versions.get_mut(&version)
                && matches!(known.state, VersionState::Loading)
            {
                doing.clone_into(&mut known.reason);
            }
        });
    }

    /// And the log, and those who follow events.
    pub(super) fn say(&self, name: &ModelName, version: ModelVersion, doing: String) {
        self.note(name, version, &doing);
        info!(model = %name, %version, doing, "loading");
        self.tell(name, version, State::Loading, doing);
    }
}

/// When to tell again.
pub(super) struct Pace {
    began: Instant,
    /// The index was told.
    noted: Instant,
    /// The log and those who follow events were told, of so many hundredths; `None` until they are.
    said: Option<(Instant, u64)>,
}

/// Who is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// The index.
    Noted,
    /// And the log, and who follows events.
    Said,
}

impl Pace {
    /// Of what begins `now`.
    pub(super) fn new(now: Instant) -> Pace {
        Pace { began: now, noted: now, said: None }
    }

    /// Who is to be told that `done` of `total` are done, `now`.
    pub(super) fn due(&mut self, done: u64, total: u64, now: Instant) -> Due {
        if done == total || now.duration_since(self.noted) < INDEX_EVERY {
            return Due::Nothing;
        }
        self.noted = now;
        let hundredths = hundredths(done, total);
        if let Some((said, before)) = self.said
            && hundredths < before + SAY_STEP
            && now.duration_since(said) < SAY_EVERY
        {
            return Due::Noted;
        }
        self.said = Some((now, hundredths));
        Due::Said
    }

    /// Since it began.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// How many of a hundred parts `done` is of `total`; all of nothing.
pub(super) fn hundredths(done: u64, total: u64) -> u64 {
    u128::from(done)
        .checked_mul(100)
        .and_then(|done| done.checked_div(u128::from(total)))
        .and_then(|hundredths| u64::try_from(hundredths).ok())
        .unwrap_or(100)
}

pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_told_each_second_and_others_at_first_and_each_tenth_or_after_a_while() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        let mut at = |milliseconds, done| pace.due(done, 1000, began + Duration::from_millis(milliseconds));
        assert_eq!(at(0, 0), Due::Nothing);
        assert_eq!(at(900, 500), Due::Nothing);
        assert_eq!(at(1000, 10), Due::Said);
        assert_eq!(at(1500, 700), Due::Nothing);
        assert_eq!(at(2000, 100), Due::Noted);
        assert_eq!(at(3000, 110), Due::Said);
        assert_eq!(at(12_900, 111), Due::Noted);
        assert_eq!(at(13_900, 112), Due::Said);
        assert_eq!(at(20_000, 1000), Due::Nothing);
    }

    #[test]
    fn steps_are_told_in_words() {
        assert_eq!(Step::Opening { bytes: 3 << 19 }.to_string(), "opening its files, 1.5 MiB");
        assert_eq!(Step::WarmingUp { done: 1, total: 3 }.to_string(), "warming up: 1 of 3 runs (33 %)");
        assert_eq!(hundredths(u64::MAX, u64::MAX), 100);
        assert_eq!(hundredths(0, 0), 100);
    }
}
