//! Opens an ONNX file as a session, once, and reads its signature.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inference::backend::{Instance, LoadError, LoadedModel, ModelSource, Signature, TensorSignature};
use model::Dims;
use ort::environment::Environment;
use ort::session::builder::SessionBuilder;
use ort::session::{Session as OrtSession, SharedSessionInner};
use ort::value::{Outlet, ValueType};
use parking_lot::Mutex;
use proto::ModelConfig;
use tracing::info;

use crate::options::Options;
use crate::prune::prune;
use crate::run::SessionInstance;
use crate::tensor::{CpuMemory, datatype};

/// A version's session, shared by its instances.
pub(crate) struct Session {
    pub(crate) inner: Arc<SharedSessionInner>,
    pub(crate) signature: Signature,
    /// As C strings, in the signature's order: made once, not for every run.
    pub(crate) input_names: Vec<CString>,
    pub(crate) output_names: Vec<CString>,
    pub(crate) memory: CpuMemory,
    /// Makes sessions for some of the outputs; `None` when that is not wanted.
    pruned: Option<Pruned>,
}

/// The session as the repository holds it.
pub(crate) struct LoadedSession(Arc<Session>);

impl LoadedModel for LoadedSession {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(SessionInstance::new(Arc::clone(&self.0))))
    }
}

/// Sessions of graphs that are cut down to some outputs, made when they are first asked for.
struct Pruned {
    opener: Opener,
    /// By the indexes of the outputs. Held while a session is looked up or made: whoever wants the same one
    /// waits for it rather than making it, too.
    sessions: Mutex<HashMap<Vec<usize>, Arc<Session>>>,
}

/// Beyond this many sets of outputs, requests run the whole graph.
const MAX_PRUNED: usize = 8;

impl Session {
    /// The session that computes `outputs` and nothing else, when such are wanted; else this one.
    pub(crate) fn for_outputs(self: &Arc<Self>, outputs: &[usize]) -> Result<Arc<Session>, String> {
        let Some(pruned) = &self.pruned else { return Ok(Arc::clone(self)) };
        let mut wanted = outputs.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() || wanted.len() == self.signature.outputs.len() {
            return Ok(Arc::clone(self));
        }
        let mut sessions = pruned.sessions.lock();
        if let Some(session) = sessions.get(&wanted) {
            return Ok(Arc::clone(session));
        }
        if sessions.len() == MAX_PRUNED {
            return Ok(Arc::clone(self));
        }
        let names =
            wanted.iter().filter_map(|index| self.signature.outputs.get(*index)).map(|output| &*output.name);
        let names: Vec<_> = names.collect();
        let session = pruned.opener.open_pruned(&names)?;
        info!(
            model = pruned.opener.shown,
            outputs = names.join(", "),
            "made a session for these outputs only"
        );
        // Outputs keep their numbers: the instance speaks of them as the whole model does.
        let session = Arc::new(Session {
            output_names: c_names(&self.signature.outputs)?,
            signature: self.signature.clone(),
            ..session
        });
        sessions.insert(wanted, Arc::clone(&session));
        Ok(session)
    }
}

/// All that it takes to open a model's file.
struct Opener {
    environment: Environment,
    options: Options,
    path: PathBuf,
    /// What messages call the file.
    shown: String,
}

impl Opener {
    fn builder(&self) -> Result<SessionBuilder, String> {
        let builder = OrtSession::builder(&self.environment).map_err(|error| error.message().to_owned())?;
        self.options.apply(builder)
    }

    /// The whole graph. Weights in external files are found beside it.
    fn open(&self) -> Result<Session, String> {
        let opened = self.builder()?.commit_from_file(&self.path);
        opened.map_err(|error| error.message().to_owned()).and_then(|session| Session::new(&session))
    }

    /// The graph cut down to `outputs`.
    fn open_pruned(&self, outputs: &[&str]) -> Result<Session, String> {
        let model = std::fs::read(&self.path).map_err(|error| error.to_string())?;
        let model = prune(&model, outputs)?;
        let directory = self.path.parent().unwrap_or(Path::new(".")).display().to_string();
        let builder = self.builder()?.with_config_entry(EXTERNAL_WEIGHTS, directory);
        let mut builder = builder.map_err(|error| error.message().to_owned())?;
        let opened = builder.commit_from_memory(&model);
        opened.map_err(|error| error.message().to_owned()).and_then(|session| Session::new(&session))
    }
}

/// Where the weights of a model that is opened from memory are.
const EXTERNAL_WEIGHTS: &str = "session.model_external_initializers_file_folder_path";

impl Session {
    fn new(session: &OrtSession) -> Result<Session, String> {
        let signature = Signature {
            inputs: tensors("input", session.inputs())?,
            outputs: tensors("output", session.outputs())?,
        };
        Ok(Session {
            inner: session.inner(),
            input_names: c_names(&signature.inputs)?,
            output_names: c_names(&signature.outputs)?,
            signature,
            memory: CpuMemory::new().map_err(String::from)?,
            pruned: None,
        })
    }
}

/// Opens the model at `path`, which messages call `shown`. When the configuration lists some of the graph's
/// outputs only, the others are cut out.
pub(crate) fn open(
    environment: &Environment,
    source: &ModelSource<'_>,
    path: &Path,
    shown: &str,
) -> Result<LoadedSession, LoadError> {
    let config_error = |reason| LoadError::Config { file: format!("{}/config.pbtxt", source.name), reason };
    let backend_error =
        |reason: String| LoadError::Backend { file: shown.to_owned(), reason: without_paths(&reason, path) };
    let options = Options::read(source).map_err(config_error)?;
    let prune_outputs = options.prune_outputs.unwrap_or_else(|| is_small(path));
    let opener =
        Opener { environment: environment.clone(), options, path: path.to_owned(), shown: shown.to_owned() };
    let mut session = opener.open().map_err(backend_error)?;
    let listed = listed_outputs(source.config, &session.signature);
    if !listed.is_empty() {
        drop(session);
        session = opener.open_pruned(&listed).map_err(backend_error)?;
    }
    if prune_outputs {
        session.pruned = Some(Pruned { opener, sessions: Mutex::default() });
    }
    Ok(LoadedSession(Arc::new(session)))
}

/// A model of fewer bytes may be held once more for each set of outputs that is asked for. For a larger one
/// its owner decides (`parameters` `prune_outputs`), since weights in memory cost more than time.
const SMALL: u64 = 64 << 20;

/// Whether the model at `path`, with the weights in files beside it, is small.
fn is_small(path: &Path) -> bool {
    let files = path.parent().and_then(|directory| std::fs::read_dir(directory).ok());
    let sizes = files.into_iter().flatten().filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
    sizes.sum::<u64>() <= SMALL
}

/// The outputs that `config` lists, when it lists some of the graph's but not all, and nothing is completed.
fn listed_outputs<'a>(config: &'a ModelConfig, signature: &Signature) -> Vec<&'a str> {
    let is_output = |name: &str| signature.outputs.iter().any(|output| output.name == name);
    let listed: Vec<_> = config.output.iter().map(|output| output.name.as_str()).collect();
    let some = !config.input.is_empty() && listed.len() < signature.outputs.len();
    if some && listed.iter().all(|name| is_output(name)) { listed } else { Vec::new() }
}

/// What the caller is told holds no path of this machine.
fn without_paths(reason: &str, path: &Path) -> String {
    let whole = path.display().to_string();
    let directory = path.parent().map(|parent| format!("{}/", parent.display())).unwrap_or_default();
    let short = path.file_name().unwrap_or_default().to_string_lossy();
    let reason = reason.replace(&whole, &short);
    if directory.len() > 1 { reason.replace(&directory, "") } else { reason }
}

fn tensors(role: &str, outlets: &[Outlet]) -> Result<Vec<TensorSignature>, String> {
    let tensor = |outlet: &Outlet| {
        let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
            return Err(format!(
                "{role} {:?} is not a tensor, and only tensors can be served",
                outlet.name()
            ));
        };
        let datatype = datatype(*ty).ok_or_else(|| {
            format!("{role} {:?} is {ty:?}, which the protocol cannot carry", outlet.name())
        })?;
        Ok(TensorSignature { name: outlet.name().into(), datatype, dims: Dims::new(shape) })
    };
    outlets.iter().map(tensor).collect()
}

fn c_names(tensors: &[TensorSignature]) -> Result<Vec<CString>, String> {
    let name = |tensor: &TensorSignature| {
        CString::new(tensor.name.as_str())
            .map_err(|_| format!("{:?} holds a NUL, so it cannot be named", tensor.name))
    };
    tensors.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold_no_path_of_this_machine() {
        let path = Path::new("/srv/models/a/1/model.onnx");
        assert_eq!(
            without_paths("Load model from /srv/models/a/1/model.onnx failed", path),
            "Load model from model.onnx failed"
        );
        assert_eq!(without_paths("open /srv/models/a/1/w.bin", path), "open w.bin");
    }
}
