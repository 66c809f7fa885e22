//! Which models the repositories hold now, where nobody follows them: for the index.

use model::ModelName;

use super::snapshot::{ModelEntry, Snapshot};
use super::{Repository, ScanError};

impl Repository {
    /// Has the index name the models that the repositories hold now, and leave out those that are gone and that nobody
    /// ever asked for. Nothing is loaded, and nothing is done while another looks. Blocks: not for async code.
    pub fn look(&self) {
        // Where a file system hangs, one thread that waits for it is enough.
        let Some(_looking) = self.looking.try_lock() else { return };
        let (found, errors) = self.scan();
        // What cannot be read, such as a lost mount, has not lost its models.
        let all_read = !errors.iter().any(ScanError::is_of_repository);
        let is_gone = |name: &ModelName, entry: &ModelEntry| {
            all_read && entry.is_untouched() && !found.contains_key(name)
        };
        let is_new = |snapshot: &Snapshot, name: &ModelName| !snapshot.models.contains_key(name);
        let snapshot = self.published.load();
        let changes = snapshot.models.iter().any(|(name, entry)| is_gone(name, entry))
            || found.keys().any(|name| is_new(&snapshot, name));
        drop(snapshot);
        if !changes {
            return;
        }
        self.published.snapshot.rcu(|snapshot| {
            let mut snapshot = Snapshot::clone(snapshot);
            snapshot.models.retain(|name, entry| !is_gone(name, entry));
            for name in found.keys() {
                let unasked = || ModelEntry { unwanted: true, ..ModelEntry::default() };
                snapshot.models.entry(name.clone()).or_insert_with(unasked);
            }
            snapshot
        });
    }
}
