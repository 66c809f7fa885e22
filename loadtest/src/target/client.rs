//! A client of the server, for what is asked before the load, and what an answer means that is none of the V2 protocol.

use std::time::Duration;

use anyhow::bail;
use volley_client::{
    ClientError, GrpcClient, GrpcOptions, HttpClient, HttpOptions, ModelMetadata, ServerMetadata,
};

use crate::args::Model;
use crate::transport::Protocol;

/// What a server tells of itself or of a model is smaller.
const MAX_METADATA_BYTES: usize = 16 << 20;

/// The codes of gRPC for what broke inside, and for a method that a server does not have.
const INTERNAL: i32 = 13;
const UNIMPLEMENTED: i32 = 12;

/// A client, for what is not load.
#[derive(Debug)]
pub(super) enum Client {
    Http(Box<HttpClient>),
    Grpc(GrpcClient),
}

/// What a server says of a model; where it is no metadata, what was asked and answered, in words.
#[derive(Debug)]
pub(super) enum Told {
    Metadata(ModelMetadata),
    /// It has nothing there: it may know only inference, or be another service.
    Nothing(String),
    /// It failed, or speaks something else.
    Failure {
        answer: String,
        advice: &'static str,
    },
}

impl Client {
    pub(super) fn new(protocol: Protocol, url: Option<&str>, timeout: Duration) -> anyhow::Result<Client> {
        let client = if protocol.is_http() {
            let options =
                HttpOptions { timeout, max_response_bytes: MAX_METADATA_BYTES, max_idle_connections: 1 };
            Client::Http(Box::new(HttpClient::with_options(url.unwrap_or("http://localhost:8000"), options)?))
        } else {
            let options = GrpcOptions { timeout, max_response_bytes: MAX_METADATA_BYTES };
            Client::Grpc(GrpcClient::with_options(url.unwrap_or("http://localhost:8001"), options)?)
        };
        Ok(client)
    }

    pub(super) fn address(&self) -> String {
        match self {
            Client::Http(client) => client.address(),
            Client::Grpc(client) => client.address(),
        }
    }

    pub(super) fn authority(&self) -> &str {
        match self {
            Client::Http(client) => client.authority(),
            Client::Grpc(client) => client.authority(),
        }
    }

    pub(super) async fn server_metadata(&self) -> Result<ServerMetadata, ClientError> {
        match self {
            Client::Http(client) => client.server_metadata().await,
            Client::Grpc(client) => client.server_metadata().await,
        }
    }

    /// What the server tells of `model`.
    ///
    /// # Errors
    /// When it says that it has no such model.
    pub(super) async fn told_of(&self, model: &Model) -> anyhow::Result<Told> {
        let version = model.version.as_deref();
        let answer = match self {
            Client::Http(client) => client.model_metadata(&model.name, version).await,
            Client::Grpc(client) => client.model_metadata(&model.name, version).await,
        };
        match answer {
            // A server that knows only inference answers, too; and then without inputs nothing is known.
            Ok(metadata) if metadata.inputs.is_empty() => {
                Ok(Told::Nothing(format!("{} was answered without inputs", self.question(model))))
            }
            Ok(metadata) => Ok(Told::Metadata(metadata)),
            Err(error) => self.untold(model, &error),
        }
    }

    /// What `error` says in the place of metadata.
    fn untold(&self, model: &Model, error: &ClientError) -> anyhow::Result<Told> {
        let question = self.question(model);
        // Who repeats the path of the question knows nothing of models.
        let named = |message: &str| message.contains(&model.name) && !message.contains("/v2/models/");
        Ok(match error {
            ClientError::Status { status: 404 | 400, message } if named(message) => {
                bail!("the server has no model {:?}: {message}", model.to_string())
            }
            ClientError::Rpc { code, message } if named(message) => {
                bail!("the server has no model {:?}: {code:?}: {message}", model.to_string())
            }
            ClientError::Status { status: status @ (404 | 405 | 501), message } => {
                Told::Nothing(format!("{question} was answered with status {status}: {message}"))
            }
            // Of gRPC only this says that there is no such method.
            ClientError::Rpc { code, message } if i32::from(*code) == UNIMPLEMENTED => {
                Told::Nothing(format!("{question} was answered with {code:?}: {message}"))
            }
            ClientError::Status { status, message } => Told::Failure {
                answer: format!("{question} was answered with status {status}: {message}"),
                advice: "",
            },
            ClientError::Protocol { reason } => Told::Failure {
                answer: format!("{question} was answered, but not as a V2 inference server does ({reason})"),
                advice: "; give the address of one with --url",
            },
            ClientError::Disconnected { reason, .. } => Told::Failure {
                answer: format!("{question} has no answer: the connection broke ({reason})"),
                advice: self.other_protocol(error),
            },
            error => Told::Failure {
                answer: format!("{question} failed: {error}"),
                advice: self.other_protocol(error),
            },
        })
    }

    /// What is likely when a connection ends without an answer.
    fn other_protocol(&self, error: &ClientError) -> &'static str {
        let broke = match error {
            ClientError::Disconnected { .. } => true,
            // What the client makes of an answer that is none of gRPC.
            ClientError::Rpc { code, message } => {
                i32::from(*code) == INTERNAL || message.contains("grpc-status header missing")
            }
            _ => false,
        };
        match self {
            _ if !broke => "",
            Client::Http(_) => "; it may not speak HTTP: if that is its gRPC port, add --protocol grpc",
            Client::Grpc(_) => "; it may not speak gRPC: if that is its HTTP port, leave out --protocol grpc",
        }
    }

    /// What the server is asked about `model`.
    fn question(&self, model: &Model) -> String {
        let Model { name, version, .. } = model;
        match self {
            Client::Http(client) => {
                let version = version.as_ref().map(|version| format!("/versions/{version}"));
                format!("GET {}/v2/models/{name}{}", client.address(), version.unwrap_or_default())
            }
            Client::Grpc(client) => format!("ModelMetadata of {model} at {}", client.address()),
        }
    }
}
