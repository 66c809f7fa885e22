//! A manifest in a directory of this machine, and the files beside it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::sums::{MANIFEST, MAX_MANIFEST, Sha256, parse, sum};

/// Why a directory is not what its manifest says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The manifest cannot be read.
    #[error("{MANIFEST} cannot be read: {0}")]
    Unreadable(String),
    /// A file that it names is not there.
    #[error("{MANIFEST} names {0:?}, which is not there")]
    Missing(String),
    /// A file cannot be read.
    #[error("{file:?}, which {MANIFEST} names, cannot be read: {reason}")]
    File {
        /// The file, relative to the manifest.
        file: String,
        /// The operating system's words.
        reason: String,
    },
    /// A file is another.
    #[error("{file:?} has the SHA-256 {found}, but {MANIFEST} says {expected}; publish the version again")]
    Mismatch {
        /// The file, relative to the manifest.
        file: String,
        /// The sum in the manifest.
        expected: Sha256,
        /// The sum of the file.
        found: Sha256,
    },
}

/// Holds the manifest in `directory`, if there is one, against the files that it names.
///
/// # Errors
/// With the first of them that is not as it says, or when the manifest is none.
pub fn verify(directory: &Path) -> Result<(), ManifestError> {
    for (file, expected) in named_in(directory)?.unwrap_or_default() {
        match sum(&directory.join(&file)) {
            Ok(found) if found == expected => {}
            Ok(found) => return Err(ManifestError::Mismatch { file, expected, found }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ManifestError::Missing(file));
            }
            Err(error) => return Err(ManifestError::File { file, reason: error.to_string() }),
        }
    }
    Ok(())
}

/// What the manifest in `directory` names; `None` where there is none.
///
/// # Errors
/// When it cannot be read.
pub fn named_in(directory: &Path) -> Result<Option<BTreeMap<String, Sha256>>, ManifestError> {
    let path = directory.join(MANIFEST);
    let unreadable = |reason: String| ManifestError::Unreadable(reason);
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    if !metadata.is_file() {
        return Err(unreadable("it is not a file".to_owned()));
    }
    if metadata.len() > MAX_MANIFEST {
        return Err(unreadable(format!("it has more than {MAX_MANIFEST} bytes")));
    }
    let text = fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
    parse(&text).map(Some).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // of "abc"

    #[test]
    fn what_is_not_as_its_manifest_says_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| fs::write(directory.path().join(path), text).unwrap();
        let verified = || verify(directory.path()).map_err(|error| error.to_string());
        write("model.onnx", "abd");
        assert_eq!(verified(), Ok(()), "there is no manifest");
        write(MANIFEST, &format!("{ABC}  model.onnx\n"));
        let error = verified().unwrap_err();
        assert!(error.starts_with("\"model.onnx\" has the SHA-256 a52d159f262b2c6ddb724a61840befc36eb30c88"));
        assert!(error.contains(&format!("says {ABC}")), "{error}");
        write("model.onnx", "abc");
        assert_eq!(verified(), Ok(()));
        write(MANIFEST, &format!("{ABC}  model.onnx\n{ABC}  w.bin\n"));
        assert_eq!(verified().unwrap_err(), "SHA256SUMS names \"w.bin\", which is not there");
        fs::create_dir(directory.path().join("w.bin")).unwrap();
        assert!(verified().unwrap_err().contains("\"w.bin\", which SHA256SUMS names, cannot be read"));
        write(MANIFEST, "nonsense");
        assert!(verified().unwrap_err().contains("line 1"));
        fs::remove_file(directory.path().join(MANIFEST)).unwrap();
        fs::create_dir(directory.path().join(MANIFEST)).unwrap();
        assert!(verified().unwrap_err().contains("not a file"));
    }
}
