//! The model repository: which models and versions there are, and which of them answer.
//!
//! The data path reads an immutable snapshot; loading replaces it. A version is `Loading`, then `Ready` or
//! `Failed`; a version that fails changes nothing for the others, and a load that panics is one that fails.

mod load;
mod scan;
mod version_policy;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arc_swap::ArcSwap;
use model::{InferError, ModelName, ModelVersion};
use tracing::field::debug;
use tracing::{error, info, warn};

use crate::backend::{Backend, LoadError};
use crate::cache::ResponseCache;
use crate::config::Completion;
use crate::rate_limiter::RateLimiter;
use crate::version::ServedVersion;
pub(crate) use load::inside;
pub use scan::ScanError;

/// How models are found and loaded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where models are, in the order given.
    pub repositories: Vec<PathBuf>,
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
}

/// Every model and its versions.
#[derive(Debug)]
pub struct Repository {
    settings: Settings,
    snapshot: ArcSwap<Snapshot>,
}

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    models: HashMap<ModelName, ModelEntry>,
    /// What was wrong with the repositories; `None` until they have been looked through, when nobody can say
    /// yet which models there are.
    scanned: Option<Arc<[ScanError]>>,
}

#[derive(Clone, Debug, Default)]
struct ModelEntry {
    versions: BTreeMap<ModelVersion, VersionState>,
    /// Why no version could even be tried.
    problem: Option<String>,
    /// What its configuration asks for and nothing acts on yet.
    unacted: Vec<String>,
}

#[derive(Clone, Debug)]
enum VersionState {
    Loading,
    /// It was loaded. It answers unless its instances have failed since ([`ServedVersion::failure`]).
    Ready(Arc<ServedVersion>),
    Failed {
        reason: String,
    },
}

/// One line of the repository index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model.
    pub name: ModelName,
    /// The version; `None` when the model failed before its versions were known.
    pub version: Option<ModelVersion>,
    /// Its state.
    pub state: State,
    /// Why it is in that state; empty when there is nothing to say.
    pub reason: String,
}

/// The state of a version, as the repository index names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answers requests.
    Ready,
    /// It does not.
    Unavailable,
    /// It is being loaded.
    Loading,
}

impl State {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            State::Ready => "READY",
            State::Unavailable => "UNAVAILABLE",
            State::Loading => "LOADING",
        }
    }
}

impl Repository {
    /// A repository of which nothing is loaded yet.
    pub fn new(settings: Settings) -> Repository {
        Repository { settings, snapshot: ArcSwap::default() }
    }

    /// Finds every model and loads it; returns when all are ready or failed. Blocks: not for async code.
    ///
    /// What is wrong with a repository or a directory in it is kept ([`Repository::scan_errors`]); the models
    /// of the others are loaded.
    pub fn load_all(&self, backend: &dyn Backend) {
        let (found, errors) = scan::models(&self.settings.repositories);
        let found: Vec<_> = found.into_iter().collect();
        self.publish_names(found.iter().map(|(name, _)| name), errors.into());
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..self.settings.load_threads.clamp(1, found.len().max(1)) {
                scope.spawn(|| {
                    while let Some((name, directories)) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.load(name, directories, backend);
                    }
                });
            }
        });
        self.tell_of_unasked_resources();
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
        errors: Arc<[ScanError]>,
    ) {
        self.snapshot.rcu(|snapshot| {
            let mut snapshot = Snapshot::clone(snapshot);
            snapshot.models.extend(names.clone().map(|name| (name.clone(), ModelEntry::default())));
            snapshot.scanned = Some(Arc::clone(&errors));
            snapshot
        });
    }

    fn load(&self, name: &ModelName, directories: &[PathBuf], backend: &dyn Backend) {
        let [directory] = directories else {
            return self.fail(name, "model appears in two or more repositories".to_owned());
        };
        let plan = match unless_it_panics(|| load::plan(name, directory, &self.settings)) {
            Ok(plan) => plan,
            Err(error) => return self.fail(name, error.to_string()),
        };
        if !plan.unacted.is_empty() {
            warn!(model = %name, fields = plan.unacted.join(", "), "valid, but not acted on yet");
        }
        self.update(name, |entry| {
            entry.unacted.clone_from(&plan.unacted);
            entry.versions = plan.versions.iter().map(|version| (*version, VersionState::Loading)).collect();
        });
        for &version in &plan.versions {
            let loaded = unless_it_panics(|| plan.load(version, backend, &self.settings)).map(Arc::new);
            let state = match &loaded {
                Ok(served) => VersionState::Ready(Arc::clone(served)),
                Err(error) => VersionState::Failed { reason: error.to_string() },
            };
            self.update(name, |entry| drop(entry.versions.insert(version, state.clone())));
            // Said once it is so.
            match loaded {
                Ok(served) => {
                    let warm_up = served.warmed_up_in().map(debug);
                    info!(model = %name, %version, took = ?served.loaded_in(), warm_up, "ready");
                }
                Err(error) => error!(model = %name, %version, %error, "failed to load"),
            }
        }
    }

    fn fail(&self, name: &ModelName, reason: String) {
        error!(model = %name, error = reason, "failed to load");
        self.update(name, |entry| entry.problem = Some(reason.clone()));
    }

    /// Publishes a snapshot in which the entry of `name` is changed.
    fn update(&self, name: &ModelName, change: impl Fn(&mut ModelEntry)) {
        self.snapshot.rcu(|snapshot| {
            let mut snapshot = Snapshot::clone(snapshot);
            change(snapshot.models.entry(name.clone()).or_default());
            snapshot
        });
    }

    /// Where answers are kept, if anywhere.
    pub fn cache(&self) -> Option<&ResponseCache> {
        self.settings.cache.as_deref()
    }

    /// What instances wait for before they run, if for anything.
    pub fn rate_limiter(&self) -> Option<&RateLimiter> {
        self.settings.rate_limiter.as_deref()
    }

    /// What was wrong with the repositories when they were looked through.
    pub fn scan_errors(&self) -> Arc<[ScanError]> {
        self.snapshot.load().scanned.clone().unwrap_or_default()
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
        let snapshot = self.snapshot.load();
        let (name, entry) = snapshot.find(model)?;
        match version {
            None => entry.ready().next_back().cloned().ok_or_else(|| entry.why_none_is_ready(name)),
            Some(version) => match entry.versions.get(&version) {
                Some(VersionState::Ready(served)) => match served.failure() {
                    None => Ok(Arc::clone(served)),
                    Some(_) => Err(InferError::VersionFailed { model: name.clone(), version }),
                },
                Some(VersionState::Loading | VersionState::Failed { .. }) => {
                    Err(InferError::VersionNotReady { model: name.clone(), version })
                }
                None if entry.is_unread() => Err(InferError::ModelLoading { model: name.to_string() }),
                None => Err(InferError::UnknownVersion { model: name.clone(), version }),
            },
        }
    }

    /// Every version that is ready, by name and version.
    pub fn all_ready(&self) -> Vec<Arc<ServedVersion>> {
        let snapshot = self.snapshot.load();
        let mut ready: Vec<_> = snapshot.models.values().flat_map(ModelEntry::ready).cloned().collect();
        ready.sort_by(|a, b| (a.name(), a.version()).cmp(&(b.name(), b.version())));
        ready
    }

    /// The ready versions of `model`, lowest first.
    ///
    /// # Errors
    /// When the model is unknown or has no ready version.
    pub fn ready_versions(&self, model: &str) -> Result<Vec<Arc<ServedVersion>>, InferError> {
        let snapshot = self.snapshot.load();
        let (name, entry) = snapshot.find(model)?;
        let ready: Vec<_> = entry.ready().cloned().collect();
        if ready.is_empty() { Err(entry.why_none_is_ready(name)) } else { Ok(ready) }
    }

    /// The fields of each model's configuration that are valid but not acted on yet, by model.
    pub fn unacted(&self) -> Vec<(ModelName, Vec<String>)> {
        let snapshot = self.snapshot.load();
        let with_any = snapshot.models.iter().filter(|(_, entry)| !entry.unacted.is_empty());
        let mut unacted: Vec<_> =
            with_any.map(|(name, entry)| (name.clone(), entry.unacted.clone())).collect();
        unacted.sort();
        unacted
    }

    /// Every model and version with its state, by name and version.
    pub fn index(&self) -> Vec<IndexEntry> {
        let snapshot = self.snapshot.load();
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

impl Snapshot {
    /// The entry of `model`. Until the repositories have been looked through nobody can say that it is unknown.
    fn find(&self, model: &str) -> Result<(&ModelName, &ModelEntry), InferError> {
        self.models.get_key_value(model).ok_or_else(|| {
            let model = model.chars().take(ModelName::MAX_LEN).collect();
            match self.scanned {
                Some(_) => InferError::UnknownModel { model },
                None => InferError::ModelLoading { model },
            }
        })
    }
}

impl ModelEntry {
    fn ready(&self) -> impl DoubleEndedIterator<Item = &Arc<ServedVersion>> {
        self.versions.values().filter_map(|state| match state {
            VersionState::Ready(served) if served.failure().is_none() => Some(served),
            VersionState::Loading | VersionState::Ready(_) | VersionState::Failed { .. } => None,
        })
    }

    /// True until its configuration is read, which says what versions there are.
    fn is_unread(&self) -> bool {
        self.versions.is_empty() && self.problem.is_none()
    }

    /// Only what will not change by itself is told as not found: clients and meshes give up on that.
    fn why_none_is_ready(&self, name: &ModelName) -> InferError {
        let loading = |state: &VersionState| matches!(state, VersionState::Loading);
        if self.is_unread() || self.versions.values().any(loading) {
            return InferError::ModelLoading { model: name.to_string() };
        }
        let failed = |(version, state): (&ModelVersion, &VersionState)| {
            matches!(state, VersionState::Ready(_)).then_some(*version)
        };
        match self.versions.iter().rev().find_map(failed) {
            Some(version) => InferError::VersionFailed { model: name.clone(), version },
            None => InferError::NoReadyVersion { model: name.clone() },
        }
    }

    fn index(&self, name: &ModelName) -> Vec<IndexEntry> {
        let entry = |version, state, reason: &str| IndexEntry {
            name: name.clone(),
            version,
            state,
            reason: reason.to_owned(),
        };
        if let Some(problem) = &self.problem {
            return vec![entry(None, State::Unavailable, problem)];
        }
        if self.versions.is_empty() {
            return vec![entry(None, State::Loading, "")];
        }
        let versions = self.versions.iter().map(|(version, state)| match state {
            VersionState::Loading => entry(Some(*version), State::Loading, ""),
            VersionState::Ready(served) => match served.failure() {
                None => entry(Some(*version), State::Ready, ""),
                Some(reason) => entry(Some(*version), State::Unavailable, reason),
            },
            VersionState::Failed { reason } => entry(Some(*version), State::Unavailable, reason),
        });
        versions.collect()
    }
}

#[cfg(test)]
mod rate_limit_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod warmup_tests;
