//! The nouns a request is made of, as plain values.
//!
//! Invariants:
//! - values only: no I/O, no clock, no thread;
//! - nothing here is serializable: wire formats live in `server/src/http` and `server/src/grpc`;
//! - every type is a word of the field (Triton, KServe), never a helper.
#![forbid(unsafe_code)]

pub mod bytes_tensor;
mod datatype;
mod error;
mod name;
mod parameter;
mod request;
mod shape;
mod tensor;

pub use datatype::DataType;
pub use error::{Code, InferError};
pub use name::{InvalidModelName, InvalidModelVersion, ModelName, ModelVersion};
pub use parameter::{Parameter, Parameters};
pub use request::{InferRequest, InferResponse, RequestedOutput};
pub use shape::{Dims, InvalidShape, element_count};
pub use tensor::Tensor;
