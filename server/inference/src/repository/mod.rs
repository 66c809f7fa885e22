//! The model repository: which models and versions there are, and which of them answer.
//!
//! The data path reads an immutable snapshot (`snapshot`); `control` replaces it: it loads and unloads, whoever
//! asks for it, and tells of each step (`events`). A version that fails changes nothing for the others, and a load
//! that panics is one that fails.

mod bringing;
mod change;
mod control;
mod events;
mod files;
mod load;
mod look;
mod memory;
mod overriding;
mod place;
mod poll;
mod progress;
mod remotes;
mod retire;
mod room;
mod scan;
mod snapshot;
mod turns;
mod version_policy;

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use model::{InferError, ModelName, ModelVersion};
use parking_lot::Mutex;
use tracing::{error, warn};

use crate::backend::{Backend, LoadError};
use crate::cache::ResponseCache;
use crate::config::Completion;
use crate::rate_limiter::RateLimiter;
use crate::remote::RemoteRepository;
use crate::trial::Trial;
use crate::version::ServedVersion;
pub use control::ControlError;
use control::Why;
pub use events::{Event, Events};
pub(crate) use load::inside;
use memory::Memory;
pub(crate) use memory::Share;
pub use overriding::Override;
pub use poll::LookAgain;
pub(crate) use progress::Step;
use remotes::Remotes;
pub use scan::ScanError;
pub use snapshot::{IndexEntry, State};
use snapshot::{Kept, ModelEntry, Snapshot, VersionEntry, VersionState};
use turns::{Slots, Turns};

/// How models are found and loaded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directories in which models are.
    pub repositories: Vec<PathBuf>,
    /// Where else they are.
    pub remotes: Vec<Arc<dyn RemoteRepository>>,
    /// Models that load at the same time, at least 1.
    pub load_threads: usize,
    /// `configs/NAME.pbtxt` is read instead of `config.pbtxt` where it exists.
    pub config_name: Option<String>,
    /// What is taken from the graph.
    pub completion: Completion,
    /// CPU cores to divide among the instances of a model.
    pub cores: usize,
    /// Requests that may wait for a model whose configuration sets no limit.
    pub default_queue_capacity: usize,
    /// A version runs nothing before so many requests wait, once: for tests that must know what is batched
    /// together. 0 holds nothing up.
    pub held_until: usize,
    /// Where models that ask for it keep their answers, if there is such a place.
    pub cache: Option<Arc<ResponseCache>>,
    /// What instances wait for before they run, if for anything.
    pub rate_limiter: Option<Arc<RateLimiter>>,
    /// Whether the backend acts on a key of `parameters`.
    pub acts_on_parameter: fn(&str) -> bool,
    /// Sets of versions of a model that stay loaded when others take their place.
    pub keep_previous: usize,
    /// Bytes that all models may take together, if that is bounded.
    pub memory_limit: Option<u64>,
    /// Models are loaded when they are asked for, and leave again where others need their room.
    pub on_demand: bool,
    /// What tries each version before it is loaded, if anything.
    pub trial: Option<Arc<dyn Trial>>,
}

/// Every model and its versions.
#[derive(Debug)]
pub struct Repository {
    settings: Settings,
    backend: Arc<dyn Backend>,
    published: Arc<Published>,
    remotes: Remotes,
    turns: Turns,
    slots: Slots,
    memory: Arc<Memory>,
    /// Versions that serve no more and may not have answered all that they took.
    leaving: Mutex<Vec<Weak<ServedVersion>>>,
    /// Held by the one who looks for the index.
    looking: Mutex<()>,
    /// What is being written, as the last look saw it.
    unsettled: Mutex<poll::Unsettled>,
}

/// What is known, and what is told of its changes.
#[derive(Debug, Default)]
struct Published {
    snapshot: ArcSwap<Snapshot>,
    events: Events,
}

impl Published {
    fn load(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Publishes a snapshot in which the entry of `name` is changed.
    fn update(&self, name: &ModelName, change: impl Fn(&mut ModelEntry)) {
        self.snapshot.rcu(|snapshot| {
            let mut snapshot = Snapshot::clone(snapshot);
            change(snapshot.models.entry(name.clone()).or_default());
            snapshot
        });
    }

    /// Says that `version` is in `state` since now.
    fn note(&self, name: &ModelName, version: ModelVersion, state: &VersionState, reason: &str) {
        let now = SystemTime::now();
        self.update(name, |entry| {
            entry.versions.insert(version, VersionEntry::new(state.clone(), now, reason.to_owned()));
            entry.forget_the_oldest();
        });
        self.events.tell(now, name, Some(version), state.shown(), reason.to_owned());
    }

    /// Says that `version` is gone, unless another of its number is being loaded by now.
    fn note_gone(&self, name: &ModelName, version: ModelVersion) {
        let (now, gone) = (SystemTime::now(), Cell::new(false));
        self.update(name, |entry| {
            let state = entry.versions.get(&version).map(|entry| &entry.state);
            gone.set(matches!(state, Some(VersionState::Draining)));
            if gone.get() {
                let unloaded = VersionEntry::new(VersionState::Unloaded, now, UNLOADED.to_owned());
                entry.versions.insert(version, unloaded);
                entry.forget_the_oldest();
            }
        });
        if gone.get() {
            self.events.tell(now, name, Some(version), State::Unavailable, UNLOADED.to_owned());
        }
    }
}

impl Repository {
    /// A repository of which nothing is loaded yet.
    pub fn new(settings: Settings, backend: Arc<dyn Backend>) -> Repository {
        Repository {
            slots: Slots::new(settings.load_threads),
            remotes: Remotes::new(settings.remotes.clone()),
            memory: Memory::new(settings.memory_limit),
            settings,
            backend,
            published: Arc::default(),
            turns: Turns::default(),
            leaving: Mutex::default(),
            looking: Mutex::default(),
            unsettled: Mutex::default(),
        }
    }

    /// Finds every model and loads those that `wanted` names. Without a list all of them are loaded, but for models
    /// that are loaded on demand. Returns when they are ready or failed. Blocks: not for async code.
    ///
    /// What is wrong with a repository or a directory in it is kept ([`Repository::scan_errors`]); the models
    /// of the others are loaded.
    pub fn load_all(&self, wanted: Option<&[ModelName]>) {
        self.remotes.look();
        let (found, errors) = self.scan();
        let all = !self.settings.on_demand;
        let is_wanted = |name: &ModelName| wanted.map_or(all, |wanted| wanted.contains(name));
        self.publish_names(found.keys(), is_wanted, errors.into());
        let missing = wanted.unwrap_or_default().iter().filter(|name| !found.contains_key(*name));
        for name in missing {
            self.update(name, |entry| entry.required = true);
            self.fail(name, &why_not_found(&self.scan_errors()), Why::Start);
        }
        let found: Vec<_> = found.into_iter().filter(|(name, _)| is_wanted(name)).collect();
        self.side_by_side(&found, |(name, places)| {
            let _turn = self.turns.take(name);
            let _ = self.load(name, places, None, Why::Start); // the index says why not
        });
        self.tell_of_unasked_resources();
    }

    /// Asks the repositories that are elsewhere what they have now; [`Repository::poll`] goes by it. Blocks, as long as
    /// they take: not for async code.
    pub fn look_at_remotes(&self) {
        self.remotes.look();
    }

    /// What the directories have now, and the other repositories had when they were last asked.
    fn scan(&self) -> (scan::Found, Vec<ScanError>) {
        let (mut found, mut errors) = scan::models(&self.settings.repositories);
        self.remotes.add(&mut found, &mut errors);
        (found, errors)
    }

    /// Does `work` for each of `all`, as many at a time as may be loaded.
    fn side_by_side<T: Sync>(&self, all: &[T], work: impl Fn(&T) + Sync) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..self.settings.load_threads.clamp(1, all.len().max(1)) {
                scope.spawn(|| {
                    while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                        work(one);
                    }
                });
            }
        });
    }

    /// Most likely their names are misspelt, and what they should bound is not.
    fn tell_of_unasked_resources(&self) {
        for total in self.rate_limiter().map(RateLimiter::unasked).unwrap_or_default() {
            warn!(
                resource = total.name,
                count = total.count,
                "--rate-limit-resource gives what no loaded model asks for in rate_limiter.resources"
            );
        }
    }

    /// Publishes which models there are, of which nothing more is known yet.
    fn publish_names<'a>(
        &self,
        names: impl Iterator<Item = &'a ModelName> + Clone,
        is_wanted: impl Fn(&ModelName) -> bool,
        errors: Arc<[ScanError]>,
    ) {
        self.published.snapshot.rcu(|snapshot| {
            let mut snapshot = Snapshot::clone(snapshot);
            for name in names.clone() {
                let wanted = is_wanted(name);
                let on_demand = self.settings.on_demand;
                let entry =
                    || ModelEntry { unwanted: !wanted, required: wanted, on_demand, ..ModelEntry::default() };
                snapshot.models.entry(name.clone()).or_insert_with(entry);
            }
            snapshot.scanned = Some(Arc::clone(&errors));
            snapshot.never_read = errors.iter().filter(|error| !error.is_stood_in_for()).cloned().collect();
            snapshot
        });
    }

    /// Says that no version of `name` can be tried, and why; those that serve go on.
    fn fail(&self, name: &ModelName, reason: &str, why: Why) {
        let entry = self.entry(name);
        if why == Why::Changed && entry.failure.as_deref() == Some(reason) {
            return; // it was said before
        }
        error!(model = %name, error = reason, "failed to load");
        let serves = entry.ready().next().is_some();
        self.update(name, |entry| {
            entry.tried = None;
            (entry.failure, entry.unwanted) = (Some(reason.to_owned()), false);
            if serves {
                entry.blame(reason);
            } else {
                entry.problem = Some(reason.to_owned());
            }
        });
        let (state, reason) = match serves {
            true => (State::Ready, format!("{STILL_SERVES}{reason}")),
            false => (State::Unavailable, reason.to_owned()),
        };
        self.published.events.tell(SystemTime::now(), name, None, state, reason);
    }

    /// The entry of `name` as it is now.
    fn entry(&self, name: &ModelName) -> ModelEntry {
        self.published.load().models.get(name).cloned().unwrap_or_default()
    }

    /// Publishes a snapshot in which the entry of `name` is changed.
    fn update(&self, name: &ModelName, change: impl Fn(&mut ModelEntry)) {
        self.published.update(name, change);
    }

    /// Changes what serves of `name`, and what is kept, in one store. Returns the versions that are neither any more.
    fn replace(
        &self,
        name: &ModelName,
        kept: &[Kept],
        change: impl Fn(&mut ModelEntry, SystemTime),
    ) -> Vec<Arc<ServedVersion>> {
        let (before, now) = (self.entry(name), SystemTime::now());
        self.update(name, |entry| {
            entry.kept = kept.to_vec();
            change(entry, now);
            entry.forget_the_oldest();
        });
        let after = self.entry(name).loaded();
        let is_gone = |served: &Arc<ServedVersion>| !after.iter().any(|other| Arc::ptr_eq(served, other));
        before.loaded().into_iter().filter(is_gone).collect()
    }

    /// Tells that `served` answers from now on.
    fn tell_ready(&self, served: &ServedVersion, reason: &str) {
        let version = Some(served.version());
        self.published.events.tell(
            SystemTime::now(),
            served.name(),
            version,
            State::Ready,
            reason.to_owned(),
        );
    }

    /// Where answers are kept, if anywhere.
    pub fn cache(&self) -> Option<&ResponseCache> {
        self.settings.cache.as_deref()
    }

    /// What instances wait for before they run, if for anything.
    pub fn rate_limiter(&self) -> Option<&RateLimiter> {
        self.settings.rate_limiter.as_deref()
    }

    /// Bytes that all models may take together, if that is bounded.
    pub fn memory_limit(&self) -> Option<u64> {
        self.memory.limit()
    }

    /// Bytes that the models take, those that leave among them, and that loads under way are expected to.
    pub fn memory_taken(&self) -> u64 {
        self.memory.taken()
    }

    /// What each version that is loaded takes, in bytes, be it that it serves or that it is kept; by name and version.
    pub fn memory_by_version(&self) -> Vec<(ModelName, ModelVersion, u64)> {
        let snapshot = self.published.load();
        let loaded = snapshot.models.values().flat_map(ModelEntry::loaded);
        let mut bytes: Vec<_> =
            loaded.map(|served| (served.name().clone(), served.version(), served.memory().bytes())).collect();
        bytes.sort_unstable();
        // A version may be kept of which another of the same number serves.
        bytes.dedup_by(|next, first| {
            let same = (&next.0, next.1) == (&first.0, first.1);
            first.2 += if same { next.2 } else { 0 };
            same
        });
        bytes
    }

    /// What was wrong with the repositories when they were looked through.
    pub fn scan_errors(&self) -> Arc<[ScanError]> {
        self.published.load().scanned.clone().unwrap_or_default()
    }

    /// What was wrong with the repositories at the start and has been since. One that was lost later has its models
    /// served on, and is no reason to send everyone elsewhere.
    pub fn never_read(&self) -> Arc<[ScanError]> {
        Arc::clone(&self.published.load().never_read)
    }

    /// The version of `model` that answers a request: the named one, else the highest that is ready.
    ///
    /// # Errors
    /// When the model or version is unknown, or not ready.
    pub fn ready(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<Arc<ServedVersion>, InferError> {
        let snapshot = self.published.load();
        let (name, entry) = snapshot.find(model)?;
        match version {
            None => entry.ready().next_back().cloned().ok_or_else(|| entry.why_none_is_ready(name)),
            Some(version) => match entry.versions.get(&version).map(|entry| &entry.state) {
                Some(VersionState::Ready(served)) if served.failure().is_none() => Ok(Arc::clone(served)),
                _ => Err(entry.why_not(name, version)),
            },
        }
    }

    /// The name of `model`, if it does not serve and its next request should load it.
    pub fn on_demand(&self, model: &str) -> Option<ModelName> {
        let snapshot = self.published.load();
        let (name, entry) = snapshot.models.get_key_value(model)?;
        (entry.on_demand && entry.ready().next().is_none()).then(|| name.clone())
    }

    /// Every version that is ready, by name and version.
    pub fn all_ready(&self) -> Vec<Arc<ServedVersion>> {
        let snapshot = self.published.load();
        let mut ready: Vec<_> = snapshot.models.values().flat_map(ModelEntry::ready).cloned().collect();
        ready.sort_by(|a, b| (a.name(), a.version()).cmp(&(b.name(), b.version())));
        ready
    }

    /// Every version that may have requests to answer: those that serve, are kept, or leave.
    pub fn all_at_work(&self) -> Vec<Arc<ServedVersion>> {
        let leaving: Vec<_> = self.leaving.lock().iter().filter_map(Weak::upgrade).collect();
        let snapshot = self.published.load();
        snapshot.models.values().flat_map(ModelEntry::loaded).chain(leaving).collect()
    }

    /// The ready versions of `model`, lowest first.
    ///
    /// # Errors
    /// When the model is unknown or has no ready version.
    pub fn ready_versions(&self, model: &str) -> Result<Vec<Arc<ServedVersion>>, InferError> {
        let snapshot = self.published.load();
        let (name, entry) = snapshot.find(model)?;
        let ready: Vec<_> = entry.ready().cloned().collect();
        if ready.is_empty() { Err(entry.why_none_is_ready(name)) } else { Ok(ready) }
    }

    /// The fields of each model's configuration that are valid but not acted on yet, by model.
    pub fn unacted(&self) -> Vec<(ModelName, Vec<String>)> {
        let snapshot = self.published.load();
        let with_any = snapshot.models.iter().filter(|(_, entry)| !entry.unacted.is_empty());
        let mut unacted: Vec<_> =
            with_any.map(|(name, entry)| (name.clone(), entry.unacted.clone())).collect();
        unacted.sort();
        unacted
    }

    /// What has happened to versions, and happens.
    pub fn events(&self) -> &Events {
        &self.published.events
    }

    /// Whether every model serves that the server was told to at its start, but for those that were unloaded since. A
    /// version that came later and failed is no reason to send everyone elsewhere.
    pub fn is_complete(&self) -> bool {
        self.published.load().models.values().all(ModelEntry::is_complete)
    }

    /// Every model and version with its state, by name and version.
    pub fn index(&self) -> Vec<IndexEntry> {
        let snapshot = self.published.load();
        let mut index: Vec<_> = snapshot.models.iter().flat_map(|(name, entry)| entry.index(name)).collect();
        index.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        index
    }
}

/// What `load` gives; a panic in it, of the backend most likely, is its error, so that it ends nothing else.
fn unless_it_panics<T>(load: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    // A load shares nothing with others but what is behind locks, and what it was making is dropped.
    catch_unwind(AssertUnwindSafe(load))
        .unwrap_or_else(|panic| Err(LoadError::Panicked(panic_words(&*panic))))
}

/// What a panic said.
pub(crate) fn panic_words(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
    words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".to_owned())
}

/// Why no repository is known to have a model, where `errors` say which of them could not be asked.
fn why_not_found(errors: &[ScanError]) -> String {
    let unread = errors.iter().filter(|error| error.is_of_repository());
    let unread = unread.fold(String::new(), |text, error| format!("{text}; {error}"));
    format!("no repository has a directory of that name{unread}")
}

/// Why a version that left does not answer, in Triton's word.
const UNLOADED: &str = "unloaded";

/// In front of why a load failed where versions go on serving.
const STILL_SERVES: &str = "the last load failed, and what served goes on: ";

#[cfg(test)]
mod control_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod rate_limit_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod warmup_tests;
