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
use crate::drain::Drain;

/// Largest message that gRPC allows.
const MAX_MESSAGE: usize = i32::MAX as usize;

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

/// Every gRPC service of the server. A message is bounded as an HTTP body is, as sent and decompressed: its
/// claimed length is reserved before it comes.
pub fn routes(app: &Arc<App>, compression: CompressionLevel, drain: &Drain) -> Routes {
    let service = Service { app: Arc::clone(app), drain: drain.clone() };
    let mut inference = GrpcInferenceServiceServer::new(service)
        .max_decoding_message_size(app.max_input_size.min(MAX_MESSAGE))
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
    client_timeout: Duration,
}

impl GrpcService {
    /// A service for the connection of `peer`.
    pub fn new(routes: Routes, peer: SocketAddr, client_timeout: Duration) -> GrpcService {
        GrpcService { routes: TowerToHyperService::new(routes), peer, client_timeout }
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
            tonic::body::Body::new(Timed { body, time, received: 0, sleep: None })
        });
        request.extensions_mut().insert(self.peer);
        self.routes.call(request)
    }
}

/// A request's body that ends with an error when its client stops sending.
struct Timed {
    body: Incoming,
    time: Option<Duration>,
    received: usize,
    /// Set when a part was awaited for the first time.
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Bytes that earn a slow client as much time again, as over HTTP.
const PROGRESS: usize = 64 << 10;

impl Timed {
    fn progress(&mut self, bytes: usize, time: Duration) {
        let before = self.received / PROGRESS;
        self.received += bytes;
        if self.received / PROGRESS > before
            && let Some(sleep) = &mut self.sleep
        {
            sleep.as_mut().reset(Instant::now() + time);
        }
    }
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
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                self.progress(data.len(), time);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| Status::from_error(error.into()))));
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
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
