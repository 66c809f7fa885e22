//! The `Backend` over ONNX Runtime; the only crate that knows `ort`.
//!
//! A version is one ONNX Runtime session, whatever the number of its instances: the weights are in memory
//! once, and instances run it at the same time (`run.rs` says why that is sound).
//!
//! Invariants:
//! - a tensor's bytes go to the session and come from it without a copy, except BYTES, which ONNX Runtime
//!   holds as strings of its own, and inputs that are not aligned to their element;
//! - outputs that nobody can ask for are cut out of the graph (`prune.rs`);
//! - all `unsafe` code is in `tensor.rs`, `run_options.rs`, `run.rs` and `allocator.rs`.

mod allocator;
mod external_data;
mod fields;
mod library;
mod options;
mod prune;
mod run;
mod run_options;
mod session;
mod tensor;

use std::path::PathBuf;
use std::sync::Arc;

use inference::backend::{Backend, LoadError, LoadedModel, ModelSource};

pub use allocator::exit_at_once;
pub use external_data::external_data;
pub use library::{LibraryError, RuntimeLibrary};
pub use options::acts_on_parameter;

/// ONNX Runtime, loaded once per process.
#[derive(Debug)]
pub struct OrtBackend {
    environment: ort::environment::Environment,
    library: RuntimeLibrary,
}

impl OrtBackend {
    /// Finds and loads the shared library: `ORT_DYLIB_PATH`, else beside the executable, else the one that
    /// the build provisioned, else the system's.
    ///
    /// # Errors
    /// What was tried and what to do, when there is none or it does not load.
    pub fn load() -> Result<OrtBackend, LibraryError> {
        allocator::keep_large_blocks_apart(); // before it allocates any
        let (library, environment) = library::load()?;
        Ok(OrtBackend { environment, library })
    }

    /// The library in use.
    pub fn library(&self) -> &RuntimeLibrary {
        &self.library
    }
}

impl Backend for OrtBackend {
    fn load(&self, source: &ModelSource<'_>) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let (path, shown) = model_file(source)?;
        let session = session::open(&self.environment, source, &path, &shown)?;
        Ok(Arc::new(session))
    }

    fn give_memory_back(&self) {
        allocator::trim();
    }
}

/// The model's file and how messages call it: what `default_model_filename` says, and when
/// that is a directory, the file of the same name inside it.
fn model_file(source: &ModelSource<'_>) -> Result<(PathBuf, String), LoadError> {
    let name = source.config.default_model_filename.as_str();
    let stays =
        std::path::Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !stays {
        return Err(LoadError::Config {
            file: format!("{}/config.pbtxt", source.name),
            reason: format!("default_model_filename is {name:?}, which leaves the version's directory"),
        });
    }
    let mut path = source.version_directory.join(name);
    let mut shown = format!("{}/{}/{name}", source.name, source.version);
    if path.is_dir() {
        path.push(name);
        shown = format!("{shown}/{name}");
    }
    // Opening would wait for ever for a named pipe.
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok((path, shown)),
        Ok(_) => Err(LoadError::Unreadable { what: shown, reason: "it is not a file".to_owned() }),
        Err(error) => Err(LoadError::Unreadable { what: shown, reason: error.to_string() }),
    }
}
