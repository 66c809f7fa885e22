//! What is in the model repositories: models by directory, versions by numbered directory.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::{ModelName, ModelVersion};
use tracing::warn;

use super::place::Place;

/// Where each model was found; a name found in several repositories has several places.
pub(super) type Found = BTreeMap<ModelName, Vec<Place>>;

/// A repository, or something in it, that could not be read as one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The repository itself.
    #[error("cannot read the model repository {path}: {reason}; does it exist, and may this user read it?")]
    Unreadable {
        /// Its path, as given.
        path: String,
        /// The operating system's words.
        reason: String,
    },
    /// A repository that is elsewhere.
    #[error("{reason}{}", if *remembered { "; until it answers, what is kept of it is served" } else { "" })]
    Remote {
        /// Its URL.
        url: String,
        /// What happened, to which repository, and what to do.
        reason: String,
        /// Whether what it told an earlier process stands in for it.
        remembered: bool,
    },
    /// A directory whose name no model may have.
    #[error("{path}: {reason}")]
    BadName {
        /// The directory.
        path: String,
        /// What is wrong with its name.
        reason: String,
    },
}

impl ScanError {
    /// Whether a repository could not be looked through, and not only something in it.
    pub fn is_of_repository(&self) -> bool {
        !matches!(self, ScanError::BadName { .. })
    }

    /// Whether the models of what could not be read are known all the same.
    pub(super) fn is_stood_in_for(&self) -> bool {
        matches!(self, ScanError::Remote { remembered: true, .. })
    }

    /// Whether `other` is about the same place, in whatever words.
    pub(super) fn is_about_the_same(&self, other: &ScanError) -> bool {
        match (self, other) {
            (ScanError::Unreadable { path, .. }, ScanError::Unreadable { path: other, .. })
            | (ScanError::BadName { path, .. }, ScanError::BadName { path: other, .. }) => path == other,
            (ScanError::Remote { url, .. }, ScanError::Remote { url: other, .. }) => url == other,
            _ => false,
        }
    }
}

/// Finds the models in `repositories`. Files and hidden directories are not models.
pub(super) fn models(repositories: &[PathBuf]) -> (Found, Vec<ScanError>) {
    let (mut found, mut errors) = (Found::new(), Vec::new());
    for repository in repositories {
        if let Err(error) = directories(repository, |path, name| match ModelName::parse(name) {
            Ok(name) => found.entry(name).or_default().push(Place::Directory(path)),
            Err(error) => {
                errors
                    .push(ScanError::BadName { path: path.display().to_string(), reason: error.to_string() });
            }
        }) {
            errors.push(ScanError::Unreadable {
                path: repository.display().to_string(),
                reason: error.to_string(),
            });
        }
    }
    (found, errors)
}

/// Where `name` is in `repositories`.
pub(super) fn places_of(name: &ModelName, repositories: &[PathBuf]) -> Vec<Place> {
    let paths = repositories.iter().map(|repository| repository.join(name.as_str()));
    paths.filter(|path| path.is_dir()).map(Place::Directory).collect()
}

/// The versions of the model in `directory`. Numbered directories with leading zeros are said to be
/// ignored; other names are not versions.
pub(super) fn versions(directory: &Path) -> io::Result<Vec<ModelVersion>> {
    let mut versions = Vec::new();
    directories(directory, |_, name| versions.extend(version(directory.display(), name)))?;
    Ok(versions)
}

/// The version whose directory has that `name`, below what is `shown`; `None` for another directory.
pub(super) fn version(shown: impl Display, name: &str) -> Option<ModelVersion> {
    match name.parse() {
        Ok(version) => Some(version),
        Err(error) => {
            if name.bytes().all(|byte| byte.is_ascii_digit()) {
                warn!(directory = %format!("{shown}/{name}"), %error, "ignoring a version directory");
            }
            None
        }
    }
}

fn directories(parent: &Path, mut visit: impl FnMut(PathBuf, &str)) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        // Follows links: a version may be a link to where it was unpacked.
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') {
            visit(path, &name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_directories_and_versions_are_positive_numbers() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["a/1", "a/10", "a/01", "a/0", "a/warmup", "b", ".git/1"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("README.md"), "not a model").unwrap();
        let (found, errors) = models(&[root.path().to_owned()]);
        assert_eq!(found.keys().map(ModelName::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(errors, []);
        let mut versions: Vec<_> =
            versions(&root.path().join("a")).unwrap().into_iter().map(ModelVersion::get).collect();
        versions.sort_unstable();
        assert_eq!(versions, [1, 10]);
    }

    #[test]
    fn a_repository_that_is_not_there_is_named() {
        let (found, errors) = models(&[PathBuf::from("no/such/repository")]);
        assert!(found.is_empty());
        assert!(errors[0].to_string().contains("no/such/repository"), "{}", errors[0]);
    }

    #[test]
    fn a_model_in_two_repositories_is_found_twice() {
        let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for root in &roots {
            fs::create_dir_all(root.path().join("same/1")).unwrap();
        }
        let (found, _) = models(&roots.each_ref().map(|root| root.path().to_owned()));
        assert_eq!(found.values().map(Vec::len).collect::<Vec<_>>(), [2]);
    }
}
