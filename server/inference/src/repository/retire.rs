//! How a version leaves: what it took up is answered, then its memory is given back.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use tracing::{info, warn};

use super::snapshot::VersionState;
use super::{Published, Repository};
use crate::backend::Backend;
use crate::version::ServedVersion;

impl Repository {
    /// Lets go of `left`, which serve no more. Each is waited for on a thread of its own, so that what it holds is not
    /// given back by a thread that answers requests.
    pub(super) fn retire(&self, left: Vec<Arc<ServedVersion>>) -> Vec<JoinHandle<()>> {
        {
            let mut leaving = self.leaving.lock();
            leaving.retain(|served| served.strong_count() > 0);
            leaving.extend(left.iter().map(Arc::downgrade));
        }
        let threads = left.into_iter().filter_map(|served| {
            let (name, version) = (served.name().clone(), served.version());
            if self.is_the_last_of_its_number(&served) {
                let reason = self.entry(&name).versions.get(&version).map(|entry| entry.reason.clone());
                self.published.note(&name, version, &VersionState::Draining, &reason.unwrap_or_default());
            }
            let (published, backend) = (Arc::clone(&self.published), Arc::clone(&self.backend));
            let leaving = self.memory.leaving();
            let leave = move || {
                leave(served, &published, &*backend);
                drop(leaving);
            };
            Builder::new()
                .name(format!("retire_{version}"))
                .spawn(leave)
                // The last request that holds it then gives its memory back.
                .inspect_err(|error| warn!(model = %name, %version, %error, "nobody can wait for its end"))
                .ok()
        });
        threads.collect()
    }

    /// Whether the index has nothing else to say of the version than that `served` leaves: another of the same number
    /// may have taken its place, or may be about to, or may have failed to.
    fn is_the_last_of_its_number(&self, served: &ServedVersion) -> bool {
        let (entry, version) = (self.entry(served.name()), served.version());
        let state = entry.versions.get(&version).map(|entry| &entry.state);
        let is_loaded = entry.loaded().iter().any(|other| other.version() == version);
        !is_loaded && !matches!(state, Some(VersionState::Loading | VersionState::Failed))
    }
}

fn leave(served: Arc<ServedVersion>, published: &Published, backend: &dyn Backend) {
    let began = Instant::now();
    let (name, version) = (served.name().clone(), served.version());
    let (departure, share) = (served.departure(), served.memory());
    drop(served);
    departure.wait();
    backend.give_memory_back();
    drop(share);
    info!(model = %name, %version, took = ?began.elapsed(), "unloaded");
    published.note_gone(&name, version);
}
