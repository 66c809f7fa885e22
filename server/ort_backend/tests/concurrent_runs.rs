//! Instances of a version run its one session at the same time: their answers must be those of a thread alone.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use inference::backend::{Backend, Instance, InstanceInput, LoadedModel, ModelSource};
use model::{DataType, Dims, ModelName, ModelVersion, Tensor};
use ort_backend::OrtBackend;

const THREADS: usize = 4;
const RUNS: usize = 5_000;

fn load(backend: &OrtBackend, name: &str, version: u64) -> Arc<dyn LoadedModel> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model_repository").join(name);
    let file = directory.join("config.pbtxt");
    let mut config =
        proto::config_text::parse(&std::fs::read_to_string(file).unwrap(), "config.pbtxt").unwrap();
    let name = ModelName::parse(name).unwrap();
    inference::config::normalise(&mut config, &name, THREADS).unwrap();
    let source = ModelSource {
        name: &name,
        version: ModelVersion::new(version).unwrap(),
        version_directory: directory.join(version.to_string()),
        model_directory: PathBuf::from(&directory),
        config: &config,
        instances: THREADS,
        threads_per_instance: 1,
    };
    backend.load(&source).unwrap()
}

/// Pixels that differ from one seed to the next (a linear congruential generator).
fn image(seed: usize, rows: usize) -> InstanceInput {
    let mut state = seed as u64;
    let pixels = (0..rows * 64).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f32::from(u8::try_from(state >> 60).unwrap())
    });
    let data: Vec<u8> = pixels.flat_map(f32::to_le_bytes).collect();
    let shape = Dims::new(&[i64::try_from(rows).unwrap(), 8, 8]);
    let tensor = Tensor { name: "image".into(), datatype: DataType::Fp32, shape, data: data.into() };
    InstanceInput { index: 0, tensor }
}

fn run(instance: &mut dyn Instance, seed: usize) -> Bytes {
    let rows = 1 + seed % 7; // sizes change from run to run, so that memory patterns do, too
    instance.execute(&[image(seed, rows)], &[0]).unwrap().outputs.remove(0).data
}

#[test]
fn answers_under_contention_are_those_of_a_thread_alone() {
    let backend = OrtBackend::load().unwrap();
    for version in [1, 2] {
        let model = load(&backend, "digits", version);
        let mut alone = model.instance().unwrap();
        let expected: Arc<Vec<Bytes>> = Arc::new((0..251).map(|seed| run(alone.as_mut(), seed)).collect());
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (expected, mut instance) = (Arc::clone(&expected), model.instance().unwrap());
                thread::spawn(move || {
                    for round in 0..RUNS {
                        let seed = (round * (thread + 1)) % expected.len();
                        assert_eq!(
                            run(instance.as_mut(), seed),
                            expected[seed],
                            "thread {thread}, round {round}"
                        );
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
    outputs_outlive_their_model(&backend);
}

/// An answer may still be on its way to a slow client when its version is unloaded.
fn outputs_outlive_their_model(backend: &OrtBackend) {
    let model = load(backend, "digits", 2);
    let mut instance = model.instance().unwrap();
    let output = run(instance.as_mut(), 6);
    let copy = output.to_vec();
    drop((instance, model));
    assert_eq!(output, copy);
}
