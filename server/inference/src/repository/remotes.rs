//! The repositories that are elsewhere, and what each had when it was last asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    all: Vec<Remote>,
    /// What each had, or why it did not say. Held to read or replace it, and not while anyone is asked.
    last: Mutex<Vec<Listed>>,
}

/// One of them.
#[derive(Debug)]
struct Remote {
    repository: Arc<dyn RemoteRepository>,
    /// Whether it has told this process what it has. Before that, what it told an earlier one is better than nothing;
    /// after it, what was loaded stays.
    told: AtomicBool,
}

/// What a repository had.
#[derive(Debug)]
struct Listed {
    at: Instant,
    models: Vec<Arc<dyn RemoteModel>>,
    /// Why it did not say.
    error: Option<RemoteError>,
}

impl Remotes {
    pub(super) fn new(all: Vec<Arc<dyn RemoteRepository>>) -> Remotes {
        let remote = |repository| Remote { repository, told: AtomicBool::new(false) };
        Remotes { all: all.into_iter().map(remote).collect(), last: Mutex::default() }
    }

    /// Asks all of them what they have, at the same time, since each may take long to say that it does not answer.
    pub(super) fn look(&self) {
        let listed = thread::scope(|scope| {
            let asked: Vec<_> = self.all.iter().map(|remote| scope.spawn(|| remote.list())).collect();
            let died = |_| {
                let reason = "looking through a model repository panicked".to_owned();
                let error = Some(RemoteError { reason, is_away: false, may_pass: true });
                Listed { at: Instant::now(), models: Vec::new(), error }
            };
            asked.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect()
        });
        *self.last.lock() = listed;
    }

    /// Adds what they had when they were asked last.
    pub(super) fn add(&self, found: &mut Found, errors: &mut Vec<ScanError>) {
        for (remote, listed) in self.all.iter().zip(&*self.last.lock()) {
            let Listed { at, models, error } = listed;
            models.iter().for_each(|model| add_model(Arc::clone(model), *at, found, errors));
            errors.extend(error.as_ref().map(|error| remote.unlisted(error, !models.is_empty())));
        }
    }

    /// Adds the places of `name`; asks for them now.
    pub(super) fn add_places(&self, name: &ModelName, places: &mut Vec<Place>, errors: &mut Vec<ScanError>) {
        for remote in &self.all {
            let listed = Instant::now();
            let place = |model| Place::Remote { model, listed };
            match remote.repository.model(name) {
                Ok(model) => {
                    remote.told.store(true, Ordering::Relaxed);
                    places.extend(model.map(place));
                }
                Err(error) => {
                    let remembered = remote.remembered(&error);
                    errors.push(remote.unlisted(&error, !remembered.is_empty()));
                    places.extend(
                        remembered.into_iter().filter(|model| model.name() == name.as_str()).map(place),
                    );
                }
            }
        }
    }
}

impl Remote {
    fn list(&self) -> Listed {
        let at = Instant::now(); // what it says is no older than this
        match self.repository.models() {
            Ok(models) => {
                self.told.store(true, Ordering::Relaxed);
                Listed { at, models, error: None }
            }
            Err(error) => Listed { at, models: self.remembered(&error), error: Some(error) },
        }
    }

    /// What it told an earlier process, if it has told this one nothing but an `error` that says that it is away.
    fn remembered(&self, error: &RemoteError) -> Vec<Arc<dyn RemoteModel>> {
        let stands_in = error.is_away && !self.told.load(Ordering::Relaxed);
        if stands_in { self.repository.remembered() } else { Vec::new() }
    }

    fn unlisted(&self, error: &RemoteError, remembered: bool) -> ScanError {
        let (url, reason) = (self.repository.url().to_owned(), error.reason.clone());
        ScanError::Remote { url, reason, remembered }
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
