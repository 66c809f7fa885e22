//! `POST /v2/repository/models/…/load`, `/unload` and `/rollback`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use model::{InferError, ModelVersion};
use serde_json::{Map, Value, json};

use super::answer::{self, Answer};
use super::routes::Question;
use super::server::{Exchange, HttpService, limits};
use crate::blocking;
use crate::model_control::LoadParameters;
use crate::request_rules::{shortened, unknown_load_parameter};

/// Does what `question` asks for to `model`.
///
/// # Errors
/// When the body is not understood, or it is not done.
pub(super) async fn answer(
    service: &HttpService,
    question: Question,
    model: &str,
    exchange: &mut Exchange,
) -> Result<Answer, InferError> {
    let app = &service.app;
    match question {
        Question::Load => {
            let held = app.request_memory.hold();
            let body = service.json_object(exchange, limits(app).size, &held).await?;
            let parameters = blocking::run("reading the files", move || load_parameters(&body)).await??;
            app.load_model(model, parameters, held).await.map(|()| answer::empty())
        }
        Question::Unload => {
            check_unload(&service.json_body(exchange).await?)?;
            app.unload_model(model).await.map(|()| answer::empty())
        }
        _ => {
            service.json_body(exchange).await?;
            let versions = app.roll_back(model).await?;
            let versions: Vec<_> = versions.iter().map(ModelVersion::to_string).collect();
            Ok(answer::json(&json!({ "name": model, "versions": versions })))
        }
    }
}

/// What a load request gives in place of files: `parameters.config`, JSON in a string, and `parameters["file:PATH"]`,
/// base64 in a string.
fn load_parameters(body: &Value) -> Result<LoadParameters, InferError> {
    let mut given = LoadParameters::default();
    let Some(parameters) = parameters_of(body)? else { return Ok(given) };
    for (name, value) in parameters {
        let text = value.as_str().ok_or_else(|| {
            InferError::invalid(format!("the parameter '{}' must be a string", shortened(name)))
        })?;
        match name.strip_prefix("file:") {
            None if name == "config" => given.config = Some(text.to_owned()),
            None => return Err(unknown_load_parameter(name)),
            Some(path) => {
                let content = BASE64_STANDARD.decode(text).map_err(|error| {
                    InferError::invalid(format!("the parameter '{}' is not base64: {error}", shortened(name)))
                })?;
                given.files.push((path.to_owned(), content.into()));
            }
        }
    }
    Ok(given)
}

/// No model depends on another, so that `unload_dependents` changes nothing.
fn check_unload(body: &Value) -> Result<(), InferError> {
    match parameters_of(body)?.and_then(|parameters| parameters.get("unload_dependents")) {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(_) => Err(InferError::invalid("the parameter 'unload_dependents' must be true or false")),
    }
}

fn parameters_of(body: &Value) -> Result<Option<&Map<String, Value>>, InferError> {
    match body.get("parameters") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(parameters)) => Ok(Some(parameters)),
        Some(_) => Err(InferError::invalid("'parameters' must be an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_takes_a_configuration_and_files() {
        let read = |body: Value| load_parameters(&body).map_err(|error| error.to_string());
        let given = read(json!({ "parameters": { "config": "{}", "file:1/model.onnx": "AAE=" } })).unwrap();
        assert_eq!(given.config.as_deref(), Some("{}"));
        assert_eq!(given.files, [("1/model.onnx".to_owned(), vec![0, 1].into())]);
        for nothing in [json!({}), json!({ "parameters": null }), json!({ "parameters": {} })] {
            let given = read(nothing).unwrap();
            assert!(given.config.is_none() && given.files.is_empty());
        }
        for (body, words) in [
            (json!({ "parameters": [] }), "'parameters' must be an object"),
            (json!({ "parameters": { "config": {} } }), "'config' must be a string"),
            (json!({ "parameters": { "file:1/m": "???" } }), "'file:1/m' is not base64"),
            (json!({ "parameters": { "confg": "{}" } }), "'confg' is not one of a load"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn unload_dependents_is_a_boolean() {
        assert_eq!(check_unload(&json!({ "parameters": { "unload_dependents": true } })), Ok(()));
        assert_eq!(check_unload(&json!({})), Ok(()));
        assert!(check_unload(&json!({ "parameters": { "unload_dependents": "yes" } })).is_err());
    }
}
