//! Following what the repositories hold: models that come are loaded, those that change are loaded again, those that
//! go are unloaded, each once nobody writes to it any more.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::ModelName;
use tracing::debug;

use super::control::Why;
use super::load::{self, Manifests, Plan};
use super::place::Place;
use super::scan::Found;
use super::snapshot::{ModelEntry, VersionEntry, VersionState};
use super::{Repository, ScanError, unless_it_panics};

/// Models that looked as if someone wrote to them, as they were when that was first seen.
pub(super) type Unsettled = HashMap<ModelName, (Arc<Plan>, Instant)>;

/// When to look again at a model that somebody else is at.
const BUSY: Duration = Duration::from_millis(500);

/// When to look again for the files of a version that has none yet.
const NOTHING_YET: Duration = Duration::from_secs(1);

/// After how long to look again, where something is left for later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookAgain {
    /// At the directories.
    pub directories: Option<Duration>,
    /// At the repositories that are elsewhere, which have to be asked again for that.
    pub remotes: Option<Duration>,
}

impl LookAgain {
    fn or_sooner(self, other: LookAgain) -> LookAgain {
        let sooner = |a: Option<Duration>, b: Option<Duration>| [a, b].into_iter().flatten().min();
        LookAgain {
            directories: sooner(self.directories, other.directories),
            remotes: sooner(self.remotes, other.remotes),
        }
    }
}

/// In front of why the repository of a version that serves cannot be looked through.
const AWAY: &str = "its repository is away, and what served goes on: ";

impl Repository {
    /// Looks through the repositories and does what their changes ask for. What was touched within `settle` may still be
    /// written to, and is left for later. Those that are elsewhere have what they had at [`Repository::look_at_remotes`].
    /// Blocks: not for async code.
    pub fn poll(&self, settle: Duration) -> LookAgain {
        let (found, errors) = self.scan();
        self.unload_what_is_gone(&found, &errors);
        self.tell_of_what_is_away(&errors);
        let is_away = |name: &ModelName| is_away(&self.entry(name), &errors).is_some();
        let found: Vec<_> = found.into_iter().filter(|(name, _)| !is_away(name)).collect();
        self.publish_errors(errors);
        if self.settings.on_demand {
            self.offer(found.iter().map(|(name, _)| name));
        }
        let found: Vec<_> =
            found.into_iter().filter(|(name, _)| self.on_demand(name.as_str()).is_none()).collect();
        let again = parking_lot::Mutex::new(LookAgain::default());
        self.side_by_side(&found, |(name, places)| {
            let wait = self.follow(name, places, settle);
            let mut soonest = again.lock();
            *soonest = soonest.or_sooner(wait);
        });
        self.unsettled.lock().retain(|name, _| found.iter().any(|(found, _)| found == name));
        again.into_inner()
    }

    /// Unloads the models that no repository has any more. One that cannot be read, such as a lost mount, has not lost its
    /// models.
    fn unload_what_is_gone(&self, found: &Found, errors: &[ScanError]) {
        let unread = errors.iter().any(ScanError::is_of_repository);
        let gone = |(name, entry): (&ModelName, &ModelEntry)| {
            let given = entry.tried.as_ref().is_some_and(|tried| tried.is_overridden());
            let stays = match entry.tried.as_ref().or(entry.serving.as_ref()) {
                Some(plan) => is_in_one_of(plan, errors).is_some(),
                None => unread, // it may be anywhere
            };
            let wanted = !entry.unwanted || entry.on_demand;
            (!found.contains_key(name) && wanted && !given && !stays).then(|| name.clone())
        };
        let gone: Vec<_> = self.published.load().models.iter().filter_map(gone).collect();
        for name in gone {
            // While it is loaded it is not gone: the next look finds it.
            if let Some(_turn) = self.turns.try_take(&name) {
                self.unload(&name, "its directory was removed");
            }
        }
    }

    /// Says of each version that serves whether its repository is away, and why.
    fn tell_of_what_is_away(&self, errors: &[ScanError]) {
        let models: Vec<_> = self.published.load().models.keys().cloned().collect();
        for name in models {
            let entry = self.entry(&name);
            let reason = is_away(&entry, errors).map_or_else(String::new, |error| format!("{AWAY}{error}"));
            let differs = |version: &VersionEntry| {
                let known = &version.reason;
                matches!(version.state, VersionState::Ready(_))
                    && (known.starts_with(AWAY) || known.is_empty())
                    && *known != reason
            };
            if !entry.versions.values().any(differs) {
                continue;
            }
            self.update(&name, |entry| {
                for version in entry.versions.values_mut().filter(|version| differs(version)) {
                    version.reason.clone_from(&reason);
                }
            });
        }
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

    /// Does what the files of `name` ask for, or says how long they must be left alone before. Somebody who is at it
    /// already is not waited for: that may take long, and others are to be followed meanwhile.
    fn follow(&self, name: &ModelName, places: &[Place], settle: Duration) -> LookAgain {
        let Some(_turn) = self.turns.try_take(name) else {
            return LookAgain { directories: Some(BUSY), remotes: None };
        };
        if let [place] = places
            && let Ok(plan) = unless_it_panics(|| {
                load::plan(name, load::Source::in_repository(place.clone()), &self.settings)
            })
        {
            let tried = self.entry(name).tried;
            if tried.as_ref().is_some_and(|tried| tried.place().is_seen_after(place)) {
                return LookAgain::default(); // another look, which began later, was here before
            }
            if tried.as_ref().is_some_and(|tried| tried.is_overridden() || tried.is_same(&plan)) {
                self.unsettled.lock().remove(name);
                return LookAgain::default();
            }
            if let Some(again) = self.must_settle(name, plan, tried.as_deref(), settle) {
                return again;
            }
        }
        let _ = self.load(name, places, None, Why::Changed); // the index says why not
        LookAgain::default()
    }

    /// After how long to look again whether `plan` counts; `None` when it does.
    fn must_settle(
        &self,
        name: &ModelName,
        plan: Plan,
        tried: Option<&Plan>,
        settle: Duration,
    ) -> Option<LookAgain> {
        let is_elsewhere = plan.place().url().is_some();
        // How long files take to come cannot be told: elsewhere, they are seen when it is time to ask again.
        let to_come =
            LookAgain { directories: (!is_elsewhere).then_some(settle.max(NOTHING_YET)), remotes: None };
        if plan.has_nothing() {
            return Some(to_come);
        }
        let manifests = plan.manifests(tried);
        if let Manifests::Awaits(file) = &manifests {
            debug!(model = %name, file, "a manifest names what has not come yet");
            return Some(to_come);
        }
        let young = match (is_elsewhere, manifests) {
            // What is put there is whole, and all of it is there.
            (true, Manifests::Kept) => Duration::ZERO,
            (true, _) => settle,
            (false, _) => settle.saturating_sub(plan.untouched_for(tried, SystemTime::now())),
        };
        let mut unsettled = self.unsettled.lock();
        if young.is_zero() {
            unsettled.remove(name);
            return None;
        }
        // A clock that is wrong must not hold it up for ever: it also counts when it stays as it is for so long.
        let plan = Arc::new(plan);
        let looked = plan.place().listed().unwrap_or_else(Instant::now);
        let (seen, since) = unsettled.entry(name.clone()).or_insert_with(|| (Arc::clone(&plan), looked));
        if !seen.is_same(&plan) {
            (*seen, *since) = (plan, looked);
        }
        let wait = settle.saturating_sub(looked.saturating_duration_since(*since)).min(young);
        if wait.is_zero() {
            unsettled.remove(name);
            return None;
        }
        let wait = Some(wait);
        Some(match is_elsewhere {
            false => LookAgain { directories: wait, remotes: None },
            true => LookAgain { directories: None, remotes: wait },
        })
    }

    fn publish_errors(&self, errors: Vec<ScanError>) {
        let errors: Arc<[ScanError]> = errors.into();
        let known = self.scan_errors();
        let is_known = |error: &ScanError| known.iter().any(|known| known.is_about_the_same(error));
        for error in errors.iter().filter(|error| !is_known(error)) {
            tracing::error!(%error, "cannot look through a repository");
        }
        for error in known.iter().filter(|known| !errors.iter().any(|error| known.is_about_the_same(error))) {
            tracing::info!(was = %error, "a repository can be looked through again");
        }
        self.published.snapshot.rcu(|snapshot| {
            let mut snapshot = super::Snapshot::clone(snapshot);
            let since_then = |error: &&ScanError| errors.iter().any(|now| now.is_about_the_same(error));
            snapshot.never_read = snapshot.never_read.iter().filter(since_then).cloned().collect();
            snapshot.scanned = Some(Arc::clone(&errors));
            snapshot
        });
    }
}

/// Why the repository that what serves of `entry` came from cannot be looked through, if it cannot.
fn is_away<'a>(entry: &ModelEntry, errors: &'a [ScanError]) -> Option<&'a ScanError> {
    is_in_one_of(entry.serving.as_deref()?, errors)
}

/// The error that is about the repository of `plan`.
fn is_in_one_of<'a>(plan: &Plan, errors: &'a [ScanError]) -> Option<&'a ScanError> {
    errors.iter().find(|error| match (error, plan.place()) {
        (ScanError::Unreadable { path, .. }, Place::Directory(directory)) => {
            directory.parent() == Some(Path::new(path))
        }
        (ScanError::Remote { url, .. }, place) => place.url() == Some(url),
        _ => false,
    })
}
