//! What a repository holds: models by directory, files by path.
//!
//! Object storage knows names and no directories. A name's first segment is its model, the rest is the path of a file;
//! objects of one segment, and hidden names, are of no model, as in a local repository. Tools mark an empty directory
//! with an object of no bytes, whose name ends with a slash that is lost on the way here: such an object is a
//! directory when others are below it, or when it is named like a version.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Longest name of an object, in bytes: what services allow. A listing in memory is as large as its names.
const MAX_NAME: usize = 1024;

/// A repository's models, at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// By name.
    pub models: BTreeMap<String, RemoteModel>,
}

/// A model's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteModel {
    /// The directory's name.
    pub name: String,
    /// In the order of their paths, each path once.
    pub files: Vec<RemoteFile>,
    /// Version directories without a file, relative to the model's.
    pub empty_versions: Vec<String>,
}

/// A file, as it was listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// Relative to the model's directory, such as `1/model.onnx`.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Changes with the content.
    pub etag: Option<String>,
    /// When it was written.
    pub modified: SystemTime,
}

impl RemoteModel {
    /// The same model with those files and empty versions for which `wanted` is true of the path.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> RemoteModel {
        RemoteModel {
            name: self.name.clone(),
            files: self.files.iter().filter(|file| wanted(&file.path)).cloned().collect(),
            empty_versions: self.empty_versions.iter().filter(|path| wanted(path)).cloned().collect(),
        }
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

/// An object whose name no file may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) object: String,
    pub(crate) reason: &'static str,
}

/// Puts listed objects into their models.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    models: BTreeMap<String, Vec<RemoteFile>>,
}

impl Listing {
    /// Adds an object; its path is still relative to the repository.
    pub(crate) fn add(&mut self, object: RemoteFile) -> Result<(), Refused> {
        let too_long = (object.path.len() > MAX_NAME).then_some("it is longer than 1024 bytes");
        if let Some(reason) = manifest::refusal(&object.path).or(too_long) {
            return Err(Refused { object: object.path, reason });
        }
        let Some((model, path)) = object.path.split_once('/') else { return Ok(()) };
        if !model.starts_with('.') {
            let file = RemoteFile { path: path.to_owned(), ..object };
            match self.models.get_mut(model) {
                Some(files) => files.push(file),
                None => _ = self.models.insert(model.to_owned(), vec![file]),
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Tree, Refused> {
        let models = self.models.into_iter().map(|(name, files)| Ok((name.clone(), model(name, files)?)));
        Ok(Tree { models: models.collect::<Result<_, _>>()? })
    }
}

fn model(name: String, mut files: Vec<RemoteFile>) -> Result<RemoteModel, Refused> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    let directories: BTreeSet<String> =
        files.iter().flat_map(|file| parents(&file.path)).map(str::to_owned).collect();
    let mut empty_versions = Vec::new();
    let mut conflict = None;
    files.retain(|file| {
        let is_directory = directories.contains(&file.path);
        if file.size > 0 {
            if is_directory {
                conflict.get_or_insert_with(|| format!("{name}/{}", file.path));
            }
            return true;
        }
        if !is_directory && is_version(&file.path) {
            empty_versions.push(file.path.clone());
        }
        !is_directory && !is_version(&file.path)
    });
    match conflict {
        Some(object) => Err(Refused { object, reason: "it is a file, and other objects are below it" }),
        None => Ok(RemoteModel { name, files, empty_versions }),
    }
}

/// The directories above `path`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

pub(crate) fn is_version(path: &str) -> bool {
    !path.starts_with('0') && path.parse::<u64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(path: &str, size: u64) -> RemoteFile {
        RemoteFile { path: path.to_owned(), size, etag: None, modified: SystemTime::UNIX_EPOCH }
    }

    fn tree(objects: &[(&str, u64)]) -> Result<Tree, Refused> {
        let mut listing = Listing::default();
        objects.iter().try_for_each(|(path, size)| listing.add(object(path, *size)))?;
        listing.finish()
    }

    #[track_caller]
    fn check(objects: &[(&str, u64)], model: &str, files: &[&str], empty_versions: &[&str]) {
        let tree = tree(objects).unwrap();
        let model = &tree.models[model];
        let paths: Vec<&str> = model.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, files);
        assert_eq!(model.empty_versions, empty_versions);
    }

    #[test]
    fn the_first_segment_is_the_model() {
        let objects = [
            ("a/config.pbtxt", 1),
            ("b/1/model.onnx", 2),
            ("a/1/model.onnx", 3),
            ("README.md", 4),
            (".git/x", 5),
        ];
        check(&objects, "a", &["1/model.onnx", "config.pbtxt"], &[]);
        assert_eq!(tree(&objects).unwrap().models.keys().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn marks_of_directories_are_no_files() {
        check(
            &[("a", 0), ("a/1", 0), ("a/1/model.onnx", 3), ("a/1/data", 0), ("a/1/data/x", 1)],
            "a",
            &["1/data/x", "1/model.onnx"],
            &[],
        );
        check(
            &[("a/1", 0), ("a/config.pbtxt", 1), ("a/labels.txt", 0)],
            "a",
            &["config.pbtxt", "labels.txt"],
            &["1"],
        );
    }

    #[test]
    fn a_file_with_files_below_it_is_refused() {
        let refused = tree(&[("a/1", 5), ("a/1/model.onnx", 3)]).unwrap_err();
        assert_eq!(
            (refused.object.as_str(), refused.reason),
            ("a/1", "it is a file, and other objects are below it")
        );
    }

    #[test]
    fn a_name_that_would_escape_is_refused() {
        assert_eq!(tree(&[("a/../../b", 5)]).unwrap_err().object, "a/../../b");
        assert_eq!(tree(&[("a\\b/1", 5)]).unwrap_err().reason, "it holds a backslash");
    }

    #[test]
    fn ten_thousand_versions_are_few() {
        let names: Vec<String> = (1..=10_000).map(|version| format!("a/{version}/model.onnx")).collect();
        let objects: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let tree = tree(&objects).unwrap();
        assert_eq!((tree.models["a"].files.len(), tree.models["a"].size()), (10_000, 10_000));
        let one = tree.models["a"].only(|path| path.starts_with("77/"));
        assert_eq!(one.files.len(), 1);
    }
}
