//! What repositories held when they last told, a file for each.

use std::fs;
use std::path::PathBuf;

use super::{Cache, FILES, LISTINGS, is_file_of};
use crate::error::StorageError;
use crate::fetch::hash;

impl Cache {
    /// Whether the file of `key` is here, with that size.
    pub(crate) fn has(&self, key: &str, size: u64) -> bool {
        is_file_of(&self.root.join(FILES).join(key), size)
    }

    /// Keeps the listing of the repository at `url`, unless it is what is kept.
    pub(crate) fn keep_listing(&self, url: &str, listing: &[u8]) -> Result<(), StorageError> {
        if self.listing(url).is_some_and(|kept| kept == listing) {
            return Ok(());
        }
        let (path, written) = (self.listing_path(url), self.new_incoming());
        fs::write(&written, listing).map_err(|error| StorageError::disk("write", &written, &error))?;
        fs::rename(&written, &path).map_err(|error| StorageError::disk("write", &path, &error))
    }

    /// The listing that is kept of the repository at `url`.
    pub(crate) fn listing(&self, url: &str) -> Option<Vec<u8>> {
        fs::read(self.listing_path(url)).ok()
    }

    fn listing_path(&self, url: &str) -> PathBuf {
        self.root.join(LISTINGS).join(hash(&[url]))
    }
}
