//! The answer to an inference, whatever protocol it came by.

use std::collections::BTreeMap;

use crate::{ClientError, Parameter, Tensor};

/// The answer to an [`InferRequest`](crate::InferRequest).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferResponse {
    /// The model that answered.
    pub model_name: String,
    /// The version that answered; some servers do not say.
    pub model_version: Option<String>,
    /// The request's id.
    pub id: Option<String>,
    /// Response parameters; those that are not plain values are left out.
    pub parameters: BTreeMap<String, Parameter>,
    /// The outputs, in the server's order.
    pub outputs: Vec<Tensor>,
}

impl InferResponse {
    /// The output called `name`.
    ///
    /// # Errors
    /// When the answer has none of that name; the error lists those it has.
    pub fn output(&self, name: &str) -> Result<&Tensor, ClientError> {
        self.outputs.iter().find(|output| output.name == name).ok_or_else(|| ClientError::NoSuchOutput {
            name: name.to_owned(),
            present: self.outputs.iter().map(|output| output.name.clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_is_not_there_is_told_with_those_that_are() {
        let output = Tensor::from_slice("label", &[1], &[7_i64]).unwrap();
        let response = InferResponse { outputs: vec![output], ..InferResponse::default() };
        assert_eq!(response.output("label").unwrap().to_vec::<i64>().unwrap(), [7]);
        let error = response.output("score").unwrap_err().to_string();
        assert_eq!(error, r#"the answer has no output "score"; it has label"#);
    }
}
