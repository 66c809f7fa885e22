//! A version comes into a repository in object storage, where nothing can be renamed: its manifest first, by which servers
//! know what is still to come.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use model::ModelVersion;
use storage::{Cache, MANIFEST, Options, Progress, Remote, RemoteModel, StorageError, Transfers, Upload};

use super::ready::{Files, Ready};
use super::staging::{self, Staging};
use super::version::number;
use super::{Push, copy};
use crate::beside::CONFIG;

/// Requests at one time.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(8).expect("8 is above 0");

impl Push<'_> {
    /// Puts the version into the repository at `url`; returns its number.
    ///
    /// # Errors
    /// When it cannot be served or put there.
    pub(super) fn upload_to(&self, url: &str) -> anyhow::Result<ModelVersion> {
        ensure!(
            self.sums,
            "in object storage a version has its checksums: servers wait for the files that they name; leave \
             --no-sha256sums out"
        );
        let transfers = Arc::new(Transfers::start(AT_ONCE)?);
        let remote = Remote::open(url, &Options::from_environment(), &transfers)?;
        let there = remote.list_model(&self.model)?;
        let taken = taken(there.as_ref());
        let number = match self.number {
            // It may be what is left of an attempt that was cut off; the upload looks at it.
            Some(number) => number,
            None => self.number(&taken)?,
        };
        let ready = self.tried(&remote, there.as_ref(), number, &taken)?;
        let beside = beside(&ready);
        let mut number = number;
        loop {
            match send(&remote, &ready, &self.model, number, &beside) {
                Ok(()) => return Ok(number),
                // Another push was faster.
                Err(StorageError::Exists { .. }) if self.number.is_none() => {
                    let there = remote.list_model(&self.model)?;
                    let mut taken = self::taken(there.as_ref());
                    taken.push(number); // a listing may be older than what it should tell
                    number = self.number(&taken)?;
                }
                Err(error @ (StorageError::Unreachable { .. } | StorageError::Service { .. })) => {
                    return Err(error).with_context(|| {
                        format!("it may be there in part; the same command with --version {number} goes on with it")
                    });
                }
                Err(error) => bail!(error),
            }
        }
    }

    /// Gets it ready on this machine, with what is beside the versions there.
    fn tried(
        &self,
        remote: &Remote,
        there: Option<&RemoteModel>,
        number: ModelVersion,
        taken: &[ModelVersion],
    ) -> anyhow::Result<Ready> {
        let directory = std::env::temp_dir();
        staging::tidy(&directory);
        let staging = Staging::make_private(&directory)
            .with_context(|| format!("cannot write to {}, where TMPDIR says it may", directory.display()))?;
        let Some(model) = there else {
            return self.made_ready(number, taken, None, staging, Files::Linked);
        };
        let beside = model.only(is_beside);
        let cache = Cache::open(&staging.path().join("cache"), beside.size().max(1))?;
        let snapshot = remote.fetch(&beside, &cache, &|_| {})?;
        self.made_ready(number, taken, Some(snapshot.directory()), staging, Files::Linked)
    }
}

/// The numbers that are taken, whatever of a version is there.
fn taken(model: Option<&RemoteModel>) -> Vec<ModelVersion> {
    let files = model.into_iter().flat_map(|model| model.files.iter().map(|file| &file.path));
    let empty = model.into_iter().flat_map(|model| &model.empty_versions);
    let mut taken: Vec<_> = files.chain(empty).filter_map(|path| number(path.split('/').next()?)).collect();
    taken.dedup();
    taken
}

/// Whether the file at `path` of a model is of no version, and something for servers.
fn is_beside(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    number(first).is_none() && !first.starts_with('.') && first != MANIFEST
}

/// What goes beside the versions with it: the configuration, and what a new model needs with that.
fn beside(ready: &Ready) -> Vec<(String, PathBuf)> {
    let config = ready.config.then(|| CONFIG.to_owned());
    let files = ready.beside.iter().cloned().chain(config);
    files.map(|path| (path.clone(), ready.model.join(path))).collect()
}

fn send(
    remote: &Remote,
    ready: &Ready,
    model: &str,
    number: ModelVersion,
    beside: &[(String, PathBuf)],
) -> Result<(), StorageError> {
    let bar = copy::progress(0);
    let tell = |Progress { done, total, .. }| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let directory: &Path = &ready.version();
    let upload = Upload { model, version: number.get(), directory, beside, replace: false };
    let sent = remote.upload(&upload, &tell);
    bar.finish_and_clear();
    sent.map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use storage::RemoteFile;

    use super::*;

    #[test]
    fn whatever_is_there_of_a_version_takes_its_number() {
        let file = |path: &str| RemoteFile {
            path: path.to_owned(),
            size: 1,
            etag: None,
            modified: SystemTime::UNIX_EPOCH,
        };
        let model = RemoteModel {
            name: "m".to_owned(),
            files: ["10/SHA256SUMS", "2/a", "2/model.onnx", "config.pbtxt", "warmup/3"].map(file).to_vec(),
            empty_versions: vec!["4".to_owned()],
        };
        let mut numbers: Vec<_> = taken(Some(&model)).iter().map(|version| version.get()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [2, 4, 10]);
        assert!(taken(None).is_empty());
        let beside: Vec<_> = model.only(is_beside).files.into_iter().map(|file| file.path).collect();
        assert_eq!(beside, ["config.pbtxt", "warmup/3"]);
    }
}
