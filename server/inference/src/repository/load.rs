//! Loads one model: its configuration, then each version that its policy chooses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use model::{ModelName, ModelVersion};
use proto::v2::{ModelConfig, model_config::SchedulingChoice};
use tracing::warn;

use super::{Settings, scan, version_policy};
use crate::backend::{Backend, LoadError, ModelSource};
use crate::classification::Labels;
use crate::config::{self, Placement};
use crate::version::{Parts, ServedVersion};

/// A configuration or label file of more bytes is a mistake.
const MAX_TEXT_FILE: u64 = 16 << 20;

/// A model whose configuration is understood and whose versions are known, but not yet loaded.
#[derive(Debug)]
pub(super) struct Plan {
    name: ModelName,
    directory: PathBuf,
    /// The configuration file, relative to the repository.
    config_file: String,
    config: ModelConfig,
    placement: Placement,
    /// Fields that are valid but not acted on yet.
    pub(super) unacted: Vec<String>,
    /// To be loaded, lowest first.
    pub(super) versions: Vec<ModelVersion>,
}

/// Reads the configuration of the model in `directory` and chooses its versions.
pub(super) fn plan(name: &ModelName, directory: &Path, settings: &Settings) -> Result<Plan, LoadError> {
    let (config_file, mut config) = read_config(name, directory, settings)?;
    let unacted = config::unacted(&config, |key| (settings.acts_on_parameter)(key));
    let placement = config::normalise(&mut config, name, settings.cores)
        .map_err(|reason| LoadError::Config { file: config_file.clone(), reason })?;
    let available = scan::versions(directory)
        .map_err(|error| LoadError::Unreadable { what: name.to_string(), reason: error.to_string() })?;
    let chosen = version_policy::choose(config.version_policy.as_ref(), &available);
    if !chosen.missing.is_empty() {
        warn!(model = %name, versions = ?chosen.missing, "version_policy names versions that have no directory");
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
    Ok(Plan {
        name: name.clone(),
        directory: directory.to_owned(),
        config_file,
        config,
        placement,
        unacted,
        versions: chosen.versions,
    })
}

impl Plan {
    /// Loads `version` and starts its instances.
    pub(super) fn load(
        &self,
        version: ModelVersion,
        backend: &dyn Backend,
        settings: &Settings,
    ) -> Result<ServedVersion, LoadError> {
        let started = Instant::now();
        let source = ModelSource {
            name: &self.name,
            version,
            model_directory: self.directory.clone(),
            version_directory: self.directory.join(version.to_string()),
            config: &self.config,
            instances: self.placement.instances,
            threads_per_instance: self.placement.threads_per_instance,
        };
        let loaded = backend.load(&source)?;
        let mut config = self.config.clone();
        config::complete(&mut config, loaded.signature(), settings.completion);
        config::check(&config, loaded.signature())
            .map_err(|reason| LoadError::Config { file: self.config_file.clone(), reason })?;
        let parts = Parts {
            name: self.name.clone(),
            version,
            labels: self.labels(&config)?,
            queue_capacity: queue_capacity(&config).unwrap_or(settings.default_queue_capacity),
            config,
            model: Arc::clone(&loaded),
            instances: self.placement.instances,
            loaded_in: started.elapsed(),
        };
        ServedVersion::start(parts)
    }

    fn labels(&self, config: &ModelConfig) -> Result<BTreeMap<String, Labels>, LoadError> {
        let with_labels = config.output.iter().filter(|output| !output.label_filename.is_empty());
        with_labels
            .map(|output| {
                let what =
                    format!("{}/{} (labels of output {:?})", self.name, output.label_filename, output.name);
                let path =
                    inside(&self.directory, &output.label_filename).ok_or_else(|| LoadError::Config {
                        file: self.config_file.clone(),
                        reason: format!(
                            "output {:?} has label_filename {:?}, which leaves the model's directory",
                            output.name, output.label_filename
                        ),
                    })?;
                Ok((output.name.clone(), Labels::parse(&read_text(&path, what)?)))
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

fn read_text(path: &Path, what: String) -> Result<String, LoadError> {
    let metadata = fs::metadata(path);
    match metadata.map(|metadata| (metadata.is_file(), metadata.len())) {
        Ok((false, _)) => Err(LoadError::Unreadable { what, reason: "it is not a file".to_owned() }),
        Ok((true, size)) if size > MAX_TEXT_FILE => Err(LoadError::Unreadable {
            what,
            reason: format!("it has {size} bytes, and a text file here has at most {MAX_TEXT_FILE}"),
        }),
        _ => fs::read_to_string(path)
            .map_err(|error| LoadError::Unreadable { what, reason: error.to_string() }),
    }
}

/// `name` below `directory`; `None` when it would leave it.
pub(crate) fn inside(directory: &Path, name: &str) -> Option<PathBuf> {
    let stays =
        Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    stays.then(|| directory.join(name))
}

fn queue_capacity(config: &ModelConfig) -> Option<usize> {
    let Some(SchedulingChoice::DynamicBatching(batching)) = &config.scheduling_choice else { return None };
    let size = batching.default_queue_policy.as_ref()?.max_queue_size;
    (size > 0).then_some(size as usize)
}
