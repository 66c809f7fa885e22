//! The JSON body of a V2 infer call as an [`InferRequest`], so that what is written once can be sent either way.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{ClientError, DataType, Encoding, InferInput, InferRequest, Parameter, RequestedOutput, Tensor};

impl InferRequest {
    /// Reads the body of a V2 infer call whose tensors are JSON, for `model`.
    ///
    /// Inputs are to travel as JSON; outputs as the body asks.
    ///
    /// # Errors
    /// When it is no such body; the error names the input.
    pub fn from_json(model: impl Into<String>, body: &[u8]) -> Result<InferRequest, ClientError> {
        let invalid = |reason: String| ClientError::InvalidRequest { reason };
        let body: Body<'_> =
            serde_json::from_slice(body).map_err(|error| invalid(format!("it is no V2 request: {error}")))?;
        let mut parameters = body.parameters.unwrap_or_default();
        let binary = parameters.remove("binary_data_output") == Some(Parameter::Bool(true));
        Ok(InferRequest {
            model: model.into(),
            version: None,
            id: body.id,
            parameters: parameters.into_iter().collect(),
            inputs: body.inputs.iter().map(Input::read).collect::<Result<_, _>>()?,
            outputs: body.outputs.unwrap_or_default().into_iter().map(|output| output.read(binary)).collect(),
            output_encoding: encoding(binary),
        })
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    id: Option<String>,
    parameters: Option<BTreeMap<String, Parameter>>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    outputs: Option<Vec<Output>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Input<'_> {
    fn read(&self) -> Result<InferInput, ClientError> {
        let Input { name, datatype, shape, data } = self;
        let invalid = |what: &str| ClientError::InvalidRequest { reason: format!("input {name:?} {what}") };
        let datatype = DataType::parse(datatype)
            .ok_or_else(|| invalid(&format!("has the unknown datatype {datatype:?}")))?;
        let data = data.ok_or_else(|| invalid("has no \"data\"; write its elements there"))?;
        let tensor = Tensor::from_json(name, datatype, shape, data.get())?;
        Ok(InferInput { tensor, encoding: Encoding::Json })
    }
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Default, Deserialize)]
struct OutputParameters {
    binary_data: Option<bool>,
    classification: Option<u32>,
}

impl Output {
    fn read(self, binary: bool) -> RequestedOutput {
        let OutputParameters { binary_data, classification } = self.parameters;
        RequestedOutput { name: self.name, encoding: encoding(binary_data.unwrap_or(binary)), classification }
    }
}

fn encoding(binary: bool) -> Encoding {
    if binary { Encoding::Binary } else { Encoding::Json }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_body_says_is_what_is_asked() {
        let body = br#"{"id":"7","parameters":{"priority":1},"inputs":[
            {"name":"x","datatype":"FP32","shape":[1,2],"data":[[0.1,-2]]},
            {"name":"s","datatype":"BYTES","shape":[1],"data":["a"]}],
            "outputs":[{"name":"y","parameters":{"classification":3,"binary_data":true}},{"name":"z"}]}"#;
        let request = InferRequest::from_json("m", body).unwrap();
        assert_eq!((request.model.as_str(), request.id.as_deref()), ("m", Some("7")));
        assert_eq!(request.parameters, [("priority".to_owned(), Parameter::Int(1))]);
        assert_eq!(request.inputs[0].tensor.as_f32().unwrap(), [0.1, -2.0]);
        assert_eq!(request.inputs[1].tensor.strings().unwrap(), ["a"]);
        assert_eq!(request.outputs, [RequestedOutput::new("y").classes(3), RequestedOutput::new("z").json()]);
        let binary = br#"{"inputs":[],"parameters":{"binary_data_output":true}}"#;
        let request = InferRequest::from_json("m", binary).unwrap();
        assert_eq!((request.output_encoding, request.parameters.len()), (Encoding::Binary, 0));
    }

    #[track_caller]
    fn refused(body: &str, text: &str) {
        let error = InferRequest::from_json("m", body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        refused("[]", "it is no V2 request");
        refused(
            r#"{"inputs":[{"name":"x","datatype":"FP8","shape":[1],"data":[1]}]}"#,
            r#""x" has the unknown"#,
        );
        refused(r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}"#, r#"input "x" has no "data""#);
        refused(
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1]}]}"#,
            r#"tensor "x" has 1 elements, but shape [2] has 2"#,
        );
    }
}
