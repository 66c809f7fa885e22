//! Where ONNX Runtime's shared library is.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inference::current_request::in_span;
use ort::environment::Environment;
use ort::logging::LogLevel;
use tracing::{debug, error, info, warn};

/// The library in use and how it was found.
#[derive(Clone, Debug)]
pub struct RuntimeLibrary {
    /// Its path, or its bare name when the system's loader found it.
    pub path: PathBuf,
    /// Why this one.
    pub origin: &'static str,
}

/// No library could be loaded.
#[derive(Debug)]
pub struct LibraryError {
    tried: Vec<(RuntimeLibrary, String)>,
}

impl fmt::Display for LibraryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ONNX Runtime was not found; tried")?;
        for (library, reason) in &self.tried {
            write!(f, " {} ({}): {reason};", library.path.display(), library.origin)?;
        }
        let version = env!("VOLLEY_ORT_VERSION");
        write!(
            f,
            " set ORT_DYLIB_PATH to a libonnxruntime.so of version {version}, or build again with network"
        )
    }
}

impl std::error::Error for LibraryError {}

/// Loads the first library that is there; one that is there but does not load is an error, not a reason to
/// take another.
pub(crate) fn load() -> Result<(RuntimeLibrary, Environment), LibraryError> {
    let mut tried = Vec::new();
    for library in candidates() {
        let by_name = library.path.components().count() == 1;
        if !by_name && !library.path.exists() {
            tried.push((library, "no such file".to_owned()));
            continue;
        }
        match open(&library.path) {
            Ok(environment) => return Ok((library, environment)),
            Err(reason) => {
                tried.push((library, reason));
                break;
            }
        }
    }
    Err(LibraryError { tried })
}

fn open(path: &Path) -> Result<Environment, String> {
    let builder = ort::init_from(path).map_err(|error| error.to_string())?;
    builder
        .with_name("volley")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| error.to_string())
        .inspect(|environment| environment.set_log_level(LogLevel::Warning))
}

fn candidates() -> Vec<RuntimeLibrary> {
    let mut candidates = Vec::new();
    if let Some(path) = env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        // Whoever sets it wants that one and no other.
        return vec![RuntimeLibrary { path: path.into(), origin: "ORT_DYLIB_PATH" }];
    }
    let name = "libonnxruntime.so";
    if let Some(directory) = env::current_exe().ok().as_deref().and_then(Path::parent) {
        candidates.push(RuntimeLibrary { path: directory.join(name), origin: "beside the executable" });
    }
    candidates.push(RuntimeLibrary {
        path: env!("VOLLEY_PROVISIONED_ORT").into(),
        origin: "provisioned by the build",
    });
    candidates.push(RuntimeLibrary { path: name.into(), origin: "the system's loader" });
    candidates
}

/// ONNX Runtime's own log lines, under their category. Those of a run carry its request, unless one of ONNX
/// Runtime's own threads speaks, which knows none.
fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    in_span(|| match level {
        LogLevel::Verbose => debug!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Info => info!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Warning => warn!(target: "onnxruntime", category, location, "{message}"),
        // What fails is also returned to the caller, who says what it was about.
        LogLevel::Error => debug!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Fatal => error!(target: "onnxruntime", category, location, "{message}"),
    });
}
