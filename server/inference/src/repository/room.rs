//! How a load finds memory: what is only kept goes first, then what it replaces, then what nobody has asked for longest.

use std::sync::Arc;
use std::thread::JoinHandle;

use model::ModelName;
use tracing::{info, warn};

use super::Repository;
use super::change::Change;
use super::load::Plan;
use super::memory::{NoRoom, Room};
use super::snapshot::{ModelEntry, VersionEntry, VersionState};
use crate::backend::LoadError;
use crate::version::ServedVersion;

/// A model that can leave to make room.
struct Leaver {
    /// In milliseconds since 1970.
    last_use: u64,
    name: ModelName,
    bytes: u64,
}

impl Repository {
    /// Memory for what `change` loads of `plan`. Where there is not enough, versions of the model that are only kept
    /// leave, and then those that it replaces, before the others are loaded.
    pub(super) fn find_room(
        &self,
        name: &ModelName,
        plan: &Plan,
        change: &Change,
    ) -> Result<Room, LoadError> {
        let estimate = |version| self.memory.estimate(name, plan.size(version));
        let parts: Vec<_> = change.load.iter().map(|&version| estimate(version)).collect();
        let no_room = match self.memory.take(&parts) {
            Ok(room) => return Ok(room),
            Err(no_room) => no_room,
        };
        let (kept, replaced) = {
            let entry = self.entry(name); // let go of here: it holds what may have to leave
            let replaced = entry.ready().filter(|served| !change.stays_loaded(served.version()));
            (only_kept(&entry), bytes(replaced))
        };
        if kept > 0 && no_room.is_helped_by(kept) {
            info!(model = %name, "what was kept to be rolled back to makes room for the next (--model-memory-limit)");
            self.let_go_of_kept(name);
        } else {
            if !no_room.is_helped_by(kept + replaced) {
                // All together may be enough where neither is alone.
                let no_room = match self.room_of_others(name, &parts, no_room) {
                    Ok(room) => return Ok(room),
                    Err(no_room) => no_room,
                };
                let others = if self.settings.on_demand { self.could_leave(name) } else { Vec::new() };
                let others: u64 = others.iter().map(|other| other.bytes).sum();
                if kept + replaced == 0 || !no_room.is_helped_by(kept + replaced + others) {
                    return Err(no_room.error());
                }
            }
            warn!(
                model = %name,
                "there is no room for the next beside what serves (--model-memory-limit): swap_policy resource, once"
            );
            self.take_out(name, change, "unloading before the next is loaded (--model-memory-limit)");
        }
        let room = self.memory.take(&parts);
        room.or_else(|no_room| self.room_of_others(name, &parts, no_room)).map_err(NoRoom::error)
    }

    /// Memory for a load of `name` in `parts`, where models leave again that are loaded on demand.
    fn room_of_others(&self, name: &ModelName, parts: &[u64], mut no_room: NoRoom) -> Result<Room, NoRoom> {
        // What is freed another load may be quicker to take, but then that one is loaded.
        while self.settings.on_demand && self.make_room(name, no_room) {
            match self.memory.take(parts) {
                Ok(room) => return Ok(room),
                Err(still) => no_room = still,
            }
        }
        Err(no_room)
    }

    /// The models that can leave for `name`, those that have had no request for longest first: the next request for one
    /// loads it again as it is now. That cannot be said of what a request gave, of what was rolled back to, and of what
    /// goes on since the next has failed.
    fn could_leave(&self, name: &ModelName) -> Vec<Leaver> {
        let snapshot = self.published.load();
        let others = snapshot.models.iter().filter(|(other, entry)| {
            *other != name && entry.ready().next().is_some() && entry.serves_its_files()
        });
        let leaver = |(other, entry): (&ModelName, &ModelEntry)| Leaver {
            last_use: last_use(entry),
            name: other.clone(),
            bytes: bytes(&entry.loaded()),
        };
        let mut others: Vec<_> = others.map(leaver).collect();
        others.sort_by(|a, b| (a.last_use, &a.name).cmp(&(b.last_use, &b.name)));
        others
    }

    /// Unloads models until there is room for a load of `name`: first those that have had no request for longest. None
    /// leaves where all of them would not be enough. Whether any has left.
    fn make_room(&self, name: &ModelName, no_room: NoRoom) -> bool {
        let others = self.could_leave(name);
        let (mut freed, mut leave) = (0, 0);
        for Leaver { bytes, .. } in &others {
            if no_room.is_helped_by(freed) {
                break;
            }
            (freed, leave) = (freed + bytes, leave + 1);
        }
        if !no_room.is_helped_by(freed) {
            return false;
        }
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        for Leaver { name: other, .. } in &others[..leave] {
            // One that somebody is at is not waited for: that one may wait for this.
            let Some(_turn) = self.turns.try_take(other) else { continue };
            threads.extend(self.unload_until(other, &format!("unloaded to make room for {name}"), true));
        }
        let any = !threads.is_empty();
        join(threads);
        any
    }

    /// Unloads what is kept of `name` and does not serve; returns once it is gone.
    fn let_go_of_kept(&self, name: &ModelName) {
        let left = self.replace(name, &[], |entry, now| {
            for known in entry.versions.values_mut().filter(|known| matches!(known.state, VersionState::Kept))
            {
                *known = VersionEntry::new(VersionState::Draining, now, "no room to keep it".to_owned());
            }
        });
        join(self.retire(left));
    }

    /// The versions that `change` replaces or drops stop before the others are loaded: there is no room for both.
    pub(super) fn take_out(&self, name: &ModelName, change: &Change, reason: &str) {
        let left = self.replace(name, &[], |entry, now| {
            for (version, known) in &mut entry.versions {
                if matches!(known.state, VersionState::Ready(_)) && !change.stays_loaded(*version) {
                    *known = VersionEntry::new(VersionState::Draining, now, reason.to_owned());
                }
            }
        });
        info!(model = %name, versions = left.len(), "{reason}");
        join(self.retire(left));
    }
}

/// Waits until versions are gone.
fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        let _ = thread.join(); // it has said so if it panicked
    }
}

/// When a version of the model last answered, in milliseconds since 1970; of those that never did, since when the
/// latest serves.
fn last_use(entry: &ModelEntry) -> u64 {
    let of = |known: &VersionEntry| match &known.state {
        VersionState::Ready(served) => {
            let since = known.since.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            Some(since.max(served.statistics().snapshot().last_use_ms))
        }
        _ => None,
    };
    entry.versions.values().filter_map(of).max().unwrap_or_default()
}

/// Bytes of the versions that are kept and do not serve.
fn only_kept(entry: &ModelEntry) -> u64 {
    let serves = |kept: &Arc<ServedVersion>| entry.ready().any(|served| Arc::ptr_eq(served, kept));
    bytes(entry.loaded().iter().filter(|loaded| !serves(loaded)))
}

fn bytes<'a>(versions: impl IntoIterator<Item = &'a Arc<ServedVersion>>) -> u64 {
    versions.into_iter().map(|served| served.memory().bytes()).sum()
}
