//! `ModelInfer`: message to request, response to message.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use model::{DataType, Dims, InferError, InferRequest, InferResponse, ModelName};
use model::{Parameter, Parameters, RequestedOutput, Tensor};
use proto::v2::infer_parameter::ParameterChoice;
use proto::v2::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use proto::v2::model_infer_response::InferOutputTensor;
use proto::v2::{InferParameter, ModelInferRequest, ModelInferResponse};

use super::codec::INLINE;
use super::contents;
use crate::app::App;
use crate::asked::Asked;
use crate::blocking;
use crate::request_rules::{check_parameter, parse_version, refuse_duplicates};
use crate::tensor_bytes::packed_tensor;

/// Answers one message.
pub(super) async fn infer(
    app: &Arc<App>,
    message: ModelInferRequest,
    asked: Asked<'_>,
    deadline: Option<Instant>,
) -> Result<ModelInferResponse, InferError> {
    let mut request = if one_by_one(&message) > INLINE {
        blocking::run("reading the request", || decode(message)).await??
    } else {
        decode(message)?
    };
    request.deadline = deadline;
    let response = app.infer(&request, asked).await?;
    Ok(encode(response))
}

/// Bytes that are looked at one element after the other: typed contents, and the raw ones of BYTES. Many of them aside,
/// so that others are answered meanwhile.
fn one_by_one(message: &ModelInferRequest) -> usize {
    let typed = message.inputs.iter().filter_map(|input| input.contents.as_ref()).map(contents::size);
    let raw = message.inputs.iter().zip(&message.raw_input_contents);
    let strings = raw.filter(|(input, _)| input.datatype == DataType::Bytes.name()).map(|(_, raw)| raw.len());
    typed.chain(strings).sum()
}

/// Decodes `message`; raw contents are taken over, not copied.
///
/// # Errors
/// When it is not what the protocol says; the error names the tensor and the values.
pub fn decode(message: ModelInferRequest) -> Result<InferRequest, InferError> {
    let ModelInferRequest { model_name, model_version, id, parameters, inputs, outputs, raw_input_contents } =
        message;
    let model = ModelName::parse(&model_name).map_err(|_| InferError::UnknownModel { model: model_name })?;
    if let Some(input) = inputs.iter().find(|input| input.parameters.contains_key("shared_memory_region")) {
        return Err(shared_memory("input", &input.name));
    }
    let raw = !raw_input_contents.is_empty();
    if raw && raw_input_contents.len() != inputs.len() {
        return Err(InferError::invalid(format!(
            "expected {} raw_input_contents, one for each input, but got {}",
            inputs.len(),
            raw_input_contents.len()
        )));
    }
    let mut raw_contents = raw_input_contents.into_iter();
    let inputs = inputs.into_iter().map(|input| tensor(input, raw_contents.next()));
    let request = InferRequest {
        id: id.into(),
        model,
        version: parse_version(&model_version)?,
        parameters: request_parameters(parameters)?,
        inputs: inputs.collect::<Result<_, _>>()?,
        outputs: outputs.into_iter().map(requested_output).collect::<Result<_, _>>()?,
        deadline: None,
    };
    refuse_duplicates("input", request.inputs.iter().map(|input| &*input.name))?;
    refuse_duplicates("output", request.outputs.iter().map(|output| &*output.name))?;
    Ok(request)
}

fn tensor(input: InferInputTensor, raw: Option<bytes::Bytes>) -> Result<Tensor, InferError> {
    let InferInputTensor { name, datatype, shape, parameters: _, contents } = input;
    let datatype = DataType::parse(&datatype).ok_or_else(|| {
        InferError::invalid(format!(
            "input '{name}' has the datatype '{datatype}', which is not one of the protocol's"
        ))
    })?;
    let shape = Dims::from(shape);
    match (raw, contents) {
        (Some(_), Some(_)) => Err(InferError::invalid(format!(
            "contents field must not be specified when using raw_input_contents for input '{name}'"
        ))),
        (Some(raw), None) => packed_tensor(name.into(), datatype, shape, raw),
        (None, Some(typed)) => contents::tensor(name.into(), datatype, shape, &typed),
        (None, None) => contents::tensor(name.into(), datatype, shape, &Default::default()),
    }
}

fn requested_output(output: InferRequestedOutputTensor) -> Result<RequestedOutput, InferError> {
    let InferRequestedOutputTensor { name, parameters } = output;
    if parameters.contains_key("shared_memory_region") {
        return Err(shared_memory("output", &name));
    }
    let classification =
        match parameters.get("classification").and_then(|value| value.parameter_choice.as_ref()) {
            None => 0,
            Some(choice) => classes(choice).ok_or_else(|| {
                InferError::invalid(format!(
                    "output '{name}' has a 'classification' that is not the number of classes wanted"
                ))
            })?,
        };
    // 0 asks for none, as leaving it out does.
    Ok(RequestedOutput { name: name.into(), classification: Some(classification).filter(|count| *count > 0) })
}

fn classes(choice: &ParameterChoice) -> Option<u32> {
    match choice {
        ParameterChoice::Int64Param(count) => u32::try_from(*count).ok(),
        ParameterChoice::Uint64Param(count) => u32::try_from(*count).ok(),
        _ => None,
    }
}

fn shared_memory(role: &str, name: &str) -> InferError {
    InferError::unsupported(format!(
        "{role} '{name}' names a shared memory region, which is not served yet; send tensors as raw contents"
    ))
}

fn request_parameters(message: HashMap<String, InferParameter>) -> Result<Parameters, InferError> {
    Parameters::check_count(message.len())?;
    let mut parameters = Parameters::default();
    for (name, value) in message {
        let Some(choice) = value.parameter_choice else {
            return Err(InferError::invalid(format!("parameter '{name}' has no value")));
        };
        let value = match choice {
            ParameterChoice::BoolParam(value) => Parameter::Bool(value),
            ParameterChoice::Int64Param(value) => Parameter::Int(value),
            ParameterChoice::Uint64Param(value) => {
                i64::try_from(value).map_or(Parameter::Uint(value), Parameter::Int)
            }
            ParameterChoice::DoubleParam(value) => Parameter::Double(value),
            ParameterChoice::StringParam(value) => Parameter::String(value),
        };
        check_parameter(&name, &value)?;
        parameters.insert(name, value);
    }
    Ok(parameters)
}

/// Encodes `response`, every output as raw contents.
pub fn encode(response: InferResponse) -> ModelInferResponse {
    let mut raw_output_contents = Vec::with_capacity(response.outputs.len());
    let mut outputs = Vec::with_capacity(response.outputs.len());
    for Tensor { name, datatype, shape, data } in response.outputs {
        raw_output_contents.push(data);
        outputs.push(InferOutputTensor {
            name: name.to_string(),
            datatype: datatype.name().to_owned(),
            shape: shape.to_vec(),
            ..Default::default()
        });
    }
    ModelInferResponse {
        model_name: response.model.to_string(),
        model_version: response.version.to_string(),
        id: response.id.to_string(),
        parameters: response
            .parameters
            .iter()
            .map(|(name, value)| (name.to_owned(), parameter(value)))
            .collect(),
        outputs,
        raw_output_contents,
    }
}

/// A parameter as the protocol carries it.
pub(super) fn parameter(value: &Parameter) -> InferParameter {
    let choice = match value {
        Parameter::Bool(value) => ParameterChoice::BoolParam(*value),
        Parameter::Int(value) => ParameterChoice::Int64Param(*value),
        Parameter::Uint(value) => ParameterChoice::Uint64Param(*value),
        Parameter::Double(value) => ParameterChoice::DoubleParam(*value),
        Parameter::String(value) => ParameterChoice::StringParam(value.clone()),
    };
    InferParameter { parameter_choice: Some(choice) }
}
