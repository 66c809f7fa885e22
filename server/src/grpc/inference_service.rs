//! Which codec reads a call: the two RPCs that carry tensors have their own, the others what tonic made.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use prost_reflect::prost::Message;
use proto::v2::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer, SERVICE_NAME,
};
use proto::v2::{ModelInferResponse, ModelStreamInferResponse};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::{BoxFuture, Service as TowerService};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::{Status, Streaming};

use super::codec::{InferCodec, Unread};
use super::service::Service;
use crate::config::CompressionLevel;
use crate::size_limit::SizeLimit;

/// Largest message that gRPC allows.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// Path of the RPC with one request.
pub(super) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Path of the RPC with many.
pub(super) const STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// Path of the RPC that may bring the files of a model.
pub(super) const LOAD: &str = "/inference.GRPCInferenceService/RepositoryModelLoad";

/// `inference.GRPCInferenceService`.
#[derive(Clone, Debug)]
pub(super) struct InferenceService {
    service: Arc<Service>,
    generated: GrpcInferenceServiceServer<Service>,
    limit: SizeLimit,
    compression: CompressionLevel,
}

impl InferenceService {
    /// A message is bounded as an HTTP body is, as sent and decompressed: its claimed length is reserved
    /// before it comes.
    pub(super) fn new(service: Service, compression: CompressionLevel) -> InferenceService {
        let limit = message_limit(&service);
        let service = Arc::new(service);
        let mut generated = GrpcInferenceServiceServer::from_arc(Arc::clone(&service))
            .max_decoding_message_size(SizeLimit::CONTROL.bytes)
            .max_encoding_message_size(MAX_MESSAGE)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        if compression != CompressionLevel::None {
            generated = generated.send_compressed(CompressionEncoding::Gzip);
        }
        InferenceService { service, generated, limit, compression }
    }

    fn grpc<A: Message + 'static>(&self) -> Grpc<InferCodec<A>> {
        let grpc = Grpc::new(InferCodec::new(self.limit))
            .max_decoding_message_size(self.limit.bytes)
            .max_encoding_message_size(MAX_MESSAGE)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        match self.compression {
            CompressionLevel::None => grpc,
            _ => grpc.send_compressed(CompressionEncoding::Gzip),
        }
    }
}

/// The most bytes of a request for an inference.
fn message_limit(service: &Service) -> SizeLimit {
    SizeLimit::of_inference(service.app.max_input_size.min(MAX_MESSAGE))
}

impl NamedService for InferenceService {
    const NAME: &'static str = SERVICE_NAME;
}

impl TowerService<Request<Body>> for InferenceService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = Arc::clone(&self.service);
        match request.uri().path() {
            INFER => {
                let mut grpc = self.grpc::<ModelInferResponse>();
                Box::pin(async move { Ok(grpc.unary(Infer(service), request).await) })
            }
            STREAM_INFER => {
                let mut grpc = self.grpc::<ModelStreamInferResponse>();
                Box::pin(async move { Ok(grpc.streaming(Infer(service), request).await) })
            }
            LOAD => self.generated.clone().max_decoding_message_size(self.limit.bytes).call(request),
            _ => self.generated.call(request),
        }
    }
}

/// What answers the messages that were read.
struct Infer(Arc<Service>);

impl UnaryService<Unread> for Infer {
    type Response = ModelInferResponse;
    type Future = BoxFuture<tonic::Response<ModelInferResponse>, Status>;

    fn call(&mut self, request: tonic::Request<Unread>) -> Self::Future {
        let service = Arc::clone(&self.0);
        Box::pin(async move { service.infer(request).await })
    }
}

impl StreamingService<Unread> for Infer {
    type Response = ModelStreamInferResponse;
    type ResponseStream = <Service as GrpcInferenceService>::ModelStreamInferStream;
    type Future = BoxFuture<tonic::Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: tonic::Request<Streaming<Unread>>) -> Self::Future {
        let service = Arc::clone(&self.0);
        Box::pin(async move { Ok(service.answer_stream(request)) })
    }
}
