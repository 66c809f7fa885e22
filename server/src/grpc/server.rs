//! The gRPC listener: its services, their limits, and hyper's settings.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use pin_project_lite::pin_project;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use super::health::ServerHealth;
use super::inference_service::{INFER, InferenceService, LOAD, STREAM_INFER};
use super::request_body::{Limits, RequestBody};
use super::service::Service;
use super::status::{status, too_large_once_decompressed};
use crate::app::App;
use crate::config::{CompressionLevel, GrpcConfig};
use crate::drain::Drain;
use crate::request_id::{self, RequestId};
use crate::request_memory::Held;
use crate::size_limit::SizeLimit;

/// Flow-control windows: a tensor of a few megabytes should not wait for its window to open.
const WINDOW: u32 = 4 << 20;

/// hyper's settings for gRPC.
pub fn builder(config: &GrpcConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .keep_alive_interval(config.keepalive_time)
        .keep_alive_timeout(config.keepalive_timeout);
    builder
}

/// Every gRPC service of the server.
pub fn routes(app: &Arc<App>, compression: CompressionLevel, drain: &Drain) -> Routes {
    let service = Service { app: Arc::clone(app), drain: drain.clone() };
    let inference = InferenceService::new(service, compression);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::new(inference)
        .add_service(HealthServer::new(ServerHealth { app: Arc::clone(app), drain: drain.clone() }));
    if let Ok(service) = reflection().build_v1() {
        routes = routes.add_service(service);
    }
    if let Ok(service) = reflection().build_v1alpha() {
        routes = routes.add_service(service);
    }
    routes.prepare()
}

/// Answers the calls of one connection.
#[derive(Clone, Debug)]
pub struct GrpcService {
    routes: TowerToHyperService<Routes>,
    peer: SocketAddr,
    app: Arc<App>,
}

impl GrpcService {
    /// A service for the connection of `peer`, with the limits of `app`.
    pub fn new(routes: Routes, peer: SocketAddr, app: Arc<App>) -> GrpcService {
        GrpcService { routes: TowerToHyperService::new(routes), peer, app }
    }

    /// What the messages of a call at `path` may be.
    fn limits(&self, path: &str) -> Limits {
        let may_be_large = [INFER, STREAM_INFER, LOAD].contains(&path);
        let size =
            if may_be_large { SizeLimit::of_inference(self.app.max_input_size) } else { SizeLimit::CONTROL };
        Limits { size, time: self.app.client_timeout, may_be_quiet: path == STREAM_INFER }
    }
}

type Answering = <TowerToHyperService<Routes> as hyper::service::Service<Request<Body>>>::Future;

impl hyper::service::Service<Request<Incoming>> for GrpcService {
    type Response = Response<Body>;
    type Error = <TowerToHyperService<Routes> as hyper::service::Service<Request<Body>>>::Error;
    type Future = Refusals<Answering>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let limits = self.limits(request.uri().path());
        let request_id = request.headers().get(request_id::HEADER).cloned();
        let held = Arc::new(self.app.request_memory.hold());
        let body = |body| Body::new(RequestBody::new(body, limits, Arc::clone(&held)));
        let mut request = request.map(body);
        request.extensions_mut().insert(self.peer);
        Refusals { answer: self.routes.call(request), size: limits.size, request_id, _held: held }
    }
}

pin_project! {
    /// An answer; a refusal that no handler has made gets what those of the handlers have.
    #[derive(Debug)]
    pub struct Refusals<F> {
        #[pin]
        answer: F,
        size: SizeLimit,
        request_id: Option<HeaderValue>,
        // Until the answer is there.
        _held: Arc<Held>,
    }
}

impl<F, E> Future for Refusals<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.answer.poll(cx))?;
        if answer.headers().contains_key(Status::GRPC_STATUS) {
            refine(answer.headers_mut(), *this.size, this.request_id.take());
        }
        Poll::Ready(Ok(answer))
    }
}

/// Says in `headers`, which are those of a refusal, what every refusal says.
fn refine(headers: &mut HeaderMap, size: SizeLimit, request_id: Option<HeaderValue>) {
    if let Some(found) = Status::from_header_map(headers)
        && let Some(error) = too_large_once_decompressed(&found, size)
    {
        // A status that was made here is one that can be sent.
        let _ = status(&error).add_header(headers);
    }
    if !headers.contains_key(request_id::HEADER) {
        let given = request_id.as_ref().and_then(|id| id.to_str().ok());
        if let Ok(id) = RequestId::choose("", given).as_str().parse() {
            headers.insert(request_id::HEADER, id);
        }
    }
}
