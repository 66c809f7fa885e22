//! A backend that does nothing: its models give back the tensor they were given.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use inference::backend::{
    Backend, ExecuteError, Execution, Instance, InstanceInput, InstanceOutput, LoadError, LoadedModel,
    ModelSource, Signature, TensorSignature,
};
use model::{DataType, Dims};
use tempfile::TempDir;
use volley::app::App;
use volley::config::{Config, Flags};
use volley::logging::LogSettings;

use crate::tensor::{INPUT, MODEL, SMALL, Shape};

/// What its one model calls its output.
const OUTPUT: &str = "output";

/// An app that serves one echoing model of small rows, as it would serve any.
pub(crate) fn app() -> Arc<App> {
    serving(SMALL, None)
}

/// An app that serves one echoing model of tensors like `shape`, and keeps its answers in so many bytes.
pub(crate) fn serving(shape: Shape, cache_bytes: Option<NonZeroU64>) -> Arc<App> {
    let repository = repository(shape).expect("a temporary directory can be written");
    let mut config = Config::load(Flags::default()).expect("the defaults are accepted");
    config.repository.paths = vec![repository.path().to_owned()];
    config.repository.cache_bytes = cache_bytes;
    let log = LogSettings::new(&config.log, None);
    let app = Arc::new(
        App::new(&config, log, Arc::new(Echo(shape)), |_| false).expect("no model comes from elsewhere"),
    );
    let problems = app.load();
    assert!(problems.is_empty(), "{problems:?}");
    app
}

/// The model is its configuration: there is no file to be read.
fn repository(shape: Shape) -> std::io::Result<TempDir> {
    let repository = tempfile::tempdir()?;
    let model = repository.path().join(MODEL);
    std::fs::create_dir_all(model.join("1"))?;
    let dims = &shape.dims[1..];
    let config = format!(
        "max_batch_size: 32\ninstance_group {{ count: 1 }}\nresponse_cache {{ enable: true }}\n\
         input {{ name: \"{INPUT}\" data_type: TYPE_FP32 dims: {dims:?} }}\n\
         output {{ name: \"{OUTPUT}\" data_type: TYPE_FP32 dims: {dims:?} }}\n"
    );
    std::fs::write(model.join("config.pbtxt"), config)?;
    Ok(repository)
}

#[derive(Debug)]
struct Echo(Shape);

impl Backend for Echo {
    fn load(&self, _: &ModelSource<'_>) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let tensor = |name: &str| TensorSignature {
            name: name.into(),
            datatype: DataType::Fp32,
            dims: Dims::new(&self.0.dims[1..]).with_outer(-1),
        };
        Ok(Arc::new(EchoModel(Signature { inputs: vec![tensor(INPUT)], outputs: vec![tensor(OUTPUT)] })))
    }
}

struct EchoModel(Signature);

impl LoadedModel for EchoModel {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(EchoInstance))
    }
}

struct EchoInstance;

impl Instance for EchoInstance {
    fn execute(&mut self, inputs: &[InstanceInput], outputs: &[usize]) -> Result<Execution, ExecuteError> {
        let inputs_ready = Instant::now();
        let echo = |_: &usize| InstanceOutput {
            shape: inputs[0].tensor.shape.clone(),
            data: inputs[0].tensor.data.clone(),
        };
        let outputs = outputs.iter().map(echo).collect();
        Ok(Execution { outputs, inputs_ready, inferred: Instant::now() })
    }
}
