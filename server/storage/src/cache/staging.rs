//! A snapshot in the making: its files gather in a directory of their own, and it appears when all are there.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{Cache, Contents, FILES, PART, SNAPSHOTS, Snapshot, entries, is_file_of, lock};
use crate::error::StorageError;

/// A snapshot in the making. What is whole when it is dropped stays in the cache for the next attempt, as long as
/// there is room.
#[derive(Debug)]
pub(crate) struct Staging<'a> {
    cache: &'a Cache,
    directory: PathBuf,
}

/// A file that a snapshot holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    /// Its name among the cache's files.
    pub(crate) key: &'a str,
    /// Below the model's directory.
    pub(crate) path: &'a str,
    pub(crate) size: u64,
}

impl Cache {
    /// Begins a snapshot of `members`, with those files that are here already, and makes room for the others.
    pub(crate) fn stage(&self, members: &[Member<'_>]) -> Result<Staging<'_>, StorageError> {
        let _lock = lock(&self.root)?;
        let directory = self.new_incoming();
        // The value is made last: dropping it takes the lock.
        match self.gather(&directory, members) {
            Ok(()) => Ok(Staging { cache: self, directory }),
            Err(error) => {
                _ = fs::remove_dir_all(&directory);
                Err(error)
            }
        }
    }

    /// Links the files that are here into `directory`, and takes the room of the others: they are there in their full
    /// length from now on, which every process that shares the cache sees.
    fn gather(&self, directory: &Path, members: &[Member<'_>]) -> Result<(), StorageError> {
        create_all(directory)?;
        let mut missing = Vec::new();
        for member in members {
            let kept = self.root.join(FILES).join(member.key);
            if is_file_of(&kept, member.size) {
                link(&kept, &directory.join(member.key))?;
            } else {
                missing.push(member);
            }
        }
        let needed = missing.iter().fold(0_u64, |sum, member| sum.saturating_add(member.size));
        self.make_room(needed)?;
        missing.iter().try_for_each(|member| {
            let part = directory.join(member.key).with_extension(PART);
            let file = OpenOptions::new().create_new(true).write(true).open(&part);
            let file = file.map_err(|error| StorageError::disk("create", &part, &error))?;
            match take(&file, member.size) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(self.disk_full(needed)),
                Err(error) => Err(StorageError::disk("write", &part, &error)),
            }
        })
    }
}

/// Has all of `file` on the disk, where nobody may write to it any more: snapshots share it. That takes as long as the disk
/// does.
pub(crate) fn finish(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o444))?;
    file.sync_all()
}

/// Gives the new `file` its length, and the room for that where the file system can.
fn take(file: &File, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(Errno::NOSPC) => Err(io::ErrorKind::StorageFull.into()),
        Err(_) => file.set_len(size),
    }
}

impl Staging<'_> {
    /// Where the file `key` is, once it is whole.
    pub(crate) fn file(&self, key: &str) -> PathBuf {
        self.directory.join(key)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.file(key).exists()
    }

    /// The file for the bytes of `key`, which has its length already.
    pub(crate) fn open(&self, key: &str) -> Result<File, StorageError> {
        let path = self.file(key).with_extension(PART);
        let file = OpenOptions::new().write(true).open(&path);
        file.map_err(|error| StorageError::disk("open", &path, &error))
    }

    /// Says that the file of `key` is whole, and on the disk.
    pub(crate) fn complete(&self, key: &str) -> Result<(), StorageError> {
        let path = self.file(key);
        let renamed = fs::rename(path.with_extension(PART), &path);
        renamed.map_err(|error| StorageError::disk("write", &path, &error))
    }

    /// Forgets the file `key`, here and in the cache: it is not what it should be.
    pub(crate) fn discard(&self, key: &str) -> Result<(), StorageError> {
        let _lock = lock(&self.cache.root)?;
        for path in [self.file(key), self.cache.root.join(FILES).join(key)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StorageError::disk("remove", &path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the snapshot `id` of `model`, of `members` and `directories`, and holds it.
    pub(crate) fn publish(
        self,
        id: &str,
        model: &str,
        members: &[Member<'_>],
        directories: &[String],
    ) -> Result<Snapshot, StorageError> {
        let _lock = lock(&self.cache.root)?;
        self.keep()?;
        let contents: Contents<'_> = members.iter().map(|member| (member.path, member.size)).collect();
        // Another may have been as quick.
        if let Some(snapshot) = self.cache.hold_locked(id, model, &contents)? {
            return Ok(snapshot);
        }
        let tree = self.directory.join("tree");
        let top = tree.join(model);
        create_all(&top)?;
        for directory in directories {
            create_all(&top.join(directory))?;
        }
        for member in members {
            let path = top.join(member.path);
            create_all(path.parent().unwrap_or(&top))?;
            // To what is kept, whoever brought it: what is linked to it is what counts as used.
            link(&self.cache.root.join(FILES).join(member.key), &path)?;
        }
        let place = self.cache.root.join(SNAPSHOTS).join(id);
        if place.exists() {
            self.cache.remove_snapshot(&place)?; // a disk lost a file of it
        }
        fs::rename(&tree, &place).map_err(|error| StorageError::disk("create", &place, &error))?;
        let snapshot = self.cache.hold_locked(id, model, &contents)?;
        snapshot.ok_or_else(|| {
            StorageError::disk("read", &place, &io::Error::other("it is not what was written a moment ago"))
        })
    }

    /// Lets the cache have what is whole. Its lock is held.
    fn keep(&self) -> Result<(), StorageError> {
        for path in entries(&self.directory)? {
            let whole = path.extension().is_none() && path.is_file();
            let (true, Some(key)) = (whole, path.file_name()) else { continue };
            let kept = self.cache.root.join(FILES).join(key);
            let size =
                path.symlink_metadata().map_err(|error| StorageError::disk("read", &path, &error))?.len();
            // Another may have brought the same bytes meanwhile, and has snapshots of them.
            if !is_file_of(&kept, size) {
                fs::rename(&path, &kept).map_err(|error| StorageError::disk("write", &kept, &error))?;
            }
        }
        Ok(())
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if let Ok(_lock) = lock(&self.cache.root) {
            _ = self.keep();
        }
        _ = fs::remove_dir_all(&self.directory);
    }
}

fn create_all(directory: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(directory).map_err(|error| StorageError::disk("create", directory, &error))
}

fn link(from: &Path, to: &Path) -> Result<(), StorageError> {
    fs::hard_link(from, to).map_err(|error| StorageError::disk("link", to, &error))
}
