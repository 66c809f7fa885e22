//! Makes room in the cache: what nobody uses goes, what was used least recently first.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Cache, FILES, LOCKS, SNAPSHOTS, entries, open_lock};
use crate::error::StorageError;

impl Cache {
    /// Makes room for `needed` bytes and keeps it for who called. The cache's lock is held.
    pub(super) fn reserve(&self, needed: u64) -> Result<(), StorageError> {
        let mut reserved = self.reserved.lock();
        let mut kept = self.used()?.saturating_add(*reserved);
        let fits = |kept: u64| kept.checked_add(needed).is_some_and(|bytes| bytes <= self.capacity);
        if !fits(kept) {
            self.remove_unlinked()?;
            kept = self.used()?.saturating_add(*reserved);
        }
        for (_, id) in self.by_last_use()? {
            if fits(kept) {
                break;
            }
            if self.evict(&id)? {
                self.remove_unlinked()?;
                kept = self.used()?.saturating_add(*reserved);
            }
        }
        if !fits(kept) {
            let path = self.root.display().to_string();
            return Err(StorageError::NoRoom { path, needed, kept, capacity: self.capacity });
        }
        *reserved += needed;
        Ok(())
    }

    pub(super) fn release(&self, bytes: u64) {
        *self.reserved.lock() -= bytes;
    }

    /// Bytes of all files.
    fn used(&self) -> Result<u64, StorageError> {
        let files = entries(&self.root.join(FILES))?;
        Ok(files.iter().filter_map(|path| path.symlink_metadata().ok()).map(|metadata| metadata.len()).sum())
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
