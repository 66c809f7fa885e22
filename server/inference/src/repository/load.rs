//! Loads one model: its configuration, then each version that its policy chooses.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::{ModelName, ModelVersion};
use parking_lot::Mutex;
use proto::ModelConfig;
use tracing::{info, warn};

use super::change::Likeness;
use super::files::Files;
use super::place::{Here, Place};
use super::progress::Step;
use super::version_policy::{self, Chosen};
use super::{Override, Settings, Share};
use crate::backend::{Backend, LoadError, LoadedModel, ModelSource};
use crate::batcher::{BatchPolicy, QueuePolicy};
use crate::cache::{self, VersionCache};
use crate::classification::Labels;
use crate::config::{self, Batching, Placement, SwapPolicy};
use crate::rate_limiter::{Claim, Contenders};
use crate::remote::Progress;
use crate::trial::{Trial, TrialOf};
use crate::version::{Known, Parts, ServedVersion};
use crate::warmup::Warmup;

/// A configuration or label file of more bytes is a mistake.
pub(super) const MAX_TEXT_FILE: u64 = 16 << 20;

/// Where the files of a model are, and its configuration where that is not one of them.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) place: Place,
    overriding: Option<Override>,
    /// Versions whose files are still to come are passed over.
    whole_only: bool,
}

impl Source {
    /// All is in `place`.
    pub(super) fn in_repository(place: Place) -> Source {
        Source { place, overriding: None, whole_only: false }
    }

    /// What `overriding` gives; what it does not is in `place`.
    pub(super) fn given(overriding: Override, place: Option<&Place>) -> Option<Source> {
        let place = match &overriding.files {
            Some(files) => Place::Directory(files.path().to_owned()),
            None => place?.clone(),
        };
        Some(Source { place, overriding: Some(overriding), whole_only: false })
    }

    /// The same without the versions that are still being put there, where there are others: elsewhere nothing can be put
    /// there in one step.
    pub(super) fn whole_only(self) -> Source {
        Source { whole_only: true, ..self }
    }

    /// The versions that should be loaded of those that are `available`.
    fn choose(&self, name: &ModelName, config: &ModelConfig, available: &[ModelVersion]) -> Chosen {
        let policy = config.version_policy.as_ref();
        let all = version_policy::choose(policy, available);
        if !self.whole_only || self.place.url().is_none() || available.len() < 2 {
            return all;
        }
        let (mut available, mut chosen) = (available.to_vec(), all.clone());
        while let Some((version, file)) = self.unfinished(&chosen.versions) {
            warn!(model = %name, %version, file, "passing over a version: its manifest names what has not come yet");
            available.retain(|other| *other != version);
            chosen = version_policy::choose(policy, &available);
        }
        if chosen.versions.is_empty() { all } else { chosen }
    }

    /// The first of `versions` whose manifest names what is not there, and what that is.
    fn unfinished(&self, versions: &[ModelVersion]) -> Option<(ModelVersion, String)> {
        versions.iter().find_map(|&version| {
            // One that cannot be read keeps the version from being loaded, and the load says why.
            let missing = self.place.still_to_come(version, &self.place.files_of(version).ok()?).ok()??;
            Some((version, missing.into_iter().next()?))
        })
    }
}

/// A model whose configuration is understood and whose versions are known, but not yet loaded.
#[derive(Debug)]
pub(super) struct Plan {
    name: ModelName,
    source: Source,
    /// The configuration as it was written.
    written: ModelConfig,
    /// What is beside the versions and the configuration: labels, data.
    beside: Files,
    /// The files of each version that is to be loaded, before it is.
    files: BTreeMap<ModelVersion, Files>,
    /// How its versions take the place of others.
    pub(super) swap: SwapPolicy,
    /// The configuration file, relative to the repository.
    config_file: String,
    config: ModelConfig,
    placement: Placement,
    /// What each instance takes while it runs; of none when nothing is limited.
    claims: Vec<Claim>,
    /// Fields that are valid but not acted on yet.
    pub(super) unacted: Vec<String>,
    /// To be loaded, lowest first.
    pub(super) versions: Vec<ModelVersion>,
    /// Where the files of each version are on this machine, since it was asked to be loaded. Held to look it up.
    here: Mutex<BTreeMap<ModelVersion, Here>>,
}

/// Whether the versions that are new are all there, as far as their manifests tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Manifests {
    /// Each has a manifest, and what it names.
    Kept,
    /// Not each has one.
    NotAll,
    /// A file has not come yet.
    Awaits(String),
}

/// A version in memory, before it has instances.
struct Opened {
    version: ModelVersion,
    model: Arc<dyn LoadedModel>,
    /// Its part of the memory of all models.
    share: Arc<Share>,
    contenders: Option<Contenders>,
    began: Instant,
    known: Known,
}

/// Reads the configuration of the model at `source` and chooses its versions.
pub(super) fn plan(name: &ModelName, source: Source, settings: &Settings) -> Result<Plan, LoadError> {
    let place = &source.place;
    let (config_file, mut config) = match &source.overriding {
        Some(given) => (format!("the configuration given for {name}"), given.config.clone()),
        None => read_config(name, &place.configuration()?.directory, settings)?,
    };
    let written = config.clone();
    let mut unacted =
        config::unacted(&config, |key| config::acts_on(key) || (settings.acts_on_parameter)(key));
    if config::asks_for_a_limit(&config) && settings.rate_limiter.is_none() {
        unacted.push("instance_group.rate_limiter (--rate-limit is off; give execution_count)".to_owned());
    }
    let wrong = |reason| LoadError::Config { file: config_file.clone(), reason };
    let placement = config::normalise(&mut config, name, settings.cores).map_err(wrong)?;
    let swap = config::swap_policy(&config).map_err(wrong)?;
    let claims = match settings.rate_limiter {
        Some(_) => config::claims(&config).map_err(wrong)?,
        None => Vec::new(), // as with Triton, what has no effect is not looked at
    };
    let unreadable =
        |error: std::io::Error| LoadError::Unreadable { what: name.to_string(), reason: error.to_string() };
    let available = place.versions().map_err(unreadable)?;
    let chosen = source.choose(name, &config, &available);
    if !chosen.missing.is_empty() {
        warn!(model = %name, versions = ?chosen.missing, "version_policy names versions that have no directory");
    }
    if cache::asked_for(&config) && settings.cache.is_none() {
        warn!(
            model = %name,
            "response_cache has no effect: the server has no cache; give it one with --cache-config=local,size=BYTES"
        );
    }
    if chosen.versions.is_empty() {
        return Err(LoadError::Unreadable {
            what: format!("any version of {name}"),
            reason: format!(
                "{} version directories were found, and version_policy chooses none of them; a version is a \
                 directory named by a positive integer, such as {name}/1",
                available.len()
            ),
        });
    }
    let beside = place.beside().map_err(unreadable)?;
    let version_files = |version: &ModelVersion| Ok((*version, place.files_of(*version)?));
    let files =
        chosen.versions.iter().map(version_files).collect::<std::io::Result<_>>().map_err(unreadable)?;
    Ok(Plan {
        name: name.clone(),
        source,
        written,
        beside,
        files,
        swap,
        config_file,
        config,
        placement,
        claims,
        unacted,
        versions: chosen.versions,
        here: Mutex::default(),
    })
}

impl Plan {
    /// Whether a load request gave a part of it.
    pub(super) fn is_overridden(&self) -> bool {
        self.source.overriding.is_some()
    }

    /// Whether `other` is of the same files and the same configuration.
    pub(super) fn is_same(&self, other: &Plan) -> bool {
        !self.is_overridden()
            && !other.is_overridden()
            && self.written == other.written
            && self.beside == other.beside
            && self.files == other.files
    }

    /// How much of `version` would be the same if it was loaded as `other` says.
    pub(super) fn likeness(&self, other: &Plan, version: ModelVersion) -> Likeness {
        let whatever_versions = |config: &ModelConfig| ModelConfig { version_policy: None, ..config.clone() };
        let whatever_instances =
            |config: &ModelConfig| ModelConfig { instance_group: Vec::new(), ..whatever_versions(config) };
        let same_files = !self.is_overridden()
            && !other.is_overridden()
            && self.beside == other.beside
            && self.files.get(&version) == other.files.get(&version);
        if same_files && whatever_versions(&self.written) == whatever_versions(&other.written) {
            Likeness::Same
        } else if same_files && whatever_instances(&self.written) == whatever_instances(&other.written) {
            Likeness::OtherInstances
        } else {
            Likeness::Different
        }
    }

    /// Where its files are.
    pub(super) fn place(&self) -> &Place {
        &self.source.place
    }

    /// The versions whose files are others than those that were `tried`.
    pub(super) fn new_since<'a>(
        &'a self,
        tried: Option<&'a Plan>,
    ) -> impl Iterator<Item = (ModelVersion, &'a Files)> {
        let new = move |(version, files): &(&ModelVersion, &Files)| {
            tried.is_none_or(|tried| tried.files.get(version) != Some(*files))
        };
        self.files.iter().filter(new).map(|(version, files)| (*version, files))
    }

    /// What the manifests say of the versions that are new in it since `tried`.
    pub(super) fn manifests(&self, tried: Option<&Plan>) -> Manifests {
        let mut new = self.new_since(tried).peekable();
        // What is beside the versions has no manifest.
        let mut all = if new.peek().is_some() { Manifests::Kept } else { Manifests::NotAll };
        for (version, files) in new {
            match self.source.place.still_to_come(version, files) {
                Ok(Some(missing)) => {
                    if let Some(file) = missing.first() {
                        return Manifests::Awaits(format!("{version}/{file}"));
                    }
                }
                // One that cannot be read keeps the version from being loaded, and the load says why.
                Ok(None) | Err(_) => all = Manifests::NotAll,
            }
        }
        all
    }

    /// How long nobody has touched what is new in it since `tried`, at `now`; zero for a version without files.
    pub(super) fn untouched_for(&self, tried: Option<&Plan>, now: SystemTime) -> Duration {
        let ages = self.new_since(tried).map(|(_, files)| files.untouched_for(now));
        let beside = (!self.beside.is_empty()).then(|| self.beside.untouched_for(now));
        let config = self
            .source
            .place
            .config_modified()
            .map(|modified| now.duration_since(modified).unwrap_or_default());
        ages.chain(beside).chain(config).min().unwrap_or_default()
    }

    /// Whether a version that is to be loaded has no files yet.
    pub(super) fn has_nothing(&self) -> bool {
        self.files.values().any(Files::is_empty)
    }

    /// Brings the files of `version` here and holds them against its manifest, before it is loaded. `tell` is told how
    /// far that has come.
    pub(super) fn bring(
        &self,
        version: ModelVersion,
        tell: &(dyn Fn(Progress) + Sync),
    ) -> Result<Here, LoadError> {
        let here = self.source.place.bring(version, tell)?;
        self.here.lock().insert(version, here.clone());
        Ok(here)
    }

    /// Has `trial` load `version`, whose files are here, where that can end nothing else. `tell` is told so.
    pub(super) fn try_out(
        &self,
        version: ModelVersion,
        trial: &dyn Trial,
        tell: &dyn Fn(Step),
    ) -> Result<(), LoadError> {
        tell(Step::Trying);
        let began = Instant::now();
        let model_directory = self.here(version)?.directory;
        trial.run(&TrialOf { name: &self.name, version, model_directory, config: &self.written })?;
        info!(model = %self.name, %version, took = ?began.elapsed(), "its trial load did not crash");
        self.expect_unchanged(version) // what is loaded next is what was tried
    }

    /// Forgets where the files of `version` were brought to, which it is not served from.
    pub(super) fn let_go(&self, version: ModelVersion) {
        self.here.lock().remove(&version);
    }

    /// The files of `version` where they were brought to.
    fn here(&self, version: ModelVersion) -> Result<Here, LoadError> {
        let known = self.here.lock().get(&version).cloned();
        known.map_or_else(|| self.bring(version, &|_| {}), Ok)
    }

    /// Instances of each version.
    pub(super) fn instances(&self) -> usize {
        self.placement.instances
    }

    /// The model's name.
    pub(super) fn name(&self) -> &ModelName {
        &self.name
    }

    /// Bytes of the files of `version`.
    pub(super) fn size(&self, version: ModelVersion) -> u64 {
        self.files.get(&version).map_or(0, Files::size)
    }

    /// Loads `version` and starts its instances. Its part of the memory of all models is `share`, which is corrected
    /// by what it took. `tell` is told what it does.
    pub(super) fn load(
        &self,
        version: ModelVersion,
        backend: &dyn Backend,
        settings: &Settings,
        share: Arc<Share>,
        tell: &dyn Fn(Step),
    ) -> Result<ServedVersion, LoadError> {
        let began = Instant::now();
        let contenders = self.contenders(settings)?;
        let Here { directory, .. } = self.here(version)?;
        let source = ModelSource {
            name: &self.name,
            version,
            model_directory: directory.clone(),
            version_directory: directory.join(version.to_string()),
            config: &self.config,
            instances: self.placement.instances,
            threads_per_instance: self.placement.threads_per_instance,
        };
        tell(Step::Opening { bytes: self.size(version) });
        let model = backend.load(&source)?;
        if let Some(bytes) = model.memory() {
            // What another gave back meanwhile must not make it look small.
            share.correct(bytes.max(self.size(version) / 2));
        }
        let opened = Opened { version, model, share, contenders, began, known: Known::default() };
        let served = self.start(opened, settings, tell)?;
        self.expect_unchanged(version)?;
        Ok(served)
    }

    /// Starts the instances that this plan wants over what is loaded of `before`, which serves; it goes on.
    pub(super) fn resize(
        &self,
        before: &ServedVersion,
        settings: &Settings,
    ) -> Result<ServedVersion, LoadError> {
        let opened = Opened {
            version: before.version(),
            model: before.model(),
            share: before.memory(),
            contenders: self.contenders(settings)?,
            began: Instant::now(),
            known: before.known(),
        };
        self.start(opened, settings, &|_| {})
    }

    /// Starts the instances of a version.
    fn start(
        &self,
        opened: Opened,
        settings: &Settings,
        tell: &dyn Fn(Step),
    ) -> Result<ServedVersion, LoadError> {
        let Opened { version, model, share, contenders, began, known } = opened;
        let Here { directory, copy: files } = self.here(version)?;
        let mut config = self.config.clone();
        config::complete(&mut config, model.signature(), settings.completion);
        let (mut batching, padding) = config::check(&config, model.signature())
            .and_then(|()| Ok((config::batching(&config)?, config::padding(&config, model.signature())?)))
            .map_err(|reason| LoadError::Config { file: self.config_file.clone(), reason })?;
        let queue_capacity = bound_levels(&mut batching.policy, settings.default_queue_capacity);
        let parts = Parts {
            name: self.name.clone(),
            version,
            labels: self.labels(&directory, &config)?,
            warmup: Warmup::prepare(&config, &directory, &self.config_file)?,
            queue_capacity,
            cache: settings.cache.as_ref().filter(|_| cache::asked_for(&config)).map(|cache| {
                VersionCache::new(cache, may_wait_for_each_other(&batching, settings), queue_capacity)
            }),
            held_until: settings.held_until,
            batching,
            padding,
            config,
            model,
            instances: self.placement.instances,
            contenders,
            files,
            loaded_in: began.elapsed(),
            memory: share,
            known,
        };
        ServedVersion::start(parts, tell)
    }

    /// What was read of a file while it was written is neither what it was nor what it becomes.
    fn expect_unchanged(&self, version: ModelVersion) -> Result<(), LoadError> {
        let unreadable =
            |reason: String| LoadError::Unreadable { what: format!("{}/{version}", self.name), reason };
        let files = self.source.place.files_of(version).map_err(|error| unreadable(error.to_string()))?;
        if self.files.get(&version) == Some(&files) {
            return Ok(());
        }
        Err(unreadable(
            "its files changed while they were read; write them elsewhere, then rename the directory"
                .to_owned(),
        ))
    }

    /// The instances of a version, if they wait for others.
    fn contenders(&self, settings: &Settings) -> Result<Option<Contenders>, LoadError> {
        let Some(limiter) = &settings.rate_limiter else { return Ok(None) };
        limiter
            .admit(&self.name, self.claims.clone())
            .map_err(|reason| LoadError::Config { file: self.config_file.clone(), reason })
    }

    fn labels(&self, directory: &Path, config: &ModelConfig) -> Result<BTreeMap<String, Labels>, LoadError> {
        let with_labels = config.output.iter().filter(|output| !output.label_filename.is_empty());
        with_labels
            .map(|output| {
                let what =
                    format!("{}/{} (labels of output {:?})", self.name, output.label_filename, output.name);
                let path = inside(directory, &output.label_filename).ok_or_else(|| LoadError::Config {
                    file: self.config_file.clone(),
                    reason: format!(
                        "output {:?} has label_filename {:?}, which leaves the model's directory",
                        output.name, output.label_filename
                    ),
                })?;
                Ok((output.name.clone(), Labels::parse(&read_labels(&path, what)?)))
            })
            .collect()
    }
}

/// The configuration as written, or an empty one when there is no file, and the file's name.
fn read_config(
    name: &ModelName,
    directory: &Path,
    settings: &Settings,
) -> Result<(String, ModelConfig), LoadError> {
    let mut file = format!("{name}/config.pbtxt");
    let mut path = directory.join("config.pbtxt");
    if let Some(config_name) = &settings.config_name {
        let named = directory.join("configs").join(format!("{config_name}.pbtxt"));
        if named.exists() {
            file = format!("{name}/configs/{config_name}.pbtxt");
            path = named;
        }
    }
    if !path.exists() {
        return Ok((file, ModelConfig::default()));
    }
    let text = read_text(&path, file.clone())?;
    let config =
        proto::config_text::parse(&text, &file).map_err(|error| LoadError::Unsupported(error.to_string()))?;
    Ok((file, config))
}

/// The text of a configuration: UTF-8, or it is refused.
fn read_text(path: &Path, what: String) -> Result<String, LoadError> {
    String::from_utf8(read_file(path, &what)?).map_err(|error| LoadError::Unreadable {
        what,
        reason: format!("it is not UTF-8: {}", error.utf8_error()),
    })
}

/// The text of a label file. Labels are shown, not acted on: one in another encoding is no reason not to serve.
fn read_labels(path: &Path, what: String) -> Result<String, LoadError> {
    let bytes = read_file(path, &what)?;
    let text = String::from_utf8_lossy(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes));
    if matches!(text, Cow::Owned(_)) {
        warn!(
            file = what,
            "labels are not UTF-8: what cannot be read is shown as \u{fffd}; save it as UTF-8"
        );
    }
    Ok(text.into_owned())
}

/// What some editors put in front of UTF-8; it is no part of the first label.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn read_file(path: &Path, what: &str) -> Result<Vec<u8>, LoadError> {
    let unreadable = |reason| LoadError::Unreadable { what: what.to_owned(), reason };
    match fs::metadata(path).map(|metadata| (metadata.is_file(), metadata.len())) {
        Ok((false, _)) => Err(unreadable("it is not a file".to_owned())),
        Ok((true, size)) if size > MAX_TEXT_FILE => Err(too_large(what.to_owned(), size)),
        _ => fs::read(path).map_err(|error| unreadable(error.to_string())),
    }
}

/// Why a text file of `size` bytes is not read.
pub(super) fn too_large(what: String, size: u64) -> LoadError {
    let reason = format!("it has {size} bytes, and a text file here has at most {MAX_TEXT_FILE}");
    LoadError::Unreadable { what, reason }
}

/// `name` below `directory`; `None` when it would leave it.
pub(crate) fn inside(directory: &Path, name: &str) -> Option<PathBuf> {
    let stays =
        Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    stays.then(|| directory.join(name))
}

/// Whether a request may wait for another that asks the same. Not where answers have an order: the other's answer
/// may have to wait for this one. Nor where a test waits for so many to be queued.
fn may_wait_for_each_other(batching: &Batching, settings: &Settings) -> bool {
    !batching.preserve_ordering && settings.held_until == 0
}

/// Gives each level that has no bound of its own the `default`; how many requests may wait in all.
fn bound_levels(policy: &mut BatchPolicy, default: usize) -> usize {
    let bound = |level: &mut QueuePolicy| *level.max_queue_size.get_or_insert(default);
    policy.levels.iter_mut().map(bound).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Latin-1 file made its model unavailable.
    #[test]
    fn labels_in_any_encoding_are_read_and_configurations_only_as_utf_8() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("labels.txt");
        let labels = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_labels(&path, "m/labels.txt".to_owned()).unwrap()
        };
        assert_eq!(labels(b"caf\xe9\nth\xc3\xa9\n"), "caf\u{fffd}\nth\u{e9}\n");
        assert_eq!(labels(b"\xef\xbb\xbfone\ntwo"), "one\ntwo");
        fs::write(&path, b"caf\xe9").unwrap();
        let error = read_text(&path, "m/config.pbtxt".to_owned()).unwrap_err().to_string();
        assert!(error.starts_with("cannot read m/config.pbtxt: it is not UTF-8"), "{error}");
    }
}
