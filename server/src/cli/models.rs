//! `volley models`: what a running server has.

use std::io::Write;

use anyhow::Context;
use serde_json::{Value, json};
use volley_client::input::shape_text;
use volley_client::{HttpClient, ModelMetadata, ModelState, TensorMetadata};

use super::connection::ConnectionArgs;
use super::table::table;

/// List the models of a running server, with their state
#[derive(Clone, Debug, clap::Args)]
pub struct ModelsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Lists the models of the server to `out`.
///
/// # Errors
/// When the server cannot be asked or `out` cannot be written.
pub async fn run(args: ModelsArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let index = client.repository_index().await.context("cannot list the models")?;
    let mut models = Vec::with_capacity(index.len());
    for state in index {
        let signature = signature(&client, &state).await;
        models.push(Model { state, signature });
    }
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &models.iter().map(Model::json).collect::<Vec<_>>())?;
        writeln!(out)?;
    } else {
        out.write_all(text(&models).as_bytes())?;
    }
    Ok(())
}

/// A model version with what the server says of its inputs and outputs.
struct Model {
    state: ModelState,
    signature: Signature,
}

enum Signature {
    /// Only a ready model has one.
    NotReady,
    Known(ModelMetadata),
    /// Asking for it failed: the model may have been unloaded since it was listed.
    Failed(String),
}

async fn signature(client: &HttpClient, model: &ModelState) -> Signature {
    if model.state != "READY" {
        return Signature::NotReady;
    }
    let version = Some(model.version.as_str()).filter(|version| !version.is_empty());
    match client.model_metadata(&model.name, version).await {
        Ok(metadata) => Signature::Known(metadata),
        Err(error) => Signature::Failed(error.to_string()),
    }
}

fn text(models: &[Model]) -> String {
    if models.is_empty() {
        return "the server has no models\n".to_owned();
    }
    let mut rows =
        vec![["NAME", "VERSION", "STATE", "INPUTS -> OUTPUTS, OR REASON"].map(str::to_owned).to_vec()];
    rows.extend(models.iter().map(Model::row));
    table("", &rows)
}

impl Model {
    fn row(&self) -> Vec<String> {
        let ModelState { name, version, state, reason } = &self.state;
        let remark = match &self.signature {
            Signature::NotReady => reason.clone(),
            Signature::Known(metadata) => {
                format!("{} -> {}", summary(&metadata.inputs), summary(&metadata.outputs))
            }
            Signature::Failed(error) => error.clone(),
        };
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        vec![name.clone(), dash(version), dash(state), remark]
    }

    fn json(&self) -> Value {
        let ModelState { name, version, state, reason } = &self.state;
        let mut model = json!({ "name": name, "version": version, "state": state, "reason": reason });
        match &self.signature {
            Signature::NotReady => {}
            Signature::Known(metadata) => {
                model["platform"] = json!(metadata.platform);
                model["inputs"] = json!(metadata.inputs);
                model["outputs"] = json!(metadata.outputs);
            }
            Signature::Failed(error) => model["error"] = json!(error),
        }
        model
    }
}

fn summary(tensors: &[TensorMetadata]) -> String {
    let tensor =
        |tensor: &TensorMetadata| format!("{} {}{}", tensor.name, tensor.datatype, shape_text(&tensor.shape));
    tensors.iter().map(tensor).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, version: &str, state: &str, reason: &str) -> ModelState {
        let [name, version, state, reason] = [name, version, state, reason].map(str::to_owned);
        ModelState { name, version, state, reason }
    }

    fn tensor(name: &str, datatype: &str, shape: &[i64]) -> TensorMetadata {
        TensorMetadata { name: name.to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec() }
    }

    fn models() -> [Model; 4] {
        let metadata = ModelMetadata {
            platform: "onnxruntime_onnx".to_owned(),
            inputs: vec![tensor("image", "FP32", &[-1, 64])],
            outputs: vec![tensor("label", "INT64", &[-1]), tensor("probabilities", "FP32", &[-1, 10])],
            ..ModelMetadata::default()
        };
        [
            Model { state: state("digits", "2", "READY", ""), signature: Signature::Known(metadata) },
            Model { state: state("broken", "1", "UNAVAILABLE", "no\ngraph"), signature: Signature::NotReady },
            Model { state: state("gone", "10", "READY", ""), signature: Signature::Failed("404".to_owned()) },
            Model { state: state("untouched", "", "", ""), signature: Signature::NotReady },
        ]
    }

    #[test]
    fn models_are_a_table() {
        assert_eq!(
            text(&models()),
            "NAME       VERSION  STATE        INPUTS -> OUTPUTS, OR REASON\n\
             digits     2        READY        image FP32[-1,64] -> label INT64[-1], probabilities FP32[-1,10]\n\
             broken     1        UNAVAILABLE  no\\ngraph\n\
             gone       10       READY        404\n\
             untouched  -        -\n"
        );
        assert_eq!(text(&[]), "the server has no models\n");
    }

    #[test]
    fn json_has_every_field() {
        let [digits, broken, gone, _] = models().map(|model| model.json());
        assert_eq!(digits["inputs"][0]["shape"], json!([-1, 64]));
        assert_eq!(
            broken,
            json!({"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "no\ngraph"})
        );
        assert_eq!(gone["error"], "404");
    }
}
