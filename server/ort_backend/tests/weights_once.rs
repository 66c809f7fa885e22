//! The weights of a version are in memory once, however many instances it has (docs/decisions/0001-weights-once.md).

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use inference::backend::{Backend, Instance, InstanceInput, LoadedModel, ModelSource};
use model::{DataType, Dims, ModelName, ModelVersion, Tensor};
use ort_backend::OrtBackend;
use prost::encoding::{WireType, encode_key, encode_varint};

/// Rows and columns of the weights: 49 MB of FP32.
const SIZE: u16 = 3500;
const COPY: u64 = 4 * SIZE as u64 * SIZE as u64;

#[test]
fn eight_instances_take_no_more_weights_than_one() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("1")).unwrap();
    fs::write(directory.path().join("1/model.onnx"), product_with_weights()).unwrap();
    let backend = OrtBackend::load().unwrap();

    let before = resident();
    let one = loaded(&backend, directory.path(), 1);
    let with_one = resident();
    let eight = loaded(&backend, directory.path(), 8);
    let with_both = resident();
    drop((one, eight));

    let (one, eight) = (with_one - before, with_both - with_one);
    println!("one copy is {COPY} bytes; 1 instance took {one}, 8 instances {eight}");
    assert!(one > COPY / 2, "the weights of one instance are in memory: {one} bytes");
    assert!(eight < one + COPY, "1 instance takes {one} bytes and 8 take {eight}, with weights of {COPY}");
}

/// The model and its instances, each of which has run.
fn loaded(
    backend: &OrtBackend,
    directory: &Path,
    instances: usize,
) -> (Arc<dyn LoadedModel>, Vec<Box<dyn Instance>>) {
    let name = ModelName::parse("weights").unwrap();
    let one_thread = r#"parameters { key: "intra_op_thread_count" value { string_value: "1" } }"#;
    let mut config = proto::config_text::parse(one_thread, "config.pbtxt").unwrap();
    inference::config::normalise(&mut config, &name, instances).unwrap();
    let model = backend
        .load(&ModelSource {
            name: &name,
            version: ModelVersion::new(1).unwrap(),
            version_directory: directory.join("1"),
            model_directory: directory.to_owned(),
            config: &config,
            instances,
            threads_per_instance: 1,
        })
        .unwrap();
    let run = |_| {
        let mut instance = model.instance().unwrap();
        let ones: Vec<u8> = (0..SIZE).flat_map(|_| 1_f32.to_le_bytes()).collect();
        let shape = Dims::new(&[1, i64::from(SIZE)]);
        let tensor = Tensor { name: "x".into(), datatype: DataType::Fp32, shape, data: ones.into() };
        let outputs = instance.execute(&[InstanceInput { index: 0, tensor }], &[0]).unwrap().outputs;
        assert_eq!(&outputs[0].data[..4], f32::from(SIZE).to_le_bytes());
        instance
    };
    let instances = (0..instances).map(run).collect();
    (model, instances)
}

/// Bytes of memory that this process holds now.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// An ONNX file: `y` (FP32 `[1, SIZE]`) is `x` (the same) times a square of ones. Fields as in `onnx.proto`.
fn product_with_weights() -> Vec<u8> {
    const FLOAT: u64 = 1;
    let size = u64::from(SIZE);
    let ones: Vec<u8> = (0..COPY / 4).flat_map(|_| 1_f32.to_le_bytes()).collect();
    let weights = [number(1, size), number(1, size), number(2, FLOAT), bytes(8, b"w"), bytes(9, &ones)];
    let node = [bytes(1, b"x"), bytes(1, b"w"), bytes(2, b"y"), bytes(4, b"MatMul")];
    let tensor = |name: &[u8]| {
        let shape = [bytes(1, &number(1, 1)), bytes(1, &number(1, size))].concat();
        let tensor = [number(1, FLOAT), bytes(2, &shape)].concat();
        [bytes(1, name), bytes(2, &bytes(1, &tensor))].concat()
    };
    let graph = [
        bytes(1, &node.concat()),
        bytes(2, b"weights"),
        bytes(5, &weights.concat()),
        bytes(11, &tensor(b"x")),
        bytes(12, &tensor(b"y")),
    ];
    [number(1, 8), bytes(8, &number(2, 13)), bytes(7, &graph.concat())].concat()
}

fn bytes(field: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(field, WireType::LengthDelimited, &mut out);
    encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

fn number(field: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(field, WireType::Varint, &mut out);
    encode_varint(value, &mut out);
    out
}
