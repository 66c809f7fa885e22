//! The settings, in the order of the help: every one is declared here and nowhere else.

use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use inference::rate_limiter::ResourceTotal;

use super::kind::{
    ADDRESS, BACKEND_SETTING, BYTES, BYTES_OR_ZERO, CACHE_SETTING, COMPRESSION, CONTROL_MODE, COUNT,
    COUNT_OR_ZERO, MILLISECONDS, MILLISECONDS_ABOVE_ZERO, ON_DEMAND, PATH, PATH_OR_EMPTY, PORT,
    RATE_LIMIT_MODE, RESOURCE_TOTAL, SECONDS, SECONDS_ABOVE_ZERO, SWITCH, TEXT, THREADS, VERBOSITY,
};
use super::setting::DefaultValue::{Absent, Derived, Value};
use super::setting::{Declaration, Group, Setting};
use super::{BackendSetting, CacheSetting, CompressionLevel, ControlMode, OnDemand, RateLimit, kind};
use crate::logging::LogFormat;

/// Declares each setting as a static, and [`ALL`] as the list of them.
macro_rules! settings {
    ($($group:ident { $($setting:ident: $value:ty = $declaration:expr;)* })*) => {
        $($(pub(super) static $setting: Setting<$value> = $declaration.under(Group::$group);)*)*

        /// Every setting, in the order of the help.
        pub(super) static ALL: &[&Declaration] = &[$($(&$setting.declaration),*),*];
    };
}

settings! {
    Serving {
        CONFIG: PathBuf = Setting::new("config", &PATH, Absent, "TOML file of settings; flags and environment win");
        ID: String = Setting::new("id", &TEXT, Value("volley"), "Name of this server in its metadata");
        MAX_CONNECTIONS: NonZeroUsize = Setting::new("max-connections", &COUNT, Value("10000"),
            "Connections of each port held at once; more wait, and the longest idle makes room");
        CLIENT_TIMEOUT: Duration = Setting::new("client-timeout", &SECONDS_ABOVE_ZERO, Value("30s"),
            "Longest wait for a client to send the next part of a request or to read its answer");
        MAX_REQUEST_MEMORY: NonZeroUsize = Setting::new("max-request-memory", &BYTES,
            Derived("half of the memory it may have"), "Memory of all request bodies together; more are refused").rare();
    }
    Models {
        MODEL_REPOSITORY: PathBuf = Setting::new("model-repository", &PATH, Value("./model_repository"),
            "Directory of models, or URL as s3://BUCKET/PREFIX; may be repeated").also(&["model-store", "model-repo"]).repeatable();
        MODEL_CONTROL_MODE: ControlMode = Setting::new("model-control-mode", &CONTROL_MODE, Value("none"),
            "When models are loaded: all of them at start, then none; poll, when their files change; or, explicit, by request");
        LOAD_MODEL: String = Setting::new("load-model", &TEXT, Absent,
            "Model to load at start where the mode is explicit; may be repeated; * alone: all of them").repeatable().rare();
        REPOSITORY_POLL_SECS: Duration = Setting::new("repository-poll-secs", &SECONDS_ABOVE_ZERO, Value("15"),
            "Longest time until a change of files is seen where the mode is poll; most are seen at once").rare();
        REPOSITORY_SETTLE_SECS: Duration = Setting::new("repository-settle-secs", &SECONDS, Value("1"),
            "How long nobody must have written to a version before it is loaded, where the mode is poll").rare();
        REPOSITORY_CACHE_DIR: PathBuf = Setting::new("repository-cache-dir", &PATH,
            Derived("volley/models in the user's cache directory"),
            "Where models of object storage are kept on this machine").rare();
        REPOSITORY_CACHE_BYTES: NonZeroU64 = Setting::new("repository-cache-bytes", &kind::MANY_BYTES,
            Value("107374182400"), "The most that they take there; what was not used for longest goes first").rare();
        KEEP_PREVIOUS: usize = Setting::new("keep-previous", &COUNT_OR_ZERO, Value("0"),
            "Sets of versions of a model that stay loaded when others take their place, to roll back to at once").rare();
        MODEL_MEMORY_LIMIT: NonZeroU64 = Setting::new("model-memory-limit", &kind::MANY_BYTES, Absent,
            "Memory of all models together; a load beyond it replaces what serves, or fails").rare();
        LOAD_ON_DEMAND: OnDemand = Setting::new("load-on-demand", &ON_DEMAND, Value("off"),
            "Load a model when it is asked for: its requests wait, or are refused until it serves").rare();
        TRIAL_LOADS: bool = Setting::new("trial-loads", &SWITCH, Value("false"),
            "Load and warm up each version in a process of its own first, so that a crash ends that process and not the \
             server").rare();
        MODEL_CONFIG_NAME: String = Setting::new("model-config-name", &TEXT, Absent,
            "Prefer configs/NAME.pbtxt to a model's config.pbtxt").rare();
        MODEL_LOAD_THREAD_COUNT: NonZeroUsize = Setting::new("model-load-thread-count", &THREADS, Value("4"),
            "Models loaded at the same time").rare();
        DISABLE_AUTO_COMPLETE_CONFIG: bool = Setting::new("disable-auto-complete-config", &SWITCH, Value("false"),
            "Complete no configuration from the model file").rare();
        STRICT_MODEL_CONFIG: bool = Setting::new("strict-model-config", &SWITCH, Value("false"),
            "Deprecated: the same as --disable-auto-complete-config").rare();
        BACKEND_CONFIG: BackendSetting = Setting::new("backend-config", &BACKEND_SETTING, Absent,
            "Setting of a backend, as onnxruntime,default-max-batch-size=4; may be repeated").repeatable().rare();
        MAX_QUEUE_SIZE: NonZeroUsize = Setting::new("max-queue-size", &COUNT, Value("10000"),
            "Requests that may wait for a model whose configuration sets no bound");
        DELAY_SCHEDULER: usize = Setting::new("delay-scheduler", &COUNT_OR_ZERO, Value("0"),
            "Run nothing of a model before so many requests wait for it, once: for tests that must know what is \
             batched together (also TRITONSERVER_DELAY_SCHEDULER)").rare();
        CACHE_CONFIG: CacheSetting = Setting::new("cache-config", &CACHE_SETTING, Absent,
            "Keep answers of models with response_cache, as local,size=1048576").repeatable();
        RESPONSE_CACHE_BYTE_SIZE: Option<NonZeroU64> = Setting::new("response-cache-byte-size", &BYTES_OR_ZERO, Absent,
            "Deprecated: the same as --cache-config=local,size=BYTES; 0: no cache").rare();
        RATE_LIMIT: RateLimit = Setting::new("rate-limit", &RATE_LIMIT_MODE, Value("off"),
            "execution_count: an instance runs once the resources of its rate_limiter are free").rare();
        RATE_LIMIT_RESOURCE: ResourceTotal = Setting::new("rate-limit-resource", &RESOURCE_TOTAL, Absent,
            "How much there is of a resource, as gpu_memory:8, of device 0 as gpu_memory:8:0; else the most that an \
             instance takes").repeatable().rare();
        STRICT_READINESS: bool = Setting::new("strict-readiness", &SWITCH, Value("true"),
            "Ready only when every model is, of every repository given");
        EXIT_ON_ERROR: bool = Setting::new("exit-on-error", &SWITCH, Value("false"),
            "Exit when a model fails to load at start");
    }
    Http {
        ALLOW_HTTP: bool = Setting::new("allow-http", &SWITCH, Value("true"), "Serve HTTP");
        HTTP_ADDRESS: IpAddr = Setting::new("http-address", &ADDRESS, Value("0.0.0.0"), "Address of HTTP");
        HTTP_PORT: u16 = Setting::new("http-port", &PORT, Value("8000"), "Port of HTTP; 0 picks a free one");
        REUSE_HTTP_PORT: bool = Setting::new("reuse-http-port", &SWITCH, Value("false"),
            "Share the port with other processes (SO_REUSEPORT)").rare();
        HTTP_THREAD_COUNT: NonZeroUsize = Setting::new("http-thread-count", &THREADS,
            Derived("the number of cores"), "Threads that serve requests");
        HTTP_MAX_INPUT_SIZE: NonZeroUsize = Setting::new("http-max-input-size", &BYTES, Value("67108864"),
            "Largest request body, before and after decompression");
    }
    Grpc {
        ALLOW_GRPC: bool = Setting::new("allow-grpc", &SWITCH, Value("true"), "Serve gRPC");
        GRPC_ADDRESS: IpAddr = Setting::new("grpc-address", &ADDRESS, Value("0.0.0.0"), "Address of gRPC");
        GRPC_PORT: u16 = Setting::new("grpc-port", &PORT, Value("8001"), "Port of gRPC; 0 picks a free one");
        REUSE_GRPC_PORT: bool = Setting::new("reuse-grpc-port", &SWITCH, Value("false"),
            "Share the port with other processes (SO_REUSEPORT)").rare();
        GRPC_COMPRESSION: CompressionLevel = Setting::new("grpc-infer-response-compression-level", &COMPRESSION,
            Value("none"), "Compression of inference responses").rare();
        GRPC_KEEPALIVE_TIME: Duration = Setting::new("grpc-keepalive-time", &MILLISECONDS_ABOVE_ZERO,
            Value("7200000"), "Quiet time of a connection after which it is pinged").rare();
        GRPC_KEEPALIVE_TIMEOUT: Duration = Setting::new("grpc-keepalive-timeout", &MILLISECONDS_ABOVE_ZERO,
            Value("20000"), "Longest wait for the answer to a ping").rare();
        GRPC_MAX_CONNECTION_AGE: Duration = Setting::new("grpc-max-connection-age", &MILLISECONDS, Value("0"),
            "Age at which a connection is told to close; 0: never").rare();
        GRPC_MAX_CONNECTION_AGE_GRACE: Duration = Setting::new("grpc-max-connection-age-grace", &MILLISECONDS,
            Value("0"), "Time a connection that was told to close has to finish; 0: no limit").rare();
    }
    Metrics {
        ALLOW_METRICS: bool = Setting::new("allow-metrics", &SWITCH, Value("true"), "Serve /metrics");
        METRICS_ADDRESS: IpAddr = Setting::new("metrics-address", &ADDRESS, Derived("the HTTP address"),
            "Address of the metrics");
        METRICS_PORT: u16 = Setting::new("metrics-port", &PORT, Value("8002"),
            "Port of the metrics; 0 picks a free one");
    }
    Logging {
        LOG_FORMAT: LogFormat = Setting::new("log-format", &kind::LOG_FORMAT, Value("default"),
            "Form of the lines: default, ISO8601 or json");
        LOG_FILE: PathBuf = Setting::new("log-file", &PATH_OR_EMPTY, Derived("stderr"),
            "File that log lines are appended to");
        ACCESS_LOG: bool = Setting::new("access-log", &SWITCH, Value("false"), "Log one line for each request");
        LOG_VERBOSE: u32 = Setting::new("log-verbose", &VERBOSITY, Value("0"),
            "1: details; 2: more, and those of the libraries; 3: everything");
        LOG_INFO: bool = Setting::new("log-info", &SWITCH, Value("true"), "Log what happens");
        LOG_WARNING: bool = Setting::new("log-warning", &SWITCH, Value("true"), "Log what may go wrong");
        LOG_ERROR: bool = Setting::new("log-error", &SWITCH, Value("true"), "Log what went wrong");
    }
    Shutdown {
        DRAIN_DELAY: Duration = Setting::new("drain-delay", &SECONDS, Value("0"),
            "Time to keep serving, no longer ready, after SIGTERM");
        EXIT_TIMEOUT: Duration = Setting::new("exit-timeout-secs", &SECONDS, Value("30"),
            "Longest wait for requests in flight, once the delay is over");
    }
}
