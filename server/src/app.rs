//! The composition root: everything a request meets, built and wired, deciding nothing.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use inference::ResponseCache;
use inference::backend::Backend;
use inference::config::Completion;
use inference::rate_limiter::RateLimiter;
use inference::repository::{Repository, ScanError, Settings, State};
use inference::trial::Trial;
use model::ModelName;
use tracing::info;
use traffic::TrafficTable;

use crate::cold_models::ColdModels;
use crate::config::{Config, OnDemand, RepositoryConfig};
use crate::load_trial::LoadTrials;
use crate::logging::LogSettings;
use crate::model_control::ModelControl;
use crate::object_storage;
use crate::readiness::{Readiness, Stage};
use crate::request_memory::RequestMemory;

/// What every protocol serves from.
#[derive(Debug)]
pub struct App {
    /// The server's name in its metadata.
    pub id: String,
    /// Which version a request goes to; replaced whole.
    pub traffic: ArcSwap<TrafficTable>,
    /// The models and their versions.
    pub repository: Repository,
    /// The processes in which versions are loaded first, if they are.
    pub trials: Option<Arc<LoadTrials>>,
    /// How far the server is.
    pub readiness: Readiness,
    /// The switches of the log.
    pub log: LogSettings,
    /// The most bytes of a request's body, as sent and decompressed.
    pub max_input_size: usize,
    /// What the bodies of all requests take together.
    pub request_memory: Arc<RequestMemory>,
    /// How long a client may take to send or read the next part.
    pub client_timeout: Duration,
    /// What requests may do to the models.
    pub control: ModelControl,
    /// Which models are being loaded because they were asked for.
    pub cold: ColdModels,
    strict_readiness: bool,
    /// Which models the server starts with; `None` for all.
    start_with: Option<Vec<ModelName>>,
}

impl App {
    /// An app of which no model is loaded yet.
    ///
    /// # Errors
    /// When models cannot be kept that are brought from elsewhere.
    pub fn new(
        config: &Config,
        log: LogSettings,
        backend: Arc<dyn Backend>,
        acts_on_parameter: fn(&str) -> bool,
    ) -> anyhow::Result<App> {
        let mut settings = settings(&config.repository, acts_on_parameter)?;
        let trials = config.repository.trial_loads.then(|| Arc::new(LoadTrials::new(&config.repository)));
        settings.trial = trials.clone().map(|trials| trials as Arc<dyn Trial>);
        Ok(App {
            id: config.id.clone(),
            traffic: ArcSwap::default(),
            repository: Repository::new(settings, backend),
            trials,
            readiness: Readiness::default(),
            log,
            max_input_size: config.connections.max_input_size,
            request_memory: RequestMemory::new(config.connections.max_request_memory),
            client_timeout: config.connections.client_timeout,
            control: ModelControl::new(config.repository.control_mode),
            cold: ColdModels::new(config.repository.on_demand),
            strict_readiness: config.repository.strict_readiness,
            start_with: config.repository.start_with.clone(),
        })
    }

    /// Loads the models that the server starts with; returns what kept any from being loaded. Blocks: not for async
    /// code.
    pub fn load(self: &Arc<Self>) -> Vec<String> {
        self.repository.load_all(self.start_with.as_deref());
        let mut problems: Vec<_> = self.repository.scan_errors().iter().map(ScanError::to_string).collect();
        let index = self.repository.index();
        let ready = index.iter().filter(|entry| entry.state == Some(State::Ready)).count();
        let failed = index.iter().filter(|entry| entry.state.is_some_and(|state| state != State::Ready));
        problems.extend(failed.map(|entry| match entry.version {
            Some(version) => format!("{} version {version}: {}", entry.name, entry.reason),
            None => format!("{}: {}", entry.name, entry.reason),
        }));
        self.readiness.loaded();
        info!(ready, failed = problems.len(), "the first load is over");
        problems
    }

    /// Whether the server takes requests: its models are loaded (all of them, and from every repository it was
    /// given, unless readiness is not strict) and it was not told to stop.
    pub fn is_ready(&self) -> bool {
        // A mistyped path or a failed mount has no model that could be not ready.
        let complete = || self.repository.never_read().is_empty() && self.repository.is_complete();
        self.readiness.stage() == Stage::Serving && (!self.strict_readiness || complete())
    }
}

/// The repository's settings, as the configuration has them.
///
/// # Errors
/// When models cannot be kept that are brought from elsewhere.
pub fn settings(config: &RepositoryConfig, acts_on_parameter: fn(&str) -> bool) -> anyhow::Result<Settings> {
    Ok(Settings {
        repositories: config.paths.clone(),
        remotes: object_storage::repositories(config)?,
        load_threads: config.load_thread_count.get(),
        config_name: config.config_name.clone(),
        completion: Completion {
            enabled: config.auto_complete,
            default_max_batch_size: i32::try_from(config.default_max_batch_size).unwrap_or(i32::MAX),
        },
        cores: num_cpus::get(),
        default_queue_capacity: config.max_queue_size.get(),
        held_until: config.delay_scheduler,
        cache: config.cache_bytes.map(|bytes| Arc::new(ResponseCache::new(bytes.get()))),
        rate_limiter: config.rate_limit.clone().map(|totals| Arc::new(RateLimiter::new(totals))),
        acts_on_parameter,
        keep_previous: config.keep_previous,
        memory_limit: config.memory_limit.map(NonZeroU64::get),
        on_demand: config.on_demand != OnDemand::Off,
        trial: None, // a server's own matter
    })
}
