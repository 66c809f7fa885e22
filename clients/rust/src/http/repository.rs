//! Model control: load, unload, roll back.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{HttpClient, accepted, from_json};
use crate::ClientError;
use crate::address::segment;

/// What a load takes in place of a model's files; with nothing in it, what the files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadParameters {
    /// A configuration as JSON, in place of the configuration file.
    pub config: Option<String>,
    /// Files by their path in the model's directory, such as `1/model.onnx`, in place of the whole directory.
    pub files: Vec<(String, Bytes)>,
}

impl LoadParameters {
    fn body(&self) -> Bytes {
        let mut parameters = Map::new();
        if let Some(config) = &self.config {
            parameters.insert("config".to_owned(), Value::from(config.as_str()));
        }
        for (path, content) in &self.files {
            parameters.insert(format!("file:{path}"), Value::from(BASE64_STANDARD.encode(content)));
        }
        json!({ "parameters": parameters }).to_string().into()
    }
}

impl HttpClient {
    /// Loads `model`, or what `given` has in its place; returns when it serves.
    ///
    /// # Errors
    /// When the server cannot be asked, does not load models by request, or the model cannot be loaded.
    pub async fn load_model(&self, model: &str, given: &LoadParameters) -> Result<(), ClientError> {
        self.control(model, "load", given.body()).await.map(drop)
    }

    /// Takes `model` out of service; `dependents` says whether the models that are made of it go, too.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn unload_model(&self, model: &str, dependents: bool) -> Result<(), ClientError> {
        let body = json!({ "parameters": { "unload_dependents": dependents } });
        self.control(model, "unload", body.to_string().into()).await.map(drop)
    }

    /// Puts the versions of `model` that served before in the place of those that serve; returns which they are. A call
    /// that Volley has, and other servers do not.
    ///
    /// # Errors
    /// When the server cannot be asked, or has nothing to go back to.
    pub async fn roll_back(&self, model: &str) -> Result<Vec<String>, ClientError> {
        #[derive(Deserialize)]
        struct RolledBack {
            versions: Vec<String>,
        }
        let answer = self.control(model, "rollback", Bytes::from_static(b"{}")).await?;
        Ok(from_json::<RolledBack>(&answer)?.versions)
    }

    async fn control(&self, model: &str, verb: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let path = format!("/v2/repository/models/{}/{verb}", segment(model));
        let json = [("content-type", "application/json")];
        Ok(accepted(self.post(&path, &json, body).await?)?.into_body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_says_what_it_was_given_and_nothing_else() {
        assert_eq!(LoadParameters::default().body(), r#"{"parameters":{}}"#);
        let given = LoadParameters {
            config: Some(r#"{"max_batch_size":8}"#.to_owned()),
            files: vec![("1/model.onnx".to_owned(), Bytes::from_static(&[0, 1]))],
        };
        let expected = r#"{"parameters":{"config":"{\"max_batch_size\":8}","file:1/model.onnx":"AAE="}}"#;
        let read = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        assert_eq!(read(&given.body()), read(expected.as_bytes()));
    }
}
