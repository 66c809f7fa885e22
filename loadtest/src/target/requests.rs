//! The requests to the models of a server, prepared as they are sent.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use volley_client::{ClientError, Encoding, InferRequest, ModelMetadata};

use super::Client;
use crate::args::{LoadArgs, Model};
use crate::expect::Expected;
use crate::input::{self, Content, MAX_BYTES, Sources};
use crate::transport::Protocol;
use crate::usage;
use crate::workload::{ModelRequests, Prepared, Workload};

/// The code of gRPC for a method that a server does not have.
const UNIMPLEMENTED: i32 = 12;

/// Random requests that differ, when nobody says how many.
const DISTINCT: u32 = 16;

/// Bytes that prepared requests may still have.
#[derive(Debug)]
struct Budget {
    left: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> anyhow::Result<()> {
        self.left = self.left.checked_sub(bytes).with_context(input::too_many_bytes)?;
        Ok(())
    }
}

impl Client {
    /// The bytes that send `content` to `model`, and how many of them are its body.
    fn encode(&self, model: &Model, protocol: Protocol, content: &Content) -> anyhow::Result<(Bytes, usize)> {
        let version = model.version.as_deref();
        let prepared = match (self, content) {
            // Sent as it is: it may have what a request made anew would lose.
            (Client::Http(client), Content::Body(body)) if protocol == Protocol::HttpJson => {
                client.prepare_body(&model.name, version, body.clone(), None)?
            }
            (Client::Http(client), content) => client.prepare(&request(model, protocol, content)?)?,
            (Client::Grpc(client), content) => {
                let prepared = client.prepare(&request(model, protocol, content)?);
                return Ok((prepared.framed()?, prepared.message().len()));
            }
        };
        Ok((prepared.http1(), prepared.body().len()))
    }
}

/// `content` with its tensors as `protocol` carries them.
fn request(model: &Model, protocol: Protocol, content: &Content) -> anyhow::Result<InferRequest> {
    let encoding = if protocol == Protocol::HttpJson { Encoding::Json } else { Encoding::Binary };
    let mut request = match content {
        Content::Body(body) => InferRequest::from_json(&model.name, body)?,
        Content::Tensors(tensors) => {
            tensors.iter().cloned().fold(InferRequest::new(&model.name), InferRequest::input)
        }
    };
    request.version.clone_from(&model.version);
    request.output_encoding = encoding;
    request.inputs.iter_mut().for_each(|input| input.encoding = encoding);
    request.outputs.iter_mut().for_each(|output| output.encoding = encoding);
    Ok(request)
}

/// The requests to every model.
///
/// # Errors
/// When the server has no such model, the inputs do not fit it, or they are too many.
pub(super) async fn workload(client: &Client, args: &LoadArgs) -> anyhow::Result<Workload> {
    let mut sources = sources(args);
    let expected = match &args.check.expect[..] {
        [] => Vec::new(),
        files => input::expected(files, sources.batch).context("--expect").map_err(usage::bad)?,
    };
    let total: f64 = args.target.model.iter().map(|model| model.weight).sum();
    let mut known = Vec::new();
    for model in &args.target.model {
        known.push(metadata(client, model, !sources.files.is_empty()).await?);
    }
    let inputs: Vec<_> = known.iter().flatten().flat_map(|metadata| metadata.inputs.clone()).collect();
    input::check_names(&inputs, &sources).map_err(usage::bad)?;
    sources.inputs = inputs.into_iter().map(|input| input.name).collect();
    let mut models = Vec::new();
    let mut budget = Budget { left: MAX_BYTES };
    for (model, metadata) in args.target.model.iter().zip(known) {
        let contents = input::contents(&model.name, metadata.as_ref(), &sources).map_err(usage::bad)?;
        let expected = spread(&expected, contents.len(), args).map_err(usage::bad)?;
        let mut prepare =
            |(content, expected): (&Content, Option<Arc<Expected>>)| -> anyhow::Result<Prepared> {
                let (bytes, body_bytes) = client.encode(model, args.target.protocol, content)?;
                budget.take(bytes.len())?;
                let items = content.items(metadata.as_ref(), sources.batch);
                Ok(Prepared { bytes, body_bytes, items, expected })
            };
        let requests = contents.iter().zip(expected).map(&mut prepare).collect::<anyhow::Result<_>>();
        let requests = requests.with_context(|| format!("model {:?}", model.name))?;
        let name = called(model);
        let random_text = metadata.as_ref().and_then(|metadata| input::random_text(metadata, &sources));
        models.push(ModelRequests { model: name, share: model.weight / total, requests, random_text });
    }
    Ok(Workload { models })
}

/// The metadata of `model`; `None` when the server does not tell of any model, or tells nothing and `can_do_without`.
async fn metadata(
    client: &Client,
    model: &Model,
    can_do_without: bool,
) -> anyhow::Result<Option<ModelMetadata>> {
    match client.model_metadata(model).await {
        // A server that knows only inference answers, too; and then without inputs nothing is known.
        Ok(metadata) => Ok(Some(metadata).filter(|metadata| !metadata.inputs.is_empty())),
        Err(ClientError::Status { status: 404 | 400, message }) if message.contains(&model.name) => {
            bail!("the server has no model {:?}: {message}", called(model))
        }
        Err(ClientError::Rpc { code, message }) if message.contains(&model.name) => {
            bail!("the server has no model {:?}: {code:?}: {message}", called(model))
        }
        Err(ClientError::Status { status: 404 | 405 | 501, .. }) => Ok(None),
        // Of gRPC only this says that there is no such method.
        Err(ClientError::Rpc { code, .. }) if i32::from(code) == UNIMPLEMENTED => Ok(None),
        Err(_) if can_do_without => Ok(None),
        Err(error) => Err(client.unanswered(error)).context("cannot ask what the model takes"),
    }
}

/// `NAME`, or `NAME:VERSION` where one is asked for.
fn called(model: &Model) -> String {
    let version = model.version.as_ref().map(|version| format!(":{version}"));
    format!("{}{}", model.name, version.unwrap_or_default())
}

fn sources(args: &LoadArgs) -> Sources {
    let input = &args.input;
    Sources {
        files: input.input.iter().filter(|file| !file.is_random()).cloned().collect(),
        shapes: input.shape.clone(),
        ranges: input.range.clone(),
        string_lengths: input.string_length.clone(),
        batch: input.batch,
        inputs: Vec::new(),
        distinct: input.distinct.unwrap_or(DISTINCT) as usize,
        as_text: args.target.protocol == Protocol::HttpJson,
        scale: input.scale.unwrap_or_default(),
        seed: args.extent.seed,
    }
}

/// One expectation for each of `requests`.
fn spread(
    answers: &[Vec<volley_client::Tensor>],
    requests: usize,
    args: &LoadArgs,
) -> anyhow::Result<Vec<Option<Arc<Expected>>>> {
    if args.check.expect.is_empty() {
        return Ok(vec![None; requests]);
    }
    ensure!(
        answers.len() == 1 || answers.len() == requests,
        "--expect has {} answers, but there are {requests} requests; give one for each, or one for all",
        answers.len()
    );
    let tolerance = args.check.tolerance;
    let expected = |outputs: &Vec<_>| Arc::new(Expected { outputs: outputs.clone(), tolerance });
    let answers: Vec<_> = answers.iter().map(expected).collect();
    Ok((0..requests).map(|at| answers.get(at % answers.len()).cloned()).collect())
}
