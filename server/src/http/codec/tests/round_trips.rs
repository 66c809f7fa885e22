//! What is encoded decodes to the same, for every data type, as JSON and as binary data.

use model::{Dims, bytes_tensor};
use proptest::prelude::*;

use super::*;

/// Decodes what `encode` made, as if the outputs were inputs.
fn back(encoded: &Encoded) -> InferBody {
    let all = encoded.chunks.concat();
    let (json, binary) = all.split_at(encoded.json_length.unwrap_or(all.len()));
    let request = std::str::from_utf8(json).unwrap().replacen("\"outputs\":", "\"inputs\":", 1);
    let header_length = encoded.json_length.map(|_| request.len());
    let body = [request.as_bytes(), binary].concat();
    decode(&Bytes::from(body), header_length, &LIMITS).unwrap()
}

/// `data` with each NaN as the one that JSON's "NaN" stands for.
fn with_one_nan(datatype: DataType, data: &[u8]) -> Vec<u8> {
    fn map<const SIZE: usize>(data: &[u8], one: impl Fn([u8; SIZE]) -> [u8; SIZE]) -> Vec<u8> {
        data.as_chunks::<SIZE>().0.iter().flat_map(|bytes| one(*bytes)).collect()
    }
    macro_rules! with_nan {
        ($float:ty) => {
            map(data, |bytes| {
                let value = <$float>::from_le_bytes(bytes);
                if value.is_nan() { <$float>::NAN.to_le_bytes() } else { bytes }
            })
        };
    }
    match datatype {
        DataType::Fp16 => with_nan!(half::f16),
        DataType::Bf16 => with_nan!(half::bf16),
        DataType::Fp32 => with_nan!(f32),
        DataType::Fp64 => with_nan!(f64),
        _ => data.to_vec(),
    }
}

fn any_tensor(datatype: DataType) -> BoxedStrategy<Tensor> {
    let tensor = move |elements: usize, data: Vec<u8>| Tensor {
        name: "tensor \"é\"".into(),
        datatype,
        shape: Dims::new(&[1, i64::try_from(elements).unwrap()]),
        data: data.into(),
    };
    match datatype.element_size() {
        Some(size) => prop::collection::vec(prop::collection::vec(any::<u8>(), size), 0..40)
            .prop_map(move |elements| {
                let mut data = elements.concat();
                if datatype == DataType::Bool {
                    data.iter_mut().for_each(|byte| *byte &= 1);
                }
                tensor(elements.len(), data)
            })
            .boxed(),
        None => prop::collection::vec(any::<String>(), 0..10)
            .prop_map(move |strings| {
                let mut data = Vec::new();
                strings.iter().for_each(|string| bytes_tensor::push(&mut data, string.as_bytes()));
                tensor(strings.len(), data)
            })
            .boxed(),
    }
}

proptest! {
    #[test]
    fn tensors_come_back_from_either_form(
        tensors in DataType::ALL.map(any_tensor),
        binary: u16,
    ) {
        let mut tensors: Vec<Tensor> = tensors.into();
        for tensor in &mut tensors {
            tensor.name = format!("{} {}", tensor.name, tensor.datatype).into();
        }
        let binary = |index: usize| binary >> index & 1 == 1;
        let encoded = encode(&response(tensors.clone()), binary).unwrap();
        let inputs = back(&encoded).inputs;
        prop_assert_eq!(inputs.len(), tensors.len());
        for (index, (input, tensor)) in inputs.iter().zip(&tensors).enumerate() {
            let mut expected = tensor.clone();
            if !binary(index) {
                expected.data = with_one_nan(tensor.datatype, &tensor.data).into();
            }
            prop_assert_eq!(input, &expected);
        }
    }

    #[test]
    fn what_is_written_is_json(tensors in DataType::ALL.map(any_tensor)) {
        let json = encode_json(&response(tensors)).unwrap();
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
    }
}

/// Every 16-bit number, through its text and back.
fn check_every_number(datatype: DataType) {
    let data: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let expected = with_one_nan(datatype, &data);
    let tensor = Tensor { name: "x".into(), datatype, shape: Dims::new(&[256, 256]), data: data.into() };
    let encoded = encode(&response([tensor]), |_| false).unwrap();
    assert!(back(&encoded).inputs[0].data == expected, "{datatype}");
}

#[test]
fn every_fp16_and_bf16_comes_back_from_its_text() {
    check_every_number(DataType::Fp16);
    check_every_number(DataType::Bf16);
}
