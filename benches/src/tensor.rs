//! The tensors of the benches, the same on every machine: a small row and a picture.

use std::fmt::{Display, Write as _};

use bytes::Bytes;
use model::{DataType, Dims, Tensor};
use proto::v2::model_infer_request::InferInputTensor;
use proto::v2::{InferTensorContents, ModelInferRequest};

/// The model and the input that every request names.
pub(crate) const MODEL: &str = "mlp";
pub(crate) const INPUT: &str = "input";

/// A shape of FP32, and how the paths call it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) dims: &'static [i64],
    /// See [`crate::HotPath::rounds`].
    pub(crate) rounds: u32,
}

/// One row for a small model.
pub(crate) const SMALL: Shape = Shape { name: "1x64", dims: &[1, 64], rounds: 100 };
/// One picture, as vision models take it.
pub(crate) const PICTURE: Shape = Shape { name: "3x224x224", dims: &[3, 224, 224], rounds: 5 };

impl Shape {
    /// The elements: numbers of as many digits as measured features have.
    pub(crate) fn values(self) -> Vec<f32> {
        let count = u32::try_from(self.dims.iter().product::<i64>()).expect("shapes here are small");
        (0..count).map(feature).collect()
    }

    /// The elements, packed.
    pub(crate) fn packed(self) -> Bytes {
        self.values().iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// The tensor called `name`.
    pub(crate) fn tensor(self, name: &str) -> Tensor {
        Tensor {
            name: name.into(),
            datatype: DataType::Fp32,
            shape: Dims::new(self.dims),
            data: self.packed(),
        }
    }

    /// The body of a request over HTTP, all JSON, its numbers as short as can be.
    pub(crate) fn json_body(self) -> Bytes {
        self.json(self.values())
    }

    /// The same with numbers as Python writes an FP32: as the FP64 it becomes, with up to 19 digits.
    pub(crate) fn long_json_body(self) -> Bytes {
        self.json(self.values().into_iter().map(f64::from))
    }

    fn json(self, values: impl IntoIterator<Item = impl Display>) -> Bytes {
        let mut data = String::new();
        for (index, value) in values.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(data, "{comma}{value}").expect("a String takes all");
        }
        self.described(&format!("\"data\":[{data}]")).into()
    }

    /// The body of a request over HTTP with its tensor after the JSON, and the length of the JSON.
    pub(crate) fn binary_body(self) -> (Bytes, usize) {
        let packed = self.packed();
        let json = self.described(&format!("\"parameters\":{{\"binary_data_size\":{}}}", packed.len()));
        let length = json.len();
        ([json.as_bytes(), &packed].concat().into(), length)
    }

    /// A request over gRPC with raw contents.
    pub(crate) fn raw_message(self) -> ModelInferRequest {
        ModelInferRequest { raw_input_contents: vec![self.packed()], ..self.message(None) }
    }

    /// A request over gRPC with typed contents.
    pub(crate) fn typed_message(self) -> ModelInferRequest {
        self.message(Some(InferTensorContents { fp32_contents: self.values(), ..Default::default() }))
    }

    fn described(self, data: &str) -> String {
        format!(
            "{{\"inputs\":[{{\"name\":\"{INPUT}\",\"shape\":{},\"datatype\":\"FP32\",{data}}}]}}",
            Dims::new(self.dims)
        )
    }

    fn message(self, contents: Option<InferTensorContents>) -> ModelInferRequest {
        let input = InferInputTensor {
            name: INPUT.to_owned(),
            datatype: DataType::Fp32.name().to_owned(),
            shape: self.dims.to_vec(),
            contents,
            ..Default::default()
        };
        ModelInferRequest { model_name: MODEL.to_owned(), inputs: vec![input], ..Default::default() }
    }
}

/// Between -1 and 1, with six decimals.
#[expect(clippy::cast_possible_truncation, reason = "rounded to what FP32 holds")]
fn feature(index: u32) -> f32 {
    let number = f64::from(index.wrapping_mul(2_654_435_769) >> 8) / f64::from(1 << 23) - 1.0;
    ((number * 1e6).round() / 1e6) as f32
}
