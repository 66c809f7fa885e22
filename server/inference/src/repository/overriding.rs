//! What a load request gives in place of a model's files.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proto::ModelConfig;
use tempfile::TempDir;

use super::ControlError;
use super::load::inside;

/// A configuration, and perhaps files, that a load request gives.
#[derive(Clone)]
pub struct Override {
    pub(super) config: ModelConfig,
    /// Takes the place of the model's directory; goes when the last version that was loaded from it does.
    pub(super) files: Option<Arc<TempDir>>,
}

impl Override {
    /// From `config`, a configuration as JSON, and files by their path in the model's directory, such as
    /// `1/model.onnx`. With files, nothing is read of what the repository has.
    ///
    /// # Errors
    /// When the configuration cannot be read, a path leaves the model's directory, or a file cannot be written.
    pub fn new(
        config: &str,
        files: impl IntoIterator<Item = (String, Bytes)>,
    ) -> Result<Override, ControlError> {
        let config = proto::config_json::from_json(config).map_err(|error| {
            ControlError::Override(format!("the parameter 'config' is no configuration: {error}"))
        })?;
        let mut directory = None;
        for (path, content) in files {
            if directory.is_none() {
                let made = TempDir::with_prefix("volley-override-");
                directory = Some(made.map_err(|error| cannot_write(&path, &error))?);
            }
            let below = directory.as_ref().map_or(Path::new(""), TempDir::path);
            write(below, &path, &content)?;
        }
        Ok(Override { config, files: directory.map(Arc::new) })
    }
}

impl Override {
    /// Whether nothing is read of what a repository has.
    pub(super) fn has_files(&self) -> bool {
        self.files.is_some()
    }
}

fn write(directory: &Path, path: &str, content: &[u8]) -> Result<(), ControlError> {
    let target = inside(directory, path).filter(|target| target.file_name().is_some() && target != directory);
    let Some(target) = target else {
        return Err(ControlError::Override(format!(
            "the file '{path}' leaves the model's directory; name it as file:1/model.onnx"
        )));
    };
    let parent = target.parent().unwrap_or(directory);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(&target, content))
        .map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &str, error: &std::io::Error) -> ControlError {
    ControlError::Override(format!("the file '{path}' cannot be written to a temporary directory: {error}"))
}

impl fmt::Debug for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Override").field("files", &self.files.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(files: &[(&str, &'static str)]) -> Result<Override, ControlError> {
        let files =
            files.iter().map(|(path, content)| ((*path).to_owned(), Bytes::from_static(content.as_bytes())));
        Override::new("{}", files)
    }

    #[test]
    fn files_are_where_their_paths_say_until_nobody_needs_them() {
        let given = given(&[("1/model.onnx", "a model"), ("labels.txt", "cat")]).unwrap();
        let directory = given.files.as_ref().unwrap().path().to_owned();
        assert_eq!(fs::read_to_string(directory.join("1/model.onnx")).unwrap(), "a model");
        assert_eq!(fs::read_to_string(directory.join("labels.txt")).unwrap(), "cat");
        drop(given);
        assert!(!directory.exists());
    }

    #[test]
    fn a_path_that_leaves_the_directory_is_refused_and_nothing_is_written() {
        for path in ["../x", "1/../../x", "/etc/x", "", ".", "1/..", ".."] {
            let error = given(&[(path, "x")]).unwrap_err().to_string();
            assert!(error.contains("leaves the model's directory"), "{path}: {error}");
        }
        let error = Override::new("{", []).unwrap_err().to_string();
        assert!(error.starts_with("the parameter 'config' is no configuration: "), "{error}");
        assert!(given(&[]).unwrap().files.is_none());
        // A file where a directory has to be.
        let error = given(&[("1", "x"), ("1/model.onnx", "y")]).unwrap_err().to_string();
        assert!(error.contains("cannot be written"), "{error}");
    }
}
