//! What tries a version where its load can end nothing else, before it is loaded where others serve.

use std::fmt::Debug;
use std::path::PathBuf;

use model::{ModelName, ModelVersion};
use proto::ModelConfig;

use crate::backend::LoadError;

/// Loads versions in a process of their own.
pub trait Trial: Debug + Send + Sync + 'static {
    /// Loads and warms up `what`, and lets go of it. Blocks, as long as that takes.
    ///
    /// # Errors
    /// When its process died of it, it could not be tried, or the server stops. A load that fails in good order is no
    /// error: the one that follows fails as well, and says why.
    fn run(&self, what: &TrialOf<'_>) -> Result<(), LoadError>;
}

/// A version that is to be tried.
#[derive(Debug)]
pub struct TrialOf<'a> {
    /// The model's name.
    pub name: &'a ModelName,
    /// The version.
    pub version: ModelVersion,
    /// The directory with the version and what is beside it.
    pub model_directory: PathBuf,
    /// The configuration as it was written, be it in that directory or not.
    pub config: &'a ModelConfig,
}
