//! What the server was asked to be: settings from flags, environment and file, resolved into one value.
//!
//! Invariants:
//! - a setting is declared once, in `settings.rs`; its flag, variable, key, default and help follow from that;
//! - a [`Config`] exists only when every rule between settings holds: the rest of the server checks none;
//! - nothing but [`Config::load`] reads the environment or a file.

mod error;
mod file;
mod flags;
mod kind;
mod raw;
#[cfg(test)]
mod reference;
mod setting;
mod settings;
mod triton;

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

pub use error::{ConfigError, Origin};
pub use flags::{Flags, ModelFlags};

use inference::rate_limiter::ResourceTotal;
use model::ModelName;

use crate::logging::LogConfig;
use crate::object_storage;
use crate::request_memory::default_limit;
use raw::{RawConfig, Sources};
use setting::Declaration;

/// Everything the server was asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The server's name in its metadata.
    pub id: String,
    /// What holds for every connection, whatever its protocol.
    pub connections: ConnectionConfig,
    /// The models.
    pub repository: RepositoryConfig,
    /// HTTP; `None` when it is not served.
    pub http: Option<HttpConfig>,
    /// gRPC; `None` when it is not served.
    pub grpc: Option<GrpcConfig>,
    /// The metrics; `None` when they are not served.
    pub metrics: Option<MetricsConfig>,
    /// The log.
    pub log: LogConfig,
    /// The orderly stop.
    pub drain: DrainConfig,
    /// Options of Triton that were given and have no effect.
    pub without_effect: Vec<String>,
}

/// What holds for every connection, whatever its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// Connections held at once.
    pub max_connections: NonZeroUsize,
    /// Longest wait for a client to send the next part of a request or to read its answer; above zero.
    pub client_timeout: Duration,
    /// The most bytes of a request's body, as sent and decompressed, over either protocol.
    pub max_input_size: usize,
    /// The most bytes that the bodies of all requests take together.
    pub max_request_memory: usize,
    /// Threads that serve requests.
    pub thread_count: NonZeroUsize,
}

/// Which models are served, and how they are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// The repositories that are directories.
    pub paths: Vec<PathBuf>,
    /// Those in object storage; there is at least one of either kind.
    pub urls: Vec<String>,
    /// Where models of object storage are kept on this machine; `None` for the usual place.
    pub repository_cache_directory: Option<PathBuf>,
    /// The most bytes that they take there.
    pub repository_cache_bytes: NonZeroU64,
    /// Which of a model's `configs/NAME.pbtxt` to prefer.
    pub config_name: Option<String>,
    /// Whether configurations are completed from the model file.
    pub auto_complete: bool,
    /// The batch size given to a model that can batch and whose configuration sets none.
    pub default_max_batch_size: u32,
    /// The bound of the queue of a model whose configuration sets none.
    pub max_queue_size: NonZeroUsize,
    /// A model runs nothing before so many requests wait for it, once; 0 holds nothing up.
    pub delay_scheduler: usize,
    /// Models loaded at the same time.
    pub load_thread_count: NonZeroUsize,
    /// When models are loaded.
    pub control_mode: ControlMode,
    /// The models to load at start; `None` for all.
    pub start_with: Option<Vec<ModelName>>,
    /// The longest time until a change of files is seen, where files are followed.
    pub poll_interval: Duration,
    /// How long nobody must have written to a version before it is loaded, where files are followed.
    pub settle_time: Duration,
    /// Sets of versions of a model that stay loaded when others take their place.
    pub keep_previous: usize,
    /// Bytes that all models may take together, if that is bounded.
    pub memory_limit: Option<NonZeroU64>,
    /// Whether models are loaded when they are asked for.
    pub on_demand: OnDemand,
    /// Whether each version is first loaded in a process of its own.
    pub trial_loads: bool,
    /// The most bytes that kept answers take; `None` when none are kept.
    pub cache_bytes: Option<NonZeroU64>,
    /// How much there is of the resources that instances wait for, where that was said; `None` when they wait for none.
    pub rate_limit: Option<Vec<ResourceTotal>>,
    /// Whether the server is ready only when every model is.
    pub strict_readiness: bool,
    /// Whether the server exits when a model fails to load at start.
    pub exit_on_error: bool,
}

/// The HTTP front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it listens; port 0 picks a free one.
    pub address: SocketAddr,
    /// Whether other processes may listen there too.
    pub reuse_port: bool,
}

/// The gRPC front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcConfig {
    /// Where it listens; port 0 picks a free one.
    pub address: SocketAddr,
    /// Whether other processes may listen there too.
    pub reuse_port: bool,
    /// How inference responses are compressed.
    pub response_compression: CompressionLevel,
    /// Quiet time of a connection after which it is pinged; above zero.
    pub keepalive_time: Duration,
    /// Longest wait for the answer to a ping; above zero.
    pub keepalive_timeout: Duration,
    /// Age at which a connection is told to close; `None` for never.
    pub max_connection_age: Option<Duration>,
    /// Time a connection that was told to close has to finish; `None` for no limit.
    pub max_connection_age_grace: Option<Duration>,
}

/// The page of metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where it listens; port 0 picks a free one.
    pub address: SocketAddr,
}

/// The orderly stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    /// Time to keep serving, no longer ready, after SIGTERM.
    pub delay: Duration,
    /// Longest wait for requests in flight, once the delay is over.
    pub timeout: Duration,
}

/// How hard gRPC responses are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionLevel {
    /// Not at all.
    None,
    /// Fast.
    Low,
    /// Between the two.
    Medium,
    /// Small.
    High,
}

/// When models are loaded, in Triton's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMode {
    /// At start.
    None,
    /// At start, and when their files change.
    Poll,
    /// By request.
    Explicit,
}

/// What becomes of a request for a model that is not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDemand {
    /// It is refused: models are loaded as their mode says.
    Off,
    /// The model is loaded, and the request waits for it.
    Wait,
    /// The model is loaded, and the request is refused with how long that takes.
    Refuse,
}

/// Whether instances wait for resources, in Triton's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RateLimit {
    Off,
    ExecutionCount,
}

/// One `--backend-config`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum BackendSetting {
    DefaultMaxBatchSize(u32),
    /// A setting of a backend that is not here, named by the backend.
    OtherBackend(String),
}

/// One `--cache-config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CacheSetting {
    LocalSize(NonZeroU64),
    /// A setting of a cache that is not here.
    OtherCache,
}

impl Config {
    /// Resolves what was typed on the command line, in the environment and in the configuration file.
    ///
    /// # Errors
    /// When a value is not accepted, or settings contradict each other.
    pub fn load(flags: Flags) -> Result<Config, ConfigError> {
        let raw = gather(flags)?;
        let cores = NonZeroUsize::new(num_cpus::get()).unwrap_or(NonZeroUsize::MIN);
        Config::resolve(&raw, cores)
    }

    fn resolve(raw: &RawConfig, cores: NonZeroUsize) -> Result<Config, ConfigError> {
        refuse_what_must_not_be_ignored(raw)?;
        let config = Config {
            id: raw.get(&settings::ID)?,
            connections: ConnectionConfig {
                max_connections: raw.get(&settings::MAX_CONNECTIONS)?,
                client_timeout: raw.get(&settings::CLIENT_TIMEOUT)?,
                max_input_size: raw.get(&settings::HTTP_MAX_INPUT_SIZE)?.get(),
                max_request_memory: raw
                    .find(&settings::MAX_REQUEST_MEMORY)?
                    .map_or_else(default_limit, NonZeroUsize::get),
                thread_count: raw.find(&settings::HTTP_THREAD_COUNT)?.unwrap_or(cores),
            },
            repository: repository(raw)?,
            http: http(raw)?,
            grpc: grpc(raw)?,
            metrics: metrics(raw)?,
            log: log(raw)?,
            drain: DrainConfig {
                delay: raw.get(&settings::DRAIN_DELAY)?,
                timeout: raw.get(&settings::EXIT_TIMEOUT)?,
            },
            without_effect: without_effect(raw)?,
        };
        config.check_listeners()?;
        Ok(config)
    }

    /// Says in the log, once, which of the options given have no effect.
    pub fn report_options_without_effect(&self) {
        if !self.without_effect.is_empty() {
            let options = self.without_effect.join(" ");
            tracing::warn!(options, "these options of Triton are accepted but have no effect here");
        }
    }

    fn check_listeners(&self) -> Result<(), ConfigError> {
        if self.http.is_none() && self.grpc.is_none() {
            let reason = "nothing would be served: give --allow-http or --allow-grpc".to_owned();
            return Err(ConfigError::Contradiction { reason });
        }
        let listeners = [
            ("http-port", self.http.as_ref().map(|http| http.address)),
            ("grpc-port", self.grpc.as_ref().map(|grpc| grpc.address)),
            ("metrics-port", self.metrics.as_ref().map(|metrics| metrics.address)),
        ];
        for (position, (name, address)) in listeners.iter().enumerate() {
            for (other_name, other) in &listeners[position + 1..] {
                if let (Some(address), Some(other)) = (address, other)
                    && collide(*address, *other)
                {
                    let port = address.port();
                    let reason = format!(
                        "{name} and {other_name} are both {port}; give each its own, or 0 for a free one"
                    );
                    return Err(ConfigError::Contradiction { reason });
                }
            }
        }
        Ok(())
    }
}

fn gather(flags: Flags) -> Result<RawConfig, ConfigError> {
    RawConfig::gather(Sources { flags, environment: &|name| std::env::var_os(name), read_file: &file::read })
}

impl RepositoryConfig {
    /// How the server would read the models in `paths`, given the same flags, environment and configuration file.
    ///
    /// # Errors
    /// When a value is not accepted, or settings contradict each other.
    pub fn load(flags: ModelFlags, paths: Vec<PathBuf>) -> Result<RepositoryConfig, ConfigError> {
        let raw = gather(flags.0)?;
        let (paths, urls) = repositories(&raw, paths)?;
        Ok(RepositoryConfig { paths, urls, ..repository(&raw)? })
    }

    /// The flags by which `volley check` reads and loads models as this says, where no [`variables`] are set. What has no
    /// part in the load of one model, whose configuration is given, is left out.
    pub(crate) fn to_load_one(&self) -> [String; 3] {
        let flag = |declaration: &Declaration, value: &str| format!("--{}={value}", declaration.name);
        let rows = self.default_max_batch_size;
        [
            flag(&settings::DISABLE_AUTO_COMPLETE_CONFIG.declaration, &(!self.auto_complete).to_string()),
            flag(
                &settings::BACKEND_CONFIG.declaration,
                &format!("onnxruntime,default-max-batch-size={rows}"),
            ),
            flag(&settings::MODEL_LOAD_THREAD_COUNT.declaration, "1"),
        ]
    }
}

/// The environment variables that are settings.
pub(crate) fn variables() -> impl Iterator<Item = String> {
    raw::variables()
}

/// Whether two listeners would want the same port of the same interface.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_interface = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_interface
}

fn repository(raw: &RawConfig) -> Result<RepositoryConfig, ConfigError> {
    let mut default_max_batch_size = 4; // Triton's
    for setting in raw.all(&settings::BACKEND_CONFIG)? {
        if let BackendSetting::DefaultMaxBatchSize(rows) = setting {
            default_max_batch_size = rows;
        }
    }
    let control_mode = raw.get(&settings::MODEL_CONTROL_MODE)?;
    let strict =
        raw.get(&settings::DISABLE_AUTO_COMPLETE_CONFIG)? || raw.get(&settings::STRICT_MODEL_CONFIG)?;
    let (paths, urls) = repositories(raw, raw.all(&settings::MODEL_REPOSITORY)?)?;
    Ok(RepositoryConfig {
        paths,
        urls,
        repository_cache_directory: raw.find(&settings::REPOSITORY_CACHE_DIR)?,
        repository_cache_bytes: raw.get(&settings::REPOSITORY_CACHE_BYTES)?,
        config_name: raw.find(&settings::MODEL_CONFIG_NAME)?,
        auto_complete: !strict,
        default_max_batch_size,
        max_queue_size: raw.get(&settings::MAX_QUEUE_SIZE)?,
        delay_scheduler: raw.get(&settings::DELAY_SCHEDULER)?,
        load_thread_count: raw.get(&settings::MODEL_LOAD_THREAD_COUNT)?,
        control_mode,
        start_with: start_with(raw, control_mode)?,
        poll_interval: raw.get(&settings::REPOSITORY_POLL_SECS)?,
        settle_time: raw.get(&settings::REPOSITORY_SETTLE_SECS)?,
        keep_previous: raw.get(&settings::KEEP_PREVIOUS)?,
        memory_limit: raw.find(&settings::MODEL_MEMORY_LIMIT)?,
        on_demand: raw.get(&settings::LOAD_ON_DEMAND)?,
        trial_loads: raw.get(&settings::TRIAL_LOADS)?,
        cache_bytes: cache_bytes(raw)?,
        rate_limit: rate_limit(raw)?,
        strict_readiness: raw.get(&settings::STRICT_READINESS)?,
        exit_on_error: raw.get(&settings::EXIT_ON_ERROR)?,
    })
}

/// Which of the repositories `given` are directories, and which are in object storage.
fn repositories(raw: &RawConfig, given: Vec<PathBuf>) -> Result<(Vec<PathBuf>, Vec<String>), ConfigError> {
    let name = settings::MODEL_REPOSITORY.declaration.name;
    let unusable = |reason: String| Err(ConfigError::Repository { origin: raw.origin(name), reason });
    if given.is_empty() {
        return unusable("name at least one, or leave it out".to_owned());
    }
    let (urls, paths): (Vec<_>, Vec<_>) =
        given.into_iter().partition(|path| path.to_string_lossy().contains("://"));
    let urls: Vec<_> = urls.into_iter().map(|url| url.to_string_lossy().into_owned()).collect();
    if let Some(reason) = urls.iter().find_map(|url| object_storage::refusal(url)) {
        return unusable(reason);
    }
    let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
    Ok((paths, urls))
}

/// The size of the response cache: the last one given, as with Triton.
fn cache_bytes(raw: &RawConfig) -> Result<Option<NonZeroU64>, ConfigError> {
    let name = settings::CACHE_CONFIG.declaration.name;
    let mut bytes = None;
    for (setting, text) in raw.all(&settings::CACHE_CONFIG)?.into_iter().zip(raw.texts(name)) {
        match setting {
            CacheSetting::LocalSize(size) => bytes = Some(size),
            CacheSetting::OtherCache => {
                return Err(ConfigError::Unsupported {
                    name,
                    value: raw::shorten(text),
                    origin: raw.origin(name),
                    reason: "the only cache there is keeps answers in this server's own memory; give \
                             local,size=BYTES, or leave it out",
                });
            }
        }
    }
    match (bytes, raw.find(&settings::RESPONSE_CACHE_BYTE_SIZE)?) {
        (Some(_), Some(_)) => Err(ConfigError::Contradiction {
            reason:
                "cache-config and response-cache-byte-size are both given; leave out the latter, which is \
                     deprecated"
                    .to_owned(),
        }),
        (bytes, deprecated) => Ok(bytes.or(deprecated.flatten())),
    }
}

/// What is said of resources, if instances wait for any.
fn rate_limit(raw: &RawConfig) -> Result<Option<Vec<ResourceTotal>>, ConfigError> {
    let totals = raw.all(&settings::RATE_LIMIT_RESOURCE)?;
    let contradiction = |reason| Err(ConfigError::Contradiction { reason });
    if raw.get(&settings::RATE_LIMIT)? == RateLimit::Off {
        return match raw.texts(settings::RATE_LIMIT_RESOURCE.declaration.name) {
            [] => Ok(None),
            [text, ..] => contradiction(format!(
                "rate-limit-resource is {:?}, but rate-limit is off; give --rate-limit=execution_count, or leave both out",
                raw::shorten(text)
            )),
        };
    }
    for (index, total) in totals.iter().enumerate() {
        let is_another = |before: &&ResourceTotal| {
            before.name.eq_ignore_ascii_case(&total.name)
                && before.device == total.device
                && before.count != total.count
        };
        if let Some(before) = totals[..index].iter().find(is_another) {
            return contradiction(format!(
                "rate-limit-resource gives both {} and {} of {:?}{}; give one of them",
                before.count,
                total.count,
                raw::shorten(&total.name),
                total.device.map_or(String::new(), |device| format!(" of device {device}")),
            ));
        }
    }
    Ok(Some(totals))
}

/// The models to start with; `None` for all.
fn start_with(raw: &RawConfig, mode: ControlMode) -> Result<Option<Vec<ModelName>>, ConfigError> {
    let name = settings::LOAD_MODEL.declaration.name;
    let names: Vec<String> = raw.all(&settings::LOAD_MODEL)?;
    let refuse = |value: &str, reason| {
        Err(ConfigError::Unsupported { name, value: value.to_owned(), origin: raw.origin(name), reason })
    };
    match (mode, names.as_slice()) {
        (ControlMode::Explicit, [all]) if all == "*" => Ok(None),
        (ControlMode::Explicit, names) => {
            let mut models = Vec::with_capacity(names.len());
            for given in names {
                match ModelName::parse(given) {
                    _ if given == "*" => {
                        return refuse(given, "give it alone to load all models, or name each");
                    }
                    Ok(model) => models.push(model),
                    Err(_) => return refuse(given, "no model can have that name"),
                }
            }
            Ok(Some(models))
        }
        (_, []) => Ok(None),
        (_, [first, ..]) => {
            refuse(first, "it goes with --model-control-mode=explicit; otherwise all models are loaded")
        }
    }
}

fn http(raw: &RawConfig) -> Result<Option<HttpConfig>, ConfigError> {
    let config = HttpConfig {
        address: SocketAddr::new(raw.get(&settings::HTTP_ADDRESS)?, raw.get(&settings::HTTP_PORT)?),
        reuse_port: raw.get(&settings::REUSE_HTTP_PORT)?,
    };
    Ok(raw.get(&settings::ALLOW_HTTP)?.then_some(config))
}

fn grpc(raw: &RawConfig) -> Result<Option<GrpcConfig>, ConfigError> {
    let unless_zero = |duration: Duration| (!duration.is_zero()).then_some(duration);
    let config = GrpcConfig {
        address: SocketAddr::new(raw.get(&settings::GRPC_ADDRESS)?, raw.get(&settings::GRPC_PORT)?),
        reuse_port: raw.get(&settings::REUSE_GRPC_PORT)?,
        response_compression: raw.get(&settings::GRPC_COMPRESSION)?,
        keepalive_time: raw.get(&settings::GRPC_KEEPALIVE_TIME)?,
        keepalive_timeout: raw.get(&settings::GRPC_KEEPALIVE_TIMEOUT)?,
        max_connection_age: unless_zero(raw.get(&settings::GRPC_MAX_CONNECTION_AGE)?),
        max_connection_age_grace: unless_zero(raw.get(&settings::GRPC_MAX_CONNECTION_AGE_GRACE)?),
    };
    Ok(raw.get(&settings::ALLOW_GRPC)?.then_some(config))
}

fn metrics(raw: &RawConfig) -> Result<Option<MetricsConfig>, ConfigError> {
    let address: IpAddr = match raw.find(&settings::METRICS_ADDRESS)? {
        Some(address) => address,
        None => raw.get(&settings::HTTP_ADDRESS)?,
    };
    let config = MetricsConfig { address: SocketAddr::new(address, raw.get(&settings::METRICS_PORT)?) };
    Ok(raw.get(&settings::ALLOW_METRICS)?.then_some(config))
}

fn log(raw: &RawConfig) -> Result<LogConfig, ConfigError> {
    Ok(LogConfig {
        file: raw.find(&settings::LOG_FILE)?.filter(|path| !path.as_os_str().is_empty()),
        format: raw.get(&settings::LOG_FORMAT)?,
        info: raw.get(&settings::LOG_INFO)?,
        warning: raw.get(&settings::LOG_WARNING)?,
        error: raw.get(&settings::LOG_ERROR)?,
        verbose: raw.get(&settings::LOG_VERBOSE)?,
        access: raw.get(&settings::ACCESS_LOG)?,
    })
}

fn without_effect(raw: &RawConfig) -> Result<Vec<String>, ConfigError> {
    let options = triton::OPTIONS
        .iter()
        .filter(|option| raw.given(option.name).is_some())
        .map(|option| format!("--{}", option.name));
    let backends = raw.all(&settings::BACKEND_CONFIG)?.into_iter().filter_map(|setting| match setting {
        BackendSetting::OtherBackend(backend) => Some(format!("--backend-config={backend},…")),
        BackendSetting::DefaultMaxBatchSize(_) => None,
    });
    Ok(options.chain(backends).collect())
}

fn refuse_what_must_not_be_ignored(raw: &RawConfig) -> Result<(), ConfigError> {
    for option in triton::OPTIONS {
        let (Some(reason), Some(given)) = (option.refusal, raw.given(option.name)) else {
            continue;
        };
        let off = |value: &String| option.switch && (kind::SWITCH.parse)(value) == Some(false);
        if !given.values.iter().all(off) {
            return Err(ConfigError::Refused { name: option.name, origin: given.origin.clone(), reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;
    use crate::logging::LogFormat;

    /// The configuration made by the flags of `line` alone, on a machine with two cores.
    fn resolve(line: &str) -> Result<Config, String> {
        let command = Flags::augment_args(Command::new("volley"));
        let matches =
            command.try_get_matches_from(["volley"].into_iter().chain(line.split_whitespace())).unwrap();
        let raw = RawConfig::gather(Sources {
            flags: Flags::from_arg_matches(&matches).unwrap(),
            environment: &|_| None,
            read_file: &|path| panic!("{path:?} was read"),
        });
        raw.and_then(|raw| Config::resolve(&raw, NonZeroUsize::new(2).unwrap()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_given_is_the_documented_server() {
        let count = |count| NonZeroUsize::new(count).unwrap();
        let expected = Config {
            id: "volley".into(),
            connections: ConnectionConfig {
                max_connections: count(10_000),
                client_timeout: Duration::from_secs(30),
                max_input_size: 64 << 20,
                max_request_memory: default_limit(),
                thread_count: count(2),
            },
            repository: RepositoryConfig {
                paths: vec!["./model_repository".into()],
                urls: Vec::new(),
                repository_cache_directory: None,
                repository_cache_bytes: NonZeroU64::new(100 << 30).unwrap(),
                config_name: None,
                auto_complete: true,
                default_max_batch_size: 4,
                max_queue_size: count(10_000),
                delay_scheduler: 0,
                load_thread_count: count(4),
                control_mode: ControlMode::None,
                start_with: None,
                poll_interval: Duration::from_secs(15),
                settle_time: Duration::from_secs(1),
                keep_previous: 0,
                memory_limit: None,
                on_demand: OnDemand::Off,
                trial_loads: false,
                cache_bytes: None,
                rate_limit: None,
                strict_readiness: true,
                exit_on_error: false,
            },
            http: Some(HttpConfig { address: "0.0.0.0:8000".parse().unwrap(), reuse_port: false }),
            grpc: Some(GrpcConfig {
                address: "0.0.0.0:8001".parse().unwrap(),
                reuse_port: false,
                response_compression: CompressionLevel::None,
                keepalive_time: Duration::from_secs(7200),
                keepalive_timeout: Duration::from_secs(20),
                max_connection_age: None,
                max_connection_age_grace: None,
            }),
            metrics: Some(MetricsConfig { address: "0.0.0.0:8002".parse().unwrap() }),
            log: LogConfig {
                file: None,
                format: LogFormat::Default,
                info: true,
                warning: true,
                error: true,
                verbose: 0,
                access: false,
            },
            drain: DrainConfig { delay: Duration::ZERO, timeout: Duration::from_secs(30) },
            without_effect: Vec::new(),
        };
        assert_eq!(resolve(""), Ok(expected));
    }

    #[test]
    fn each_flag_reaches_its_field() {
        let config = resolve(
            "--id=a --max-connections=7 --client-timeout=2s --http-thread-count=3 --model-repository=x \
             --model-store=y --model-config-name=fast --strict-model-config --max-queue-size=9 \
             --backend-config=onnxruntime,default-max-batch-size=16 --model-load-thread-count=1 --trial-loads \
             --strict-readiness=off --exit-on-error --reuse-http-port --http-max-input-size=100 --max-request-memory=1000 \
             --grpc-address=::1 --grpc-port=9001 --reuse-grpc-port --grpc-keepalive-time=1000 \
             --grpc-keepalive-timeout=500 --grpc-infer-response-compression-level=high \
             --grpc-max-connection-age=60000 --grpc-max-connection-age-grace=1s \
             --log-file=v.log --log-format=json --log-info=0 --log-warning=0 --log-error=0 --log-verbose=2 \
             --access-log --drain-delay=500ms --exit-timeout-secs=5",
        )
        .unwrap();
        assert_eq!(config.id, "a");
        let connections = config.connections;
        assert_eq!((connections.max_connections.get(), connections.client_timeout.as_secs()), (7, 2));
        assert_eq!((connections.max_input_size, connections.max_request_memory), (100, 1000));
        assert_eq!(connections.thread_count.get(), 3);
        let repository = config.repository;
        assert_eq!(repository.paths, [PathBuf::from("x"), PathBuf::from("y")]);
        assert_eq!(repository.config_name.as_deref(), Some("fast"));
        assert!(!repository.auto_complete && !repository.strict_readiness && repository.exit_on_error);
        assert_eq!((repository.default_max_batch_size, repository.max_queue_size.get()), (16, 9));
        assert_eq!((repository.load_thread_count.get(), repository.trial_loads), (1, true));
        assert!(config.http.unwrap().reuse_port);
        let grpc = config.grpc.unwrap();
        assert_eq!((grpc.address, grpc.reuse_port), ("[::1]:9001".parse().unwrap(), true));
        assert_eq!(grpc.response_compression, CompressionLevel::High);
        assert_eq!((grpc.keepalive_time.as_millis(), grpc.keepalive_timeout.as_millis()), (1000, 500));
        assert_eq!(grpc.max_connection_age, Some(Duration::from_secs(60)));
        assert_eq!(grpc.max_connection_age_grace, Some(Duration::from_secs(1)));
        let log = config.log;
        assert_eq!((log.file, log.format), (Some("v.log".into()), LogFormat::Json));
        assert_eq!(
            (log.info, log.warning, log.error, log.verbose, log.access),
            (false, false, false, 2, true)
        );
        assert_eq!(
            (config.drain.delay, config.drain.timeout),
            (Duration::from_millis(500), Duration::from_secs(5))
        );
    }

    #[test]
    fn a_model_that_is_tried_is_read_as_the_server_reads_it() {
        let how = |config: &RepositoryConfig| {
            (config.auto_complete, config.default_max_batch_size, config.load_thread_count.get())
        };
        let server = "--strict-model-config --backend-config=onnxruntime,default-max-batch-size=16";
        for (line, expected) in [("", (true, 4, 1)), (server, (false, 16, 1))] {
            let config = resolve(line).unwrap().repository;
            let command = ModelFlags::augment_args(Command::new("check"));
            let arguments = ["check".to_owned()].into_iter().chain(config.to_load_one());
            let matches = command.try_get_matches_from(arguments).unwrap();
            let flags = ModelFlags::from_arg_matches(&matches).unwrap().0;
            let raw = RawConfig::gather(Sources {
                flags,
                environment: &|_| None,
                read_file: &|path| panic!("{path:?} was read"),
            });
            assert_eq!(how(&repository(&raw.unwrap()).unwrap()), expected);
        }
        let variables: Vec<_> = variables().collect();
        assert!(
            ["VOLLEY_CONFIG", "VOLLEY_MODEL_CONFIG_NAME"]
                .iter()
                .all(|name| variables.iter().any(|v| v == name))
        );
    }

    #[test]
    fn the_metrics_listen_where_http_does_unless_told() {
        let metrics = |line| resolve(line).unwrap().metrics.unwrap().address.to_string();
        assert_eq!(metrics("--http-address=127.0.0.1"), "127.0.0.1:8002");
        assert_eq!(metrics("--http-address=127.0.0.1 --allow-http=no"), "127.0.0.1:8002");
        assert_eq!(metrics("--http-address=127.0.0.1 --metrics-address=::"), "[::]:8002");
        assert_eq!(resolve("--allow-metrics=false").unwrap().metrics, None);
    }

    #[track_caller]
    fn check_refused(line: &str, expected: &str) {
        assert_eq!(resolve(line).map(|_| ()), Err(expected.to_owned()));
    }

    #[test]
    fn values_that_are_not_accepted() {
        check_refused(
            "--http-port=80000",
            "--http-port is \"80000\", but it must be an integer from 0 to 65535, where 0 picks a free port",
        );
        check_refused(
            "--access-log=maybe",
            "--access-log is \"maybe\", but it must be true, on, yes or 1, or false, off, no or 0",
        );
        check_refused(
            "--backend-config=onnxruntime,threads=2",
            "--backend-config is \"onnxruntime,threads=2\", but it must be \
             onnxruntime,default-max-batch-size=N, where N is an integer from 0 to 2147483647; \
             default-max-batch-size is the only key known",
        );
        // Even where it would not be used.
        assert!(resolve("--allow-grpc=false --grpc-port=x").is_err());
        let long = resolve(&format!("--log-format={}", "x".repeat(100_000))).unwrap_err();
        assert!(long.len() < 400, "{}", long.len());
    }

    #[test]
    fn modes_and_places_that_are_not_supported() {
        let start_with = |line| {
            let models = resolve(line).unwrap().repository.start_with?;
            Some(models.iter().map(ModelName::to_string).collect::<Vec<_>>())
        };
        assert_eq!(start_with("--model-control-mode=none"), None);
        assert_eq!(start_with("--model-control-mode=poll"), None);
        assert_eq!(start_with("--model-control-mode=explicit"), Some(vec![]));
        assert_eq!(start_with("--model-control-mode=explicit --load-model=*"), None);
        assert_eq!(
            start_with("--model-control-mode=explicit --load-model=a --load-model=b"),
            Some(vec!["a".to_owned(), "b".to_owned()])
        );
        check_refused(
            "--model-control-mode=explicit --load-model=a --load-model=*",
            "--load-model is \"*\": give it alone to load all models, or name each",
        );
        check_refused(
            "--load-model=a",
            "--load-model is \"a\": it goes with --model-control-mode=explicit; otherwise all models are loaded",
        );
        check_refused(
            "--model-control-mode=explicit --load-model=../a",
            "--load-model is \"../a\": no model can have that name",
        );
        check_refused(
            "--model-repository=s3://key:SECRET@host/models",
            "--model-repository: \"s3://…@host/models\" is not the URL of a model repository: it holds an @; credentials \
             come from the environment; write s3://BUCKET/PREFIX, s3://https://HOST:PORT/BUCKET/PREFIX, \
             gs://BUCKET/PREFIX, as://ACCOUNT/CONTAINER/PREFIX, az://CONTAINER/PREFIX or file:///DIRECTORY",
        );
    }

    #[test]
    fn repositories_are_directories_and_urls() {
        let line = "--model-repository=s3://bucket/models/ --model-repository=a --model-repository=file:///srv/b \
                    --repository-cache-dir=/var/cache/x --repository-cache-bytes=1000";
        let repository = resolve(line).unwrap().repository;
        assert_eq!(repository.urls, ["s3://bucket/models", "file:///srv/b"]);
        assert_eq!(repository.paths, [PathBuf::from("a")]);
        assert_eq!(repository.repository_cache_directory, Some("/var/cache/x".into()));
        assert_eq!(repository.repository_cache_bytes.get(), 1000);
    }

    #[test]
    fn the_response_cache_is_local_and_has_one_size() {
        let bytes = |line| resolve(line).unwrap().repository.cache_bytes.map(NonZeroU64::get);
        assert_eq!(bytes("--cache-config=local,size=1048576"), Some(1 << 20));
        assert_eq!(bytes("--cache-config local,size=1 --cache-config local,size=2"), Some(2));
        assert_eq!(bytes("--response-cache-byte-size=1000"), Some(1000));
        assert_eq!(bytes("--response-cache-byte-size=0"), None);
        check_refused(
            "--cache-config=local,size=1 --cache-config=redis,host=localhost",
            "--cache-config is \"redis,host=localhost\": the only cache there is keeps answers in this server's own \
             memory; give local,size=BYTES, or leave it out",
        );
        check_refused(
            "--cache-config=local,size=1MB",
            "--cache-config is \"local,size=1MB\", but it must be local,size=BYTES, where BYTES is an integer of at \
             least 1; size is the only key known",
        );
        check_refused(
            "--cache-config=local,size=1 --response-cache-byte-size=1",
            "cache-config and response-cache-byte-size are both given; leave out the latter, which is deprecated",
        );
    }

    #[test]
    fn resources_are_given_once_and_only_where_they_limit_something() {
        let limits = |line| resolve(line).unwrap().repository.rate_limit;
        let total = |name: &str, count, device| ResourceTotal { name: name.to_owned(), count, device };
        assert_eq!(limits("--rate-limit=off"), None);
        assert_eq!(limits("--rate-limit=execution_count"), Some(Vec::new()));
        assert_eq!(
            limits("--rate-limit EXECUTION_COUNT --rate-limit-resource=R1:10 --rate-limit-resource R2:5:0"),
            Some(vec![total("R1", 10, None), total("R2", 5, Some(0))])
        );
        let on = "--rate-limit=execution_count --rate-limit-resource";
        assert!(resolve(&format!("{on}=R:1 --rate-limit-resource=R:2:0 --rate-limit-resource=R:1")).is_ok());
        for line in ["--rate-limit-resource=R1:10", "--rate-limit=off --rate-limit-resource=R1:10"] {
            check_refused(
                line,
                "rate-limit-resource is \"R1:10\", but rate-limit is off; give --rate-limit=execution_count, or leave \
                 both out",
            );
        }
        check_refused(
            &format!("{on}=R:1:3 --rate-limit-resource=r:2:3"),
            "rate-limit-resource gives both 1 and 2 of \"r\" of device 3; give one of them",
        );
        check_refused(
            &format!("{on}=R1:-4"),
            "--rate-limit-resource is \"R1:-4\", but it must be NAME:COUNT for each device or NAME:COUNT:DEVICE for one, \
             where COUNT and DEVICE are integers from 0 to 4294967295",
        );
        check_refused("--rate-limit=on", "--rate-limit is \"on\", but it must be off or execution_count");
    }

    #[test]
    fn listeners_do_not_share_a_port() {
        check_refused(
            "--grpc-port=8000",
            "http-port and grpc-port are both 8000; give each its own, or 0 for a free one",
        );
        check_refused(
            "--metrics-port=8001 --http-address=127.0.0.1",
            "grpc-port and metrics-port are both 8001; give each its own, or 0 for a free one",
        );
        for fine in [
            "--http-port=0 --grpc-port=0 --metrics-port=0",
            "--grpc-port=8000 --allow-http=false",
            "--http-address=127.0.0.1 --grpc-address=127.0.0.2 --grpc-port=8000",
        ] {
            assert!(resolve(fine).is_ok(), "{fine}");
        }
        check_refused(
            "--allow-http=off --allow-grpc=off",
            "nothing would be served: give --allow-http or --allow-grpc",
        );
    }

    #[test]
    fn options_of_triton_are_named_or_refused() {
        let config = resolve("--trace-config=rate=1 --host-policy x --backend-config=python,x=1").unwrap();
        assert_eq!(config.without_effect, ["--host-policy", "--trace-config", "--backend-config=python,…"]);
        let refused = triton::OPTIONS.iter().filter(|option| option.refusal.is_some());
        for option in refused {
            let error = resolve(&format!("--{}=true", option.name)).unwrap_err();
            assert!(error.starts_with(&format!("--{} is refused: ", option.name)), "{error}");
        }
        assert!(resolve("--grpc-use-ssl=false").is_ok());
        assert!(resolve("--grpc-use-ssl").is_err());
        assert!(resolve("--grpc-server-cert=false").is_err());
    }
}
