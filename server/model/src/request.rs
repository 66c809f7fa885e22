//! What a client asks of a model, and what it gets.

use std::time::Instant;

use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::{ModelName, ModelVersion, Parameters, Tensor};

/// A request for one inference, whatever protocol it came by.
#[derive(Clone, Debug)]
pub struct InferRequest {
    /// The client's own id; empty when it gave none.
    pub id: SmolStr,
    /// The model asked for.
    pub model: ModelName,
    /// The version asked for; `None` leaves the choice to the traffic table.
    pub version: Option<ModelVersion>,
    /// Request parameters, without those that only concern the wire.
    pub parameters: Parameters,
    /// The input tensors, in the client's order.
    pub inputs: SmallVec<[Tensor; 2]>,
    /// The outputs asked for, in the order they are to be returned; empty means all.
    pub outputs: SmallVec<[RequestedOutput; 2]>,
    /// When the client stops waiting for the answer, where the protocol says so.
    pub deadline: Option<Instant>,
}

/// An output a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedOutput {
    /// Its name in the model.
    pub name: SmolStr,
    /// When set, the `n` highest values are returned as `value:index[:label]` instead of the tensor
    /// (the classification extension).
    pub classification: Option<u32>,
}

/// The answer to an [`InferRequest`].
#[derive(Clone, Debug)]
pub struct InferResponse {
    /// The request's id.
    pub id: SmolStr,
    /// The model that answered.
    pub model: ModelName,
    /// The version that answered.
    pub version: ModelVersion,
    /// Response parameters.
    pub parameters: Parameters,
    /// The outputs, in the order they were asked for, or the model's own.
    pub outputs: SmallVec<[Tensor; 2]>,
}
