//! Fetched models on this machine's disk, within a size.
//!
//! ```text
//! lock               held for the moments in which something below is renamed or removed
//! files/KEY          a file, whole; its key tells the repository, the path and the ETag
//! snapshots/ID/NAME  a model's directory, as it was listed once: links to files, never changed
//! listings/URL       what a repository held when it last told
//! locks/ID           who uses the snapshot holds this lock; its time is that of the last use
//! incoming/PROCESS   what a process fetches; the lock beside it tells that the process lives
//! ```
//!
//! A file that is in no snapshot has one link, so the file system counts what is in use. What is being brought has its full
//! length from the beginning, so the file system counts that, too. Several processes may share a cache: all that matters is
//! in the file system, and what one holds no other evicts.

mod listings;
mod place;
mod room;
mod staging;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::error::StorageError;

pub(crate) use staging::{Member, Staging, finish};

const FILES: &str = "files";
const SNAPSHOTS: &str = "snapshots";
const LISTINGS: &str = "listings";
const LOCKS: &str = "locks";
const INCOMING: &str = "incoming";
const LOCK: &str = "lock";

/// What a file is still written under.
const PART: &str = "part";

/// The directories in it.
const PARTS_OF_IT: [&str; 5] = [FILES, SNAPSHOTS, LISTINGS, LOCKS, INCOMING];

/// A directory in which fetched models are kept. What was used least recently goes when there is no room.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    capacity: u64,
    /// Where this process fetches to.
    incoming: PathBuf,
    /// Held while this process lives.
    _alive: File,
    /// Tells how many bytes a directory's file system has left, where that is known.
    free: fn(&Path) -> Option<u64>,
    /// Names of directories below `incoming`.
    next: AtomicU64,
}

/// A model's directory, which never changes, and stays while this value is there.
#[derive(Debug)]
pub struct Snapshot {
    directory: PathBuf,
    id: String,
    /// Shared among all who use the snapshot.
    lock: File,
}

/// What a snapshot must hold: the size of each file, by its path below the model's directory.
pub(crate) type Contents<'a> = Vec<(&'a str, u64)>;

impl Snapshot {
    /// The model's directory, named like the model. Its files must not be written to.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tells one state of a model from any other: it is the same while no file of the model changes.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // What was used until now is younger than what was let go before. A cache that cannot be written evicts in
        // another order, and that is all.
        _ = self.lock.set_modified(SystemTime::now());
    }
}

impl Cache {
    /// Opens the cache in `directory`, which is made if it is not there, with room for `capacity` bytes. What processes
    /// that have ended left half fetched is removed.
    ///
    /// # Errors
    /// When the directory cannot be written, or belongs to something or somebody else.
    pub fn open(directory: &Path, capacity: u64) -> Result<Cache, StorageError> {
        let root = place::prepare(directory)?;
        let _lock = lock(&root)?;
        for name in PARTS_OF_IT {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(|error| StorageError::disk("create", &path, &error))?;
        }
        remove_abandoned(&root.join(INCOMING))?;
        let (incoming, alive) = incoming(&root)?;
        Ok(Cache { root, capacity, incoming, _alive: alive, free: room::free, next: AtomicU64::new(0) })
    }

    /// The snapshot `id` of `model` for use, if it is here with all that it must hold.
    pub(crate) fn hold(
        &self,
        id: &str,
        model: &str,
        contents: &Contents<'_>,
    ) -> Result<Option<Snapshot>, StorageError> {
        let _lock = lock(&self.root)?;
        self.hold_locked(id, model, contents)
    }

    fn hold_locked(
        &self,
        id: &str,
        model: &str,
        contents: &Contents<'_>,
    ) -> Result<Option<Snapshot>, StorageError> {
        let directory = self.root.join(SNAPSHOTS).join(id).join(model);
        let holds = |(path, size): &(&str, u64)| is_file_of(&directory.join(path), *size);
        if !directory.is_dir() || !contents.iter().all(holds) {
            return Ok(None);
        }
        let path = self.root.join(LOCKS).join(id);
        let lock = open_lock(&path)?;
        // Only an eviction locks it exclusively, and that holds the cache's lock, which is ours now.
        lock.lock_shared().map_err(|error| StorageError::disk("lock", &path, &error))?;
        _ = lock.set_modified(SystemTime::now());
        Ok(Some(Snapshot { directory, id: id.to_owned(), lock }))
    }

    /// A new name below `incoming`, for this process alone.
    fn new_incoming(&self) -> PathBuf {
        self.incoming.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.incoming);
        _ = fs::remove_file(self.incoming.with_extension("lock"));
    }
}

/// Waits until nobody else renames or removes anything in the cache.
fn lock(root: &Path) -> Result<File, StorageError> {
    let path = root.join(LOCK);
    let file = open_lock(&path)?;
    file.lock().map_err(|error| StorageError::disk("lock", &path, &error))?;
    Ok(file)
}

fn open_lock(path: &Path) -> Result<File, StorageError> {
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    open.map_err(|error| StorageError::disk("open", path, &error))
}

/// Makes the directory into which this process fetches. Two caches of one process have one each.
fn incoming(root: &Path) -> Result<(PathBuf, File), StorageError> {
    let process = std::process::id();
    let mut number = 0_u32;
    loop {
        let path = root.join(INCOMING).join(format!("{process}-{number}"));
        match fs::create_dir(&path) {
            Ok(()) => {
                let lock = open_lock(&path.with_extension("lock"))?;
                lock.lock().map_err(|error| StorageError::disk("lock", &path, &error))?;
                return Ok((path, lock));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(StorageError::disk("create", &path, &error)),
        }
    }
}

/// Removes what processes that have ended were fetching. The cache's lock is held.
fn remove_abandoned(incoming: &Path) -> Result<(), StorageError> {
    for path in entries(incoming)? {
        if path.extension().is_some_and(|extension| extension == "lock") {
            continue;
        }
        let lock = path.with_extension("lock");
        if open_lock(&lock)?.try_lock().is_ok() {
            fs::remove_dir_all(&path).map_err(|error| StorageError::disk("remove", &path, &error))?;
            _ = fs::remove_file(&lock);
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let read = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>());
    read.map_err(|error| StorageError::disk("read", directory, &error))
}

fn is_file_of(path: &Path, size: u64) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

#[cfg(test)]
mod tests;
