//! Model control: load, unload and roll back, as both protocols ask for it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use inference::repository::{ControlError, Override};
use model::{InferError, ModelName, ModelVersion};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::blocking;
use crate::config::ControlMode;
use crate::readiness::Stage;

/// Requests that may wait for models to be loaded or unloaded; each has a thread of its own.
const MOST_AT_ONCE: usize = 64;

/// Models that may wait to be loaded on demand, however many requests wait for each; each has a thread of its own.
const MOST_ON_DEMAND: usize = 512;

/// Who may control models, and how many at a time.
#[derive(Debug)]
pub struct ModelControl {
    mode: ControlMode,
    places: Arc<Semaphore>,
    places_on_demand: Arc<Semaphore>,
    /// When somebody last began to look what the repositories hold.
    looked: tokio::sync::Mutex<Option<Instant>>,
    /// Nobody waits for a load any more: the server ends.
    given_up: CancellationToken,
}

/// What a load request gives in place of a model's files.
#[derive(Debug, Default)]
pub struct LoadParameters {
    /// The parameter `config`.
    pub config: Option<String>,
    /// The parameters `file:PATH`, by their path.
    pub files: Vec<(String, Bytes)>,
}

impl ModelControl {
    /// Control as `mode` allows it.
    pub fn new(mode: ControlMode) -> ModelControl {
        ModelControl {
            mode,
            places: Arc::new(Semaphore::new(MOST_AT_ONCE)),
            places_on_demand: Arc::new(Semaphore::new(MOST_ON_DEMAND)),
            looked: tokio::sync::Mutex::default(),
            given_up: CancellationToken::new(),
        }
    }

    /// Whether something follows what the repositories hold.
    fn follows_repositories(&self) -> bool {
        self.mode == ControlMode::Poll
    }

    /// # Errors
    /// When models are not loaded and unloaded by request.
    fn expect_explicit(&self) -> Result<(), InferError> {
        let what = match self.mode {
            ControlMode::Explicit => return Ok(()),
            ControlMode::Poll => "if polling is enabled",
            ControlMode::None => "unless the server is started with --model-control-mode=explicit",
        };
        Err(InferError::NotAllowed { what: format!("explicit model load / unload is not allowed {what}") })
    }

    /// Does `work`, which takes long, on a thread of its own. It is done to its end even if nobody waits for it.
    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, InferError> {
        let (sender, done) = oneshot::channel();
        self.start(move || {
            let result = work();
            move || drop(sender.send(result)) // its client may be gone
        })?;
        tokio::select! {
            biased;
            done = done => done.map_err(|_| InferError::ServerFault { what }),
            () = self.given_up() => Err(InferError::ShuttingDown),
        }
    }

    /// Refuses all who wait: the server ends.
    pub(crate) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Returns once the server ends, and waits for nothing any more.
    pub(crate) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    /// Does `work`, which takes long, on a thread of its own, then, once the next may begin, what it returned.
    fn start<Told: FnOnce()>(&self, work: impl FnOnce() -> Told + Send + 'static) -> Result<(), InferError> {
        let full = |_| InferError::NotAllowed {
            what: format!("{MOST_AT_ONCE} requests to load or unload models wait already; retry later"),
        };
        start_in(Arc::clone(&self.places).try_acquire_owned().map_err(full)?, work)
    }

    /// Loads a model on demand by `work`, as the others: such loads have places of their own, so that no crowd of
    /// requests keeps an operator from unloading.
    pub(crate) fn start_on_demand<Told: FnOnce()>(
        &self,
        work: impl FnOnce() -> Told + Send + 'static,
    ) -> Result<(), InferError> {
        let full = |_| InferError::NotAllowed {
            what: format!("{MOST_ON_DEMAND} models are to be loaded on demand already; retry later"),
        };
        start_in(Arc::clone(&self.places_on_demand).try_acquire_owned().map_err(full)?, work)
    }
}

/// Does `work` on a thread of its own, gives up `place`, and does what it returned.
fn start_in<Told: FnOnce()>(
    place: OwnedSemaphorePermit,
    work: impl FnOnce() -> Told + Send + 'static,
) -> Result<(), InferError> {
    let run = move || {
        let tell = work();
        drop(place);
        tell();
    };
    let started = std::thread::Builder::new().name("model_control".to_owned()).spawn(run);
    started.map(drop).map_err(|_| InferError::ServerFault { what: "starting a thread" })
}

impl App {
    /// Has the index name the models that the repositories hold now; not for one that names only what is `ready`.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn look_for_index(self: &Arc<Self>, ready: bool) -> Result<(), InferError> {
        if !ready && !self.control.follows_repositories() && self.readiness.stage() == Stage::Serving {
            let came = Instant::now();
            let mut looked = self.control.looked.lock().await;
            // One look that began since is enough for all who waited for it.
            if looked.is_none_or(|began| began < came) {
                *looked = Some(Instant::now());
                let app = Arc::clone(self);
                blocking::run("looking through the repositories", move || app.repository.look()).await?;
            }
        }
        Ok(())
    }

    /// Loads `model`, or what `parameters` give in its place; returns when it serves. `held` is let go of then.
    ///
    /// # Errors
    /// When requests may not load models, or it cannot be loaded; then what served goes on.
    pub async fn load_model(
        self: &Arc<Self>,
        model: &str,
        parameters: LoadParameters,
        held: impl Send + 'static,
    ) -> Result<(), InferError> {
        self.control.expect_explicit()?;
        let name = ModelName::parse(model).map_err(|error| InferError::invalid(error.to_string()))?;
        let app = Arc::clone(self);
        let load = move || {
            let loaded = overriding(&parameters).and_then(|given| app.repository.load_model(&name, given));
            drop((parameters, held));
            loaded
        };
        self.control.run("loading a model", load).await?.map_err(refusal)
    }

    /// Takes `model` out of service; returns as soon as requests for it are refused, while those that it took are
    /// still answered.
    ///
    /// # Errors
    /// When requests may not unload models.
    pub async fn unload_model(self: &Arc<Self>, model: &str) -> Result<(), InferError> {
        self.control.expect_explicit()?;
        let Ok(name) = ModelName::parse(model) else { return Ok(()) }; // none has such a name
        let app = Arc::clone(self);
        self.control.run("unloading a model", move || app.repository.unload_model(&name)).await
    }

    /// Puts the versions of `model` that served before in the place of those that serve; returns which they are.
    ///
    /// # Errors
    /// When none of them is still loaded.
    pub async fn roll_back(self: &Arc<Self>, model: &str) -> Result<Vec<ModelVersion>, InferError> {
        let unknown = |_| InferError::UnknownModel { model: model.to_owned() };
        let name = ModelName::parse(model).map_err(unknown)?;
        let app = Arc::clone(self);
        self.control
            .run("rolling a model back", move || app.repository.roll_back(&name))
            .await?
            .map_err(refusal)
    }
}

fn overriding(parameters: &LoadParameters) -> Result<Option<Override>, ControlError> {
    match (&parameters.config, parameters.files.as_slice()) {
        (None, []) => Ok(None),
        (None, [(path, _), ..]) => Err(ControlError::Override(format!(
            "the file '{path}' is given without the parameter 'config', which must come with it"
        ))),
        (Some(config), files) => Override::new(config, files.iter().cloned()).map(Some),
    }
}

/// The refusal as a request's.
fn refusal(error: ControlError) -> InferError {
    match &error {
        ControlError::GivenUp { .. } => InferError::ShuttingDown,
        ControlError::NotFound { .. } | ControlError::Unknown { .. } => {
            InferError::NotThere { what: error.to_string() }
        }
        _ => InferError::invalid(error.to_string()),
    }
}
