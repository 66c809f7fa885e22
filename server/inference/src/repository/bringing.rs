//! Brings the files of a version here before it is loaded, and tells how far that has come.

use std::fmt;
use std::time::{Duration, Instant};

use model::{ModelName, ModelVersion};
use parking_lot::Mutex;
use tracing::info;

use super::Repository;
use super::load::Plan;
use super::snapshot::{State, VersionState};
use crate::backend::LoadError;
use crate::remote::Progress;

/// Between two looks of the index at how far it has come; what takes less is not told.
const INDEX_EVERY: Duration = Duration::from_secs(1);

/// Between two lines of the log and two events, at most.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// A tenth more is worth a line earlier than that.
const SAY_STEP: u64 = 10;

impl Repository {
    /// Brings the files of `version` here, as far as they are elsewhere, and holds them against its manifest.
    pub(super) fn bring(
        &self,
        name: &ModelName,
        plan: &Plan,
        version: ModelVersion,
    ) -> Result<(), LoadError> {
        let pace = Mutex::new(Pace::new(Instant::now()));
        let moved = Mutex::new(0);
        plan.bring(version, &|progress: Progress| {
            *moved.lock() = progress.moved;
            let due = pace.lock().due(progress, Instant::now());
            if due == Due::Nothing {
                return;
            }
            let reason = format!("bringing its files: {}", Shown(progress));
            self.update(name, |entry| {
                if let Some(known) = entry.versions.get_mut(&version)
                    && matches!(known.state, VersionState::Loading)
                {
                    known.reason.clone_from(&reason);
                }
            });
            if due == Due::Said {
                info!(model = %name, %version, done = %Shown(progress), "bringing its files");
                self.tell(name, version, State::Loading, reason);
            }
        })?;
        let moved = *moved.lock();
        if moved > 0 {
            let took = pace.lock().began.elapsed();
            info!(model = %name, %version, bytes = moved, ?took, "brought its files");
        }
        Ok(())
    }
}

/// When to tell again.
struct Pace {
    began: Instant,
    /// The index was told.
    noted: Instant,
    /// The log and those who follow events were told, of so many hundredths; `None` until they are.
    said: Option<(Instant, u64)>,
}

/// Who is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// The index.
    Noted,
    /// And the log, and who follows events.
    Said,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { began: now, noted: now, said: None }
    }

    fn due(&mut self, progress: Progress, now: Instant) -> Due {
        if progress.done == progress.total || now.duration_since(self.noted) < INDEX_EVERY {
            return Due::Nothing;
        }
        self.noted = now;
        let hundredths = hundredths(progress);
        if let Some((said, before)) = self.said
            && hundredths < before + SAY_STEP
            && now.duration_since(said) < SAY_EVERY
        {
            return Due::Noted;
        }
        self.said = Some((now, hundredths));
        Due::Said
    }
}

fn hundredths(progress: Progress) -> u64 {
    u128::from(progress.done)
        .checked_mul(100)
        .and_then(|done| done.checked_div(u128::from(progress.total)))
        .and_then(|hundredths| u64::try_from(hundredths).ok())
        .unwrap_or(100)
}

/// How far it has come, for people.
struct Shown(Progress);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let Progress { done, total, .. } = self.0;
        write!(f, "{:.1} of {:.1} MiB ({} %)", mebibytes(done), mebibytes(total), hundredths(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_told_each_second_and_others_at_first_and_each_tenth_or_after_a_while() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        let mut at = |milliseconds, done| {
            let progress = Progress { done, moved: done, total: 1000 };
            pace.due(progress, began + Duration::from_millis(milliseconds))
        };
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
    fn it_is_told_in_mebibytes() {
        let shown = |done, total| Shown(Progress { done, moved: 0, total }).to_string();
        assert_eq!(shown(3 << 20, 40 << 20), "3.0 of 40.0 MiB (7 %)");
        assert_eq!(shown(0, 0), "0.0 of 0.0 MiB (100 %)");
        assert_eq!(hundredths(Progress { done: u64::MAX, moved: 0, total: u64::MAX }), 100);
    }
}
