//! One request over HTTP: find its route, answer it, write its access line.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use model::{InferError, Parameter, Parameters};
use serde_json::Value;
use tracing::error;

use super::answer::{self, Answer};
use super::body::{self, BodyLimits};
use super::event_stream;
use super::infer::infer;
use super::model_control;
use super::routes::{self, Matched, NoRoute, Question};
use super::unread;
use crate::activity::Activity;
use crate::app::App;
use crate::describe::refuse_repository_name;
use crate::logging::{AccessLog, request_span};
use crate::readiness::Stage;
use crate::request_id::{self, RequestId};
use crate::request_memory::Held;
use crate::request_rules::parse_version;
use crate::size_limit::SizeLimit;

/// Parsed once: looking a header up by text parses the text each time.
const REQUEST_ID: HeaderName = HeaderName::from_static(request_id::HEADER);

/// hyper's settings for HTTP/1.1 and HTTP/2 without TLS.
pub fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // A head has at most 64 KiB; more is refused with 431.
    // Half a head is ended by the connection's watch; an idle connection may stay.
    builder.http1().max_buf_size(64 << 10).timer(TokioTimer::new()).header_read_timeout(None);
    // A peer that is gone without a word is told from an idle one by a ping.
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .keep_alive_interval(Some(Duration::from_secs(60)))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Answers the requests of one connection.
#[derive(Clone, Debug)]
pub struct HttpService {
    /// What to answer from.
    pub app: Arc<App>,
    /// Who asks.
    pub peer: SocketAddr,
    /// What moves on the connection.
    pub activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for HttpService {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut exchange =
            Exchange { request, arrived: Instant::now(), request_id: None, version: None, begun: false };
        let service = self.clone();
        // What is handed from one future to the next by value is copied each time: the exchange stays in this one.
        Box::pin(async move {
            let handling = service.activity.handling();
            let answer = service.answer(&mut exchange).await;
            drop(handling);
            Ok(answer)
        })
    }
}

/// What a handler needs to know of a request beside its route.
pub(super) struct Exchange {
    pub(super) request: Request<Incoming>,
    pub(super) arrived: Instant,
    /// What the log calls it; known once the body is.
    pub(super) request_id: Option<RequestId>,
    /// The version that answered, for the access line.
    pub(super) version: Option<u64>,
    /// A handler has begun to read the body.
    begun: bool,
}

impl Exchange {
    /// The body, to be read.
    pub(super) fn begin_body(&mut self) -> &mut Incoming {
        self.begun = true;
        self.request.body_mut()
    }

    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.request.headers().get(name)?.to_str().ok()
    }

    /// Chooses the request's id, once its own is known.
    pub(super) fn identify(&mut self, id: &str) -> RequestId {
        let chosen = RequestId::choose(id, self.header(&REQUEST_ID));
        self.request_id = Some(chosen.clone());
        chosen
    }
}

impl HttpService {
    async fn answer(&self, exchange: &mut Exchange) -> Answer {
        let path = exchange.request.uri().path().to_owned();
        let method = exchange.request.method().clone();
        let bytes_in = exchange.request.body().size_hint().lower();
        let matched = routes::find(&method, &path);
        let mut answer = match &matched {
            Ok(matched) => {
                let result = self.handle(matched, exchange).await;
                result.unwrap_or_else(|error| {
                    if let InferError::ServerFault { .. } = error {
                        let id = exchange.request_id.clone().unwrap_or_else(|| exchange.identify(""));
                        request_span(id.as_str()).in_scope(|| error!(%error, "a request failed"));
                    }
                    answer::error(&error)
                })
            }
            Err(NoRoute::NotFound) => answer::refusal(StatusCode::NOT_FOUND, "Not Found"),
            Err(NoRoute::MethodNotAllowed { allow }) => answer::method_not_allowed(allow),
        };
        if let Some(id) = exchange.request.headers().get(&REQUEST_ID) {
            answer.headers_mut().insert(REQUEST_ID, id.clone());
        } else if !answer.status().is_success() {
            // By which the caller can ask about this in the log.
            let id = exchange.request_id.clone().unwrap_or_else(|| exchange.identify(""));
            if let Ok(id) = id.as_str().parse() {
                answer.headers_mut().insert(REQUEST_ID, id);
            }
        }
        let (limits, readiness) = (limits(&self.app), &self.app.readiness);
        unread::settle(&mut exchange.request, exchange.begun, &mut answer, limits, readiness).await;
        if exchange.request.version() < Version::HTTP_2 && self.app.readiness.stage() == Stage::Stopping {
            // The client sends its next request elsewhere before the connection is closed.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if AccessLog::wanted() {
            self.log(&method, matched.as_ref().ok(), exchange, bytes_in, &answer);
        }
        answer
    }

    fn log(
        &self,
        method: &Method,
        matched: Option<&Matched<'_>>,
        exchange: &mut Exchange,
        bytes_in: u64,
        answer: &Answer,
    ) {
        let request_id = exchange.request_id.take().unwrap_or_else(|| exchange.identify(""));
        AccessLog {
            protocol: "http",
            method: method.as_str(),
            route: matched.map_or("none", |matched| matched.route),
            status: answer.status().as_u16(),
            model: matched.and_then(|matched| matched.model.as_deref()),
            version: exchange.version,
            bytes_in,
            bytes_out: answer.body().len(),
            took: exchange.arrived.elapsed(),
            request_id: request_id.as_str(),
            peer: Some(self.peer),
        }
        .write();
    }

    async fn handle(&self, matched: &Matched<'_>, exchange: &mut Exchange) -> Result<Answer, InferError> {
        let app = &self.app;
        let model = matched.model.as_deref().unwrap_or_default();
        let version = parse_version(matched.version.unwrap_or_default())?;
        match matched.question {
            Question::Infer => infer(app, model, version, exchange).await,
            Question::Live => Ok(answer::empty()),
            Question::Ready => Ok(answer::status(ready_status(app.is_ready()))),
            Question::ModelReady => {
                let not_ready = || answer::refusal(StatusCode::BAD_REQUEST, "Model version not ready");
                app.model_ready(model, version).map(|ready| if ready { answer::empty() } else { not_ready() })
            }
            Question::ServerMetadata => {
                Ok(answer::message("inference.ServerMetadataResponse", &app.server_metadata()))
            }
            Question::ModelMetadata => {
                app.warm(model).await?;
                let metadata = app.model_metadata(model, version)?;
                Ok(answer::message("inference.ModelMetadataResponse", &metadata))
            }
            Question::ModelConfig => {
                app.warm(model).await?;
                let config = app.model_config(model, version)?.config.unwrap_or_default();
                Ok(answer::json(&proto::config_json::to_json(&config)))
            }
            Question::Statistics => {
                let statistics = app.statistics(model, version)?;
                Ok(answer::message("inference.ModelStatisticsResponse", &statistics))
            }
            Question::Index => {
                refuse_repository_name(matched.repository.unwrap_or_default())?;
                let ready = wants_ready(&self.json_body(exchange).await?)?;
                app.look_for_index(ready).await?;
                Ok(answer::json(&index(app, ready)))
            }
            Question::Events => event_stream::follow(app, exchange),
            Question::Load | Question::Unload | Question::RollBack => {
                refuse_repository_name(matched.repository.unwrap_or_default())?;
                model_control::answer(self, matched.question, model, exchange).await
            }
            Question::Logging => {
                if exchange.request.method() == Method::POST {
                    let settings = self.json_body(exchange).await?;
                    app.log.update(&parameters(&settings)?)?;
                }
                Ok(answer::json(&logging(app)))
            }
            Question::NotYet(sentence) => Err(InferError::unsupported(sentence)),
        }
    }

    /// The body as a JSON object; none is an empty one.
    pub(super) async fn json_body(&self, exchange: &mut Exchange) -> Result<Value, InferError> {
        self.json_object(exchange, SizeLimit::CONTROL, &self.app.request_memory.hold()).await
    }

    /// The same of at most `size`, which is counted in `held`.
    pub(super) async fn json_object(
        &self,
        exchange: &mut Exchange,
        size: SizeLimit,
        held: &Held,
    ) -> Result<Value, InferError> {
        let incoming = exchange.begin_body();
        let limits = BodyLimits { size, ..limits(&self.app) };
        let bytes = body::read(incoming, None, limits, held).await?;
        held.grow(bytes.len())?; // what the JSON becomes
        if bytes.is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Ok(value),
            Ok(_) => {
                Err(InferError::MalformedJson { reason: "the body is not an object".to_owned(), offset: 0 })
            }
            // Settings have one line; serde_json counts columns from 1.
            Err(error) => Err(InferError::MalformedJson {
                reason: error.to_string(),
                offset: error.column().saturating_sub(1),
            }),
        }
    }
}

/// What the bodies of inferences may be.
pub(super) fn limits(app: &App) -> BodyLimits {
    BodyLimits {
        size: SizeLimit::of_inference(app.max_input_size),
        time: app.client_timeout.max(Duration::from_millis(1)),
    }
}

/// Whether a request for the index leaves out what is not ready.
fn wants_ready(body: &Value) -> Result<bool, InferError> {
    match body.get("ready") {
        None | Some(Value::Null | Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(other) => {
            let shown: String = other.to_string().chars().take(40).collect();
            Err(InferError::invalid(format!("'ready' is {shown}, but takes true or false")))
        }
    }
}

fn ready_status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::BAD_REQUEST }
}

/// Triton leaves out what is empty.
fn index(app: &App, ready: bool) -> Value {
    let models = app.repository_index(ready).models.into_iter().map(|model| {
        let fields = [
            ("name", model.name),
            ("version", model.version),
            ("state", model.state),
            ("reason", model.reason),
            ("since", model.since),
        ];
        let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
        Value::Object(fields.map(|(name, value)| (name.to_owned(), Value::String(value))).collect())
    });
    Value::Array(models.collect())
}

fn logging(app: &App) -> Value {
    let state = app.log.get();
    serde_json::json!({
        "log_file": state.log_file,
        "log_info": state.log_info,
        "log_warning": state.log_warning,
        "log_error": state.log_error,
        "log_verbose_level": state.log_verbose_level,
        "log_format": state.log_format.name(),
    })
}

fn parameters(settings: &Value) -> Result<Parameters, InferError> {
    Parameters::check_count(settings.as_object().map_or(0, serde_json::Map::len))?;
    let mut parameters = Parameters::default();
    for (name, value) in settings.as_object().into_iter().flatten() {
        let parameter = match value {
            Value::Bool(value) => Parameter::Bool(*value),
            Value::String(value) => Parameter::String(value.clone()),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Parameter::Int(value),
                (None, Some(value)) => Parameter::Uint(value),
                (None, None) => Parameter::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(InferError::invalid(format!(
                    "setting '{name}' is {value}, but must be a plain value"
                )));
            }
        };
        parameters.insert(name.as_str(), parameter);
    }
    Ok(parameters)
}
