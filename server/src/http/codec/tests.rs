//! What the codec promises of whole bodies; the parts have their own tests beside them.

mod bodies;
mod errors;
mod grammar;
mod round_trips;

use bytes::Bytes;
use model::{DataType, InferError, InferResponse, ModelName, ModelVersion, Parameters, Tensor};

use super::*;

const LIMITS: Limits = Limits { max_tensor_bytes: 1 << 20 };

fn decode_json(json: &str) -> Result<InferBody, InferError> {
    decode(&Bytes::copy_from_slice(json.as_bytes()), None, &LIMITS)
}

/// A request with the one input 'x', which has `members` beside its name.
fn with_input(members: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x",{members}}}]}}"#)
}

/// The bytes of the one input that has `datatype`, `shape` and `data`.
fn packed(datatype: DataType, shape: &str, data: &str) -> Result<Bytes, InferError> {
    let members = format!(r#""datatype":"{datatype}","shape":{shape},"data":{data}"#);
    decode_json(&with_input(&members)).map(|body| body.inputs[0].data.clone())
}

fn response(outputs: impl IntoIterator<Item = Tensor>) -> InferResponse {
    InferResponse {
        id: "".into(),
        model: ModelName::parse("m").unwrap(),
        version: ModelVersion::new(1).unwrap(),
        parameters: Parameters::default(),
        outputs: outputs.into_iter().collect(),
    }
}

fn encode_json(response: &InferResponse) -> Result<String, InferError> {
    let encoded = encode(response, |_| false)?;
    assert_eq!((encoded.chunks.len(), encoded.json_length), (1, None));
    Ok(String::from_utf8(encoded.chunks[0].to_vec()).unwrap())
}
