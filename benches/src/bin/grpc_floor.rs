//! The floor under gRPC: a bare tonic server that sends back the tensors it was sent.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "it prints its address")]

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::task::{Context, Poll};

use clap::Parser;
use proto::v2::model_infer_response::InferOutputTensor;
use proto::v2::{ModelInferRequest, ModelInferResponse};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

// The server's: with another, a floor could cost more than what stands on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers every `ModelInfer` with its own tensors, as raw contents.
#[derive(Debug, Parser)]
struct Args {
    /// Port on the loopback address; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Threads that answer [default: as many as cores, as the server has]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
}

/// As the server's: a tensor of a few megabytes does not wait for its window to open.
const WINDOW: u32 = 4 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = args.workers {
        runtime.worker_threads(workers.into());
    }
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await?;
        println!("http://{}", listener.local_addr()?);
        Ok(serve(listener).await?)
    })
}

async fn serve(listener: TcpListener) -> Result<(), tonic::transport::Error> {
    // Small answers leave at once: what is accepted here has no other way to get TCP_NODELAY.
    let connections = tokio_stream::StreamExt::map(TcpListenerStream::new(listener), |accepted| {
        accepted.and_then(|stream| stream.set_nodelay(true).map(|()| stream))
    });
    tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .add_service(Echo)
        .serve_with_incoming(connections)
        .await
}

/// The one method of the service that the floor knows.
#[derive(Clone, Debug)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != "/inference.GRPCInferenceService/ModelInfer" {
                return Ok(Status::unimplemented("the floor knows only ModelInfer").into_http());
            }
            let codec = ProstCodec::<ModelInferResponse, ModelInferRequest>::default();
            // Messages are as large as gRPC allows, both ways.
            let mut grpc = Grpc::new(codec)
                .apply_max_message_size_config(Some(i32::MAX as usize), Some(i32::MAX as usize));
            Ok(grpc.unary(ModelInfer, request).await)
        })
    }
}

struct ModelInfer;

impl UnaryService<ModelInferRequest> for ModelInfer {
    type Response = ModelInferResponse;
    type Future = std::future::Ready<Result<Response<ModelInferResponse>, Status>>;

    fn call(&mut self, request: Request<ModelInferRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(echo(request.into_inner()))))
    }
}

/// As large as the request: the same names, types, shapes and bytes.
fn echo(request: ModelInferRequest) -> ModelInferResponse {
    let output = |input: proto::v2::model_infer_request::InferInputTensor| InferOutputTensor {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
        contents: input.contents,
        ..Default::default()
    };
    ModelInferResponse {
        model_name: request.model_name,
        model_version: request.model_version,
        id: request.id,
        outputs: request.inputs.into_iter().map(output).collect(),
        raw_output_contents: request.raw_input_contents,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::v2::ServerLiveRequest;
    use proto::v2::grpc_inference_service_client::GrpcInferenceServiceClient;
    use proto::v2::model_infer_request::InferInputTensor;

    use super::*;

    #[tokio::test]
    async fn a_client_gets_back_as_much_as_it_sent() {
        let input = InferInputTensor { name: "input".into(), shape: vec![1, 64], ..Default::default() };
        let request = ModelInferRequest {
            model_name: "mlp".into(),
            id: "7".into(),
            inputs: vec![input],
            raw_input_contents: vec![vec![7; 256].into()],
            ..Default::default()
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let client = async {
            let mut client = GrpcInferenceServiceClient::connect(address).await.unwrap();
            let answer = client.model_infer(request.clone()).await.unwrap().into_inner();
            assert_eq!(answer.encoded_len(), request.encoded_len());
            assert_eq!(answer.raw_output_contents, request.raw_input_contents);
            let other = client.server_live(ServerLiveRequest {}).await.unwrap_err();
            assert_eq!(other.code(), tonic::Code::Unimplemented);
        };
        tokio::select! {
            ended = serve(listener) => panic!("the floor ended: {ended:?}"),
            () = client => {}
        }
    }
}
