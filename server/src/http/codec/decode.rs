//! The body of an inference request, as values.

use bytes::Bytes;
use model::{InferError, Parameter, Parameters, Tensor};
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::input::{BinaryData, read_input};
use super::output::{OutputSpec, read_output};
use super::parameters;
use super::reader::Reader;
use crate::request_rules::{check_tensor_count, refuse_duplicates};

/// What a body asks for.
#[derive(Clone, Debug)]
pub struct InferBody {
    /// The client's own id; empty when it gave none.
    pub id: SmolStr,
    /// Request parameters, without `binary_data_output`.
    pub parameters: Parameters,
    /// The input tensors; no name occurs twice.
    pub inputs: SmallVec<[Tensor; 2]>,
    /// The outputs asked for; no name occurs twice. Empty means all.
    pub outputs: SmallVec<[OutputSpec; 2]>,
    /// Whether outputs that do not say otherwise come back as binary data.
    pub binary_data_output: bool,
}

/// How much a body may make the server hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes that the JSON data of one tensor may become (`--http-max-input-size`).
    pub max_tensor_bytes: usize,
}

/// Decodes the body of an inference request. `header_length` is the value of
/// `Inference-Header-Content-Length`: the length of the JSON, which binary tensors follow; without it the
/// whole body is JSON. (Its value 0 means a body without JSON, which is not for this function.)
///
/// # Errors
/// When the body is not what the protocol says; the error names the tensor and the values.
pub fn decode(body: &Bytes, header_length: Option<usize>, limits: &Limits) -> Result<InferBody, InferError> {
    let json_length = header_length.unwrap_or(body.len());
    let Some(json) = body.get(..json_length) else {
        return Err(InferError::invalid(format!(
            "Inference-Header-Content-Length is {json_length}, but the body has {} bytes",
            body.len()
        )));
    };
    let mut request = Request::default();
    let mut binary = BinaryData::new(body, json_length);
    let mut reader = Reader::new(text(json, header_length)?);
    reader.begin_object()?;
    while let Some(key) = reader.next_key()? {
        let known = match &*key {
            "id" | "parameters" | "outputs" if reader.null()? => false,
            "id" => request.id.replace(SmolStr::new(reader.string()?)).is_some(),
            "parameters" => request.parameters.replace(parameters::read(&mut reader)?).is_some(),
            "inputs" => request.inputs.replace(read_inputs(&mut reader, &mut binary, limits)?).is_some(),
            "outputs" => request.outputs.replace(read_outputs(&mut reader)?).is_some(),
            _ => {
                reader.skip_value()?;
                false
            }
        };
        if known {
            return Err(InferError::invalid(format!("the request has the key '{key}' twice")));
        }
    }
    reader.end()?;
    binary.end()?;
    request.into_body()
}

/// `json` as text. To look at all of it once takes less time than at each of its strings.
fn text(json: &[u8], header_length: Option<usize>) -> Result<&str, InferError> {
    std::str::from_utf8(json).map_err(|error| {
        let hint = match header_length {
            None => " (binary data after the JSON needs Inference-Header-Content-Length)",
            Some(_) => "",
        };
        InferError::MalformedJson {
            reason: format!("the text is not valid UTF-8{hint}"),
            offset: error.valid_up_to(),
        }
    })
}

/// What is known of a request while its object is read. Keys come in any order.
#[derive(Debug, Default)]
struct Request {
    id: Option<SmolStr>,
    parameters: Option<Parameters>,
    inputs: Option<SmallVec<[Tensor; 2]>>,
    outputs: Option<SmallVec<[OutputSpec; 2]>>,
}

impl Request {
    fn into_body(self) -> Result<InferBody, InferError> {
        let inputs = self.inputs.ok_or_else(|| InferError::invalid("the request has no 'inputs'"))?;
        let outputs = self.outputs.unwrap_or_default();
        refuse_duplicates("input", inputs.iter().map(|input| &*input.name))?;
        refuse_duplicates("output", outputs.iter().map(|output| &*output.output.name))?;
        let mut parameters = self.parameters.unwrap_or_default();
        let binary_data_output = parameters.remove("binary_data_output") == Some(Parameter::Bool(true));
        Ok(InferBody { id: self.id.unwrap_or_default(), parameters, inputs, outputs, binary_data_output })
    }
}

fn read_inputs(
    reader: &mut Reader,
    binary: &mut BinaryData,
    limits: &Limits,
) -> Result<SmallVec<[Tensor; 2]>, InferError> {
    let mut inputs = SmallVec::new();
    reader.begin_array()?;
    while reader.next_element()? {
        check_tensor_count("inputs", inputs.len() + 1)?;
        inputs.push(read_input(reader, inputs.len(), binary, limits)?);
    }
    Ok(inputs)
}

fn read_outputs(reader: &mut Reader) -> Result<SmallVec<[OutputSpec; 2]>, InferError> {
    let mut outputs = SmallVec::new();
    reader.begin_array()?;
    while reader.next_element()? {
        check_tensor_count("outputs", outputs.len() + 1)?;
        outputs.push(read_output(reader, outputs.len())?);
    }
    Ok(outputs)
}
