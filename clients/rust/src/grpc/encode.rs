//! A request as a gRPC message.

use std::collections::HashMap;

use proto::v2;
use proto::v2::infer_parameter::ParameterChoice;
use proto::v2::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};

use crate::{InferRequest, Parameter, RequestedOutput, Tensor};

/// The message for `request`. Tensor bytes are shared, not copied.
pub(super) fn message(request: &InferRequest) -> v2::ModelInferRequest {
    let tensors = || request.inputs.iter().map(|input| &input.tensor);
    v2::ModelInferRequest {
        model_name: request.model.clone(),
        model_version: request.version.clone().unwrap_or_default(),
        id: request.id.clone().unwrap_or_default(),
        parameters: request.parameters.iter().map(|(name, value)| (name.clone(), parameter(value))).collect(),
        inputs: tensors().map(input).collect(),
        outputs: request.outputs.iter().map(output).collect(),
        raw_input_contents: tensors().map(|tensor| tensor.data.clone()).collect(),
    }
}

fn input(tensor: &Tensor) -> InferInputTensor {
    InferInputTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().to_owned(),
        shape: tensor.shape.clone(),
        parameters: HashMap::new(),
        contents: None,
    }
}

fn output(output: &RequestedOutput) -> InferRequestedOutputTensor {
    let classification = output.classification.map(|count| Parameter::Int(count.into()));
    let parameters = classification.iter().map(|count| ("classification".to_owned(), parameter(count)));
    InferRequestedOutputTensor { name: output.name.clone(), parameters: parameters.collect() }
}

fn parameter(value: &Parameter) -> v2::InferParameter {
    let choice = match value {
        Parameter::Bool(value) => ParameterChoice::BoolParam(*value),
        Parameter::Int(value) => ParameterChoice::Int64Param(*value),
        Parameter::Uint(value) => ParameterChoice::Uint64Param(*value),
        Parameter::Double(value) => ParameterChoice::DoubleParam(*value),
        Parameter::String(value) => ParameterChoice::StringParam(value.clone()),
    };
    v2::InferParameter { parameter_choice: Some(choice) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_travel_raw_in_input_order_whatever_their_encoding_over_http() {
        let request = InferRequest::new("m")
            .parameter("priority", 3_u64)
            .input(Tensor::from_slice("a", &[2], &[1_u8, 2]).unwrap())
            .json_input(Tensor::from_slice("b", &[1], &[3_i16]).unwrap())
            .output(RequestedOutput::new("y").classes(2));
        let message = message(&request);
        assert_eq!(message.raw_input_contents, [&[1, 2][..], &[3, 0]]);
        assert_eq!(message.inputs[1].datatype, "INT16");
        assert_eq!(message.parameters["priority"].parameter_choice, Some(ParameterChoice::Uint64Param(3)));
        let classes = message.outputs[0].parameters["classification"].parameter_choice.clone();
        assert_eq!(classes, Some(ParameterChoice::Int64Param(2)));
    }
}
