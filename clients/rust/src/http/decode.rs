//! The body of an HTTP infer answer as an [`InferResponse`]: JSON, then the binary tensors in output order.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{ClientError, DataType, InferResponse, Parameter, Tensor};

/// Reads `body`, whose first `json_length` bytes (or all of it) are JSON.
pub(super) fn decode(body: &Bytes, json_length: Option<usize>) -> Result<InferResponse, ClientError> {
    let json_length = json_length.unwrap_or(body.len());
    let json = body.get(..json_length).ok_or_else(|| {
        ClientError::protocol(format!(
            "its JSON part should have {json_length} bytes, but the whole body has {}",
            body.len()
        ))
    })?;
    let head: Head<'_> = serde_json::from_slice(json)
        .map_err(|error| ClientError::protocol(format!("its JSON cannot be read: {error}")))?;
    let mut binary = body.slice(json_length..);
    let outputs = head.outputs.iter().map(|output| output.tensor(&mut binary)).collect::<Result<_, _>>()?;
    if !binary.is_empty() {
        let reason = format!("{} bytes follow the last binary output", binary.len());
        return Err(ClientError::protocol(reason));
    }
    Ok(InferResponse {
        model_name: head.model_name.unwrap_or_default(),
        model_version: head.model_version,
        id: head.id,
        parameters: plain(head.parameters.unwrap_or_default()),
        outputs,
    })
}

/// The parameters that are plain values; some servers put whole objects there.
fn plain(parameters: BTreeMap<String, serde_json::Value>) -> BTreeMap<String, Parameter> {
    let plain = |(name, value)| Some((name, serde_json::from_value(value).ok()?));
    parameters.into_iter().filter_map(plain).collect()
}

#[derive(Deserialize)]
struct Head<'a> {
    model_name: Option<String>,
    model_version: Option<String>,
    id: Option<String>,
    parameters: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(borrow)]
    outputs: Vec<Output<'a>>,
}

#[derive(Deserialize)]
struct Output<'a> {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    parameters: Option<OutputParameters>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OutputParameters {
    binary_data_size: Option<usize>,
}

impl Output<'_> {
    /// The tensor, whose binary data are at the front of `binary` if it has any.
    fn tensor(&self, binary: &mut Bytes) -> Result<Tensor, ClientError> {
        let datatype = DataType::parse(&self.datatype).ok_or_else(|| {
            ClientError::protocol(format!(
                "output {:?} has the unknown datatype {:?}",
                self.name, self.datatype
            ))
        })?;
        let size = self.parameters.as_ref().and_then(|parameters| parameters.binary_data_size);
        match (size, self.data) {
            (Some(size), _) => {
                let data = self.take(size, binary)?;
                Ok(Tensor::new(&self.name, datatype, &self.shape, data)?)
            }
            (None, Some(data)) => Ok(Tensor::from_json(&self.name, datatype, &self.shape, data.get())?),
            (None, None) => {
                Err(ClientError::protocol(format!("output {:?} has neither JSON nor binary data", self.name)))
            }
        }
    }

    fn take(&self, size: usize, binary: &mut Bytes) -> Result<Bytes, ClientError> {
        if size <= binary.len() {
            return Ok(binary.split_to(size));
        }
        Err(ClientError::protocol(format!(
            "output {:?} should have {size} binary bytes, but {} are left in the body",
            self.name,
            binary.len()
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(json: &str, binary: &[u8]) -> Bytes {
        [json.as_bytes(), binary].concat().into()
    }

    #[test]
    fn json_and_binary_outputs_stand_side_by_side() {
        let json = r#"{"model_name":"m","model_version":"2","id":"7",
            "parameters":{"sequence_end":true,"headers":{"a":1}},
            "outputs":[{"name":"a","datatype":"UINT16","shape":[2],"parameters":{"binary_data_size":4}},
                       {"name":"b","datatype":"FP32","shape":[2,1],"data":[[0.5],[1e-3]]},
                       {"name":"c","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]}"#;
        let response = decode(&body(json, &[1, 0, 2, 0, 1, 0, 0, 0, b'x']), Some(json.len())).unwrap();
        assert_eq!(response.model_version.as_deref(), Some("2"));
        assert_eq!(response.parameters.len(), 1, "an object is not a plain value");
        assert_eq!(response.output("a").unwrap().to_vec::<u16>().unwrap(), [1, 2]);
        assert_eq!(response.output("b").unwrap().as_f32().unwrap(), [0.5, 1e-3]);
        assert_eq!(response.output("c").unwrap().strings().unwrap(), ["x"]);
    }

    #[track_caller]
    fn refused(json: &str, binary: &[u8], text: &str) {
        let error = decode(&body(json, binary), Some(json.len())).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }

    #[test]
    fn an_answer_that_contradicts_itself_is_told_with_its_values() {
        let one =
            r#"{"outputs":[{"name":"a","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":2}}]}"#;
        refused(one, &[1], r#"output "a" should have 2 binary bytes, but 1 are left"#);
        refused(one, &[1, 2, 3], "1 bytes follow the last binary output");
        refused(&one.replace("[2]", "[3]"), &[1, 2], "2 bytes of data, but INT8 of shape [3] takes 3");
        refused(&one.replace("INT8", "INT9"), &[1, 2], r#"unknown datatype "INT9""#);
        refused(
            r#"{"outputs":[{"name":"a","datatype":"INT8","shape":[2]}]}"#,
            &[],
            "neither JSON nor binary",
        );
        refused("<html>", &[], "its JSON cannot be read");
        let error = decode(&Bytes::from_static(b"{}"), Some(9)).unwrap_err().to_string();
        assert!(error.contains("should have 9 bytes, but the whole body has 2"), "{error}");
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(bytes: Vec<u8>, json_length: Option<usize>) {
            let _ = decode(&bytes.into(), json_length);
        }
    }
}
