//! Following what the repositories hold: models that come are loaded, those that change are loaded again, those that
//! go are unloaded, each once nobody writes to it any more.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::ModelName;

use super::control::Why;
use super::load::{self, Plan};
use super::snapshot::ModelEntry;
use super::{Repository, ScanError, scan, unless_it_panics};

/// Models that looked as if someone wrote to them, as they were when that was first seen.
pub(super) type Unsettled = HashMap<ModelName, (Arc<Plan>, Instant)>;

/// When to look again for the files of a version that has none yet.
const NOTHING_YET: Duration = Duration::from_secs(1);

impl Repository {
    /// Looks through the repositories and does what their changes ask for. What was touched within `settle` may still be
    /// written to, and is left for later: returns after how long to look again, if for that. Blocks: not for async code.
    pub fn poll(&self, settle: Duration) -> Option<Duration> {
        let (found, errors) = scan::models(&self.settings.repositories);
        let unreadable = errors.iter().any(|error| matches!(error, ScanError::Unreadable { .. }));
        self.publish_errors(errors);
        if !unreadable {
            // One that cannot be read, such as a lost mount, has not lost its models.
            let gone = |(name, entry): (&ModelName, &ModelEntry)| {
                let given = entry.tried.as_ref().is_some_and(|tried| tried.is_overridden());
                let wanted = !entry.unwanted || entry.on_demand;
                (!found.contains_key(name) && wanted && !given).then(|| name.clone())
            };
            let gone: Vec<_> = self.published.load().models.iter().filter_map(gone).collect();
            for name in gone {
                let _turn = self.turns.take(&name);
                self.unload(&name, "its directory was removed");
            }
        }
        if self.settings.on_demand {
            self.offer(found.keys());
        }
        let found: Vec<_> =
            found.into_iter().filter(|(name, _)| self.on_demand(name.as_str()).is_none()).collect();
        let waits = parking_lot::Mutex::new(None);
        self.side_by_side(&found, |(name, directories)| {
            let wait = self.follow(name, directories, settle);
            let mut shortest = waits.lock();
            *shortest = [*shortest, wait].into_iter().flatten().min();
        });
        self.unsettled.lock().retain(|name, _| found.iter().any(|(found, _)| found == name));
        waits.into_inner()
    }

    /// The next request for any of `names` that does not serve loads it.
    fn offer<'a>(&self, names: impl Iterator<Item = &'a ModelName> + Clone) {
        self.publish_names(names.clone(), |_| false, self.scan_errors());
        for name in names {
            let entry = self.entry(name);
            if entry.unwanted && !entry.on_demand {
                self.update(name, |entry| entry.on_demand = true);
            }
        }
    }

    /// Does what the files of `name` ask for, or says how long they must be left alone before.
    fn follow(&self, name: &ModelName, directories: &[PathBuf], settle: Duration) -> Option<Duration> {
        let _turn = self.turns.take(name);
        if let [directory] = directories
            && let Ok(plan) = unless_it_panics(|| {
                load::plan(name, load::Source::in_repository(directory.clone()), &self.settings)
            })
        {
            let tried = self.entry(name).tried;
            if tried.as_ref().is_some_and(|tried| tried.is_overridden() || tried.is_same(&plan)) {
                self.unsettled.lock().remove(name);
                return None;
            }
            if let Some(wait) = self.must_settle(name, plan, tried.as_deref(), settle) {
                return Some(wait);
            }
        }
        let _ = self.load(name, directories, None, Why::Changed); // the index says why not
        None
    }

    /// How long `plan` must be left alone before it counts; `None` when it does.
    fn must_settle(
        &self,
        name: &ModelName,
        plan: Plan,
        tried: Option<&Plan>,
        settle: Duration,
    ) -> Option<Duration> {
        let mut unsettled = self.unsettled.lock();
        if plan.has_nothing() {
            return Some(settle.max(NOTHING_YET));
        }
        let young = settle.saturating_sub(plan.untouched_for(tried, SystemTime::now()));
        if young.is_zero() {
            unsettled.remove(name);
            return None;
        }
        // A clock that is wrong must not hold it up for ever: it also counts when it stays as it is for so long.
        let plan = Arc::new(plan);
        let (seen, since) =
            unsettled.entry(name.clone()).or_insert_with(|| (Arc::clone(&plan), Instant::now()));
        if !seen.is_same(&plan) {
            (*seen, *since) = (plan, Instant::now());
        }
        let wait = settle.saturating_sub(since.elapsed()).min(young);
        if wait.is_zero() {
            unsettled.remove(name);
            return None;
        }
        Some(wait)
    }

    fn publish_errors(&self, errors: Vec<ScanError>) {
        let errors: Arc<[ScanError]> = errors.into();
        for error in errors.iter().filter(|error| !self.scan_errors().contains(error)) {
            tracing::error!(%error, "cannot look through a repository");
        }
        self.published.snapshot.rcu(|snapshot| {
            let mut snapshot = super::Snapshot::clone(snapshot);
            snapshot.scanned = Some(Arc::clone(&errors));
            snapshot
        });
    }
}
