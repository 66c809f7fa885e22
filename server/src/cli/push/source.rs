//! What is pushed: an ONNX file and the files beside it that hold its weights.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};

/// The name of the manifest in a version's directory.
pub(super) const MANIFEST: &str = "SHA256SUMS";

/// The files of a version, before they are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) files: Vec<SourceFile>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceFile {
    /// Where it is now.
    pub(super) from: PathBuf,
    /// Where it will be, below the version's directory.
    pub(super) path: String,
    /// Bytes that it has now.
    pub(super) size: u64,
}

impl Source {
    /// The ONNX file `file`, which will be called `name`, and the weights that `external_data` says it has elsewhere.
    ///
    /// # Errors
    /// When it is no ONNX file, or a file of it is not there, not beside it, or cannot be called what it is called.
    pub(super) fn of(
        file: &Path,
        name: &str,
        external_data: fn(&Path) -> Result<Vec<String>, String>,
    ) -> anyhow::Result<Source> {
        let name = below(name).map_err(|reason| anyhow!("default_model_filename is {name:?}, {reason}"))?;
        let mut files = vec![SourceFile { from: file.to_owned(), size: size(file)?, path: name }];
        let outside = file.parent().unwrap_or(Path::new(""));
        let inside = Path::new(&files[0].path).parent().unwrap_or(Path::new("")).to_owned();
        for location in external_data(file).map_err(|reason| anyhow!(reason))? {
            let place = below(&location).map_err(|reason| {
                anyhow!("it has weights in {location:?}, {reason}; save it anew with its weights in a file beside it")
            })?;
            let from = outside.join(&place);
            let size = size(&from).with_context(|| format!("it has weights in {location:?}, beside it"))?;
            let path = inside.join(&place).to_string_lossy().into_owned();
            if files.iter().all(|file| file.path != path || file.from != from) {
                files.push(SourceFile { from, path, size });
            }
        }
        expect_apart(&files)?;
        Ok(Source { files })
    }

    /// Bytes of all files.
    pub(super) fn size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

/// No two files in one place, none where the manifest will be, and none where others need a directory.
fn expect_apart(files: &[SourceFile]) -> anyhow::Result<()> {
    for (index, file) in files.iter().enumerate() {
        let path = Path::new(&file.path);
        ensure!(file.path != MANIFEST, "a file of it is called {MANIFEST}, as the checksums beside it are");
        let other = files[..index].iter().find(|other| {
            let other = Path::new(&other.path);
            path.starts_with(other) || other.starts_with(path)
        });
        if let Some(other) = other {
            bail!(
                "it has weights in {:?}, but another file of it will be called {:?}",
                file.path,
                other.path
            );
        }
    }
    Ok(())
}

/// `path` without what means nothing in it.
///
/// # Errors
/// Why it is not the path of a file below a directory, to follow it after a comma.
fn below(path: &str) -> Result<String, &'static str> {
    if path.contains('\\') || path.chars().any(char::is_control) {
        return Err("which holds a backslash or a control character");
    }
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return Err("which leaves its directory"),
        }
    }
    if clean.as_os_str().is_empty() {
        Err("which names no file")
    } else {
        Ok(clean.to_string_lossy().into_owned())
    }
}

/// How many bytes the file at `path` has. Links are followed: what they lead to is pushed.
fn size(path: &Path) -> anyhow::Result<u64> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    // Opening would wait for ever for a named pipe.
    ensure!(metadata.is_file(), "{} is not a file", path.display());
    Ok(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `model.onnx` says which files it has elsewhere, one in each line.
    fn lines(path: &Path) -> Result<Vec<String>, String> {
        Ok(fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect())
    }

    fn of(name: &str, external: &str) -> Result<Vec<(String, u64)>, String> {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("m.onnx", external);
        write("m.onnx.data", "weights");
        write("more/w", "w");
        write("SHA256SUMS", "");
        std::os::unix::fs::symlink("m.onnx.data", directory.path().join("link")).unwrap();
        let source = Source::of(&directory.path().join("m.onnx"), name, lines);
        let source = source.map_err(|error| format!("{error:#}"))?;
        assert!(source.files.iter().all(|file| file.from.starts_with(directory.path())));
        Ok(source.files.into_iter().map(|file| (file.path, file.size)).collect())
    }

    #[test]
    fn weights_come_with_the_model_and_keep_their_names() {
        let files =
            |list: &[(&str, u64)]| Ok(list.iter().map(|(path, size)| ((*path).to_owned(), *size)).collect());
        assert_eq!(of("model.onnx", ""), files(&[("model.onnx", 0)]));
        assert_eq!(
            of("model.onnx", "./m.onnx.data\nmore/w\nlink\nm.onnx.data"),
            files(&[("model.onnx", 37), ("m.onnx.data", 7), ("more/w", 1), ("link", 7)])
        );
        assert_eq!(
            of("sub/other.onnx", "m.onnx.data"),
            files(&[("sub/other.onnx", 11), ("sub/m.onnx.data", 7)])
        );
    }

    #[test]
    fn what_leads_elsewhere_or_is_not_there_is_refused() {
        for (name, external, words) in [
            ("../x", "", "default_model_filename is \"../x\", which leaves its directory"),
            ("model.onnx", "../w", "weights in \"../w\", which leaves its directory; save it anew"),
            ("model.onnx", "/etc/passwd", "weights in \"/etc/passwd\", which leaves"),
            ("model.onnx", "a\\b", "a backslash"),
            ("model.onnx", ".", "which names no file"),
            ("model.onnx", "gone", "weights in \"gone\", beside it: cannot read "),
            ("model.onnx", "more", "is not a file"),
            ("model.onnx", "SHA256SUMS", "called SHA256SUMS"),
            ("m.onnx.data", "m.onnx.data", "another file of it will be called \"m.onnx.data\""),
            ("more", "more/w", "will be called \"more\""),
        ] {
            let error = of(name, external).unwrap_err();
            assert!(error.contains(words), "{name} {external}: {error}");
        }
    }
}
