//! A request for one inference, as a client writes it.

use serde::{Deserialize, Serialize};

use crate::Tensor;

/// A request for one inference. HTTP and gRPC send the same one.
#[derive(Clone, Debug, Default)]
pub struct InferRequest {
    /// The model asked.
    pub model: String,
    /// The version asked; the server chooses when it is `None`.
    pub version: Option<String>,
    /// An id that the answer repeats.
    pub id: Option<String>,
    /// Request parameters, such as `priority` or `sequence_id`.
    pub parameters: Vec<(String, Parameter)>,
    /// The input tensors.
    pub inputs: Vec<InferInput>,
    /// The outputs wanted; all of them when empty.
    pub outputs: Vec<RequestedOutput>,
    /// How outputs travel when `outputs` is empty. Means nothing over gRPC, which is always binary.
    pub output_encoding: Encoding,
}

/// How a tensor travels over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Packed after the JSON: small and fast. A protocol extension that Volley, Triton, MLServer and KServe have.
    #[default]
    Binary,
    /// As JSON numbers and strings, which every V2 server reads.
    Json,
}

/// An input tensor with the way it travels.
#[derive(Clone, Debug)]
pub struct InferInput {
    /// The tensor.
    pub tensor: Tensor,
    /// The way it travels over HTTP.
    pub encoding: Encoding,
}

/// An output that the answer shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedOutput {
    /// Its name in the model.
    pub name: String,
    /// The way it travels over HTTP.
    pub encoding: Encoding,
    /// When set, the answer holds the `n` highest values as `value:index[:label]` strings.
    pub classification: Option<u32>,
}

/// The value of a request or response parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parameter {
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer above the range of a signed 64-bit number.
    Uint(u64),
    /// A number with a fraction.
    Double(f64),
    /// Text.
    String(String),
}

impl InferRequest {
    /// A request to `model`, without inputs yet.
    pub fn new(model: impl Into<String>) -> InferRequest {
        InferRequest { model: model.into(), ..InferRequest::default() }
    }

    /// Asks for this version.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> InferRequest {
        self.version = Some(version.into());
        self
    }

    /// Gives the request an id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> InferRequest {
        self.id = Some(id.into());
        self
    }

    /// Adds a parameter.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<Parameter>) -> InferRequest {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// Adds an input, to travel as binary.
    #[must_use]
    pub fn input(mut self, tensor: Tensor) -> InferRequest {
        self.inputs.push(InferInput { tensor, encoding: Encoding::Binary });
        self
    }

    /// Adds an input, to travel as JSON.
    #[must_use]
    pub fn json_input(mut self, tensor: Tensor) -> InferRequest {
        self.inputs.push(InferInput { tensor, encoding: Encoding::Json });
        self
    }

    /// Asks for an output.
    #[must_use]
    pub fn output(mut self, output: RequestedOutput) -> InferRequest {
        self.outputs.push(output);
        self
    }

    /// Asks for every output as JSON.
    #[must_use]
    pub fn json_outputs(mut self) -> InferRequest {
        self.output_encoding = Encoding::Json;
        self
    }
}

impl RequestedOutput {
    /// The whole output, as binary.
    pub fn new(name: impl Into<String>) -> RequestedOutput {
        RequestedOutput { name: name.into(), encoding: Encoding::Binary, classification: None }
    }

    /// The output as JSON.
    #[must_use]
    pub fn json(mut self) -> RequestedOutput {
        self.encoding = Encoding::Json;
        self
    }

    /// The `count` highest values instead of the whole output.
    #[must_use]
    pub fn classes(mut self, count: u32) -> RequestedOutput {
        self.classification = Some(count);
        self
    }
}

macro_rules! parameters_from {
    ($($rust:ty => $variant:ident),*) => {$(
        impl From<$rust> for Parameter {
            fn from(value: $rust) -> Parameter {
                Parameter::$variant(value.into())
            }
        }
    )*};
}

parameters_from! { bool => Bool, i32 => Int, i64 => Int, u64 => Uint, f64 => Double, &str => String, String => String }
