//! Where a version is got ready: a hidden directory beside its place, which servers pass over.
//!
//! It holds a lock for as long as its owner lives. What is not locked was left behind by one that was killed, and the next
//! removes it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::geteuid;

use super::note;

/// What the names of such directories begin with.
pub(super) const PREFIX: &str = ".volley-push-";

/// The file that is locked.
const LOCK: &str = "lock";

/// A directory of one's own; it goes with its owner.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

impl Staging {
    /// Makes one in `parent`, a repository or a model in it.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn make(parent: &Path) -> io::Result<Staging> {
        Staging::make_by(parent, &DirBuilder::new())
    }

    /// Makes one in `parent`, where others have theirs, too: it is of no concern to them.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn make_private(parent: &Path) -> io::Result<Staging> {
        Staging::make_by(parent, DirBuilder::new().mode(0o700))
    }

    fn make_by(parent: &Path, builder: &DirBuilder) -> io::Result<Staging> {
        let process = std::process::id();
        for attempt in 0_u32.. {
            let path = parent.join(format!("{PREFIX}{process}-{attempt}"));
            match builder.create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            match lock(&path) {
                Ok(Some(lock)) => return Ok(Staging { path, _lock: lock }),
                Ok(None) => {} // another took it for one that was left behind, and removes it
                Err(error) => {
                    let _ = remove(&path); // why it cannot be used is what counts
                    return Err(error);
                }
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is by the next push.
        let _ = remove(&self.path);
    }
}

/// Locks the new directory at `path`; none when another was faster.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let name = path.join(LOCK);
    let lock = match OpenOptions::new().write(true).create_new(true).open(&name) {
        Ok(lock) => lock,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        // Some file systems of networks have no locks. What is left behind stays there then, since nobody can tell.
        Err(TryLockError::Error(error)) if is_unsupported(&error) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // It may have been removed between those two steps, and then locking it means nothing.
    match fs::metadata(&name) {
        Ok(there) if there.ino() == lock.metadata()?.ino() => Ok(Some(lock)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP))
}

/// Removes what pushes that were killed have left in `parent`, and says so.
pub(super) fn tidy(parent: &Path) {
    if sweep(parent) > 0 {
        note(&format!("removed what is left in {} of pushes that were cut short", parent.display()));
    }
}

/// Removes them; returns how many there were. What cannot be removed or looked at stays.
fn sweep(parent: &Path) -> usize {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let left = entries.filter(|entry| is_one(&entry.file_name())).map(|entry| entry.path());
    // Nobody else can make a directory of this user, or put a link in its place where others may write.
    let is_own = |path: &PathBuf| {
        fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
    };
    left.filter(is_own).filter(|path| remove_unless_owned(path)).count()
}

fn is_one(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

fn remove_unless_owned(path: &Path) -> bool {
    match OpenOptions::new().write(true).open(path.join(LOCK)) {
        // Held while it is removed, so that nobody locks it meanwhile.
        Ok(lock) => lock.try_lock().is_ok() && remove(path).is_ok(),
        // Its owner may be about to lock it, and makes another then.
        Err(error) if error.kind() == ErrorKind::NotFound => fs::remove_dir(path).is_ok(),
        Err(_) => false,
    }
}

/// Removes the directory at `path`, the lock last: who is killed meanwhile leaves what the next can remove.
fn remove(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    match fs::remove_file(path.join(LOCK)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => fs::remove_dir(path),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    fn names(parent: &Path) -> usize {
        fs::read_dir(parent).unwrap().count()
    }

    #[test]
    fn it_goes_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let staging = Staging::make(parent.path()).unwrap();
        fs::create_dir(staging.path().join("1")).unwrap();
        fs::write(staging.path().join("1/model.onnx"), "half").unwrap();
        let other = Staging::make(parent.path()).unwrap();
        assert_ne!(staging.path(), other.path());
        assert!(is_one(staging.path().file_name().unwrap()));
        drop(staging);
        assert_eq!(names(parent.path()), 1);
        drop(other);
        assert_eq!(names(parent.path()), 0);
    }

    #[test]
    fn what_was_left_behind_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let owned = Staging::make(parent.path()).unwrap();
        for (left, file) in [("1-0", Some("lock")), ("2-0", Some("lock")), ("3-0", None)] {
            let path = parent.path().join(format!("{PREFIX}{left}"));
            fs::create_dir(&path).unwrap();
            if let Some(file) = file {
                fs::write(path.join(file), "").unwrap();
                fs::write(path.join("half"), "half").unwrap();
            }
        }
        fs::create_dir(parent.path().join("7")).unwrap();
        fs::create_dir_all(parent.path().join(".git/kept")).unwrap();
        fs::write(parent.path().join(".git/lock"), "").unwrap();
        // Where others may write, a link may lead to what is not theirs.
        std::os::unix::fs::symlink(".git", parent.path().join(format!("{PREFIX}4-0"))).unwrap();
        assert_eq!(sweep(parent.path()), 3);
        assert!(owned.path().exists() && parent.path().join(".git/kept").exists());
        assert_eq!(names(parent.path()), 4);
        assert_eq!(
            Staging::make_private(parent.path()).unwrap().path().metadata().unwrap().mode() & 0o777,
            0o700
        );
        assert_eq!(sweep(&parent.path().join("nothing")), 0);
    }

    #[test]
    fn nobody_loses_what_is_his_to_one_who_tidies_up() {
        let parent = tempfile::tempdir().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    sweep(parent.path());
                }
            });
            for _ in 0..500 {
                let staging = Staging::make(parent.path()).unwrap();
                fs::write(staging.path().join("mine"), "").unwrap();
                assert!(staging.path().join("mine").exists());
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(names(parent.path()), 0);
    }
}
