//! A version is got ready: in a directory of its own, tried, and as it will be in its place.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use model::ModelVersion;
use proto::ModelConfig;
use proto::v2::model_warmup::input::InputDataType;

use super::staging::Staging;
use super::version::{next, not_served};
use super::{GivenConfig, Push, copy, note};
use crate::beside::{CONFIG, show};

/// How the files of a version come to where it is got ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// As they will stay, with their checksums.
    Copied,
    /// To be tried and sent from there.
    Linked,
}

/// A version that is ready to be put into its place.
pub(super) struct Ready {
    /// Its model's directory as it would be if it had no other version. It goes with the staging.
    pub(super) model: PathBuf,
    pub(super) number: ModelVersion,
    /// Whether a configuration is put there with it.
    pub(super) config: bool,
    /// What is put beside the versions of a model that was not there, by its path in the model's directory.
    pub(super) beside: Vec<String>,
    /// The rest of what is held for as long as it is needed.
    _staging: Staging,
}

impl Ready {
    /// The directory of the version.
    pub(super) fn version(&self) -> PathBuf {
        self.model.join(self.number.to_string())
    }
}

impl Push<'_> {
    /// The number that the version gets where some are `taken`.
    pub(super) fn number(&self, taken: &[ModelVersion]) -> anyhow::Result<ModelVersion> {
        match self.number {
            Some(number) if taken.contains(&number) => bail!(
                "version {number} of {} is there already and is not overwritten; leave --version out for the next number",
                self.model
            ),
            Some(number) => Ok(number),
            None => next(taken).ok_or_else(|| {
                anyhow!("{} has the highest version there can be; give a free one", self.model)
            }),
        }
    }

    /// Gets version `number` ready in `staging`, for a model of which those versions are `taken` and the files in the
    /// directory `beside` are there; none where it is a new model.
    ///
    /// # Errors
    /// When something cannot be read or written, or a server could not serve it.
    pub(super) fn made_ready(
        &self,
        number: ModelVersion,
        taken: &[ModelVersion],
        beside: Option<&Path>,
        staging: Staging,
        files: Files,
    ) -> anyhow::Result<Ready> {
        let (config, is_new) = self.config_with(beside)?;
        if let Some(why) = not_served(&config, taken, number) {
            note(&why);
        }
        let source = self.source(&config)?;
        let root = staging.path().join("trial");
        let model = root.join(self.model.as_str());
        fs::create_dir_all(&model).with_context(|| format!("cannot write {}", model.display()))?;
        let version = model.join(number.to_string());
        match files {
            Files::Copied => copy::files(&source, &version, self.sums)?,
            Files::Linked => copy::links(&source, &version)?,
        }
        let mut new_beside = Vec::new();
        if let Some(beside) = beside {
            show(beside, &model, is_new).with_context(|| format!("cannot read {}", beside.display()))?;
        }
        if let Some(given) = self.config.as_ref().filter(|_| is_new) {
            copy::write(&model.join(CONFIG), given.text.as_bytes())?;
            if beside.is_none() {
                new_beside = given.bring_named(&model)?;
            }
        }
        self.try_out(&root, number, &config).with_context(|| {
            format!("{} cannot be served as {}, so nothing was pushed", self.file.display(), self.model)
        })?;
        Ok(Ready { model, number, config: is_new, beside: new_beside, _staging: staging })
    }

    /// The configuration that a server would read, and whether `--config` has to be put there for it.
    fn config_with(&self, beside: Option<&Path>) -> anyhow::Result<(ModelConfig, bool)> {
        let there = read(beside, CONFIG)?;
        let is_new = self.config.as_ref().is_some_and(|given| there.as_ref() != Some(&given.text));
        let named = self.settings.config_name.as_ref().map(|name| format!("configs/{name}.pbtxt"));
        if let Some(named) = named
            && let Some(text) = read(beside, &named)?
        {
            return Ok((self.parsed(&named, &text)?, is_new));
        }
        let config = match (&self.config, there) {
            (Some(given), _) => given.read.clone(),
            (None, Some(text)) => self.parsed(CONFIG, &text)?,
            (None, None) => ModelConfig::default(),
        };
        Ok((config, is_new))
    }

    fn parsed(&self, file: &str, text: &str) -> anyhow::Result<ModelConfig> {
        proto::config_text::parse(text, &format!("{}/{file}", self.model)).map_err(|error| anyhow!(error))
    }
}

/// What is in a configuration file of a model, if it is there.
fn read(directory: Option<&Path>, file: &str) -> anyhow::Result<Option<String>> {
    let Some(path) = directory.map(|directory| directory.join(file)) else { return Ok(None) };
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

impl GivenConfig {
    /// Copies the files that it names, and that are beside it, to the new model in `directory`; returns their paths. What
    /// is missing is told when the model is tried.
    fn bring_named(&self, directory: &Path) -> anyhow::Result<Vec<String>> {
        let here = self.file.parent().unwrap_or(Path::new(""));
        let mut brought = Vec::new();
        for path in named_files(&self.read) {
            let stays =
                Path::new(&path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            let from = here.join(&path);
            if !stays || brought.contains(&path) || !from.is_file() {
                continue;
            }
            let to = directory.join(&path);
            let parent = to.parent().unwrap_or(directory);
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
            let content = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
            copy::write(&to, &content)?;
            brought.push(path);
        }
        Ok(brought)
    }
}

/// The files beside the versions that `config` names, by their path in the model's directory.
fn named_files(config: &ModelConfig) -> Vec<String> {
    let labels = config.output.iter().map(|output| output.label_filename.clone());
    let inputs = config.model_warmup.iter().flat_map(|sample| sample.inputs.values());
    let samples = inputs.filter_map(|input| match &input.input_data_type {
        Some(InputDataType::InputDataFile(file)) => Some(format!("warmup/{file}")),
        _ => None,
    });
    labels.filter(|name| !name.is_empty()).chain(samples).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_its_labels_and_samples() {
        let text = r#"output { name: "y" label_filename: "labels.txt" } output { name: "z" }
            model_warmup { name: "s" batch_size: 1
                inputs { key: "x" value { data_type: TYPE_FP32 dims: 1 input_data_file: "x.bin" } }
                inputs { key: "n" value { data_type: TYPE_FP32 dims: 1 zero_data: true } } }"#;
        let read = proto::config_text::parse(text, CONFIG).unwrap();
        assert_eq!(named_files(&read), ["labels.txt", "warmup/x.bin"]);
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(CONFIG);
        fs::write(root.path().join("labels.txt"), "cat").unwrap();
        let target = root.path().join("model");
        fs::create_dir(&target).unwrap();
        let given = GivenConfig { file, text: text.to_owned(), read };
        assert_eq!(given.bring_named(&target).unwrap(), ["labels.txt"]);
        assert_eq!(fs::read_to_string(target.join("labels.txt")).unwrap(), "cat");
    }
}
