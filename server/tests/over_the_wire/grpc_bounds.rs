//! gRPC messages that would become many times as large as they are, or never become whole.

use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Request;
use proto::v2::model_infer_request::InferInputTensor;
use proto::v2::{InferTensorContents, ModelInferRequest, ModelStreamInferResponse, RepositoryIndexRequest};
use tokio::net::TcpStream;
use tonic_prost::prost::Message;

use crate::real_server::{Server, Setup};
use crate::repository_files::samples;

const INFER: &str = "ModelInfer";
const STREAM: &str = "ModelStreamInfer";

/// How a call ended.
#[derive(Debug)]
struct Ended {
    /// The messages that were answered.
    answers: Vec<u8>,
    code: String,
    message: String,
    request_id: Option<String>,
}

/// `message` with its length in front.
fn framed(message: &[u8], compressed: bool) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[u8::from(compressed)][..], &length.to_be_bytes(), message].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A call of which `body` is sent, and its end only when it `ends`.
async fn call(server: &Server, rpc: &str, body: Vec<u8>, ends: bool) -> Ended {
    let stream = TcpStream::connect(&server.grpc).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let uri = format!("http://{}/inference.GRPCInferenceService/{rpc}", server.grpc);
    let request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    let request = request.header("grpc-encoding", "gzip").body(()).unwrap();
    let calling = async {
        let (answer, mut sender) = client.send_request(request, false).unwrap();
        let sending = async {
            let mut rest = Bytes::from(body);
            while !rest.is_empty() {
                sender.reserve_capacity(rest.len());
                // A server that has refused takes no more.
                let Some(Ok(room)) = std::future::poll_fn(|cx| sender.poll_capacity(cx)).await else {
                    return;
                };
                let piece = rest.split_to(room.min(rest.len()));
                if sender.send_data(piece, ends && rest.is_empty()).is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        let answering = async {
            let (head, mut body) = answer.await.unwrap().into_parts();
            let mut answers = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                answers.extend_from_slice(&data);
            }
            let trailers = body.trailers().await.ok().flatten().unwrap_or_default();
            let text = |name: &str| {
                let value = trailers.get(name).or_else(|| head.headers.get(name))?;
                Some(value.to_str().unwrap().to_owned())
            };
            Ended {
                answers,
                code: text("grpc-status").unwrap_or_default(),
                message: text("grpc-message").unwrap_or_default().replace("%20", " ").replace("%27", "'"),
                request_id: text("x-request-id"),
            }
        };
        tokio::pin!(answering);
        tokio::select! {
            ended = &mut answering => ended,
            () = sending => answering.await,
        }
    };
    tokio::select! {
        ended = calling => ended,
        _ = connection => unreachable!("the connection lasts as long as its call"),
    }
}

fn blocking(call: impl Future<Output = Ended>) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let started = Instant::now();
    let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), call).await });
    ended.unwrap_or_else(|_| panic!("no end after {:?}", started.elapsed()))
}

#[track_caller]
fn refuses(ended: &Ended, code: u8, words: &[&str]) {
    assert_eq!(ended.code, code.to_string(), "{ended:?}");
    for words in words {
        assert!(ended.message.contains(words), "{:?} does not say {words:?}", ended.message);
    }
    assert!(ended.request_id.as_ref().is_some_and(|id| !id.is_empty()), "{ended:?}");
}

const INVALID_ARGUMENT: u8 = 3;
const DEADLINE_EXCEEDED: u8 = 4;

#[test]
fn a_message_of_many_tiny_parts_is_refused_in_bounded_memory() {
    const SENT: usize = 12 << 20;
    let server = Setup::over(&samples()).start();
    let inputs = [0x2a, 0].repeat(SENT / 2);
    let strings = InferTensorContents { bytes_contents: vec![Bytes::new(); SENT / 2], ..Default::default() };
    let numbers = InferTensorContents { int64_contents: vec![1; SENT], ..Default::default() };
    let with_contents = |contents| {
        let input =
            InferInputTensor { name: "INPUT0".to_owned(), contents: Some(contents), ..Default::default() };
        ModelInferRequest { inputs: vec![input], ..Default::default() }.encode_to_vec()
    };
    let messages = [
        (inputs, "more than 1024 inputs"),
        ([0x32, 0].repeat(SENT / 2), "more than 1024 outputs"),
        ([0x3a, 0].repeat(SENT / 2), "more than 1024 raw_input_contents"),
        (with_contents(strings), "typed contents"),
        (with_contents(numbers), "typed contents"),
    ];
    let before = server.most_resident();
    for (message, words) in messages {
        let bodies = [framed(&message, false), framed(&gzip(&message), true)];
        for (rpc, body) in
            [(INFER, &bodies[0]), (INFER, &bodies[1]), (STREAM, &bodies[0]), (STREAM, &bodies[1])]
        {
            refuses(&blocking(call(&server, rpc, body.clone(), true)), INVALID_ARGUMENT, &[words]);
        }
        server.still_serves();
    }
    // The message as it was sent and as it is decompressed, and what the allocator keeps of them.
    let grown = server.most_resident().saturating_sub(before);
    assert!(grown < 80 << 20, "{} MB more", grown >> 20);
}

#[test]
fn a_message_that_is_too_large_is_told_as_over_http() {
    const LIMIT: usize = 1_000_000;
    let server = Setup::over(&samples()).option(&format!("--http-max-input-size={LIMIT}")).start();
    let sentence = |what: &str| {
        format!("{what} exceeds the maximum allowed input size of 1000000 bytes; raise --http-max-input-size")
    };
    for rpc in [INFER, STREAM] {
        // Refused by its prefix, before any of it comes.
        let prefix = [&[0][..], &1_000_001_u32.to_be_bytes()].concat();
        let refused = blocking(call(&server, rpc, prefix, false));
        refuses(&refused, INVALID_ARGUMENT, &[&sentence("a request message of 1000001 bytes")]);
        let bomb = framed(&gzip(&vec![0; LIMIT + 1]), true);
        let refused = blocking(call(&server, rpc, bomb, true));
        refuses(&refused, INVALID_ARGUMENT, &[&sentence("the decompressed request message")]);
    }
    server.still_serves();
}

#[test]
fn a_request_without_tensors_has_a_small_limit() {
    let server = Setup::over(&samples()).start();
    let index = |size: usize| {
        let request = RepositoryIndexRequest { repository_name: "r".repeat(size), ready: true };
        blocking(call(&server, "RepositoryIndex", framed(&request.encode_to_vec(), false), true))
    };
    refuses(&index(70_000), INVALID_ARGUMENT, &["70006 bytes", "65536 bytes"]);
    assert_eq!(index(1000).code, "12", "naming a repository is not supported, but read");
    let gzipped = framed(&gzip(&[0; 70_000]), true);
    let refused = blocking(call(&server, "RepositoryIndex", gzipped, true));
    refuses(&refused, INVALID_ARGUMENT, &["decompressed", "65536 bytes"]);
}

fn echo() -> Vec<u8> {
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
    framed(&message.encode_to_vec(), false)
}

#[test]
fn half_a_message_on_a_stream_is_given_up_after_what_came_before_it_is_answered() {
    let server = Setup::over(&samples()).option("--client-timeout=1").start();
    let message = echo();
    for half in [3, message.len() - 1] {
        let body = [&message, &message[..half]].concat();
        let ended = blocking(call(&server, STREAM, body, false));
        refuses(&ended, DEADLINE_EXCEEDED, &["1s", &format!("{half} bytes")]);
        let answer = ModelStreamInferResponse::decode(&ended.answers[5..]).unwrap();
        assert_eq!(answer.infer_response.unwrap().raw_output_contents, [&[0; 4][..]]);
    }
    server.still_serves();
}

#[test]
fn a_stream_may_be_quiet_between_its_messages() {
    let server = Setup::over(&samples()).option("--client-timeout=1").start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Longer than half a message may take.
    let quiet = Duration::from_millis(2500);
    let ended =
        runtime.block_on(async { tokio::time::timeout(quiet, call(&server, STREAM, echo(), false)).await });
    assert!(ended.is_err(), "{ended:?}");
}
