//! Opens an ONNX file as a session, once, and reads its signature.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inference::backend::{Instance, LoadError, LoadedModel, ModelSource, Signature, TensorSignature};
use inference::current_request::in_span;
use model::Dims;
use ort::environment::Environment;
use ort::session::builder::SessionBuilder;
use ort::session::{Session as OrtSession, SharedSessionInner};
use ort::value::{Outlet, ValueType};
use parking_lot::Mutex;
use proto::ModelConfig;
use tracing::info;

use crate::allocator::Meter;
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
pub(crate) struct LoadedSession {
    session: Arc<Session>,
    /// Bytes that opening it took, where that could be told.
    memory: Option<u64>,
}

impl LoadedModel for LoadedSession {
    fn signature(&self) -> &Signature {
        &self.session.signature
    }

    fn memory(&self) -> Option<u64> {
        self.memory
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        let instance = SessionInstance::new(Arc::clone(&self.session));
        Ok(Box::new(instance.map_err(|status| LoadError::Unsupported(status.into()))?))
    }
}

/// Sessions of graphs that are cut down to some outputs, made when they are first asked for.
struct Pruned {
    opener: Opener,
    /// What the model's files were when it was loaded: a version never answers from others.
    files: Vec<FileMark>,
    /// By the indexes of the outputs; `None` while one is being made, or when it cannot be: then the whole
    /// graph is run. Held to look up or put in, not while a session is made.
    sessions: Mutex<HashMap<Vec<usize>, Option<Arc<Session>>>>,
}

/// Beyond this many sets of outputs, requests run the whole graph.
const MAX_PRUNED: usize = 8;

impl Session {
    /// The session that computes `outputs` and nothing else, when such are wanted and can be had; else this
    /// one.
    pub(crate) fn for_outputs(self: &Arc<Self>, outputs: &[usize]) -> Arc<Session> {
        let Some(pruned) = &self.pruned else { return Arc::clone(self) };
        if outputs.is_empty() || outputs.len() >= self.signature.outputs.len() {
            return Arc::clone(self);
        }
        let mut wanted = outputs.to_vec();
        wanted.sort_unstable();
        let mut sessions = pruned.sessions.lock();
        if let Some(known) = sessions.get(&wanted) {
            return known.clone().unwrap_or_else(|| Arc::clone(self));
        }
        if sessions.len() == MAX_PRUNED {
            return Arc::clone(self);
        }
        sessions.insert(wanted.clone(), None);
        drop(sessions);
        match self.make_pruned(pruned, &wanted) {
            Ok(session) => {
                let session = Arc::new(session);
                pruned.sessions.lock().insert(wanted, Some(Arc::clone(&session)));
                session
            }
            Err(reason) => {
                let model = &pruned.opener.shown;
                in_span(|| {
                    info!(model, outputs = ?wanted, reason, "these outputs are computed with all the others");
                });
                Arc::clone(self)
            }
        }
    }

    fn make_pruned(&self, pruned: &Pruned, wanted: &[usize]) -> Result<Session, String> {
        let outputs = wanted.iter().filter_map(|index| self.signature.outputs.get(*index));
        let names: Vec<_> = outputs.map(|output| &*output.name).collect();
        let session = pruned.opener.open_pruned(&names)?;
        if marks(&pruned.opener.path) != pruned.files {
            return Err("the model's files have changed since it was loaded".to_owned());
        }
        if session.signature.inputs != self.signature.inputs {
            return Err("the graph for these outputs has other inputs".to_owned());
        }
        in_span(|| {
            let (model, outputs) = (&pruned.opener.shown, names.join(", "));
            info!(model, outputs, "made a session for these outputs only");
        });
        // Outputs keep their numbers: the instance speaks of them as the whole model does.
        let output_names = c_names(&self.signature.outputs)?;
        Ok(Session { output_names, signature: self.signature.clone(), ..session })
    }
}

/// By which a file is known to be the one it was.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileMark {
    path: PathBuf,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// Of the files in the directory of `path`: the model and its external weights.
fn marks(path: &Path) -> Vec<FileMark> {
    let files = path.parent().and_then(|directory| std::fs::read_dir(directory).ok());
    let mark = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.ok()?.path();
        let file = std::fs::metadata(&path).ok()?;
        let modified = (file.mtime(), file.mtime_nsec());
        Some(FileMark { path, inode: file.ino(), length: file.len(), modified })
    };
    let mut marks: Vec<_> = files.into_iter().flatten().filter_map(mark).collect();
    marks.sort();
    marks
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
        |reason: String| LoadError::Backend { file: shown.to_owned(), reason: without_paths(&reason) };
    let options = Options::read(source).map_err(config_error)?;
    let files = marks(path);
    let small = files.iter().map(|file| file.length).sum::<u64>() <= SMALL;
    let prune_outputs = options.prune_outputs.unwrap_or(small);
    let opener =
        Opener { environment: environment.clone(), options, path: path.to_owned(), shown: shown.to_owned() };
    let meter = Meter::start();
    let mut session = opener.open().map_err(backend_error)?;
    let listed = listed_outputs(source.config, &session.signature);
    if !listed.is_empty() {
        drop(session);
        session = opener.open_pruned(&listed).map_err(backend_error)?;
    }
    if prune_outputs {
        session.pruned = Some(Pruned { opener, files, sessions: Mutex::default() });
    }
    Ok(LoadedSession { session: Arc::new(session), memory: meter.grown() })
}

/// A model of fewer bytes may be held once more for each set of outputs that is asked for. For a larger one
/// its owner decides (`parameters` `prune_outputs`), since weights in memory cost more than time.
const SMALL: u64 = 64 << 20;

/// The outputs that `config` lists, when it lists some of the graph's but not all, and nothing is completed.
fn listed_outputs<'a>(config: &'a ModelConfig, signature: &Signature) -> Vec<&'a str> {
    let is_output = |name: &str| signature.outputs.iter().any(|output| output.name == name);
    let listed: Vec<_> = config.output.iter().map(|output| output.name.as_str()).collect();
    let some = !config.input.is_empty() && listed.len() < signature.outputs.len();
    if some && listed.iter().all(|name| is_output(name)) { listed } else { Vec::new() }
}

/// What the caller is told holds no path of this machine: of each absolute one the last part is left.
pub(crate) fn without_paths(reason: &str) -> String {
    let ends = |char: char| char.is_whitespace() || matches!(char, '"' | '\'' | ')' | ']' | ',' | ';');
    let mut short = String::with_capacity(reason.len());
    let mut rest = reason;
    while let Some(start) = rest.find('/') {
        let (before, from) = rest.split_at(start);
        short.push_str(before);
        let path = &from[..from.find(ends).unwrap_or(from.len())];
        let begins = before.is_empty() || before.ends_with(|char: char| !char.is_alphanumeric());
        short.push_str(if begins && path.len() > 1 {
            path.rsplit('/').next().unwrap_or_default()
        } else {
            path
        });
        rest = &from[path.len()..];
    }
    short.push_str(rest);
    short
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
        for (reason, told) in [
            ("Load model from /srv/models/a/1/model.onnx failed", "Load model from model.onnx failed"),
            ("/onnxruntime_src/core/x.cc:87 Resolve \"/srv/w.bin\": 1/2", "x.cc:87 Resolve \"w.bin\": 1/2"),
            ("no path, and/or none; km/h /", "no path, and/or none; km/h /"),
        ] {
            assert_eq!(without_paths(reason), told);
        }
    }
}
