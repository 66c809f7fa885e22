//! The answer to an inference request, as the body of a response.

use bytes::Bytes;
use model::{DataType, InferError, InferResponse, Parameter, Parameters, Tensor};
use smallvec::SmallVec;

use super::write_data::{Unwritable, usual_length, write_data, write_float, write_string};

/// A response body.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The length of the JSON, for `Inference-Header-Content-Length`, when binary tensors follow it.
    pub json_length: Option<usize>,
    /// The JSON and the small binary tensors that are next to it, then each other one.
    pub chunks: SmallVec<[Bytes; 3]>,
}

/// To copy so many bytes costs less than to send them as a piece of their own.
const COPIED: usize = 1 << 10;

/// Encodes `response`; `binary` says by its index whether an output is sent as binary data.
///
/// # Errors
/// When an output of BYTES that is to be JSON is no text.
pub fn encode(response: &InferResponse, binary: impl Fn(usize) -> bool) -> Result<Encoded, InferError> {
    let binary: SmallVec<[bool; 8]> = (0..response.outputs.len()).map(binary).collect();
    let mut json = Vec::with_capacity(usual_json_length(response, &binary));
    write_head(&mut json, response);
    json.extend_from_slice(b"\"outputs\":[");
    for (index, output) in response.outputs.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_description(&mut json, output);
        if binary[index] {
            json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            write_integer(&mut json, output.data.len());
            json.extend_from_slice(b"}}");
        } else {
            json.extend_from_slice(b",\"data\":");
            write_data(&mut json, output.datatype, &output.data)
                .map_err(|fault| unwritable(response, output, &fault))?;
            json.push(b'}');
        }
    }
    json.extend_from_slice(b"]}");
    let json_length = binary.contains(&true).then_some(json.len());
    let tensors = response.outputs.iter().zip(&binary).filter(|(_, binary)| **binary);
    let mut tensors = tensors.map(|(output, _)| &output.data).peekable();
    while let Some(data) = tensors.next_if(|data| data.len() <= COPIED) {
        json.extend_from_slice(data);
    }
    let chunks = std::iter::once(Bytes::from(json)).chain(tensors.cloned());
    Ok(Encoded { json_length, chunks: chunks.collect() })
}

fn usual_json_length(response: &InferResponse, binary: &[bool]) -> usize {
    /// The keys of the response and of an output, with values of usual lengths.
    const HEAD: usize = 128;
    const DESCRIPTION: usize = 96;
    let outputs = response.outputs.iter().zip(binary).map(|(output, binary)| {
        let data = match binary {
            true if output.data.len() <= COPIED => output.data.len(),
            true => 0,
            false => usual_length(output.datatype, &output.data),
        };
        DESCRIPTION + output.name.len() + data
    });
    HEAD + response.id.len() + response.model.as_str().len() + outputs.sum::<usize>()
}

/// Everything before the outputs.
fn write_head(json: &mut Vec<u8>, response: &InferResponse) {
    json.push(b'{');
    if !response.id.is_empty() {
        json.extend_from_slice(b"\"id\":");
        write_string(json, &response.id);
        json.push(b',');
    }
    json.extend_from_slice(b"\"model_name\":");
    write_string(json, response.model.as_str());
    json.extend_from_slice(b",\"model_version\":\"");
    write_integer(json, response.version.get());
    json.extend_from_slice(b"\",");
    if !response.parameters.is_empty() {
        write_parameters(json, &response.parameters);
    }
}

fn write_parameters(json: &mut Vec<u8>, parameters: &Parameters) {
    json.extend_from_slice(b"\"parameters\":{");
    for (index, (name, value)) in parameters.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_string(json, name);
        json.push(b':');
        match value {
            Parameter::Bool(value) => json.extend_from_slice(if *value { b"true" } else { b"false" }),
            Parameter::Int(value) => write_integer(json, *value),
            Parameter::Uint(value) => write_integer(json, *value),
            Parameter::Double(value) => write_float(json, *value),
            Parameter::String(value) => write_string(json, value),
        }
    }
    json.extend_from_slice(b"},");
}

/// The name, type and shape of an output; the object stays open.
fn write_description(json: &mut Vec<u8>, output: &Tensor) {
    json.extend_from_slice(b"{\"name\":");
    write_string(json, &output.name);
    json.extend_from_slice(b",\"datatype\":\"");
    json.extend_from_slice(output.datatype.name().as_bytes());
    json.extend_from_slice(b"\",\"shape\":[");
    for (index, dim) in output.shape.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_integer(json, *dim);
    }
    json.push(b']');
}

fn write_integer(json: &mut Vec<u8>, value: impl itoa::Integer) {
    json.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cold]
fn unwritable(response: &InferResponse, output: &Tensor, fault: &Unwritable) -> InferError {
    let Tensor { name, .. } = output;
    match fault {
        Unwritable::NotUtf8 { element, error } => InferError::invalid(format!(
            "element {element} of output '{name}' cannot be written as JSON, for it is not text: {error}; ask \
             for this output with the parameter \"binary_data\": true"
        )),
        Unwritable::Packing(error) => InferError::Execution {
            model: response.model.clone(),
            version: response.version,
            reason: format!("the {} data of output '{name}' is cut: {error}", DataType::Bytes),
        },
    }
}
