//! The server before the load: where it is, what its models take, the requests for them, and whether it answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;
use volley_client::{
    ClientError, Encoding, GrpcClient, GrpcOptions, HttpClient, HttpOptions, InferRequest, ModelMetadata,
    ServerMetadata,
};

use crate::args::{LoadArgs, Model};
use crate::expect::Expected;
use crate::input::{self, Content, Sources};
use crate::transport::{Endpoint, Failure, Opener, Protocol};
use crate::workload::{ModelRequests, Prepared, Workload};

/// How long the server may take for what is asked before the load.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that is ready to be loaded.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) workload: Arc<Workload>,
    /// Name and version of the server, when it tells.
    pub(crate) server: Option<String>,
}

/// A client, for what is not load.
#[derive(Debug)]
enum Client {
    Http(Box<HttpClient>),
    Grpc(GrpcClient),
}

impl Target {
    /// Finds the server, asks what its models take, and prepares the requests.
    ///
    /// # Errors
    /// When nothing listens there, a model is not there, or the inputs do not fit it.
    pub(crate) async fn find(args: &LoadArgs) -> anyhow::Result<Target> {
        let protocol = args.target.protocol;
        let client = Client::new(protocol, args.target.url.as_deref())?;
        let addresses = reachable(client.authority(), &client.address()).await?;
        let endpoint = Endpoint {
            protocol,
            authority: client.authority().to_owned(),
            addresses,
            connections: args.extent.connections.into(),
        };
        let server = timeout(PATIENCE, client.server_metadata()).await.ok().and_then(Result::ok);
        let server = server.map(|server| format!("{} {}", server.name, server.version).trim().to_owned());
        let workload = Arc::new(workload(&client, args).await?);
        let url = client.address();
        Ok(Target { url, endpoint, workload, server: server.filter(|server| !server.is_empty()) })
    }

    /// Sends one request to each model. What would fail every time fails here, in one line.
    ///
    /// # Errors
    /// When the server refuses a request, and would refuse it again.
    pub(crate) async fn try_out(&self, patience: Duration) -> anyhow::Result<()> {
        let opener = Opener::new(self.endpoint.clone());
        for model in &self.workload.models {
            let request = model.requests.first().context("a model has no request")?;
            let mut connection = opener.open();
            // A server that is slow, overloaded or breaks off is what a measurement is about.
            if let Ok(Err(Failure::Refused(reason))) = timeout(patience, connection.exchange(request)).await {
                bail!("model {:?} refuses the request: {reason}", model.model);
            }
        }
        Ok(())
    }
}

impl Client {
    fn new(protocol: Protocol, url: Option<&str>) -> anyhow::Result<Client> {
        let client = if protocol.is_http() {
            let options =
                HttpOptions { timeout: PATIENCE, max_idle_connections: 1, ..HttpOptions::default() };
            Client::Http(Box::new(HttpClient::with_options(url.unwrap_or("http://localhost:8000"), options)?))
        } else {
            let options = GrpcOptions { timeout: PATIENCE, ..GrpcOptions::default() };
            Client::Grpc(GrpcClient::with_options(url.unwrap_or("http://localhost:8001"), options)?)
        };
        Ok(client)
    }

    fn address(&self) -> String {
        match self {
            Client::Http(client) => client.address(),
            Client::Grpc(client) => client.address(),
        }
    }

    fn authority(&self) -> &str {
        match self {
            Client::Http(client) => client.authority(),
            Client::Grpc(client) => client.authority(),
        }
    }

    async fn server_metadata(&self) -> Result<ServerMetadata, ClientError> {
        match self {
            Client::Http(client) => client.server_metadata().await,
            Client::Grpc(client) => client.server_metadata().await,
        }
    }

    async fn model_metadata(&self, model: &Model) -> Result<ModelMetadata, ClientError> {
        let version = model.version.as_deref();
        match self {
            Client::Http(client) => client.model_metadata(&model.name, version).await,
            Client::Grpc(client) => client.model_metadata(&model.name, version).await,
        }
    }

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

/// The address that takes connections, of those that the name has.
async fn reachable(authority: &str, url: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host(authority).await;
    let addresses: Vec<_> = found.with_context(|| format!("{url}: its host has no address"))?.collect();
    let mut last = anyhow!("its host has no address");
    for address in addresses {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(vec![address]),
            Ok(Err(error)) => last = error.into(),
            Err(_) => last = anyhow!("no answer within {} s", PATIENCE.as_secs()),
        }
    }
    Err(last.context(format!("cannot connect to {url}: is the server running there")))
}

async fn workload(client: &Client, args: &LoadArgs) -> anyhow::Result<Workload> {
    let sources = sources(args);
    let expected = match &args.check.expect[..] {
        [] => Vec::new(),
        files => input::expected(files, sources.batch).context("--expect")?,
    };
    let total: f64 = args.target.model.iter().map(|model| model.weight).sum();
    let mut models = Vec::new();
    for model in &args.target.model {
        let metadata = metadata(client, model).await?;
        let contents = input::contents(&model.name, metadata.as_ref(), &sources)?;
        let expected = spread(&expected, contents.len(), args)?;
        let prepare = |(content, expected): (&Content, Option<Arc<Expected>>)| -> anyhow::Result<Prepared> {
            let (bytes, body_bytes) = client.encode(model, args.target.protocol, content)?;
            let items = content.items(metadata.as_ref(), sources.batch);
            Ok(Prepared { bytes, body_bytes, items, expected })
        };
        let requests = contents.iter().zip(expected).map(prepare).collect::<anyhow::Result<_>>();
        let requests = requests.with_context(|| format!("model {:?}", model.name))?;
        let name = match &model.version {
            Some(version) => format!("{}:{version}", model.name),
            None => model.name.clone(),
        };
        models.push(ModelRequests { model: name, share: model.weight / total, requests });
    }
    Ok(Workload { models })
}

/// The metadata of `model`; `None` when the server does not tell of any model.
async fn metadata(client: &Client, model: &Model) -> anyhow::Result<Option<ModelMetadata>> {
    match client.model_metadata(model).await {
        // A server that knows only inference answers, too; and then without inputs nothing is known.
        Ok(metadata) => Ok(Some(metadata).filter(|metadata| !metadata.inputs.is_empty())),
        Err(ClientError::Status { status: 404 | 400, message }) if message.contains(&model.name) => {
            bail!("the server has no model {:?}: {message}", model.name)
        }
        Err(ClientError::Rpc { code, message }) if message.contains(&model.name) => {
            bail!("the server has no model {:?}: {code:?}: {message}", model.name)
        }
        Err(_) => Ok(None),
    }
}

fn sources(args: &LoadArgs) -> Sources {
    let input = &args.input;
    let random = |file: &input::File| file.name.is_none() && file.path.as_os_str() == "random";
    Sources {
        files: input.input.iter().filter(|file| !random(file)).cloned().collect(),
        shapes: input.shape.clone(),
        ranges: input.range.clone(),
        string_lengths: input.string_length.clone(),
        batch: input.batch,
        distinct: input.distinct as usize,
        scale: input.scale,
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
