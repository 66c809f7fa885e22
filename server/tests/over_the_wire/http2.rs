//! HTTP/2 clients whose flow control lets no answer through: each is given up on, on both listeners.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use proto::v2::ModelInferRequest;
use proto::v2::model_infer_request::InferInputTensor;
use tokio::net::TcpStream;
use tonic_prost::prost::Message as _;

use crate::real_server::{SMALL_REQUEST, Server, Setup};
use crate::repository_files::samples;

/// Long enough for the server to give up on a client, far less than its default of 30 seconds.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// Sends one request and never lets its answer's body through, but goes on pinging. Returns what ended the
/// connection.
async fn send_and_never_read(address: &str, request: Request<()>, body: Bytes) -> h2::Error {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (mut client, mut connection) = builder.initial_window_size(0).handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let (answer, mut sender) = client.send_request(request, false).unwrap();
    sender.send_data(body, true).unwrap();
    let pinging = async {
        while pings.ping(h2::Ping::opaque()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut body = answer.await.unwrap().into_body();
        body.data().await.expect("the body does not end well").unwrap_err()
    };
    tokio::select! {
        error = reading => error,
        _ = async { tokio::join!(pinging, connection) } => unreachable!("pinging does not end"),
    }
}

#[track_caller]
fn is_given_up(server: &mut Server, ended: impl Future<Output = h2::Error>) {
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(async { tokio::time::timeout(GIVEN_UP, ended).await });
    error.unwrap_or_else(|_| panic!("the answer is still held after {:?}", started.elapsed()));
    server.wait_for_line("closing a connection whose client has stalled");
    server.still_serves();
}

#[test]
fn an_answer_over_http2_that_is_never_read_is_given_up() {
    let mut server = Setup::over(&samples()).option("--client-timeout=1").option("--log-verbose=1").start();
    let uri = format!("http://{}/v2/models/identity/infer", server.http);
    let request = Request::post(uri).body(()).unwrap();
    let address = server.http.clone();
    is_given_up(&mut server, send_and_never_read(&address, request, SMALL_REQUEST.into()));
}

#[test]
fn an_answer_over_grpc_that_is_never_read_is_given_up() {
    let mut server = Setup::over(&samples()).option("--client-timeout=1").option("--log-verbose=1").start();
    let input = InferInputTensor {
        name: "INPUT0".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 1],
        ..Default::default()
    };
    let message = ModelInferRequest {
        model_name: "identity".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![Bytes::from_static(&[0; 4])],
        ..Default::default()
    };
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    let body = [&[0][..], &length.to_be_bytes(), &message].concat();
    let uri = format!("http://{}/inference.GRPCInferenceService/ModelInfer", server.grpc);
    let request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    let address = server.grpc.clone();
    is_given_up(&mut server, send_and_never_read(&address, request.body(()).unwrap(), body.into()));
}
