//! Makes room in the cache: what nobody uses goes, what was used least recently first.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Cache, FILES, INCOMING, LOCKS, PART, SNAPSHOTS, entries, open_lock, remove_abandoned};
use crate::error::StorageError;

impl Cache {
    /// Makes room for `needed` bytes, in the cache and on its disk, which others may use too. The cache's lock is held, and
    /// who called takes the room before it is let go.
    pub(super) fn make_room(&self, needed: u64) -> Result<(), StorageError> {
        let fits =
            |cache: &Cache| Ok::<_, StorageError>(cache.has_room(needed)? && cache.disk_has_room(needed));
        let used = self.used()?;
        // Where nothing that could go would be enough, all of it stays.
        if needed > self.capacity {
            return Err(self.no_room(needed)?);
        }
        if (self.free)(&self.root).is_some_and(|free| free.saturating_add(used) < needed) {
            return Err(self.disk_full(needed));
        }
        if fits(self)? {
            return Ok(());
        }
        remove_abandoned(&self.root.join(INCOMING))?;
        self.remove_unlinked()?;
        for (_, id) in self.by_last_use()? {
            if fits(self)? {
                return Ok(());
            }
            if self.evict(&id)? {
                self.remove_unlinked()?;
            }
        }
        match (self.has_room(needed)?, self.disk_has_room(needed)) {
            (true, true) => Ok(()),
            (false, _) => Err(self.no_room(needed)?),
            (true, false) => Err(self.disk_full(needed)),
        }
    }

    fn has_room(&self, needed: u64) -> Result<bool, StorageError> {
        Ok(self.used()?.checked_add(needed).is_some_and(|bytes| bytes <= self.capacity))
    }

    fn disk_has_room(&self, needed: u64) -> bool {
        (self.free)(&self.root).is_none_or(|free| needed <= free)
    }

    fn no_room(&self, needed: u64) -> Result<StorageError, StorageError> {
        let (path, kept) = (self.root.display().to_string(), self.used()?);
        Ok(StorageError::NoRoom { path, needed, kept, capacity: self.capacity })
    }

    pub(super) fn disk_full(&self, needed: u64) -> StorageError {
        let free = (self.free)(&self.root).unwrap_or_default();
        StorageError::DiskFull { path: self.root.display().to_string(), needed, free }
    }

    /// Bytes of all files, those among them that are being brought, by whatever process.
    fn used(&self) -> Result<u64, StorageError> {
        let size = |path: &PathBuf| path.symlink_metadata().map_or(0, |metadata| metadata.len());
        let kept: u64 = entries(&self.root.join(FILES))?.iter().map(size).sum();
        // What another process removes at this moment is not there.
        let below = |path: PathBuf| entries(&path).unwrap_or_default();
        let stagings = entries(&self.root.join(INCOMING))?.into_iter().flat_map(below);
        let coming = stagings.flat_map(below).filter(|path| is_coming(path));
        Ok(coming.fold(kept, |sum, path| sum.saturating_add(size(&path))))
    }

    /// Removes the files that are in no snapshot and that nobody is about to use.
    fn remove_unlinked(&self) -> Result<(), StorageError> {
        for path in entries(&self.root.join(FILES))? {
            if path.symlink_metadata().is_ok_and(|metadata| metadata.nlink() < 2) {
                fs::remove_file(&path).map_err(|error| StorageError::disk("remove", &path, &error))?;
            }
        }
        Ok(())
    }

    /// The snapshots, and when each was used last, the oldest first.
    fn by_last_use(&self) -> Result<Vec<(SystemTime, String)>, StorageError> {
        let last_use = |path: PathBuf| {
            let id = path.file_name()?.to_str()?.to_owned();
            let lock = self.root.join(LOCKS).join(&id);
            let used = lock.metadata().and_then(|metadata| metadata.modified());
            Some((used.unwrap_or(SystemTime::UNIX_EPOCH), id))
        };
        let mut snapshots: Vec<_> =
            entries(&self.root.join(SNAPSHOTS))?.into_iter().filter_map(last_use).collect();
        snapshots.sort();
        Ok(snapshots)
    }

    /// Removes a snapshot, unless somebody uses it: then the answer is false.
    fn evict(&self, id: &str) -> Result<bool, StorageError> {
        let path = self.root.join(LOCKS).join(id);
        let lock = open_lock(&path)?;
        if lock.try_lock().is_err() {
            return Ok(false);
        }
        self.remove_snapshot(&self.root.join(SNAPSHOTS).join(id))?;
        _ = fs::remove_file(&path);
        tracing::info!(snapshot = id, "evicted a model from the cache of object storage");
        Ok(true)
    }

    /// Removes the directory of a snapshot at once: it is renamed before it is emptied.
    pub(super) fn remove_snapshot(&self, directory: &Path) -> Result<(), StorageError> {
        let gone = self.new_incoming();
        fs::rename(directory, &gone).map_err(|error| StorageError::disk("remove", directory, &error))?;
        fs::remove_dir_all(&gone).map_err(|error| StorageError::disk("remove", &gone, &error))
    }
}

/// Whether the file at `path` of a staging is none of those that are kept.
fn is_coming(path: &Path) -> bool {
    let is_part = path.extension().is_some_and(|extension| extension == PART);
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && (is_part || metadata.nlink() < 2))
}

/// Bytes that the file system of `directory` has left for this user; none where it does not say.
pub(super) fn free(directory: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(directory).ok().filter(|system| system.f_blocks > 0)?;
    system.f_bavail.checked_mul(system.f_frsize)
}
