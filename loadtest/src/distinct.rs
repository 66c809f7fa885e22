//! Whether the files that results go to are others than those that are read, and than each other.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::bail;

/// A file, and the option or argument that names it.
pub(crate) type Named<'a> = (&'a str, &'a Path);

/// Refuses results that would overwrite each other, or a file that is read. Links and other ways to write a path are
/// seen through. Files inside a folder that is read are not looked at.
///
/// # Errors
/// When two names are of the same file.
pub(crate) fn distinct(written: &[Named<'_>], read: &[Named<'_>]) -> anyhow::Result<()> {
    for (at, (option, path)) in written.iter().enumerate() {
        let identity = Identity::of(path);
        let others = written[at + 1..].iter().chain(read);
        if let Some((other, _)) = others.into_iter().find(|(_, other)| Identity::of(other) == identity) {
            bail!("{option} and {other} are the same file, {}: give the results another", path.display());
        }
    }
    Ok(())
}

/// What two paths of one file have in common.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    /// Device and number of a file that is there.
    File(u64, u64),
    /// Where one would be made, or what is no file and keeps nothing, such as a terminal.
    Place(PathBuf, OsString),
}

impl Identity {
    fn of(path: &Path) -> Identity {
        if let Ok(found) = fs::metadata(path)
            && found.is_file()
        {
            return Identity::File(found.dev(), found.ino());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        Identity::Place(folder, path.file_name().unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_known_by_every_path_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("inner")).unwrap();
        fs::write(path("rows.npy"), "rows").unwrap();
        fs::hard_link(path("rows.npy"), path("hard")).unwrap();
        symlink(path("rows.npy"), path("soft")).unwrap();
        let rows = path("rows.npy");
        for same in ["rows.npy", "./rows.npy", "inner/../rows.npy", "hard", "soft"] {
            let same = path(same);
            let error = distinct(&[("--json", &same)], &[("--input", &rows)]).unwrap_err().to_string();
            assert!(error.starts_with("--json and --input are the same file, "), "{error}");
        }
        let (new, same, other) = (path("new"), path("inner/../new"), path("inner/new"));
        assert!(distinct(&[("--json", &new), ("--csv", &same)], &[]).is_err());
        distinct(&[("--json", &new), ("--csv", &other)], &[("--input", &rows)]).unwrap();
        // What is read may be read twice.
        distinct(&[], &[("--input", &rows), ("--expect", &rows)]).unwrap();
    }
}
