//! What the files of a directory looked like: by it a change is noticed, and what is still being written.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::remote::RemoteFile;

/// More files than this are no version of a model; a link that leads back to its own directory has as many.
const MOST_FILES: usize = 10_000;

/// Directories within each other.
const DEEPEST: usize = 16;

/// The files below a directory, by their path in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files(BTreeMap<PathBuf, Stamp>);

/// What changes when a file is written.
#[derive(Clone, Debug)]
struct Stamp {
    modified: SystemTime,
    size: u64,
    /// What changes with the content, where files are elsewhere.
    etag: Option<String>,
    /// When it was last written, renamed or given other rights.
    touched: SystemTime,
}

/// A file system that makes up when files were touched must not make them look changed.
impl PartialEq for Stamp {
    fn eq(&self, other: &Stamp) -> bool {
        // The same content that was put once more is the same.
        let is_as_old = self.etag.is_some() || self.modified == other.modified;
        is_as_old && (self.size, &self.etag) == (other.size, &other.etag)
    }
}

impl Eq for Stamp {}

impl Files {
    /// The files in `directory` and below it, but for what is in its subdirectories that `without` names. Links are
    /// followed: a version may be one to where it was unpacked.
    ///
    /// # Errors
    /// The operating system's, or when there are too many.
    pub(super) fn below(directory: &Path, without: impl Fn(&str) -> bool) -> io::Result<Files> {
        let mut files = BTreeMap::new();
        let mut open = vec![(PathBuf::new(), 0)];
        while let Some((below, depth)) = open.pop() {
            for entry in fs::read_dir(directory.join(&below))? {
                let entry = entry?;
                let path = below.join(entry.file_name());
                // What is gone meanwhile, or a link to nothing, is no file.
                let Ok(metadata) = fs::metadata(directory.join(&path)) else { continue };
                if metadata.is_dir() {
                    if depth > 0 || !without(&entry.file_name().to_string_lossy()) {
                        open.push((path, depth + 1));
                    }
                } else {
                    files.insert(path, stamp(&metadata)?);
                }
                if files.len() + open.len() > MOST_FILES || depth > DEEPEST {
                    return Err(io::Error::other(format!(
                        "it has more than {MOST_FILES} files, or directories within each other more than {DEEPEST} deep"
                    )));
                }
            }
        }
        Ok(Files(files))
    }

    /// Files that were listed elsewhere.
    ///
    /// # Errors
    /// When there are too many: each would be asked for.
    pub(super) fn listed<'a>(files: impl Iterator<Item = RemoteFile<'a>>) -> io::Result<Files> {
        let stamp = |file: RemoteFile<'a>| {
            let RemoteFile { path, size, etag, modified } = file;
            (path.into(), Stamp { modified, size, etag: etag.map(str::to_owned), touched: modified })
        };
        let files: BTreeMap<PathBuf, Stamp> = files.map(stamp).take(MOST_FILES + 1).collect();
        if files.len() > MOST_FILES {
            return Err(io::Error::other(format!("it has more than {MOST_FILES} files")));
        }
        Ok(Files(files))
    }

    /// Whether there is one at `path`.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    /// All but the one at `path`.
    pub(super) fn without(mut self, path: &Path) -> Files {
        self.0.remove(path);
        self
    }

    /// How long ago the last of them was touched, at `now`; zero for a time that is yet to come.
    pub(super) fn untouched_for(&self, now: SystemTime) -> Duration {
        let latest = self.0.values().map(|stamp| stamp.touched.max(stamp.modified)).max();
        latest.map_or(Duration::ZERO, |latest| now.duration_since(latest).unwrap_or_default())
    }

    /// Bytes of all of them.
    pub(super) fn size(&self) -> u64 {
        self.0.values().fold(0, |sum, stamp| sum.saturating_add(stamp.size))
    }

    /// True when there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn stamp(metadata: &fs::Metadata) -> io::Result<Stamp> {
    let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
    let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
    let touched = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    Ok(Stamp { modified: metadata.modified()?, size: metadata.len(), etag: None, touched })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_noticed_and_where_it_was() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let look = || Files::below(root.path(), |name| name == "2").unwrap();
        write("1/model.onnx", "one");
        write("2/model.onnx", "two");
        write("1/external/weights", "w");
        let before = look();
        assert_eq!(before, look());
        write("2/model.onnx", "another");
        assert_eq!(before, look(), "it was left out");
        write("1/external/weights", "more");
        assert_ne!(before, look());
        let before = look();
        write("1/external/2/more", "a directory of that name further down is looked at");
        assert_ne!(before, look());
        assert_eq!(look().without(Path::new("1/external/2/more")), before);
    }

    #[test]
    fn what_was_just_written_is_young_and_nothing_is_not_old() {
        let root = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let look = || Files::below(root.path(), |_| false).unwrap();
        assert!(look().is_empty());
        assert_eq!(look().untouched_for(now + hour), Duration::ZERO);
        let path = root.path().join("model.onnx");
        fs::write(&path, "m").unwrap();
        // A copy that keeps the time of the original is as young as it is.
        fs::File::open(&path).unwrap().set_modified(now - hour).unwrap();
        assert!(look().untouched_for(SystemTime::now()) < hour / 2);
        let later = look().untouched_for(SystemTime::now() + hour);
        assert!(later >= hour && later < 2 * hour, "{later:?}");
        assert_eq!(look().untouched_for(now - hour), Duration::ZERO);
    }

    #[test]
    fn as_many_files_may_be_listed_as_may_be_in_a_directory() {
        let listed = |count: usize| {
            let paths: Vec<String> = (0..count).map(|number| number.to_string()).collect();
            let file = |path| RemoteFile { path, size: 1, etag: None, modified: SystemTime::UNIX_EPOCH };
            Files::listed(paths.iter().map(|path| file(path.as_str()))).map(|files| files.size())
        };
        assert_eq!(listed(MOST_FILES).unwrap(), MOST_FILES as u64);
        assert!(listed(MOST_FILES + 1).unwrap_err().to_string().contains("more than 10000 files"));
    }

    #[test]
    fn a_link_that_leads_back_ends() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("again")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("dangling")).unwrap();
        assert!(Files::below(root.path(), |_| false).is_err());
        assert!(Files::below(root.path(), |name| name == "again").unwrap().is_empty());
    }
}
