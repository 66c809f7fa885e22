//! Models that are loaded when they are asked for: one load for all who ask, who wait for it or are told how long it
//! takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::ServedVersion;
use inference::repository::ControlError;
use model::{InferError, ModelName};
use parking_lot::Mutex;
use tokio::sync::watch;
use traffic::Route;

use crate::app::App;
use crate::config::OnDemand;

/// A load that failed is not tried again sooner, however many ask.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How often a model is loaded for one request, at most.
const MOST_LOADS: usize = 5;

/// How long a load takes of which nothing is known.
const USUAL_LOAD: Duration = Duration::from_secs(1);

/// What those who wait for a load are told: nothing yet, or how it ended.
type Ended = Option<Result<(), LoadFailed>>;

/// Why a model could not be loaded.
#[derive(Clone, Debug)]
struct LoadFailed {
    what: String,
    /// It may go well a moment later: there was no room.
    for_now: bool,
}

impl From<ControlError> for LoadFailed {
    fn from(error: ControlError) -> LoadFailed {
        LoadFailed { what: error.to_string(), for_now: matches!(error, ControlError::NoRoom { .. }) }
    }
}

impl From<LoadFailed> for InferError {
    fn from(failed: LoadFailed) -> InferError {
        InferError::NotAllowed { what: failed.what }
    }
}

/// What is known of loads on demand.
#[derive(Debug)]
pub struct ColdModels {
    mode: OnDemand,
    loads: Mutex<HashMap<ModelName, Load>>,
}

/// The load of a model that is under way, or the last one.
#[derive(Clone, Debug)]
struct Load {
    began: Instant,
    ended: watch::Receiver<Ended>,
    /// How long the last that went well took.
    usual: Duration,
}

impl ColdModels {
    /// No model has been asked for yet.
    pub fn new(mode: OnDemand) -> ColdModels {
        ColdModels { mode, loads: Mutex::default() }
    }
}

impl Load {
    /// Refuses a request for `model` until it is over.
    fn refusal(&self, model: &str) -> InferError {
        // At the least a moment: one that takes longer than usual is not over for that.
        let left = self.usual.saturating_sub(self.began.elapsed()).max(Duration::from_millis(100));
        InferError::ModelCold { model: model.to_owned(), expected: left }
    }
}

impl App {
    /// The version that answers a request; a model that is loaded on demand is loaded first.
    ///
    /// # Errors
    /// When the model is not there or not ready, or it is being loaded and requests do not wait for that.
    pub async fn served(
        self: &Arc<Self>,
        model: &ModelName,
        route: Route,
    ) -> Result<Arc<ServedVersion>, InferError> {
        match self.at(model, route) {
            // Seldom, so that it takes no room in each request.
            Err(_) if self.is_cold(model.as_str()) => Box::pin(self.warmed(model, route)).await,
            served => served,
        }
    }

    async fn warmed(
        self: &Arc<Self>,
        model: &ModelName,
        route: Route,
    ) -> Result<Arc<ServedVersion>, InferError> {
        // It may have to leave again before this request is at it.
        for _ in 1..MOST_LOADS {
            self.warm(model.as_str()).await?;
            match self.at(model, route) {
                Err(_) if self.is_cold(model.as_str()) => {}
                served => return served,
            }
        }
        self.warm(model.as_str()).await?;
        self.at(model, route)
    }

    /// Whether the next request for `model` loads it.
    pub fn is_cold(&self, model: &str) -> bool {
        self.cold.mode != OnDemand::Off && self.repository.on_demand(model).is_some()
    }

    /// Whether `model` would be loaded for a request, which would wait for that.
    pub fn waits_for(&self, model: &str) -> bool {
        self.cold.mode == OnDemand::Wait && self.is_cold(model)
    }

    /// Begins to load `model` if it is loaded on demand and does not serve.
    ///
    /// # Errors
    /// When requests do not wait for that, or it could not be loaded a moment ago.
    pub fn expect_warm(self: &Arc<Self>, model: &str) -> Result<(), InferError> {
        let Some(load) = self.begin_to_warm(model)? else { return Ok(()) };
        let ended = load.ended.borrow().clone();
        match (ended, self.cold.mode) {
            (Some(Err(failed)), _) => Err(failed.into()),
            (None, OnDemand::Refuse) => Err(load.refusal(model)),
            _ => Ok(()),
        }
    }

    /// Loads `model` if it is loaded on demand and does not serve, and waits for it if requests do.
    ///
    /// # Errors
    /// When it is being loaded and requests do not wait for that, or it could not be loaded.
    pub async fn warm(self: &Arc<Self>, model: &str) -> Result<(), InferError> {
        self.expect_warm(model)?;
        let Some(mut load) = self.begin_to_warm(model)? else { return Ok(()) };
        let ended = tokio::select! {
            biased;
            ended = load.ended.wait_for(Option::is_some) => ended.ok().and_then(|ended| ended.clone()),
            () = self.control.given_up() => return Err(InferError::ShuttingDown),
        };
        match ended {
            Some(Ok(())) => Ok(()),
            Some(Err(failed)) => Err(failed.into()),
            None => Err(InferError::ServerFault { what: "loading a model on demand" }),
        }
    }

    /// Begins to load `model` if it is loaded on demand and does not serve; the load that is under way, or that has
    /// just failed.
    fn begin_to_warm(self: &Arc<Self>, model: &str) -> Result<Option<Load>, InferError> {
        if self.cold.mode == OnDemand::Off {
            return Ok(None);
        }
        let Some(name) = self.repository.on_demand(model) else { return Ok(None) };
        let mut loads = self.cold.loads.lock();
        let last = loads.get(&name);
        let is_current = |load: &&Load| match &*load.ended.borrow() {
            None => load.ended.has_changed().is_ok(), // else the thread that did it is gone
            Some(Ok(())) => false,
            Some(Err(failed)) => !failed.for_now && load.began.elapsed() < RETRY_AFTER,
        };
        if let Some(load) = last.filter(is_current) {
            return Ok(Some(load.clone()));
        }
        let (sender, ended) = watch::channel(None);
        let usual = last.map_or(USUAL_LOAD, |load| load.usual);
        let load = Load { began: Instant::now(), ended, usual };
        let (app, asked) = (Arc::clone(self), name.clone());
        self.control.start_on_demand(move || {
            let began = Instant::now();
            let loaded = app.repository.load_on_demand(&asked).map_err(LoadFailed::from);
            if loaded.is_ok()
                && let Some(load) = app.cold.loads.lock().get_mut(&asked)
            {
                load.usual = began.elapsed();
            }
            move || drop(sender.send(Some(loaded)))
        })?;
        loads.insert(name, load.clone());
        Ok(Some(load))
    }
}
