//! Whether a server could serve what is to be pushed: it is loaded as one would, and as `volley check` does.

use std::path::Path;

use anyhow::{anyhow, bail};
use inference::repository::{Override, Repository, State};
use model::ModelVersion;
use proto::ModelConfig;
use proto::v2::ModelVersionPolicy;
use proto::v2::model_version_policy::{All, PolicyChoice};

use super::version::not_served;
use super::{Push, note};
use crate::app;
use crate::cli::table::printable;
use crate::config::RepositoryConfig;

impl Push<'_> {
    /// Loads `version` from the repository at `root`, where it is the only one of the model, whose configuration is
    /// `config`.
    ///
    /// # Errors
    /// When it does not become ready, in the words that the repository index of a server would have.
    pub(super) fn try_out(
        &self,
        root: &Path,
        version: ModelVersion,
        config: &ModelConfig,
    ) -> anyhow::Result<()> {
        let settings = RepositoryConfig {
            paths: vec![root.to_owned()],
            urls: Vec::new(),
            memory_limit: None, // it is the server's, which has others loaded
            ..self.settings.clone()
        };
        let settings = app::settings(&settings, self.format.acts_on_parameter)?;
        let repository = Repository::new(settings, self.backend()?);
        let loaded = repository.load_model(&self.model, chosen(config, version)?);
        let index = repository.index();
        let entry = index.iter().find(|entry| entry.version.is_none_or(|found| found == version));
        match (entry, loaded) {
            (Some(entry), _) if entry.state == Some(State::Ready) => {}
            (Some(entry), _) if !entry.reason.is_empty() => bail!("{}", printable(entry.reason.trim())),
            (_, Err(error)) => return Err(anyhow!(error)),
            _ => bail!("it did not become ready"),
        }
        for (_, fields) in repository.unacted() {
            note(&format!("config.pbtxt is valid, but not all of it is acted on yet: {}", fields.join(", ")));
        }
        Ok(())
    }
}

/// Makes the model's policy choose `version`, where it would choose others: that is no reason not to try it.
fn chosen(config: &ModelConfig, version: ModelVersion) -> anyhow::Result<Option<Override>> {
    if not_served(config, &[], version).is_none() {
        return Ok(None);
    }
    let all = ModelVersionPolicy { policy_choice: Some(PolicyChoice::All(All {})) };
    let config = ModelConfig { version_policy: Some(all), ..config.clone() };
    Ok(Some(Override::new(&proto::config_json::to_json(&config).to_string(), [])?))
}
