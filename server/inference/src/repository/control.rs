//! Model control: what is loaded and unloaded, by whom it was asked for.
//!
//! One thing at a time is done to a model; different models are loaded side by side. New versions are loaded beside
//! those that serve, and take their place in one store once all of them are ready; if one cannot be loaded, those that
//! serve go on.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use model::{ModelName, ModelVersion};
use tracing::field::debug;
use tracing::{error, info, warn};

use super::change::{Change, Likeness};
use super::load::{self, Plan};
use super::memory::Room;
use super::overriding::Override;
use super::place::Place;
use super::snapshot::{Kept, ModelEntry, State, VersionEntry, VersionState};
use super::{Repository, scan, unless_it_panics, why_not_found};
use crate::backend::LoadError;
use crate::config::SwapPolicy;
use crate::trial::Trial;
use crate::version::ServedVersion;

/// Why something was not done to a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No repository has it.
    #[error(
        "failed to load '{model}', failed to poll from model repository: no repository has a directory of that name"
    )]
    NotFound {
        /// The name asked for.
        model: String,
    },
    /// It could not be loaded.
    #[error("load failed for model '{model}': {reason}")]
    Failed {
        /// The model.
        model: ModelName,
        /// Of each version that failed, or of the model.
        reason: String,
    },
    /// There was no room for it: it can be loaded once others have left.
    #[error("load failed for model '{model}': {reason}")]
    NoRoom {
        /// The model.
        model: ModelName,
        /// The figures, of each version.
        reason: String,
    },
    /// It was not loaded to its end: the server stops.
    #[error("load of model '{model}' was given up: the server stops")]
    GivenUp {
        /// The model.
        model: ModelName,
    },
    /// What should be loaded instead of its files cannot be.
    #[error("{0}")]
    Override(String),
    /// Nothing is kept that it could go back to.
    #[error(
        "model '{model}' has no earlier versions that are still loaded; --keep-previous says how many stay so"
    )]
    NothingKept {
        /// The model.
        model: ModelName,
    },
    /// It never served.
    #[error("Request for unknown model: '{model}' is not found")]
    Unknown {
        /// The name asked for.
        model: String,
    },
}

/// Why a model is loaded, which says what counts as a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The server starts.
    Start,
    /// Someone asked for it: what failed before is tried again.
    Asked,
    /// Its files changed.
    Changed,
}

/// Why a version is loaded and does not serve.
const KEPT: &str = "kept loaded, so that it can be rolled back to";

/// Why a version serves that did not a moment ago.
const ROLLED_BACK_TO: &str = "rolled back to";

/// Why a version serves again that had left for the next.
const LOADED_AGAIN: &str = "loaded again, since the next failed";

/// A version that was loaded, or why it was not.
type Loaded = (ModelVersion, Result<Arc<ServedVersion>, LoadError>);

/// Nobody can tell which of the `places` is meant.
fn appears_twice(places: &[Place]) -> String {
    let repositories = places.iter().map(Place::repository).collect::<Vec<_>>().join(", ");
    format!("model appears in two or more repositories: {repositories}; take it out of all but one")
}

impl Repository {
    /// Loads `name`, or what `overriding` gives instead of its files, so that it serves what they say now. Nothing is
    /// done when nothing has changed. Blocks until it is: not for async code.
    ///
    /// # Errors
    /// When it cannot be loaded; then what served goes on.
    pub fn load_model(&self, name: &ModelName, overriding: Option<Override>) -> Result<(), ControlError> {
        let _turn = self.turns.take(name);
        self.load_asked_for(name, overriding)
    }

    /// Loads `name` as [`Repository::load_model`], for a caller whose turn it is.
    fn load_asked_for(&self, name: &ModelName, overriding: Option<Override>) -> Result<(), ControlError> {
        let (mut places, mut errors) = (scan::places_of(name, &self.settings.repositories), Vec::new());
        if !overriding.as_ref().is_some_and(Override::has_files) {
            self.remotes.add_places(name, &mut places, &mut errors);
        }
        let known = self.published.load().models.contains_key(name);
        if places.is_empty() && !errors.is_empty() && overriding.is_none() {
            let reason = why_not_found(&errors);
            if known {
                self.fail(name, &reason, Why::Asked);
            }
            return Err(ControlError::Failed { model: name.clone(), reason });
        }
        if places.is_empty() && overriding.is_none() && !known {
            return Err(ControlError::NotFound { model: name.to_string() });
        }
        self.load(name, &places, overriding, Why::Asked)
    }

    /// Loads `name` because it was asked for, unless it serves by now. Blocks until it is done: not for async code.
    ///
    /// # Errors
    /// When it cannot be loaded, or is not to be by now.
    pub fn load_on_demand(&self, name: &ModelName) -> Result<(), ControlError> {
        let _turn = self.turns.take(name);
        if self.on_demand(name.as_str()).is_none() {
            return match self.entry(name).ready().next() {
                Some(_) => Ok(()),
                None => Err(ControlError::Unknown { model: name.to_string() }),
            };
        }
        self.load_asked_for(name, None)
    }

    /// Takes `name` out of service: requests that come are refused, those that came are answered, and then its memory
    /// is given back. Nothing is done to a model that is not there.
    pub fn unload_model(&self, name: &ModelName) {
        if !self.published.load().models.contains_key(name) {
            return;
        }
        let _turn = self.turns.take(name);
        self.unload(name, "unloaded");
    }

    /// Puts the versions that served before in the place of those that serve, in one store.
    ///
    /// # Errors
    /// When there are none that are still loaded.
    pub fn roll_back(&self, name: &ModelName) -> Result<Vec<ModelVersion>, ControlError> {
        if !self.published.load().models.contains_key(name) {
            return Err(ControlError::Unknown { model: name.to_string() });
        }
        let _turn = self.turns.take(name);
        let began = Instant::now();
        let nothing = || ControlError::NothingKept { model: name.clone() };
        let mut before = self.entry(name);
        // A request that it took before it was replaced may have ended the instances of one.
        let answers = |kept: &Kept| kept.versions.iter().all(|served| served.failure().is_none());
        before.kept.retain(answers);
        let Kept { versions, plan } = before.kept.pop().ok_or_else(nothing)?;
        let left = self.replace(name, &before.kept, |entry, now| {
            for known in entry.versions.values_mut() {
                if matches!(known.state, VersionState::Ready(_)) {
                    *known = VersionEntry::new(VersionState::Draining, now, "rolled back from".to_owned());
                }
            }
            for served in &versions {
                let ready = VersionState::Ready(Arc::clone(served));
                let entry_of_it = VersionEntry::new(ready, now, ROLLED_BACK_TO.to_owned());
                entry.versions.insert(served.version(), entry_of_it);
            }
            entry.serving.clone_from(&plan);
        });
        let took = began.elapsed();
        let numbers: Vec<_> = versions.iter().map(|served| served.version()).collect();
        info!(model = %name, versions = ?numbers, ?took, "rolled back");
        versions.iter().for_each(|served| self.tell_ready(served, ROLLED_BACK_TO));
        self.retire(left);
        Ok(numbers)
    }

    /// Loads the model in `places`, for a caller whose turn it is.
    pub(super) fn load(
        &self,
        name: &ModelName,
        places: &[Place],
        overriding: Option<Override>,
        why: Why,
    ) -> Result<(), ControlError> {
        let failed = |reason: String| ControlError::Failed { model: name.clone(), reason };
        let fail = |reason: String| {
            self.fail(name, &reason, why);
            Err(failed(reason))
        };
        let source = match (overriding, places) {
            (Some(given), _) if given.files.is_some() => load::Source::given(given, None),
            (_, [_, _, ..]) => return fail(appears_twice(places)),
            (Some(given), places) => load::Source::given(given, places.first()),
            (None, places) => places.first().cloned().map(load::Source::in_repository),
        };
        let Some(source) = source else {
            return fail("no repository has a directory of that name".to_owned());
        };
        // Where nothing serves, what is whole is better than to wait for what is not.
        let source = match why != Why::Changed && self.entry(name).ready().next().is_none() {
            true => source.whole_only(),
            false => source,
        };
        let plan = match unless_it_panics(|| load::plan(name, source, &self.settings)) {
            Ok(plan) => Arc::new(plan),
            Err(error) => return fail(error.to_string()),
        };
        let entry = self.entry(name);
        if why == Why::Changed && entry.tried.as_ref().is_some_and(|tried| tried.is_same(&plan)) {
            return Ok(()); // it is what it was, be that good or bad
        }
        let change = change(&entry, &plan);
        drop(entry); // it holds what may have to leave
        self.update(name, |entry| {
            entry.unacted.clone_from(&plan.unacted);
            (entry.problem, entry.unwanted) = (None, false);
            entry.tried = Some(Arc::clone(&plan));
            let failed = |version: &VersionEntry| matches!(version.state, VersionState::Failed);
            entry.versions.retain(|version, known| !failed(known) || plan.versions.contains(version));
        });
        if change.is_nothing() {
            self.update(name, |entry| {
                entry.forgive();
                entry.serving = Some(Arc::clone(&plan));
            });
            return Ok(());
        }
        if !plan.unacted.is_empty() {
            warn!(model = %name, fields = plan.unacted.join(", "), "valid, but not acted on yet");
        }
        self.carry_out(name, &plan, &change, why).map_err(|failures| {
            let told = |(version, error): &(ModelVersion, LoadError)| {
                format!("version {version} is at UNAVAILABLE state: {error};")
            };
            if failures.iter().any(|(_, error)| *error == LoadError::GivenUp) {
                return ControlError::GivenUp { model: name.clone() };
            }
            let reason = failures.iter().map(told).collect::<Vec<_>>().join(" ");
            match failures.iter().all(|(_, error)| matches!(error, LoadError::NoRoom { .. })) {
                true => ControlError::NoRoom { model: name.clone(), reason },
                false => failed(reason),
            }
        })
    }

    /// Loads what `change` says and puts it in place; why it was not, of each version.
    fn carry_out(
        &self,
        name: &ModelName,
        plan: &Arc<Plan>,
        change: &Change,
        why: Why,
    ) -> Result<(), Vec<(ModelVersion, LoadError)>> {
        let before = self.entry(name).serving;
        let served: Vec<_> = self.entry(name).ready().map(|served| served.version()).collect();
        let serving = !served.is_empty();
        if plan.swap == SwapPolicy::Resource && serving && !change.load.is_empty() {
            self.take_out(name, change, "unloading before the next is loaded (swap_policy)");
        }
        for &version in &change.load {
            self.begin(name, version);
        }
        let mut loaded: Vec<Loaded> = match self.find_room(name, plan, change) {
            Ok(room) => self.load_versions(plan, &change.load, &room, self.settings.trial.as_deref()),
            Err(no_room) => change.load.iter().map(|&version| (version, Err(no_room.clone()))).collect(),
        };
        loaded.extend(self.resize(name, plan, &change.resize));
        let failures: Vec<_> = loaded
            .iter()
            .filter_map(|(version, loaded)| Some((*version, loaded.as_ref().err()?.clone())))
            .collect();
        // At first each version that can serve does; later all of a load serve, or none.
        let all_fail = !failures.is_empty() && (serving || failures.len() == loaded.len());
        for (version, _) in loaded.iter().filter(|(_, loaded)| all_fail || loaded.is_err()) {
            plan.let_go(*version);
        }
        if all_fail {
            self.keep_what_serves(name, loaded, &failures, why);
            self.restore(name, before, &served);
        } else {
            self.put_in_place(name, plan, change, loaded, why);
        }
        if failures.iter().any(|(_, error)| error.may_pass()) {
            // Whoever follows the files tries them again, though they stay as they are.
            self.update(name, |entry| entry.tried = None);
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    fn put_in_place(
        &self,
        name: &ModelName,
        plan: &Arc<Plan>,
        change: &Change,
        loaded: Vec<Loaded>,
        why: Why,
    ) {
        let kept = self.kept_after(name, change);
        let is_kept = |version| kept.last().is_some_and(|kept| kept.has(version));
        let left = self.replace(name, &kept, |entry, now| {
            for &version in &change.drop {
                let (state, reason) = match is_kept(version) {
                    true => (VersionState::Kept, KEPT.to_owned()),
                    false => (VersionState::Draining, "replaced".to_owned()),
                };
                entry.versions.insert(version, VersionEntry::new(state, now, reason));
            }
            for (version, loaded) in &loaded {
                let state = match loaded {
                    Ok(served) => {
                        VersionEntry::new(VersionState::Ready(Arc::clone(served)), now, String::new())
                    }
                    Err(error) => VersionEntry {
                        late: why != Why::Start,
                        ..VersionEntry::new(VersionState::Failed, now, error.to_string())
                    },
                };
                entry.versions.insert(*version, state);
            }
            entry.forgive(); // what went wrong before is over
            entry.serving = Some(Arc::clone(plan));
        });
        // Said once it is so.
        for (version, loaded) in &loaded {
            match loaded {
                Ok(served) => {
                    let warm_up = served.warmed_up_in().map(debug);
                    info!(model = %name, %version, took = ?served.loaded_in(), warm_up, "ready");
                    self.tell_ready(served, "");
                }
                Err(error) => {
                    log_failure(name, *version, error);
                    self.tell(name, *version, State::Unavailable, error.to_string());
                }
            }
        }
        for &version in change.drop.iter().filter(|version| is_kept(**version)) {
            self.tell(name, version, State::Unavailable, KEPT.to_owned());
        }
        self.retire(left);
    }

    /// Loads `versions` of `plan`, one after the other, into `room`; each once it has passed the `trial`, if there is one.
    fn load_versions(
        &self,
        plan: &Plan,
        versions: &[ModelVersion],
        room: &Room,
        trial: Option<&dyn Trial>,
    ) -> Vec<Loaded> {
        let bring = |version| self.bring(plan.name(), plan, version);
        // What waits for a network takes no place from what could be loaded meanwhile.
        let is_elsewhere = plan.place().url().is_some();
        let first =
            |&version: &ModelVersion| if is_elsewhere { unless_it_panics(|| bring(version)) } else { Ok(()) };
        let brought: Vec<_> = versions.iter().map(first).collect();
        let _slot = self.slots.take();
        let load = |((index, &version), brought): ((usize, &ModelVersion), Result<(), LoadError>)| {
            let share = room.share(index);
            let load = || {
                brought?;
                if !is_elsewhere {
                    bring(version)?;
                }
                let tell = self.teller(plan.name(), version);
                trial.map_or(Ok(()), |trial| plan.try_out(version, trial, &tell))?;
                plan.load(version, &*self.backend, &self.settings, Arc::clone(&share), &tell)
            };
            let loaded = unless_it_panics(load).map(Arc::new);
            if loaded.is_ok() {
                self.memory.learn(plan.name(), plan.size(version), share.bytes());
            }
            (version, loaded)
        };
        versions.iter().enumerate().zip(brought).map(load).collect()
    }

    /// Starts the instances that `plan` wants of `versions` over what is loaded of them.
    fn resize(&self, name: &ModelName, plan: &Plan, versions: &[ModelVersion]) -> Vec<Loaded> {
        let entry = self.entry(name);
        let resize = |served: &Arc<ServedVersion>| {
            let resized = unless_it_panics(|| plan.resize(served, &self.settings)).map(Arc::new);
            if resized.is_ok() {
                info!(
                    model = %name, version = %served.version(), instances = plan.instances(),
                    "its instances are changed in place; each keeps its threads"
                );
            }
            (served.version(), resized)
        };
        entry.ready().filter(|served| versions.contains(&served.version())).map(resize).collect()
    }

    /// What stays loaded once `change` is in place.
    fn kept_after(&self, name: &ModelName, change: &Change) -> Vec<Kept> {
        let before = self.entry(name);
        let versions: Vec<_> = before.ready().cloned().collect();
        let mut kept = before.kept;
        let is_left = |served: &Arc<ServedVersion>| !change.stays_loaded(served.version());
        if versions.iter().any(is_left) {
            kept.push(Kept { versions, plan: before.serving });
        }
        let surplus = kept.len().saturating_sub(self.settings.keep_previous);
        kept.drain(..surplus);
        kept
    }

    /// Those that `served` as the plan `before` says, and left since there was no room for both, are loaded again.
    fn restore(&self, name: &ModelName, before: Option<Arc<Plan>>, served: &[ModelVersion]) {
        let Some(plan) = before else { return };
        let entry = self.entry(name);
        let serves = |version: &ModelVersion| {
            entry.versions.get(version).is_some_and(|known| matches!(known.state, VersionState::Ready(_)))
        };
        let left: Vec<_> = served.iter().copied().filter(|version| !serves(version)).collect();
        drop(entry);
        if left.is_empty() {
            return;
        }
        // They had this room before.
        let estimate = |version: &ModelVersion| self.memory.estimate(name, plan.size(*version));
        let room = self.memory.take_again(&left.iter().map(estimate).collect::<Vec<_>>());
        // They were loaded before, too.
        for (served, loaded) in self.load_versions(&plan, &left, &room, None) {
            match loaded {
                Ok(again) => {
                    self.update(name, |entry| {
                        let ready = VersionState::Ready(Arc::clone(&again));
                        let reason = LOADED_AGAIN.to_owned();
                        entry.versions.insert(served, VersionEntry::new(ready, now(), reason));
                        entry.serving = Some(Arc::clone(&plan));
                    });
                    warn!(model = %name, version = %served, "{LOADED_AGAIN}");
                    self.tell_ready(&again, LOADED_AGAIN);
                }
                Err(error) => error!(model = %name, version = %served, %error, "cannot be loaded again"),
            }
        }
    }

    /// Says that `version` is being loaded; one of the same number that serves goes on.
    fn begin(&self, name: &ModelName, version: ModelVersion) {
        match self.entry(name).versions.get(&version).map(|entry| &entry.state) {
            Some(VersionState::Ready(_)) => {
                self.tell(name, version, State::Loading, "beside the one that serves".to_owned());
            }
            _ => self.published.note(name, version, &VersionState::Loading, ""),
        }
    }

    /// Says that `version` could not be loaded; one of the same number that serves goes on.
    fn refuse(&self, name: &ModelName, version: ModelVersion, reason: &str, why: Why) {
        let serves = self.entry(name).ready().next().is_some();
        self.update(name, |entry| {
            let known = entry.versions.get(&version).map(|entry| &entry.state);
            if !matches!(known, Some(VersionState::Ready(_))) {
                let failed = VersionEntry::new(VersionState::Failed, now(), reason.to_owned());
                entry.versions.insert(version, VersionEntry { late: why != Why::Start, ..failed });
            }
            entry.failure = Some(reason.to_owned());
            if serves {
                entry.blame(&format!("version {version}: {reason}"));
            }
        });
        self.tell(name, version, State::Unavailable, reason.to_owned());
    }

    pub(super) fn tell(&self, name: &ModelName, version: ModelVersion, state: State, reason: String) {
        self.published.events.tell(now(), name, Some(version), state, reason);
    }

    /// The versions that were loaded are let go of, and the others go on; why is told of each.
    fn keep_what_serves(
        &self,
        name: &ModelName,
        loaded: Vec<Loaded>,
        failures: &[(ModelVersion, LoadError)],
        why: Why,
    ) {
        let loaded = loaded.into_iter().filter_map(|(version, loaded)| Some((version, loaded.ok()?)));
        let loaded: Vec<_> = loaded.collect();
        for (version, _) in &loaded {
            self.refuse(name, *version, "another version that was loaded with it failed", why);
        }
        for (version, error) in failures {
            log_failure(name, *version, error);
            self.refuse(name, *version, &error.to_string(), why);
        }
        self.retire(loaded.into_iter().map(|(_, served)| served).collect());
    }

    /// Takes every version of `name` out of service.
    pub(super) fn unload(&self, name: &ModelName, reason: &str) -> Vec<JoinHandle<()>> {
        self.unload_until(name, reason, false)
    }

    /// Takes every version of `name` out of service, until it is asked for if it is to come back `on_demand`.
    pub(super) fn unload_until(
        &self,
        name: &ModelName,
        reason: &str,
        on_demand: bool,
    ) -> Vec<JoinHandle<()>> {
        let left = self.replace(name, &[], |entry, now| {
            for version in entry.versions.values_mut() {
                let state = match version.state {
                    VersionState::Ready(_) | VersionState::Kept => VersionState::Draining,
                    _ => VersionState::Unloaded,
                };
                *version = VersionEntry::new(state, now, reason.to_owned());
            }
            (entry.problem, entry.failure, entry.tried, entry.serving) = (None, None, None, None);
            (entry.unwanted, entry.on_demand) = (true, on_demand);
        });
        info!(model = %name, versions = left.len(), reason, "unloaded");
        self.retire(left)
    }
}

/// What has to be done so that the model of `entry` serves what `plan` says.
fn change(entry: &ModelEntry, plan: &Plan) -> Change {
    let serving: Vec<_> = entry.ready().map(|served| served.version()).collect();
    let likeness = |version| {
        let before = entry.serving.as_ref();
        before.map_or(Likeness::Different, |before| before.likeness(plan, version))
    };
    Change::between(&serving, &plan.versions, likeness)
}

/// What is given up since the server stops is no failure that anyone must look at.
fn log_failure(name: &ModelName, version: ModelVersion, error: &LoadError) {
    match error {
        LoadError::GivenUp => info!(model = %name, %version, "not loaded: the server stops"),
        _ => error!(model = %name, %version, %error, "failed to load"),
    }
}

/// Now, as it is told.
fn now() -> SystemTime {
    SystemTime::now()
}
