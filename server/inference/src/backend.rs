//! What a model format must offer to be served: load a version, say what it takes and gives, run it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use manifest::ManifestError;
use model::{DataType, Dims, ModelName, ModelVersion, Tensor};
use proto::ModelConfig;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::remote::RemoteError;

/// Loads versions of models. One value serves the whole process.
pub trait Backend: Send + Sync + 'static {
    /// Loads one version, once: the graph is read a single time, and whatever must be known of it is in the
    /// returned model's signature.
    ///
    /// # Errors
    /// When the file is not there, is not a model, or its configuration asks for what cannot be done.
    fn load(&self, source: &ModelSource<'_>) -> Result<Arc<dyn LoadedModel>, LoadError>;

    /// Gives the operating system the memory back that models which are gone have left behind.
    fn give_memory_back(&self) {}
}

/// Where a version is and how it should run.
#[derive(Debug)]
pub struct ModelSource<'a> {
    /// The model's name, for messages.
    pub name: &'a ModelName,
    /// The version, for messages.
    pub version: ModelVersion,
    /// The model's directory in its repository.
    pub model_directory: PathBuf,
    /// The version's directory.
    pub version_directory: PathBuf,
    /// The configuration as written, not yet completed from the graph.
    pub config: &'a ModelConfig,
    /// How many instances will run it at the same time.
    pub instances: usize,
    /// CPU threads each of them may use.
    pub threads_per_instance: usize,
}

/// A version in memory. Its weights are held once, whatever the number of instances.
pub trait LoadedModel: Send + Sync {
    /// What the graph takes and gives.
    fn signature(&self) -> &Signature;

    /// Bytes that loading it took, where the backend can tell.
    fn memory(&self) -> Option<u64> {
        None
    }

    /// A new execution context over the same weights.
    ///
    /// # Errors
    /// When the backend cannot make one.
    fn instance(&self) -> Result<Box<dyn Instance>, LoadError>;
}

/// One execution context; it belongs to one thread.
pub trait Instance: Send {
    /// Runs the model on `inputs`, and computes only the outputs at the indexes `outputs` of the
    /// signature, in that order.
    ///
    /// # Errors
    /// In the backend's words. The instance can be used again.
    fn execute(&mut self, inputs: &[InstanceInput], outputs: &[usize]) -> Result<Execution, ExecuteError>;

    /// What ends a run from another thread, where the backend can.
    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        None
    }
}

/// Ends the runs of one instance before they are done.
pub trait Terminate: Send + Sync {
    /// The run under way fails soon, as do those that begin later, until [`Terminate::reset`].
    fn terminate(&self);

    /// Runs that begin from now on are not ended.
    fn reset(&self);
}

/// What a graph takes and gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature {
    /// The graph's inputs, in its order.
    pub inputs: Vec<TensorSignature>,
    /// The graph's outputs, in its order.
    pub outputs: Vec<TensorSignature>,
}

/// An input or output of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSignature {
    /// Its name in the graph.
    pub name: SmolStr,
    /// The type of its elements.
    pub datatype: DataType,
    /// Every dimension, -1 where the graph leaves it open.
    pub dims: Dims,
}

/// An input of one execution.
#[derive(Clone, Debug)]
pub struct InstanceInput {
    /// Index of the input in the signature.
    pub index: usize,
    /// The tensor, in the shape the graph wants.
    pub tensor: Tensor,
}

/// What one execution gave.
#[derive(Debug)]
pub struct Execution {
    /// The outputs asked for, in that order.
    pub outputs: SmallVec<[InstanceOutput; 2]>,
    /// When the inputs were where the model wants them.
    pub inputs_ready: Instant,
    /// When the model was done.
    pub inferred: Instant,
}

/// An output of one execution.
#[derive(Clone, Debug)]
pub struct InstanceOutput {
    /// Its shape, as the model made it.
    pub shape: Dims,
    /// Its elements, packed as [`Tensor::data`].
    pub data: Bytes,
}

/// Why an execution failed, in the backend's words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ExecuteError(pub String);

/// Why a version could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file or directory could not be read.
    #[error("cannot read {what}: {reason}")]
    Unreadable {
        /// The file, relative to the model repository where possible.
        what: String,
        /// The operating system's words.
        reason: String,
    },
    /// The configuration contradicts itself or the model.
    #[error("{file}: {reason}")]
    Config {
        /// The configuration file.
        file: String,
        /// The field, both values, and what to do.
        reason: String,
    },
    /// The backend refused the model.
    #[error("{file}: {reason}")]
    Backend {
        /// The model file.
        file: String,
        /// The backend's words.
        reason: String,
    },
    /// A sample of `model_warmup` could not be made or run.
    #[error("model_warmup {sample:?}: {reason}")]
    Warmup {
        /// The sample's name.
        sample: String,
        /// What is wrong with it, or how its run failed.
        reason: String,
    },
    /// The model asks for something this server does not do.
    #[error("{0}")]
    Unsupported(String),
    /// The models would take more memory than they may.
    #[error(
        "it needs about {} MiB, and models have {} of the {} MiB that they may have together (--model-memory-limit); unload \
         one, or raise the limit", mebibytes(*needed), mebibytes(*taken), mebibytes(*limit)
    )]
    NoRoom {
        /// Bytes that it is expected to take.
        needed: u64,
        /// Bytes that others have.
        taken: u64,
        /// Bytes that all may have.
        limit: u64,
    },
    /// The files of a version are not what its manifest says.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Files could not be brought from where they are.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The load ended in a panic, here or in the backend.
    #[error("the load panicked: {0}")]
    Panicked(String),
    /// The process in which it was tried first has died of it.
    #[error(
        "the trial process of {what} died of signal {signal} while it loaded or warmed up{said}, so it is not loaded here and \
         what serves goes on; {advice}"
    )]
    TrialDied {
        /// The model and the version.
        what: String,
        /// Its number, and its name where that is known.
        signal: String,
        /// What the process said last, to follow the rest, or nothing.
        said: String,
        /// What to do.
        advice: &'static str,
    },
    /// It is to be tried first, and cannot be.
    #[error(
        "{what} cannot be tried in a process of its own, so it is not loaded here and what serves goes on: {reason}; \
         correct that, or start the server without --trial-loads"
    )]
    Untried {
        /// The model and the version.
        what: String,
        /// The operating system's words.
        reason: String,
    },
    /// The server stops.
    #[error("the server stops, so its load was given up")]
    GivenUp,
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

impl LoadError {
    /// Whether the same load may succeed later although the files stay as they are.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, LoadError::Remote(RemoteError { may_pass: true, .. }) | LoadError::Untried { .. })
    }
}

impl fmt::Debug for dyn Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

impl fmt::Debug for dyn LoadedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedModel").field("signature", self.signature()).finish()
    }
}
