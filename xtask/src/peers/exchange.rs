//! One request, the answer it must get, and asking for it once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::workspace::Workspace;
use crate::{child, python};

/// The model that every server serves.
pub(super) const MODEL: &str = "mlp";
/// Its input.
const FEATURES: u32 = 64;
/// How far an output may be from the expected one: float32, in other orders of addition.
pub(super) const TOLERANCE: f64 = 1e-4;
/// The first request may wait for a model that is being loaded.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A request for the model and what it must be answered.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The file of the request's body.
    pub(super) request: PathBuf,
    /// The file of the answer.
    pub(super) answer: PathBuf,
    body: String,
    expected: Vec<f64>,
}

impl Exchange {
    /// Writes the request to `directory`, and has ONNX Runtime in Python answer it, which is none of the servers.
    pub(super) fn make(workspace: &Workspace, directory: &Path) -> Result<Exchange> {
        let mut exchange = Exchange::at(directory);
        let Exchange { request, answer, body, .. } = &exchange;
        fs::write(request, body)?;
        let mut answering = workspace.command(python::interpreter(workspace)?);
        answering
            .arg("benches/peers/protocol/answer.py")
            .args([request, answer])
            .env("PEER_MODEL", model_file(directory))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        child::run(&mut answering).context("cannot tell what the servers must answer")?;
        exchange.expected = output(&fs::read_to_string(answer)?)?;
        Ok(exchange)
    }

    /// The exchange whose files are in `directory`, before its answer is known.
    pub(super) fn at(directory: &Path) -> Exchange {
        let (request, answer) = (directory.join("request.json"), directory.join("answer.json"));
        Exchange { request, answer, body: body(), expected: Vec::new() }
    }

    /// Sends the request once to the server at `url`.
    ///
    /// # Errors
    /// When there is no answer, or not the right one.
    pub(super) fn ask(&self, url: &str) -> Result<()> {
        let answer = self.send(url)?;
        let given = output(&answer)?;
        ensure!(agree(&given, &self.expected), "wrong answer: {given:?} instead of {:?}", self.expected);
        Ok(())
    }

    /// Sends the request once to a server at `url` that sends back what it gets.
    pub(super) fn echo(&self, url: &str) -> Result<()> {
        ensure!(self.send(url)? == self.body, "the echo is not what was sent");
        Ok(())
    }

    fn send(&self, url: &str) -> Result<String> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_WITHIN))
            .http_status_as_error(false)
            .build()
            .new_agent();
        let mut answer = agent
            .post(format!("{url}/v2/models/{MODEL}/infer"))
            .content_type("application/json")
            .send(&self.body)?;
        let (status, text) = (answer.status(), answer.body_mut().read_to_string()?);
        ensure!(status == 200, "{status}: {text}");
        Ok(text)
    }
}

/// The file of the model that [`super::run`] had generated in `directory`.
pub(super) fn model_file(directory: &Path) -> PathBuf {
    directory.join("models").join(MODEL).join("1/model.onnx")
}

fn body() -> String {
    let data: Vec<Value> = (0..FEATURES).map(feature).collect();
    let input = json!({ "name": "input", "shape": [1, FEATURES], "datatype": "FP32", "data": data });
    json!({ "inputs": [input] }).to_string()
}

/// A number of as many digits as measured features have, the same on every machine.
fn feature(index: u32) -> Value {
    let number = f64::from(index.wrapping_mul(2_654_435_769) >> 8) / f64::from(1 << 23) - 1.0;
    json!((number * 1e6).round() / 1e6)
}

/// The numbers of the output of an answer. Servers may shape them flat or as rows.
fn output(answer: &str) -> Result<Vec<f64>> {
    let answer: Value = serde_json::from_str(answer).context("the answer is not JSON")?;
    let output = &answer["outputs"][0];
    ensure!(output["name"] == "output", "the answer has no output \"output\": {answer}");
    let numbers = output["data"].as_array().context("the output has no data")?;
    let flat = numbers.iter().flat_map(|number| match number {
        Value::Array(row) => row.iter().collect(),
        number => vec![number],
    });
    flat.map(|number| number.as_f64().context("the output holds what is not a number")).collect()
}

fn agree(given: &[f64], expected: &[f64]) -> bool {
    given.len() == expected.len()
        && given.iter().zip(expected).all(|(given, expected)| (given - expected).abs() <= TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_read_flat_or_in_rows() {
        let flat = r#"{"outputs": [{"name": "output", "data": [1.5, -2]}]}"#;
        assert_eq!(output(flat).unwrap(), [1.5, -2.0]);
        assert_eq!(output(&flat.replace("[1.5, -2]", "[[1.5], [-2]]")).unwrap(), [1.5, -2.0]);
    }

    #[test]
    fn what_is_no_output_is_told() {
        let told = |answer: &str| output(answer).unwrap_err().to_string();
        assert_eq!(told("<html>"), "the answer is not JSON");
        assert!(told(r#"{"error": "no such model"}"#).contains("no such model"));
        assert!(told(r#"{"outputs": [{"name": "output", "data": [null]}]}"#).contains("not a number"));
    }

    #[test]
    fn answers_may_differ_by_rounding_and_no_more() {
        assert!(agree(&[1.0, 2.000_05], &[1.0, 2.0]));
        assert!(!agree(&[1.0, 2.001], &[1.0, 2.0]));
        assert!(!agree(&[1.0], &[1.0, 2.0]));
        assert!(!agree(&[f64::NAN], &[1.0]));
    }

    #[test]
    fn the_request_holds_as_many_numbers_as_the_model_takes() {
        let body: Value = serde_json::from_str(&body()).unwrap();
        assert_eq!(body["inputs"][0]["data"].as_array().unwrap().len(), 64);
        assert_eq!(body["inputs"][0]["shape"], json!([1, 64]));
    }
}
