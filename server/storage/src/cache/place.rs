//! Whether a directory may be a cache. What is in a cache is removed when it is not needed, so it must be one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::{LOCK, PARTS_OF_IT};
use crate::error::StorageError;

/// A directory's bits for that everyone may write to it, and nobody may remove what is not theirs.
const EVERYONES: u32 = 0o1002;

/// Makes `directory`, unless it is there; its path without links.
///
/// # Errors
/// When it cannot be made, or is not to be a cache.
pub(super) fn prepare(directory: &Path) -> Result<PathBuf, StorageError> {
    let failed = |action| move |error: std::io::Error| StorageError::disk(action, directory, &error);
    let absolute = std::path::absolute(directory).map_err(failed("open"))?;
    fs::create_dir_all(directory).map_err(failed("create"))?;
    let root = directory.canonicalize().map_err(failed("open"))?;
    let wrong = others(&absolute).or_else(|| others(&root)).or_else(|| foreign(&root));
    match wrong {
        Some(reason) => Err(StorageError::NotCache { path: directory.display().to_string(), reason }),
        None => Ok(root),
    }
}

/// Why the directory at `path` may be another user's: one on the way to it is, and was made where everyone may, such as
/// in /tmp. That user could put models there, and have links lead to what this one may remove.
fn others(path: &Path) -> Option<String> {
    let is_ours = |uid: u32| uid == 0 || uid == geteuid().as_raw();
    let way: Vec<&Path> = path.ancestors().collect();
    way.windows(2).find_map(|pair| {
        let [below, above] = pair else { return None };
        let everyones = fs::metadata(above).is_ok_and(|metadata| metadata.mode() & EVERYONES == EVERYONES);
        let owner = fs::symlink_metadata(below).ok()?.uid();
        (everyones && !is_ours(owner)).then(|| {
            format!("{} was made by the user {owner}, where everyone may make directories", below.display())
        })
    })
}

/// Why the directory at `root` is something else: it has directories like those of a cache, which it would have made after
/// its lock.
fn foreign(root: &Path) -> Option<String> {
    let there = |name: &&str| root.join(name).symlink_metadata().is_ok();
    let found = PARTS_OF_IT.into_iter().find(there);
    // In this order: another process may be making it.
    if let Some(name) = found
        && !there(&LOCK)
    {
        return Some(format!("its directory {name:?} is of something else"));
    }
    let is_directory =
        |name: &&str| root.join(name).symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let other = PARTS_OF_IT.into_iter().filter(there).find(|name| !is_directory(name))?;
    Some(format!("{other:?} in it is a link or a file, and not a directory of its own"))
}
