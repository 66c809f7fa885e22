//! Where a model's files are: in a directory, or elsewhere and brought here when they are needed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use manifest::{MANIFEST, MAX_MANIFEST, ManifestError};
use model::ModelVersion;

use super::files::Files;
use super::load::{self, MAX_TEXT_FILE};
use super::scan;
use crate::backend::LoadError;
use crate::remote::{LocalCopy, Progress, RemoteFile, RemoteModel};

/// Where the files of a model are.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Directory(PathBuf),
    Remote {
        model: Arc<dyn RemoteModel>,
        /// When it was listed.
        listed: Instant,
    },
}

/// A directory of this machine with files of a model in it. They stay while this is there, as far as it is ours to say.
#[derive(Clone, Debug)]
pub(super) struct Here {
    pub(super) directory: PathBuf,
    pub(super) copy: Option<Arc<dyn LocalCopy>>,
}

/// Whether `name`, of a directory in that of a model, is not beside its versions but one of them, or one in which
/// others get versions ready.
fn is_apart(name: &str) -> bool {
    name.starts_with('.') || name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the file at `path` is not in a directory that is apart.
fn is_beside(path: &str) -> bool {
    path.split_once('/').is_none_or(|(first, _)| !is_apart(first))
}

/// Whether the file at `path` is brought for the version of that `number`. A manifest beside the versions is of all of
/// them, which are not all brought, and as in a directory nobody reads it.
fn is_needed_for(path: &str, number: &str) -> bool {
    let is_for_all = is_beside(path) && path.parse::<u64>().is_err() && path != MANIFEST;
    is_for_all || path.split('/').next() == Some(number)
}

fn is_configuration(path: &str) -> bool {
    path == "config.pbtxt" || path.starts_with("configs/")
}

impl Place {
    /// A directory with the model's configuration.
    pub(super) fn configuration(&self) -> Result<Here, LoadError> {
        match self {
            Place::Directory(directory) => Ok(Here { directory: directory.clone(), copy: None }),
            Place::Remote { model, .. } => {
                let files = model.files();
                let mut large = files.iter().filter(|file| file.size > MAX_TEXT_FILE);
                if let Some(file) = large.find(|file| is_configuration(file.path)) {
                    let what = format!("{}/{}", model.name(), file.path);
                    return Err(load::too_large(what, file.size));
                }
                bring(&**model, &is_configuration, &|_| {})
            }
        }
    }

    /// A directory with `version` and what is beside the versions. Its manifest is kept.
    pub(super) fn bring(
        &self,
        version: ModelVersion,
        tell: &(dyn Fn(Progress) + Sync),
    ) -> Result<Here, LoadError> {
        let number = version.to_string();
        match self {
            Place::Directory(directory) => {
                manifest::verify(&directory.join(&number))?;
                Ok(Here { directory: directory.clone(), copy: None })
            }
            Place::Remote { model, .. } => bring(&**model, &|path| is_needed_for(path, &number), tell),
        }
    }

    /// The versions that it has.
    pub(super) fn versions(&self) -> io::Result<Vec<ModelVersion>> {
        match self {
            Place::Directory(directory) => scan::versions(directory),
            Place::Remote { model, .. } => {
                let files = model.files();
                let directories = files.iter().filter_map(|file| Some(file.path.split_once('/')?.0));
                let all = directories.chain(model.empty_versions().iter().map(String::as_str));
                let names: BTreeSet<&str> = all.collect();
                let versions = names.into_iter().filter_map(|name| scan::version(model.repository(), name));
                Ok(versions.collect())
            }
        }
    }

    /// What is beside the versions and the configuration: labels, data.
    pub(super) fn beside(&self) -> io::Result<Files> {
        let files = match self {
            Place::Directory(directory) => Files::below(directory, is_apart)?,
            Place::Remote { model, .. } => {
                Files::listed(model.files().into_iter().filter(|file| is_beside(file.path)))?
            }
        };
        Ok(files.without(Path::new("config.pbtxt")))
    }

    /// The files of `version`.
    pub(super) fn files_of(&self, version: ModelVersion) -> io::Result<Files> {
        match self {
            Place::Directory(directory) => Files::below(&directory.join(version.to_string()), |_| false),
            Place::Remote { model, .. } => {
                let directory = format!("{version}/");
                let inside = model.files().into_iter().filter_map(|file| {
                    let path = file.path.strip_prefix(&directory)?;
                    Some(RemoteFile { path, ..file })
                });
                Files::listed(inside)
            }
        }
    }

    /// When its configuration was written.
    pub(super) fn config_modified(&self) -> Option<SystemTime> {
        match self {
            Place::Directory(directory) => {
                fs::metadata(directory.join("config.pbtxt")).and_then(|metadata| metadata.modified()).ok()
            }
            Place::Remote { model, .. } => {
                let mut files = model.files().into_iter();
                files.find(|file| file.path == "config.pbtxt").map(|file| file.modified)
            }
        }
    }

    /// What the manifest of `version` names and its `files` do not have; `None` where there is no manifest.
    ///
    /// # Errors
    /// When the manifest cannot be read; a load says so.
    pub(super) fn still_to_come(
        &self,
        version: ModelVersion,
        files: &Files,
    ) -> Result<Option<Vec<String>>, LoadError> {
        if !files.has(Path::new(MANIFEST)) {
            return Ok(None);
        }
        let named = match self {
            Place::Directory(directory) => {
                manifest::named_in(&directory.join(version.to_string()))?.unwrap_or_default()
            }
            Place::Remote { model, .. } => {
                let text = model.read(&format!("{version}/{MANIFEST}"), MAX_MANIFEST)?;
                let unreadable = ManifestError::Unreadable;
                let text = String::from_utf8(text).map_err(|error| unreadable(error.to_string()))?;
                manifest::parse(&text).map_err(unreadable)?
            }
        };
        Ok(Some(named.into_keys().filter(|name| !files.has(Path::new(name))).collect()))
    }

    /// The repository that it is in, for people.
    pub(super) fn repository(&self) -> Cow<'_, str> {
        match self {
            Place::Directory(path) => path.parent().unwrap_or(path).to_string_lossy(),
            Place::Remote { model, .. } => Cow::Borrowed(model.repository()),
        }
    }

    /// The URL of the repository that it is in, where it is elsewhere.
    pub(super) fn url(&self) -> Option<&str> {
        match self {
            Place::Directory(_) => None,
            Place::Remote { model, .. } => Some(model.repository()),
        }
    }

    /// Whether this is what was listed after `other` was, in the same repository.
    pub(super) fn is_seen_after(&self, other: &Place) -> bool {
        self.url() == other.url() && self.listed() > other.listed()
    }

    /// When it was looked at, if that was not just now.
    pub(super) fn listed(&self) -> Option<Instant> {
        match self {
            Place::Directory(_) => None,
            Place::Remote { listed, .. } => Some(*listed),
        }
    }
}

fn bring(
    model: &dyn RemoteModel,
    wanted: &dyn Fn(&str) -> bool,
    tell: &(dyn Fn(Progress) + Sync),
) -> Result<Here, LoadError> {
    let copy = model.bring(wanted, tell)?;
    Ok(Here { directory: copy.directory().to_owned(), copy: Some(copy) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_needs_its_files_and_what_is_of_all() {
        for (path, needed) in [
            ("2/model.onnx", true),
            ("2/SHA256SUMS", true),
            ("labels.txt", true),
            ("warmup/SHA256SUMS", true),
            ("1/model.onnx", false),
            ("02/model.onnx", false),
            ("3", false),
            (".git/config", false),
            ("SHA256SUMS", false),
        ] {
            assert_eq!(is_needed_for(path, "2"), needed, "{path}");
        }
    }
}
