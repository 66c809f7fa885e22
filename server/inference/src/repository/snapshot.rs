//! What is known of the models at one moment: an immutable value that is replaced whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use model::{InferError, ModelName, ModelVersion};

use super::load::Plan;
use super::{STILL_SERVES, ScanError};
use crate::version::ServedVersion;

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) models: HashMap<ModelName, ModelEntry>,
    /// What was wrong with the repositories; `None` until they have been looked through, when nobody can say
    /// yet which models there are.
    pub(super) scanned: Option<Arc<[ScanError]>>,
    /// What of it was wrong at the start, and has been since.
    pub(super) never_read: Arc<[ScanError]>,
}

/// What is known of a model.
#[derive(Clone, Debug, Default)]
pub(super) struct ModelEntry {
    pub(super) versions: BTreeMap<ModelVersion, VersionEntry>,
    /// Why no version could even be tried.
    pub(super) problem: Option<String>,
    /// Why the last load failed, whether or not others serve.
    pub(super) failure: Option<String>,
    /// Nobody asked for it yet, or it was unloaded.
    pub(super) unwanted: bool,
    /// The next request for it loads it.
    pub(super) on_demand: bool,
    /// The server was told to serve it when it started.
    pub(super) required: bool,
    /// What its configuration asks for and nothing acts on yet.
    pub(super) unacted: Vec<String>,
    /// What was last tried, whether or not it served in the end.
    pub(super) tried: Option<Arc<Plan>>,
    /// What those that serve were loaded from.
    pub(super) serving: Option<Arc<Plan>>,
    /// The sets of versions that served before, the latest last; they stay loaded.
    pub(super) kept: Vec<Kept>,
}

/// Versions that served together, and can again at once.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) versions: Vec<Arc<ServedVersion>>,
    pub(super) plan: Option<Arc<Plan>>,
}

impl Kept {
    /// Whether `version` is one of them.
    pub(super) fn has(&self, version: ModelVersion) -> bool {
        self.versions.iter().any(|served| served.version() == version)
    }
}

/// A version, since when it is in its state, and why.
#[derive(Clone, Debug)]
pub(super) struct VersionEntry {
    pub(super) state: VersionState,
    pub(super) since: SystemTime,
    /// Empty when there is nothing to say.
    pub(super) reason: String,
    /// It failed after the server had started.
    pub(super) late: bool,
}

/// The life of a version: `Loading`, then `Ready` or `Failed`; from `Ready` to `Draining`, then `Unloaded`.
#[derive(Clone, Debug)]
pub(super) enum VersionState {
    /// It is being loaded.
    Loading,
    /// It was loaded. It answers unless its instances have failed since ([`ServedVersion::failure`]).
    Ready(Arc<ServedVersion>),
    /// It served, and stays loaded so that it can again.
    Kept,
    /// It takes no more requests, and has not answered all that it took.
    Draining,
    /// It was loaded, and is not any more.
    Unloaded,
    /// It could not be loaded.
    Failed,
}

/// One line of the repository index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model.
    pub name: ModelName,
    /// The version; `None` when the model failed before its versions were known, or was never loaded.
    pub version: Option<ModelVersion>,
    /// Its state; `None` for a model that nobody asked for.
    pub state: Option<State>,
    /// Why it is in that state; empty when there is nothing to say.
    pub reason: String,
    /// Since when.
    pub since: Option<SystemTime>,
}

/// Versions that are not loaded any more and that the index still names, of each model.
const REMEMBERED: usize = 16;

impl VersionEntry {
    pub(super) fn new(state: VersionState, since: SystemTime, reason: String) -> VersionEntry {
        VersionEntry { state, since, reason, late: false }
    }
}

/// The state of a version, as the repository index names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// It answers requests.
    Ready,
    /// It does not.
    Unavailable,
    /// It is being loaded.
    Loading,
    /// It takes no more requests, and finishes those that it took.
    Unloading,
}

impl State {
    /// Every state.
    pub const ALL: [State; 4] = [State::Ready, State::Unavailable, State::Loading, State::Unloading];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            State::Ready => "READY",
            State::Unavailable => "UNAVAILABLE",
            State::Loading => "LOADING",
            State::Unloading => "UNLOADING",
        }
    }
}

impl VersionState {
    /// As the index names it.
    pub(super) fn shown(&self) -> State {
        match self {
            VersionState::Loading => State::Loading,
            VersionState::Ready(served) if served.failure().is_none() => State::Ready,
            VersionState::Draining => State::Unloading,
            VersionState::Ready(_) | VersionState::Kept | VersionState::Unloaded | VersionState::Failed => {
                State::Unavailable
            }
        }
    }
}

impl Snapshot {
    /// The entry of `model`. Until the repositories have been looked through nobody can say that it is unknown.
    pub(super) fn find(&self, model: &str) -> Result<(&ModelName, &ModelEntry), InferError> {
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
    /// Those that answer, lowest first.
    pub(super) fn ready(&self) -> impl DoubleEndedIterator<Item = &Arc<ServedVersion>> {
        self.versions.values().filter_map(|entry| match &entry.state {
            VersionState::Ready(served) if served.failure().is_none() => Some(served),
            _ => None,
        })
    }

    /// Every version that is loaded: those that serve and those that are kept.
    pub(super) fn loaded(&self) -> Vec<Arc<ServedVersion>> {
        let serving = self.versions.values().filter_map(|entry| match &entry.state {
            VersionState::Ready(served) => Some(served),
            _ => None,
        });
        let kept = self.kept.iter().flat_map(|kept| &kept.versions);
        let mut loaded: Vec<Arc<ServedVersion>> = Vec::new();
        for served in serving.chain(kept) {
            if !loaded.iter().any(|other| Arc::ptr_eq(served, other)) {
                loaded.push(Arc::clone(served));
            }
        }
        loaded
    }

    /// Whether what serves is what was last asked for, from files alone.
    pub(super) fn serves_its_files(&self) -> bool {
        let same = |(serving, tried): (&Arc<Plan>, &Arc<Plan>)| Arc::ptr_eq(serving, tried);
        let plan = self.serving.as_ref().zip(self.tried.as_ref());
        plan.is_some_and(|both| same(both) && !both.0.is_overridden())
    }

    /// Says of each version that serves why a load has failed.
    pub(super) fn blame(&mut self, reason: &str) {
        for entry in self.versions.values_mut().filter(|entry| matches!(entry.state, VersionState::Ready(_)))
        {
            entry.reason = format!("{STILL_SERVES}{reason}");
        }
    }

    /// A load went well: what went wrong before is over.
    pub(super) fn forgive(&mut self) {
        (self.problem, self.failure) = (None, None);
        for entry in self.versions.values_mut().filter(|entry| matches!(entry.state, VersionState::Ready(_)))
        {
            entry.reason.clear();
        }
    }

    /// Names no more than so many versions that are gone.
    pub(super) fn forget_the_oldest(&mut self) {
        let is_gone = |entry: &VersionEntry| matches!(entry.state, VersionState::Unloaded);
        let gone: Vec<_> =
            self.versions.iter().filter(|(_, entry)| is_gone(entry)).map(|(version, _)| *version).collect();
        for version in gone.iter().take(gone.len().saturating_sub(REMEMBERED)) {
            self.versions.remove(version);
        }
    }

    /// Whether it serves all that it has to.
    pub(super) fn is_complete(&self) -> bool {
        let counts = |entry: &VersionEntry| match &entry.state {
            VersionState::Ready(served) => served.failure().is_none(),
            VersionState::Loading => self.ready().next().is_some(),
            VersionState::Failed => entry.late,
            VersionState::Kept | VersionState::Draining | VersionState::Unloaded => true,
        };
        let serves = self.problem.is_none() && !self.is_unread() && self.versions.values().all(counts);
        !self.required || self.unwanted || serves
    }

    /// True until its configuration is read, which says what versions there are.
    pub(super) fn is_unread(&self) -> bool {
        self.versions.is_empty() && self.problem.is_none() && !self.unwanted
    }

    /// True while nothing is known of it but its name.
    pub(super) fn is_untouched(&self) -> bool {
        self.unwanted && !self.required && self.problem.is_none() && self.versions.is_empty()
    }

    /// Only what will not change by itself is told as not found: clients and meshes give up on that.
    pub(super) fn why_none_is_ready(&self, name: &ModelName) -> InferError {
        let loading = |entry: &VersionEntry| matches!(entry.state, VersionState::Loading);
        if self.is_unread() || self.versions.values().any(loading) {
            return InferError::ModelLoading { model: name.to_string() };
        }
        let failed = |(version, entry): (&ModelVersion, &VersionEntry)| {
            matches!(entry.state, VersionState::Ready(_)).then_some(*version)
        };
        match self.versions.iter().rev().find_map(failed) {
            Some(version) => InferError::VersionFailed { model: name.clone(), version },
            None => InferError::NoReadyVersion { model: name.clone() },
        }
    }

    /// Why `version` does not answer.
    pub(super) fn why_not(&self, name: &ModelName, version: ModelVersion) -> InferError {
        let (model, unread) = (name.clone(), self.is_unread());
        match self.versions.get(&version).map(|entry| &entry.state) {
            Some(VersionState::Ready(_)) => InferError::VersionFailed { model, version },
            Some(_) => InferError::VersionNotReady { model, version },
            None if unread => InferError::ModelLoading { model: name.to_string() },
            None => InferError::UnknownVersion { model, version },
        }
    }

    /// Its lines in the index.
    pub(super) fn index(&self, name: &ModelName) -> Vec<IndexEntry> {
        let entry = |version, state, reason: &str, since| IndexEntry {
            name: name.clone(),
            version,
            state,
            reason: reason.to_owned(),
            since,
        };
        let mut index = Vec::with_capacity(self.versions.len() + 1);
        if let Some(problem) = &self.problem {
            index.push(entry(None, Some(State::Unavailable), problem, None));
        } else if self.versions.is_empty() {
            index.push(entry(None, (!self.unwanted).then_some(State::Loading), "", None));
        }
        index.extend(self.versions.iter().map(|(version, known)| {
            let failure = match &known.state {
                VersionState::Ready(served) => served.failure(),
                _ => None,
            };
            let reason = failure.unwrap_or(&known.reason);
            entry(Some(*version), Some(known.state.shown()), reason, Some(known.since))
        }));
        index
    }
}
