//! The model repository: which models and versions there are, and which of them answer.
//!
//! The data path reads an immutable snapshot; loading replaces it. A version is `Loading`, then `Ready` or
//! `Failed`; a version that fails changes nothing for the others.

mod load;
mod scan;
mod version_policy;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arc_swap::ArcSwap;
use model::{InferError, ModelName, ModelVersion};
use tracing::{error, info, warn};

use crate::backend::Backend;
use crate::config::Completion;
use crate::version::ServedVersion;
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
    /// Whether the backend acts on a key of `parameters`.
    pub acts_on_parameter: fn(&str) -> bool,
}

/// Every model and its versions.
#[derive(Debug)]
pub struct Repository {
    settings: Settings,
    models: ArcSwap<Models>,
}

type Models = HashMap<ModelName, ModelEntry>;

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
    Ready(Arc<ServedVersion>),
    Failed { reason: String },
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
        Repository { settings, models: ArcSwap::default() }
    }

    /// Finds every model and loads it; returns when all are ready or failed. Blocks: not for async code.
    ///
    /// # Errors
    /// Repositories and directories that are not what they should be; the models of the others are loaded.
    pub fn load_all(&self, backend: &dyn Backend) -> Vec<ScanError> {
        let (found, errors) = scan::models(&self.settings.repositories);
        let found: Vec<_> = found.into_iter().collect();
        for (name, _) in &found {
            self.update(name, |_| {});
        }
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
        errors
    }

    fn load(&self, name: &ModelName, directories: &[PathBuf], backend: &dyn Backend) {
        let [directory] = directories else {
            return self.fail(name, "model appears in two or more repositories".to_owned());
        };
        let plan = match load::plan(name, directory, &self.settings) {
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
            let loaded = plan.load(version, backend, &self.settings).map(Arc::new);
            let state = match &loaded {
                Ok(served) => VersionState::Ready(Arc::clone(served)),
                Err(error) => VersionState::Failed { reason: error.to_string() },
            };
            self.update(name, |entry| drop(entry.versions.insert(version, state.clone())));
            // Said once it is so.
            match loaded {
                Ok(served) => info!(model = %name, %version, took = ?served.loaded_in(), "ready"),
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
        self.models.rcu(|models| {
            let mut models = Models::clone(models);
            change(models.entry(name.clone()).or_default());
            models
        });
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
        let models = self.models.load();
        let Some((name, entry)) = models.get_key_value(model) else {
            return Err(InferError::UnknownModel { model: model.chars().take(ModelName::MAX_LEN).collect() });
        };
        match version {
            None => {
                let highest = entry.ready().next_back();
                highest.cloned().ok_or_else(|| InferError::NoReadyVersion { model: name.clone() })
            }
            Some(version) => match entry.versions.get(&version) {
                Some(VersionState::Ready(served)) => Ok(Arc::clone(served)),
                Some(VersionState::Loading | VersionState::Failed { .. }) => {
                    Err(InferError::VersionNotReady { model: name.clone(), version })
                }
                None => Err(InferError::UnknownVersion { model: name.clone(), version }),
            },
        }
    }

    /// Every version that is ready, by name and version.
    pub fn all_ready(&self) -> Vec<Arc<ServedVersion>> {
        let models = self.models.load();
        let mut ready: Vec<_> = models.values().flat_map(ModelEntry::ready).cloned().collect();
        ready.sort_by(|a, b| (a.name(), a.version()).cmp(&(b.name(), b.version())));
        ready
    }

    /// The ready versions of `model`, lowest first.
    ///
    /// # Errors
    /// When the model is unknown or has no ready version.
    pub fn ready_versions(&self, model: &str) -> Result<Vec<Arc<ServedVersion>>, InferError> {
        let models = self.models.load();
        let Some((name, entry)) = models.get_key_value(model) else {
            return Err(InferError::UnknownModel { model: model.chars().take(ModelName::MAX_LEN).collect() });
        };
        let ready: Vec<_> = entry.ready().cloned().collect();
        if ready.is_empty() { Err(InferError::NoReadyVersion { model: name.clone() }) } else { Ok(ready) }
    }

    /// The fields of each model's configuration that are valid but not acted on yet, by model.
    pub fn unacted(&self) -> Vec<(ModelName, Vec<String>)> {
        let models = self.models.load();
        let with_any = models.iter().filter(|(_, entry)| !entry.unacted.is_empty());
        let mut unacted: Vec<_> =
            with_any.map(|(name, entry)| (name.clone(), entry.unacted.clone())).collect();
        unacted.sort();
        unacted
    }

    /// Every model and version with its state, by name and version.
    pub fn index(&self) -> Vec<IndexEntry> {
        let models = self.models.load();
        let mut index: Vec<_> = models.iter().flat_map(|(name, entry)| entry.index(name)).collect();
        index.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        index
    }
}

impl ModelEntry {
    fn ready(&self) -> impl DoubleEndedIterator<Item = &Arc<ServedVersion>> {
        self.versions.values().filter_map(|state| match state {
            VersionState::Ready(served) => Some(served),
            VersionState::Loading | VersionState::Failed { .. } => None,
        })
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
            VersionState::Ready(_) => entry(Some(*version), State::Ready, ""),
            VersionState::Failed { reason } => entry(Some(*version), State::Unavailable, reason),
        });
        versions.collect()
    }
}
