//! The V2 protocol over gRPC.

mod decode;
mod encode;
mod encoded;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::http::uri::PathAndQuery;
use prost::Message;
use proto::v2;
use proto::v2::grpc_inference_service_client::GrpcInferenceServiceClient;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

use crate::address::Address;
use crate::error::root_cause;
use crate::{
    ClientError, InferRequest, InferResponse, ModelMetadata, ModelState, ModelStatistics, ServerMetadata,
};

/// How a [`GrpcClient`] behaves.
#[derive(Clone, Debug)]
pub struct GrpcOptions {
    /// How long one call may take, from connecting to the last byte; in a stream, how long each answer may.
    pub timeout: Duration,
    /// The largest answer taken.
    pub max_response_bytes: usize,
}

impl Default for GrpcOptions {
    fn default() -> GrpcOptions {
        GrpcOptions { timeout: Duration::from_secs(60), max_response_bytes: 1 << 30 }
    }
}

/// A client of one server over gRPC. Clones share its one HTTP/2 connection.
#[derive(Clone, Debug)]
pub struct GrpcClient {
    address: Arc<Address>,
    options: GrpcOptions,
    channel: Channel,
}

/// An infer call encoded once, to be sent any number of times.
#[derive(Clone, Debug)]
pub struct PreparedRpc {
    message: Bytes,
}

impl PreparedRpc {
    /// The message as it is sent.
    pub fn message(&self) -> &Bytes {
        &self.message
    }

    /// The message as gRPC frames it, uncompressed: for programs that bring their own HTTP/2.
    ///
    /// # Errors
    /// When it has 4 GiB or more, which no frame can say.
    pub fn framed(&self) -> Result<Bytes, ClientError> {
        let length = u32::try_from(self.message.len()).map_err(|_| ClientError::InvalidRequest {
            reason: format!("its message has {} bytes, and gRPC takes less than 4 GiB", self.message.len()),
        })?;
        Ok([&[0], &length.to_be_bytes()[..], &self.message].concat().into())
    }
}

/// A successful answer as it arrived.
#[derive(Clone, Debug)]
pub struct EncodedReply {
    /// The message.
    pub message: Bytes,
}

impl EncodedReply {
    /// The answer that one message of a stream holds; does not look into the answer itself.
    ///
    /// # Errors
    /// [`ClientError::InStream`] when the message is a refusal (its id stays empty); when it is no such message.
    pub fn from_stream(message: &Bytes) -> Result<EncodedReply, ClientError> {
        encoded::streamed(message)
    }

    /// Reads the answer. Its outputs share its memory.
    ///
    /// # Errors
    /// When it is not an answer of the V2 protocol.
    pub fn decode(&self) -> Result<InferResponse, ClientError> {
        let message = v2::ModelInferResponse::decode(self.message.clone())
            .map_err(|error| ClientError::protocol(format!("its message cannot be read: {error}")))?;
        decode::response(message)
    }
}

/// The answers of a stream, in the order they arrive.
#[derive(Debug)]
pub struct ResponseStream {
    client: GrpcClient,
    answers: Streaming<v2::ModelStreamInferResponse>,
}

impl ResponseStream {
    /// The next answer; `None` after the last. [`ClientError::InStream`] concerns one request and the stream
    /// goes on; any other error ends it.
    pub async fn next(&mut self) -> Option<Result<InferResponse, ClientError>> {
        match self.client.within_timeout(self.answers.message()).await {
            Ok(Some(message)) => Some(decode::streamed(message)),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl GrpcClient {
    /// A client of the server at `url` (`http://HOST:PORT` or `HOST:PORT`); connects when first used.
    /// Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// When `url` is not such an address.
    pub fn new(url: &str) -> Result<GrpcClient, ClientError> {
        GrpcClient::with_options(url, GrpcOptions::default())
    }

    /// As [`GrpcClient::new`], with options.
    ///
    /// # Errors
    /// When `url` is not an address of the form `http://HOST:PORT`.
    pub fn with_options(url: &str, options: GrpcOptions) -> Result<GrpcClient, ClientError> {
        let address = Arc::new(Address::parse(url, 8001)?);
        // Windows that grow with the link: large tensors would wait for the 64 KiB that HTTP/2 starts with.
        let endpoint = Endpoint::from(address.uri("/")?).http2_adaptive_window(true);
        Ok(GrpcClient { address, options, channel: endpoint.connect_lazy() })
    }

    /// The address of the server.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// `HOST:PORT` of the server, with the port in any case.
    pub fn authority(&self) -> &str {
        self.address.authority()
    }

    /// Whether the server is alive.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn live(&self) -> Result<bool, ClientError> {
        Ok(self.call(self.service().server_live(v2::ServerLiveRequest {})).await?.live)
    }

    /// Whether the server takes requests.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn ready(&self) -> Result<bool, ClientError> {
        Ok(self.call(self.service().server_ready(v2::ServerReadyRequest {})).await?.ready)
    }

    /// Whether `model` takes requests; one that the server does not know is not ready.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn model_ready(&self, model: &str, version: Option<&str>) -> Result<bool, ClientError> {
        let request = v2::ModelReadyRequest { name: model.to_owned(), version: text(version) };
        match self.call(self.service().model_ready(request)).await {
            Ok(answer) => Ok(answer.ready),
            Err(ClientError::Rpc { code: Code::NotFound | Code::Unavailable, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the server says of itself.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn server_metadata(&self) -> Result<ServerMetadata, ClientError> {
        let answer = self.call(self.service().server_metadata(v2::ServerMetadataRequest {})).await?;
        let v2::ServerMetadataResponse { name, version, extensions } = answer;
        Ok(ServerMetadata { name, version, extensions })
    }

    /// The inputs and outputs of a model.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses, for instance because it has no such model.
    pub async fn model_metadata(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<ModelMetadata, ClientError> {
        let request = v2::ModelMetadataRequest { name: model.to_owned(), version: text(version) };
        self.call(self.service().model_metadata(request)).await.map(decode::metadata)
    }

    /// The configuration of a model, as the server completed it.
    ///
    /// # Errors
    /// As [`GrpcClient::model_metadata`].
    pub async fn model_config(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<serde_json::Value, ClientError> {
        let request = v2::ModelConfigRequest { name: model.to_owned(), version: text(version) };
        let answer = self.call(self.service().model_config(request)).await?;
        Ok(proto::config_json::to_json(&answer.config.unwrap_or_default()))
    }

    /// What the server counted of every version of every model.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn statistics(&self) -> Result<Vec<ModelStatistics>, ClientError> {
        self.model_statistics("", None).await
    }

    /// What the server counted of a model: of one version, or of all when `version` is `None`.
    ///
    /// # Errors
    /// As [`GrpcClient::model_metadata`].
    pub async fn model_statistics(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<Vec<ModelStatistics>, ClientError> {
        let request = v2::ModelStatisticsRequest { name: model.to_owned(), version: text(version) };
        let answer = self.call(self.service().model_statistics(request)).await?;
        Ok(answer.model_stats.into_iter().map(decode::statistics).collect())
    }

    /// Every model the server has, ready or not.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn repository_index(&self) -> Result<Vec<ModelState>, ClientError> {
        let answer =
            self.call(self.service().repository_index(v2::RepositoryIndexRequest::default())).await?;
        Ok(answer.models.into_iter().map(decode::state).collect())
    }

    /// Sends `request` and waits for its answer.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses, or its answer cannot be read.
    pub async fn infer(&self, request: &InferRequest) -> Result<InferResponse, ClientError> {
        self.send(&self.prepare(request)).await?.decode()
    }

    /// Encodes `request`, to be sent with [`GrpcClient::send`].
    pub fn prepare(&self, request: &InferRequest) -> PreparedRpc {
        PreparedRpc { message: encode::message(request).encode_to_vec().into() }
    }

    /// Sends an encoded request.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn send(&self, request: &PreparedRpc) -> Result<EncodedReply, ClientError> {
        let mut service = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(self.options.max_response_bytes);
        let call = async {
            // The channel fails calls, not readiness, so an error here is that it was closed.
            service.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
            service.unary(tonic::Request::new(request.message.clone()), path, encoded::EncodedCodec).await
        };
        Ok(EncodedReply { message: self.call(call).await? })
    }

    /// Opens a stream of `requests`; the server answers each with any number of answers (one, unless the model
    /// is decoupled).
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn infer_stream(
        &self,
        requests: impl Stream<Item = InferRequest> + Send + 'static,
    ) -> Result<ResponseStream, ClientError> {
        let messages = requests.map(|request| encode::message(&request));
        let answers = self.call(self.service().model_stream_infer(messages)).await?;
        Ok(ResponseStream { client: self.clone(), answers })
    }

    fn service(&self) -> GrpcInferenceServiceClient<Channel> {
        GrpcInferenceServiceClient::new(self.channel.clone())
            .max_decoding_message_size(self.options.max_response_bytes)
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ClientError> {
        self.within_timeout(call).await.map(Response::into_inner)
    }

    async fn within_timeout<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, ClientError> {
        let after = self.options.timeout;
        match tokio::time::timeout(after, call).await {
            Ok(answer) => answer.map_err(|status| self.error(&status)),
            Err(_) => Err(ClientError::Timeout { address: self.address(), after }),
        }
    }

    /// Tells what the server said from what happened to the connection.
    fn error(&self, status: &Status) -> ClientError {
        let mut cause = std::error::Error::source(status);
        let Some(broken) = cause else {
            return ClientError::Rpc { code: status.code(), message: status.message().to_owned() };
        };
        let (address, reason) = (self.address(), root_cause(broken));
        while let Some(error) = cause {
            if error.is::<tonic::ConnectError>() {
                return ClientError::Connect { address, reason };
            }
            cause = error.source();
        }
        ClientError::Disconnected { address, reason }
    }
}

fn text(version: Option<&str>) -> String {
    version.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
