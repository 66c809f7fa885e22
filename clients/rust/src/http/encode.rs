//! A request as the body of an HTTP infer call: JSON, then the binary tensors in input order.

use bytes::Bytes;
use serde::ser::{Error, SerializeMap};
use serde::{Serialize, Serializer};

use crate::{ClientError, Encoding, InferInput, InferRequest, Parameter, RequestedOutput, Tensor};

/// The body of an infer call.
#[derive(Debug)]
pub(super) struct Body {
    /// The JSON and the binary tensors.
    pub(super) bytes: Bytes,
    /// Length of the JSON part when binary tensors follow it.
    pub(super) json_length: Option<usize>,
}

/// Writes `request`.
///
/// # Errors
/// When a tensor that travels as JSON has no JSON form.
pub(super) fn encode(request: &InferRequest) -> Result<Body, ClientError> {
    let binary = || request.inputs.iter().filter(|input| input.encoding == Encoding::Binary);
    let binary_length: usize = binary().map(|input| input.tensor.data.len()).sum();
    let mut bytes = Vec::with_capacity(256 + binary_length);
    serde_json::to_writer(&mut bytes, &Request::of(request))
        .map_err(|error| ClientError::InvalidRequest { reason: error.to_string() })?;
    let json_length = binary().next().map(|_| bytes.len());
    for input in binary() {
        bytes.extend_from_slice(&input.tensor.data);
    }
    Ok(Body { bytes: bytes.into(), json_length })
}

#[derive(Serialize)]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "RequestParameters::is_empty")]
    parameters: RequestParameters<'a>,
    inputs: Vec<Input<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<Output<'a>>,
}

impl<'a> Request<'a> {
    fn of(request: &'a InferRequest) -> Request<'a> {
        let binary_data_output = request.outputs.is_empty() && request.output_encoding == Encoding::Binary;
        Request {
            id: request.id.as_deref(),
            parameters: RequestParameters { given: &request.parameters, binary_data_output },
            inputs: request.inputs.iter().map(Input::of).collect(),
            outputs: request.outputs.iter().map(Output::of).collect(),
        }
    }
}

struct RequestParameters<'a> {
    given: &'a [(String, Parameter)],
    binary_data_output: bool,
}

impl RequestParameters<'_> {
    fn is_empty(&self) -> bool {
        self.given.is_empty() && !self.binary_data_output
    }
}

impl Serialize for RequestParameters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.given {
            map.serialize_entry(name, value)?;
        }
        if self.binary_data_output {
            map.serialize_entry("binary_data_output", &true)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Input<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<InputParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

#[derive(Serialize)]
struct InputParameters {
    binary_data_size: usize,
}

impl<'a> Input<'a> {
    fn of(input: &'a InferInput) -> Input<'a> {
        let tensor = &input.tensor;
        let (parameters, data) = match input.encoding {
            Encoding::Binary => (Some(InputParameters { binary_data_size: tensor.data.len() }), None),
            Encoding::Json => (None, Some(Data(tensor))),
        };
        Input { name: &tensor.name, datatype: tensor.datatype.name(), shape: &tensor.shape, parameters, data }
    }
}

struct Data<'a>(&'a Tensor);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.values().map_err(S::Error::custom)?)
    }
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    parameters: OutputParameters,
}

#[derive(Serialize)]
struct OutputParameters {
    binary_data: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    classification: Option<u32>,
}

impl<'a> Output<'a> {
    fn of(output: &'a RequestedOutput) -> Output<'a> {
        let binary_data = output.encoding == Encoding::Binary;
        let parameters = OutputParameters { binary_data, classification: output.classification };
        Output { name: &output.name, parameters }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_tensors_make_a_body_of_json_alone() {
        let request = InferRequest::new("m")
            .id("7")
            .parameter("priority", 1_i32)
            .json_input(Tensor::from_slice("x", &[1, 2], &[0.1_f32, -2.0]).unwrap())
            .json_input(Tensor::from_strings("s", &[1], &["é\""]).unwrap())
            .output(RequestedOutput::new("y").json().classes(3));
        let body = encode(&request).unwrap();
        assert_eq!(body.json_length, None);
        assert_eq!(
            text(&body.bytes),
            concat!(
                r#"{"id":"7","parameters":{"priority":1},"inputs":["#,
                r#"{"name":"x","datatype":"FP32","shape":[1,2],"data":[0.1,-2.0]},"#,
                r#"{"name":"s","datatype":"BYTES","shape":[1],"data":["é\""]}],"#,
                r#""outputs":[{"name":"y","parameters":{"binary_data":false,"classification":3}}]}"#,
            )
        );
    }

    #[test]
    fn binary_tensors_follow_the_json_in_input_order() {
        let request = InferRequest::new("m")
            .input(Tensor::from_slice("a", &[2], &[1_u8, 2]).unwrap())
            .json_input(Tensor::from_slice("b", &[1], &[true]).unwrap())
            .input(Tensor::from_slice("c", &[1], &[3_u16]).unwrap());
        let body = encode(&request).unwrap();
        let (json, tensors) = body.bytes.split_at(body.json_length.unwrap());
        assert_eq!(tensors, [1, 2, 3, 0]);
        assert_eq!(
            text(json),
            concat!(
                r#"{"parameters":{"binary_data_output":true},"inputs":["#,
                r#"{"name":"a","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}},"#,
                r#"{"name":"b","datatype":"BOOL","shape":[1],"data":[true]},"#,
                r#"{"name":"c","datatype":"UINT16","shape":[1],"parameters":{"binary_data_size":2}}]}"#,
            )
        );
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        #[track_caller]
        fn check(tensor: Tensor, text: &str) {
            let error = encode(&InferRequest::new("m").json_input(tensor)).unwrap_err().to_string();
            assert_eq!(error, text);
        }
        check(
            Tensor::from_slice("x", &[1], &[f32::NAN]).unwrap(),
            "the request cannot be sent: NaN has no JSON form; send the tensor as binary",
        );
        check(
            Tensor::from_strings("x", &[1], &[[0xff_u8]]).unwrap(),
            r#"the request cannot be sent: "\xff" is not UTF-8 and has no JSON form; send the tensor as binary"#,
        );
    }
}
