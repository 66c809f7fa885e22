//! What a server says of itself and of its models.

use serde::{Deserialize, Serialize};

/// The answer to `GET /v2`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerMetadata {
    /// The server's name, such as `"volley"` or `"triton"`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The protocol extensions it has.
    pub extensions: Vec<String>,
}

/// The answer to `GET /v2/models/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelMetadata {
    /// The model's name.
    pub name: String,
    /// The versions that can be asked for.
    pub versions: Vec<String>,
    /// What runs it, such as `"onnxruntime_onnx"`.
    pub platform: String,
    /// The inputs it takes.
    pub inputs: Vec<TensorMetadata>,
    /// The outputs it gives.
    pub outputs: Vec<TensorMetadata>,
}

/// An input or output of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// The wire name of its type: text, since a server may have types this client does not know.
    pub datatype: String,
    /// Its dimensions, -1 for any size.
    pub shape: Vec<i64>,
}

/// One line of the repository index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelState {
    /// The model's name.
    pub name: String,
    /// The version; empty for a model that was never loaded.
    pub version: String,
    /// READY, UNAVAILABLE, LOADING, UNLOADING or UNKNOWN; empty for a model that was never loaded.
    pub state: String,
    /// Why it is in that state, when there is something to say.
    pub reason: String,
}
