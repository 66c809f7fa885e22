//! `volley infer`: send a request to a running server and print the answer.

use std::io::Write;

use anyhow::{Context, bail};
use bytes::Bytes;
use volley_client::input::{Content, Scale, Wanted};
use volley_client::{
    HttpClient, InferRequest, ModelMetadata, PreparedRequest, RequestedOutput, TensorMetadata,
};

use super::answer::{self, Asked};
use super::connection::ConnectionArgs;
use super::input_file::InputFile;
use super::json_input;

/// Send a request to a running server and print the answer
///
/// Each input is a file: an array (.npy), an image (.png, .jpg: converted to the colours, layout and size the
/// model takes), or JSON (an array of the elements, nested as the tensor's shape, or a whole V2 request).
/// A batch dimension is added where the model wants one more than the file has.
#[derive(Clone, Debug, clap::Args)]
pub struct InferArgs {
    /// Model to ask
    #[arg(value_name = "MODEL")]
    model: String,

    /// Inputs; NAME may be left out when the model has only one
    #[arg(value_name = "NAME=FILE", required_unless_present = "input")]
    files: Vec<InputFile>,

    /// The same as an option: FILE or NAME=FILE
    #[arg(long, value_name = "FILE")]
    input: Vec<InputFile>,

    /// Version of the model; the server chooses when it is not given
    #[arg(long, value_name = "VERSION")]
    model_version: Option<String>,

    /// Show the N highest values of the floating-point outputs, with their labels
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    classes: Option<u32>,

    /// Multiply the pixel values of an image, 0 to 255: 1/255 gives 0 to 1, 16/255 gives 0 to 16
    #[arg(long, value_name = "FACTOR", default_value = "1")]
    scale: Scale,

    /// Print the server's JSON as it came
    #[arg(long, visible_alias = "raw-output")]
    json: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Sends the request and prints the answer to `out`.
///
/// # Errors
/// When a file cannot be sent, the server cannot be asked or refuses, or `out` cannot be written.
pub async fn run(args: InferArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let request = args.request(&client).await?;
    let response = client.send(&request).await?;
    if args.json {
        out.write_all(response.json())?;
        writeln!(out)?;
        return Ok(());
    }
    let asked = if args.classes.is_some() { Asked::Classes } else { Asked::Values };
    out.write_all(answer::text(&response.decode()?, asked)?.as_bytes())?;
    Ok(())
}

impl InferArgs {
    async fn request(&self, client: &HttpClient) -> anyhow::Result<PreparedRequest> {
        let files: Vec<&InputFile> = self.files.iter().chain(&self.input).collect();
        let contents = files.iter().map(|file| file.read()).collect::<anyhow::Result<Vec<_>>>()?;
        if let ([file], [Content::Json(text)]) = (&files[..], &contents[..]) {
            let request = json_input::request(text).with_context(|| file.path.display().to_string())?;
            if let Some(request) = request {
                return self.whole_request(client, request).await;
            }
        }
        let metadata = self.metadata(client).await?;
        Ok(client.prepare(&self.assembled(&metadata, &files, &contents)?)?)
    }

    async fn metadata(&self, client: &HttpClient) -> anyhow::Result<ModelMetadata> {
        Ok(client.model_metadata(&self.model, self.model_version.as_deref()).await?)
    }

    /// The request that a file holds, sent as it is but for `--classes`.
    async fn whole_request(
        &self,
        client: &HttpClient,
        mut request: serde_json::Map<String, serde_json::Value>,
    ) -> anyhow::Result<PreparedRequest> {
        if let Some(count) = self.classes {
            let metadata = self.metadata(client).await?;
            json_input::classify(&mut request, &metadata.outputs, &classified(&metadata.outputs), count)?;
        }
        let body = Bytes::from(serde_json::to_vec(&request)?);
        Ok(client.prepare_body(&self.model, self.model_version.as_deref(), body, None)?)
    }

    /// The request made of `contents`, one for each of `files`.
    fn assembled(
        &self,
        metadata: &ModelMetadata,
        files: &[&InputFile],
        contents: &[Content],
    ) -> anyhow::Result<InferRequest> {
        let mut request = InferRequest::new(&self.model);
        request.version.clone_from(&self.model_version);
        for (file, content) in files.iter().zip(contents) {
            let input = file.wanted(&self.model, &metadata.inputs)?;
            if let Some(given) = request.inputs.iter().find(|given| given.tensor.name == input.name) {
                bail!(
                    "input {:?} is given twice; the second time by {}",
                    given.tensor.name,
                    file.path.display()
                );
            }
            let wanted = Wanted { model: &self.model, input };
            request = request.input(content.tensor(&file.path, wanted, self.scale)?);
        }
        if self.json {
            request = request.json_outputs();
        }
        let Some(count) = self.classes else { return Ok(request) };
        let classified = classified(&metadata.outputs);
        for output in &metadata.outputs {
            let mut asked = RequestedOutput::new(&output.name);
            if classified.contains(&output) {
                asked = asked.classes(count);
            }
            request = request.output(if self.json { asked.json() } else { asked });
        }
        Ok(request)
    }
}

/// The outputs whose highest values mean something: the floating-point ones, or all when there is none.
fn classified(outputs: &[TensorMetadata]) -> Vec<&TensorMetadata> {
    let is_float =
        |output: &&TensorMetadata| matches!(output.datatype.as_str(), "FP16" | "BF16" | "FP32" | "FP64");
    let floats: Vec<_> = outputs.iter().filter(is_float).collect();
    if floats.is_empty() { outputs.iter().collect() } else { floats }
}

#[cfg(test)]
mod tests;
