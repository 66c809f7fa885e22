//! A run can be ended from another thread, and the instance used again.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use inference::backend::{Backend, InstanceInput, ModelSource};
use model::{DataType, Dims, ModelName, ModelVersion, Tensor};
use ort_backend::OrtBackend;

#[test]
fn a_terminated_instance_runs_nothing_until_it_is_reset() {
    let backend = OrtBackend::load().unwrap();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model_repository/identity");
    let name = ModelName::parse("identity").unwrap();
    let mut config = proto::ModelConfig::default();
    inference::config::normalise(&mut config, &name, 1).unwrap();
    let source = ModelSource {
        name: &name,
        version: ModelVersion::new(1).unwrap(),
        version_directory: directory.join("1"),
        model_directory: PathBuf::from(&directory),
        config: &config,
        instances: 1,
        threads_per_instance: 1,
    };
    let mut instance = backend.load(&source).unwrap().instance().unwrap();
    let data = 1_f32.to_le_bytes().to_vec().into();
    let tensor = Tensor { name: "INPUT0".into(), datatype: DataType::Fp32, shape: Dims::new(&[1, 1]), data };
    let inputs = [InstanceInput { index: 0, tensor }];
    let terminator = instance.terminator().unwrap();
    terminator.terminate();
    let error = instance.execute(&inputs, &[0]).unwrap_err();
    assert!(error.0.contains("terminate"), "{error}");
    terminator.reset();
    assert_eq!(instance.execute(&inputs, &[0]).unwrap().outputs[0].data, inputs[0].tensor.data);
}
