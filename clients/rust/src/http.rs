//! The V2 protocol over HTTP.

mod decode;
mod encode;
mod events;
mod frames;
mod repository;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::address::{Address, segment};
use crate::error::root_cause;
use crate::{
    ClientError, InferRequest, InferResponse, ModelMetadata, ModelState, ModelStatistics, ServerMetadata,
};

pub use events::{EventStream, RepositoryEvent, Told};
pub use repository::LoadParameters;

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// How an [`HttpClient`] behaves.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// How long one call may take, from connecting to the last byte.
    pub timeout: Duration,
    /// The largest answer taken.
    pub max_response_bytes: usize,
    /// How many idle connections are kept for the next calls. As many are opened as there are calls at once.
    pub max_idle_connections: usize,
}

impl Default for HttpOptions {
    fn default() -> HttpOptions {
        HttpOptions {
            timeout: Duration::from_secs(60),
            max_response_bytes: 1 << 30,
            max_idle_connections: 1024,
        }
    }
}

/// A client of one server over HTTP. Clones share the connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    address: Arc<Address>,
    options: HttpOptions,
    connections: Client<HttpConnector, Full<Bytes>>,
}

/// An infer call encoded once, to be sent any number of times.
#[derive(Clone, Debug)]
pub struct PreparedRequest {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl PreparedRequest {
    /// The body as it is sent.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The whole request as HTTP/1.1 puts it on a connection that is kept open: for programs that bring their own
    /// transport.
    pub fn http1(&self) -> Bytes {
        let path = self.uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
        let host = self.uri.authority().map_or("", Authority::as_str);
        let mut bytes = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\n").into_bytes();
        for (name, value) in &self.headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes.into()
    }
}

/// A successful answer as it arrived.
#[derive(Clone, Debug)]
pub struct EncodedResponse {
    /// The JSON and the binary tensors.
    pub body: Bytes,
    json_length: Option<usize>,
}

impl EncodedResponse {
    /// An answer that came by another transport. `json_length` is the length of the JSON part when binary tensors
    /// follow it.
    pub fn new(body: Bytes, json_length: Option<usize>) -> EncodedResponse {
        EncodedResponse { body, json_length }
    }

    /// The JSON part, without the binary tensors.
    pub fn json(&self) -> &[u8] {
        &self.body[..self.json_length.unwrap_or(self.body.len()).min(self.body.len())]
    }

    /// Reads the answer. Binary outputs share its memory.
    ///
    /// # Errors
    /// When it is not an answer of the V2 protocol.
    pub fn decode(&self) -> Result<InferResponse, ClientError> {
        decode::decode(&self.body, self.json_length)
    }
}

impl HttpClient {
    /// A client of the server at `url` (`http://HOST:PORT`); connects when first used.
    ///
    /// # Errors
    /// When `url` is not such an address.
    pub fn new(url: &str) -> Result<HttpClient, ClientError> {
        HttpClient::with_options(url, HttpOptions::default())
    }

    /// As [`HttpClient::new`], with options.
    ///
    /// # Errors
    /// When `url` is not an address of the form `http://HOST:PORT`.
    pub fn with_options(url: &str, options: HttpOptions) -> Result<HttpClient, ClientError> {
        let address = Arc::new(Address::parse(url, 8000)?);
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let connections = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(options.max_idle_connections)
            .build(connector);
        Ok(HttpClient { address, options, connections })
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
    /// When it cannot be asked, or answers with another status than 200, 400 or 503.
    pub async fn live(&self) -> Result<bool, ClientError> {
        self.is_ready("/v2/health/live", &[400, 503]).await
    }

    /// Whether the server takes requests.
    ///
    /// # Errors
    /// When it cannot be asked, or answers with another status than 200, 400 or 503.
    pub async fn ready(&self) -> Result<bool, ClientError> {
        self.is_ready("/v2/health/ready", &[400, 503]).await
    }

    /// Whether `model` takes requests; one that the server does not know is not ready.
    ///
    /// # Errors
    /// When the server cannot be asked, or answers with another status than 200, 400, 404 or 503.
    pub async fn model_ready(&self, model: &str, version: Option<&str>) -> Result<bool, ClientError> {
        self.is_ready(&format!("{}/ready", model_path(model, version)), &[400, 404, 503]).await
    }

    /// What the server says of itself.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn server_metadata(&self) -> Result<ServerMetadata, ClientError> {
        self.get_json("/v2").await
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
        self.get_json(&model_path(model, version)).await
    }

    /// The configuration of a model, as the server completed it.
    ///
    /// # Errors
    /// As [`HttpClient::model_metadata`].
    pub async fn model_config(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<serde_json::Value, ClientError> {
        self.get_json(&format!("{}/config", model_path(model, version))).await
    }

    /// What the server counted of every version of every model.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn statistics(&self) -> Result<Vec<ModelStatistics>, ClientError> {
        Ok(self.get_json::<Statistics>("/v2/models/stats").await?.model_stats)
    }

    /// What the server counted of a model: of one version, or of all when `version` is `None`.
    ///
    /// # Errors
    /// As [`HttpClient::model_metadata`].
    pub async fn model_statistics(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<Vec<ModelStatistics>, ClientError> {
        let path = format!("{}/stats", model_path(model, version));
        Ok(self.get_json::<Statistics>(&path).await?.model_stats)
    }

    /// Every model the server has, ready or not.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn repository_index(&self) -> Result<Vec<ModelState>, ClientError> {
        let response = self.post("/v2/repository/index", &[], Bytes::from_static(b"{}")).await?;
        from_json(&accepted(response)?.into_body())
    }

    /// Sends `request` and waits for its answer.
    ///
    /// # Errors
    /// When the request cannot be written, the server cannot be asked or refuses, or its answer cannot be read.
    pub async fn infer(&self, request: &InferRequest) -> Result<InferResponse, ClientError> {
        self.send(&self.prepare(request)?).await?.decode()
    }

    /// Encodes `request`, to be sent with [`HttpClient::send`].
    ///
    /// # Errors
    /// When a tensor that shall travel as JSON has no JSON form.
    pub fn prepare(&self, request: &InferRequest) -> Result<PreparedRequest, ClientError> {
        let body = encode::encode(request)?;
        self.prepare_body(&request.model, request.version.as_deref(), body.bytes, body.json_length)
    }

    /// An infer call with a body written by someone else. `json_length` is the length of the JSON part when
    /// binary tensors follow it; 0 says that the body is one raw tensor.
    ///
    /// # Errors
    /// Never for names a server can have; when the path would be too long for a URL.
    pub fn prepare_body(
        &self,
        model: &str,
        version: Option<&str>,
        body: Bytes,
        json_length: Option<usize>,
    ) -> Result<PreparedRequest, ClientError> {
        let uri = self.address.uri(&format!("{}/infer", model_path(model, version)))?;
        let content = if json_length.is_some() { "application/octet-stream" } else { "application/json" };
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
        if let Some(length) = json_length {
            headers.insert(JSON_LENGTH, HeaderValue::from(length));
        }
        Ok(PreparedRequest { uri, headers, body })
    }

    /// Sends an encoded request.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn send(&self, request: &PreparedRequest) -> Result<EncodedResponse, ClientError> {
        let mut call = Request::new(Full::new(request.body.clone()));
        *call.method_mut() = Method::POST;
        *call.uri_mut() = request.uri.clone();
        *call.headers_mut() = request.headers.clone();
        let response = accepted(self.call(call).await?)?;
        let json_length = response.headers().get(JSON_LENGTH).map(json_length).transpose()?;
        Ok(EncodedResponse { body: response.into_body(), json_length })
    }

    /// `GET path`, whatever the status of the answer.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn get(&self, path: &str) -> Result<Response<Bytes>, ClientError> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.address.uri(path)?;
        self.call(request).await
    }

    /// `POST path` with any headers and body, whatever the status of the answer.
    ///
    /// # Errors
    /// When a header cannot be sent or the server cannot be asked.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Bytes>, ClientError> {
        let mut request = Request::post(self.address.uri(path)?);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|error| ClientError::InvalidRequest {
            reason: format!("a header of {headers:?} cannot be sent: {error}"),
        })?;
        self.call(request).await
    }

    async fn is_ready(&self, path: &str, not_ready: &[u16]) -> Result<bool, ClientError> {
        let response = self.get(path).await?;
        if not_ready.contains(&response.status().as_u16()) {
            return Ok(false);
        }
        accepted(response).map(|_| true)
    }

    async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        from_json(&accepted(self.get(path).await?)?.into_body())
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, ClientError> {
        self.within_time(async { self.whole(self.begin(request).await?).await }).await
    }

    async fn within_time<T>(
        &self,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let after = self.options.timeout;
        let answer = tokio::time::timeout(after, call).await;
        answer.unwrap_or_else(|_| Err(ClientError::Timeout { address: self.address(), after }))
    }

    /// Sends `request`; returns when the answer begins.
    async fn begin(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        self.connections.request(request).await.map_err(|error| {
            let (address, reason) = (self.address(), root_cause(&error));
            if error.is_connect() {
                ClientError::Connect { address, reason }
            } else {
                ClientError::Disconnected { address, reason }
            }
        })
    }

    /// The answer with all of its body.
    async fn whole(&self, response: Response<Incoming>) -> Result<Response<Bytes>, ClientError> {
        let (head, body) = response.into_parts();
        let limit = self.options.max_response_bytes;
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return ClientError::TooLarge { address: self.address(), limit };
            }
            ClientError::Disconnected { address: self.address(), reason: root_cause(&*error) }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

#[derive(Deserialize)]
struct Statistics {
    model_stats: Vec<ModelStatistics>,
}

fn model_path(model: &str, version: Option<&str>) -> String {
    let model = segment(model);
    match version {
        Some(version) => format!("/v2/models/{model}/versions/{}", segment(version)),
        None => format!("/v2/models/{model}"),
    }
}

fn accepted(response: Response<Bytes>) -> Result<Response<Bytes>, ClientError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let message = refusal(response.status(), response.body());
    Err(ClientError::Status { status: response.status().as_u16(), message })
}

/// The server's words in `body`, that of an answer with the error `status`; at least what the status is called.
pub fn refusal(status: StatusCode, body: &[u8]) -> String {
    /// `error` is the V2 protocol's; `detail` is what KServe's web framework writes.
    #[derive(Deserialize)]
    struct Refusal {
        #[serde(alias = "detail")]
        error: String,
    }
    if let Ok(refusal) = serde_json::from_slice::<Refusal>(body) {
        return refusal.error;
    }
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    match text.trim() {
        // A page for people: whatever answers there speaks another protocol.
        page if page.starts_with('<') => {
            let reason = status.canonical_reason().unwrap_or("an error");
            format!("{reason} (its answer is a page, so it may be no V2 inference server)")
        }
        "" => status.canonical_reason().unwrap_or("no explanation was given").to_owned(),
        text => text.to_owned(),
    }
}

fn json_length(value: &HeaderValue) -> Result<usize, ClientError> {
    let length = value.to_str().ok().and_then(|length| length.parse().ok());
    length
        .ok_or_else(|| ClientError::protocol(format!("its header {JSON_LENGTH} is {value:?}, not a length")))
}

fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body)
        .map_err(|error| ClientError::protocol(format!("its JSON cannot be read: {error}")))
}

#[cfg(test)]
mod tests;
