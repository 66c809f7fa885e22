//! The repositories that are elsewhere, and what each had when it was last asked.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use model::ModelName;
use parking_lot::Mutex;

use super::place::Place;
use super::scan::{Found, ScanError};
use crate::remote::{RemoteError, RemoteModel, RemoteRepository};

/// The repositories that are elsewhere.
#[derive(Debug)]
pub(super) struct Remotes {
    all: Vec<Arc<dyn RemoteRepository>>,
    /// What each had, or why it did not say. Held to read or replace it, and not while anyone is asked.
    last: Mutex<Vec<Listed>>,
}

/// What a repository had.
type Listed = (Instant, Result<Vec<Arc<dyn RemoteModel>>, RemoteError>);

impl Remotes {
    pub(super) fn new(all: Vec<Arc<dyn RemoteRepository>>) -> Remotes {
        Remotes { all, last: Mutex::default() }
    }

    /// Asks all of them what they have, at the same time, since each may take long to say that it does not answer.
    pub(super) fn look(&self) {
        let listed = thread::scope(|scope| {
            let asked = |remote: &Arc<dyn RemoteRepository>| {
                let remote = Arc::clone(remote);
                // What it says is no older than this.
                scope.spawn(move || (Instant::now(), remote.models()))
            };
            let asked: Vec<_> = self.all.iter().map(asked).collect();
            let died = |_| {
                let reason = "looking through a model repository panicked".to_owned();
                (Instant::now(), Err(RemoteError { reason, may_pass: true }))
            };
            asked.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect()
        });
        *self.last.lock() = listed;
    }

    /// Adds what they had when they were asked last.
    pub(super) fn add(&self, found: &mut Found, errors: &mut Vec<ScanError>) {
        for (remote, (listed, models)) in self.all.iter().zip(&*self.last.lock()) {
            match models {
                Ok(models) => {
                    models.iter().for_each(|model| add_model(Arc::clone(model), *listed, found, errors));
                }
                Err(error) => errors.push(unlisted(&**remote, error)),
            }
        }
    }

    /// Adds the places of `name`; asks for them now.
    pub(super) fn add_places(&self, name: &ModelName, places: &mut Vec<Place>, errors: &mut Vec<ScanError>) {
        for remote in &self.all {
            let listed = Instant::now();
            match remote.model(name) {
                Ok(model) => places.extend(model.map(|model| Place::Remote { model, listed })),
                Err(error) => errors.push(unlisted(&**remote, &error)),
            }
        }
    }
}

fn add_model(model: Arc<dyn RemoteModel>, listed: Instant, found: &mut Found, errors: &mut Vec<ScanError>) {
    match ModelName::parse(model.name()) {
        Ok(name) => found.entry(name).or_default().push(Place::Remote { model, listed }),
        Err(error) => errors.push(ScanError::BadName {
            path: format!("{}/{}", model.repository(), model.name()),
            reason: error.to_string(),
        }),
    }
}

fn unlisted(remote: &dyn RemoteRepository, error: &RemoteError) -> ScanError {
    ScanError::Remote { url: remote.url().to_owned(), reason: error.reason.clone() }
}
