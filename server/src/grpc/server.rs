//! The gRPC listener: its services, their limits, and hyper's settings.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use proto::v2::grpc_inference_service_server::GrpcInferenceServiceServer;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use super::health::ServerHealth;
use super::service::Service;
use crate::app::App;
use crate::config::{CompressionLevel, GrpcConfig};

/// Largest message either way, as Triton has it: gRPC's own limit.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// Flow-control windows: a tensor of a few megabytes should not wait for its window to open.
const WINDOW: u32 = 4 << 20;

/// hyper's settings for gRPC.
pub fn builder(config: &GrpcConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(4096)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .keep_alive_interval(config.keepalive_time)
        .keep_alive_timeout(config.keepalive_timeout);
    builder
}

/// Every gRPC service of the server.
#[derive(Clone, Debug)]
pub struct Services {
    /// Messages may be as large as gRPC allows: their sender has to send all of it.
    plain: Routes,
    /// Compressed messages may not become larger than an HTTP body: a megabyte of them can stand for a
    /// gigabyte.
    compressed: Routes,
}

/// The services of `app`; answers are compressed when `compression` asks for it.
pub fn services(app: &Arc<App>, compression: CompressionLevel) -> Services {
    Services {
        plain: routes(app, compression, MAX_MESSAGE),
        compressed: routes(app, compression, app.max_input_size.min(MAX_MESSAGE)),
    }
}

fn routes(app: &Arc<App>, compression: CompressionLevel, max_request: usize) -> Routes {
    let mut inference = GrpcInferenceServiceServer::new(Service { app: Arc::clone(app) })
        .max_decoding_message_size(max_request)
        .max_encoding_message_size(MAX_MESSAGE)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate);
    if compression != CompressionLevel::None {
        inference = inference.send_compressed(CompressionEncoding::Gzip);
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes =
        Routes::new(inference).add_service(HealthServer::new(ServerHealth { app: Arc::clone(app) }));
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
    plain: TowerToHyperService<Routes>,
    compressed: TowerToHyperService<Routes>,
    peer: SocketAddr,
    client_timeout: Duration,
}

impl GrpcService {
    /// A service for the connection of `peer`.
    pub fn new(services: Services, peer: SocketAddr, client_timeout: Duration) -> GrpcService {
        let Services { plain, compressed } = services;
        let (plain, compressed) = (TowerToHyperService::new(plain), TowerToHyperService::new(compressed));
        GrpcService { plain, compressed, peer, client_timeout }
    }
}

impl hyper::service::Service<Request<Incoming>> for GrpcService {
    type Response = http::Response<tonic::body::Body>;
    type Error = <TowerToHyperService<Routes> as hyper::service::Service<Request<tonic::body::Body>>>::Error;
    type Future =
        <TowerToHyperService<Routes> as hyper::service::Service<Request<tonic::body::Body>>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let streams = request.uri().path().ends_with("/ModelStreamInfer");
        let mut request = request.map(|body| {
            // A stream may be quiet for as long as it likes; a single message may not.
            let time = if streams { None } else { Some(self.client_timeout) };
            tonic::body::Body::new(Timed { body, time, sleep: None })
        });
        request.extensions_mut().insert(self.peer);
        let compressed =
            request.headers().get("grpc-encoding").is_some_and(|encoding| encoding != "identity");
        if compressed { self.compressed.call(request) } else { self.plain.call(request) }
    }
}

/// A request's body that ends with an error when its client stops sending.
struct Timed {
    body: Incoming,
    time: Option<Duration>,
    /// Set while a part is awaited.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Some(time) = self.time else {
            return polled.map_err(|error| Status::from_error(error.into()));
        };
        if let Poll::Ready(frame) = polled {
            self.sleep = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| Status::from_error(error.into()))));
        }
        let sleep =
            self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + time)));
        match sleep.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let text = format!("no part of the request came for {time:?}");
                Poll::Ready(Some(Err(Status::deadline_exceeded(text))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
