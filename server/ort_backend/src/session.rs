//! Opens an ONNX file as a session, once, and reads its signature.

use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;

use inference::backend::{Instance, LoadError, LoadedModel, ModelSource, Signature, TensorSignature};
use model::Dims;
use ort::environment::Environment;
use ort::session::{Session as OrtSession, SharedSessionInner};
use ort::value::{Outlet, ValueType};

use crate::options::Options;
use crate::run::SessionInstance;
use crate::tensor::{CpuMemory, datatype};

/// A version's one session, shared by its instances.
pub(crate) struct Session {
    pub(crate) inner: Arc<SharedSessionInner>,
    pub(crate) signature: Signature,
    /// As C strings, in the signature's order: made once, not for every run.
    pub(crate) input_names: Vec<CString>,
    pub(crate) output_names: Vec<CString>,
    pub(crate) memory: CpuMemory,
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

/// Opens the model at `path`, which messages call `shown`. Weights in external files are found beside it.
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
    let builder =
        OrtSession::builder(environment).map_err(|error| backend_error(error.message().to_owned()))?;
    let mut builder = options.apply(builder).map_err(config_error)?;
    let session =
        builder.commit_from_file(path).map_err(|error| backend_error(error.message().to_owned()))?;
    let signature = Signature {
        inputs: tensors("input", session.inputs()).map_err(backend_error)?,
        outputs: tensors("output", session.outputs()).map_err(backend_error)?,
    };
    Ok(LoadedSession(Arc::new(Session {
        inner: session.inner(),
        input_names: c_names(&signature.inputs).map_err(backend_error)?,
        output_names: c_names(&signature.outputs).map_err(backend_error)?,
        signature,
        memory: CpuMemory::new().map_err(|status| backend_error(status.into()))?,
    })))
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
