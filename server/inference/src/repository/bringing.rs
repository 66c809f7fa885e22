//! Brings the files of a version here before it is loaded, and tells how far that has come.

use std::fmt;
use std::time::Instant;

use model::{ModelName, ModelVersion};
use parking_lot::Mutex;
use tracing::info;

use super::Repository;
use super::load::Plan;
use super::progress::{Due, Pace, hundredths, mebibytes};
use crate::backend::LoadError;
use crate::remote::Progress;

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
            let due = pace.lock().due(progress.done, progress.total, Instant::now());
            match due {
                Due::Nothing => {}
                Due::Noted => self.note(name, version, &Shown(progress).to_string()),
                Due::Said => self.say(name, version, Shown(progress).to_string()),
            }
        })?;
        let moved = *moved.lock();
        if moved > 0 {
            let took = pace.lock().elapsed();
            info!(model = %name, %version, bytes = moved, ?took, "brought its files");
        }
        Ok(())
    }
}

/// How far it has come, for people.
struct Shown(Progress);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { done, total, .. } = self.0;
        let (here, all) = (mebibytes(done), mebibytes(total));
        write!(f, "bringing its files: {here:.1} of {all:.1} MiB ({} %)", hundredths(done, total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_mebibytes() {
        let shown = |done, total| Shown(Progress { done, moved: 0, total }).to_string();
        assert_eq!(shown(3 << 20, 40 << 20), "bringing its files: 3.0 of 40.0 MiB (7 %)");
        assert_eq!(shown(0, 0), "bringing its files: 0.0 of 0.0 MiB (100 %)");
    }
}
