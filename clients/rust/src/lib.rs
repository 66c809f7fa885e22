//! A client of any V2 inference server (Volley, Triton, MLServer, KServe), over HTTP and gRPC.
//!
//! It treats the server as a black box: it knows the wire contract and nothing else.
//!
//! ```no_run
//! # async fn classify() -> Result<(), volley_client::ClientError> {
//! use volley_client::{HttpClient, InferRequest, Tensor};
//!
//! let client = HttpClient::new("http://localhost:8000")?;
//! let image = Tensor::from_slice("image", &[1, 64], &[0.0_f32; 64])?;
//! let response = client.infer(&InferRequest::new("digits").input(image)).await?;
//! println!("{:?}", response.output("probabilities")?.as_f32()?);
//! # Ok(())
//! # }
//! ```
//!
//! What is sent many times is encoded once: see [`PreparedRequest`] and [`PreparedRpc`].
#![forbid(unsafe_code)]

mod address;
mod datatype;
mod error;
mod grpc;
mod http;
#[cfg(feature = "files")]
pub mod input;
mod metadata;
mod request;
mod request_json;
mod response;
mod statistics;
mod tensor;

pub use datatype::{DataType, Element};
pub use error::ClientError;
pub use grpc::{EncodedReply, GrpcClient, GrpcOptions, PreparedRpc, ResponseStream};
pub use http::{
    EncodedResponse, EventStream, HttpClient, HttpOptions, LoadParameters, PreparedRequest, RepositoryEvent,
    Told, refusal,
};
pub use metadata::{ModelMetadata, ModelState, ServerMetadata, TensorMetadata};
pub use request::{Encoding, InferInput, InferRequest, Parameter, RequestedOutput};
pub use response::InferResponse;
pub use statistics::{BatchStatistics, InferStatistics, ModelStatistics, StatisticDuration};
pub use tensor::{Tensor, TensorError, Value};
