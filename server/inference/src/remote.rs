//! What a model repository must offer that is not a directory of this machine: tell what it has, and bring it here.
//!
//! Calls block, within bounds of the implementation: they are made by threads that load models or follow repositories.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use model::ModelName;

/// A model repository elsewhere.
pub trait RemoteRepository: Debug + Send + Sync + 'static {
    /// What messages call it.
    fn url(&self) -> &str;

    /// Every model that it has now.
    ///
    /// # Errors
    /// When it cannot tell.
    fn models(&self) -> Result<Vec<Arc<dyn RemoteModel>>, RemoteError>;

    /// The model of that name, if it has it now.
    ///
    /// # Errors
    /// When it cannot tell.
    fn model(&self, name: &ModelName) -> Result<Option<Arc<dyn RemoteModel>>, RemoteError>;

    /// The models that it had when it last told, be it an earlier process, as far as they can be had without it. Asked
    /// for when it cannot tell.
    fn remembered(&self) -> Vec<Arc<dyn RemoteModel>>;
}

/// A model of such a repository, as it was when it was listed.
pub trait RemoteModel: Debug + Send + Sync + 'static {
    /// The name of its directory; no model need be able to have it.
    fn name(&self) -> &str;

    /// The URL of its repository.
    fn repository(&self) -> &str;

    /// Its files, in the order of their paths.
    fn files(&self) -> Vec<RemoteFile<'_>>;

    /// Directories without a file that are named like versions.
    fn empty_versions(&self) -> &[String];

    /// The bytes of one of its small files, of at most `most` bytes.
    ///
    /// # Errors
    /// When it cannot be had, or is no longer what was listed.
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, RemoteError>;

    /// Brings those files here for which `wanted` is true of their path, and the empty versions. `tell` is told how far
    /// it has come.
    ///
    /// # Errors
    /// When a file cannot be had, is no longer what was listed or not what its manifest says, or has no room here.
    fn bring(
        &self,
        wanted: &dyn Fn(&str) -> bool,
        tell: &(dyn Fn(Progress) + Sync),
    ) -> Result<Arc<dyn LocalCopy>, RemoteError>;
}

/// A file, as it was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteFile<'a> {
    /// Below the model's directory.
    pub path: &'a str,
    /// In bytes.
    pub size: u64,
    /// Changes with the content.
    pub etag: Option<&'a str>,
    /// When it was written.
    pub modified: SystemTime,
}

/// Files that were brought here. They never change, and stay while this is there.
pub trait LocalCopy: Debug + Send + Sync + 'static {
    /// The model's directory.
    fn directory(&self) -> &Path;
}

/// How far files have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub done: u64,
    /// Those of them that were not here before.
    pub moved: u64,
    /// Bytes of all of them.
    pub total: u64,
}

/// Why a remote repository did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RemoteError {
    /// What happened, to what, and what to do.
    pub reason: String,
    /// Whether it could not be asked: what it said before may still be so.
    pub is_away: bool,
    /// Whether the same may succeed later although the files stay as they are.
    pub may_pass: bool,
}
