//! The files of a checkout, as the rules see them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use super::rust_code;

/// Directories that hold no source, for a checkout without git.
const NOT_SOURCE: [&str; 4] = [".git", "target", "__pycache__", ".pytest_cache"];

/// A file that is in the repository, or would be after `git add --all`.
#[derive(Debug)]
pub(crate) struct File {
    /// From the root of the checkout, with slashes.
    pub(crate) path: String,
    /// In bytes.
    pub(crate) size: u64,
    /// `None` when the file is not text.
    pub(crate) text: Option<String>,
}

impl File {
    /// A file made up for a test.
    pub(crate) fn new(path: &str, text: &str) -> File {
        File { path: path.to_owned(), size: text.len() as u64, text: Some(text.to_owned()) }
    }

    /// True for Rust source.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// True when the path starts with one of `places`, which are directories or beginnings of file names.
    pub(crate) fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// The Rust code in the file without comments and literals; empty for other files.
    pub(crate) fn code(&self) -> String {
        match &self.text {
            Some(text) if self.is_rust() => rust_code::without_comments_and_literals(text),
            _ => String::new(),
        }
    }

    /// The Rust code in the file that is not a test.
    pub(crate) fn production_code(&self) -> String {
        if self.path.contains("/tests/") || self.path.ends_with("/tests.rs") {
            return String::new();
        }
        let code = self.code();
        code.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
    }
}

/// Every file of this checkout.
pub(crate) fn files() -> Vec<File> {
    let root = root();
    let paths = tracked(&root).unwrap_or_else(|| {
        let mut paths = Vec::new();
        walk(&root, &root, &mut paths).expect("the checkout can be read");
        paths
    });
    // A file that was deleted, but not yet from the index, is not there.
    paths.into_iter().filter_map(|path| read(&root, path)).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is inside the workspace").to_owned()
}

/// What git knows of, and what it would add; `None` without git.
fn tracked(root: &Path) -> Option<Vec<String>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(list).current_dir(root).output().ok()?;
    let paths = String::from_utf8(output.stdout).ok().filter(|paths| !paths.is_empty())?;
    output.status.success().then(|| paths.split_terminator('\0').map(str::to_owned).collect())
}

fn walk(root: &Path, directory: &Path, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            let path = entry.path();
            let path = path.strip_prefix(root).expect("the walk stays below the root");
            paths.push(path.to_string_lossy().into_owned());
        } else if !NOT_SOURCE.iter().any(|name| entry.file_name() == *name) {
            walk(root, &entry.path(), paths)?;
        }
    }
    Ok(())
}

fn read(root: &Path, path: String) -> Option<File> {
    let place = root.join(&path);
    let size = fs::metadata(&place).ok()?.len();
    Some(File { path, size, text: fs::read_to_string(&place).ok() })
}
