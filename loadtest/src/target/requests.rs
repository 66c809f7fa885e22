//! The requests to the models of a server, prepared as they are sent.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use volley_client::{Encoding, InferRequest, ModelMetadata};

use super::client::{Client, Told};
use crate::args::{LoadArgs, Model};
use crate::expect::Expected;
use crate::input::{self, Content, MAX_BYTES, Sources};
use crate::transport::Protocol;
use crate::usage;
use crate::workload::{Guess, ModelRequests, Prepared, Workload};

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
        known.push(told(client, model, !sources.files.is_empty()).await?);
    }
    let inputs: Vec<_> = known.iter().flatten().flat_map(|metadata| metadata.inputs.clone()).collect();
    input::check_names(&inputs, &sources).map_err(usage::bad)?;
    if sources.files.is_empty() {
        input::check_open(&inputs, &sources).map_err(usage::bad)?;
    }
    sources.inputs = inputs.into_iter().map(|input| input.name).collect();
    let mut models = Vec::new();
    let mut budget = Budget { left: MAX_BYTES };
    for (model, told) in args.target.model.iter().zip(known) {
        let metadata = told.as_ref().ok();
        let contents = input::contents(&model.name, metadata, &sources).map_err(usage::bad)?;
        let expected = spread(&expected, contents.len(), args).map_err(usage::bad)?;
        let mut prepare =
            |(content, expected): (&Content, Option<Arc<Expected>>)| -> anyhow::Result<Prepared> {
                let (bytes, body_bytes) = client.encode(model, args.target.protocol, content)?;
                budget.take(bytes.len())?;
                let items = content.items(metadata, sources.batch);
                Ok(Prepared { bytes, body_bytes, items, expected })
            };
        let requests = contents.iter().zip(expected).map(&mut prepare).collect::<anyhow::Result<_>>();
        let requests = requests.with_context(|| format!("model {:?}", model.name)).map_err(usage::bad)?;
        let (share, guess) = (model.weight / total, guess(&told, &sources));
        models.push(ModelRequests { model: model.to_string(), share, requests, guess });
    }
    Ok(Workload { models })
}

/// What the server tells of `model`, or why it tells nothing where that is no hindrance.
///
/// # Errors
/// When it has no such model, or tells nothing and no file has the requests.
async fn told(client: &Client, model: &Model, file: bool) -> anyhow::Result<Result<ModelMetadata, String>> {
    match client.told_of(model).await? {
        Told::Metadata(metadata) => Ok(Ok(metadata)),
        // The first request shows what is wrong, if something is.
        Told::Nothing(answer) | Told::Failure { answer, .. } if file => Ok(Err(answer)),
        // Either is the user's to type.
        Told::Nothing(answer) => Err(usage::bad(anyhow!(
            "{answer}; is a V2 inference server there? if so, give its requests with --input, else its address with \
             --url"
        ))),
        Told::Failure { answer, advice } => bail!("{answer}{advice}"),
    }
}

/// What may be why the model takes none of its requests.
fn guess(told: &Result<ModelMetadata, String>, sources: &Sources) -> Option<Guess> {
    match told {
        Ok(metadata) => input::random_text(metadata, sources).map(Guess::RandomText),
        Err(answer) => Some(Guess::NoServer(answer.clone())),
    }
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
