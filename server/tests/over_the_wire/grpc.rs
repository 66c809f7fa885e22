//! Wrong and slow calls over gRPC: each ends with its status and a sentence, and the others go on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::uri::PathAndQuery;
use proto::v2::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::v2::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use proto::v2::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelReadyRequest,
    RepositoryModelLoadRequest,
};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::real_server::{Server, Setup, wait_until};
use crate::repository_files::{Repository, samples};

type Client = GrpcInferenceServiceClient<Channel>;

async fn connect(server: &Server) -> Client {
    GrpcInferenceServiceClient::connect(format!("http://{}", server.grpc)).await.unwrap()
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    let (name, datatype) = (name.to_owned(), datatype.to_owned());
    InferInputTensor { name, datatype, shape: shape.to_vec(), ..Default::default() }
}

fn with_contents(mut input: InferInputTensor, contents: InferTensorContents) -> InferInputTensor {
    input.contents = Some(contents);
    input
}

fn message(model: &str, inputs: Vec<InferInputTensor>, raw: &[&[u8]]) -> ModelInferRequest {
    let raw_input_contents = raw.iter().map(|raw| Bytes::copy_from_slice(raw)).collect();
    ModelInferRequest { model_name: model.to_owned(), inputs, raw_input_contents, ..Default::default() }
}

/// For the model `identity`, which gives `value` back.
fn echo(value: f32) -> ModelInferRequest {
    message("identity", vec![input("INPUT0", "FP32", &[1, 1])], &[&value.to_le_bytes()])
}

fn echoed(response: &ModelInferResponse) -> f32 {
    f32::from_le_bytes(response.raw_output_contents[0].as_ref().try_into().unwrap())
}

/// A call for the model `work`.
fn work(size: i64) -> ModelInferRequest {
    let size = [size.to_le_bytes(), size.to_le_bytes()].concat();
    message("work", vec![input("size", "INT64", &[2])], &[&size])
}

#[track_caller]
fn check<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, words: &[&str]) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    for words in words {
        assert!(status.message().contains(words), "{:?} does not say {words:?}", status.message());
    }
}

async fn refused(client: &mut Client, message: ModelInferRequest, words: &[&str]) {
    check(client.model_infer(message).await, Code::InvalidArgument, words);
    let answer = client.model_infer(echo(1.5)).await.unwrap();
    assert_eq!(echoed(answer.get_ref()).to_bits(), 1.5_f32.to_bits());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn raw_contents_that_do_not_fit_are_refused_with_both_numbers() {
    let server = Setup::over(&samples()).start();
    let mut client = connect(&server).await;
    let fp32 = |shape: &[i64]| vec![input("INPUT0", "FP32", shape)];
    let two = vec![input("INPUT0", "INT32", &[1, 16]), input("INPUT1", "INT32", &[1, 16])];
    for (message, words) in [
        (message("simple", two.clone(), &[&[0; 64]]), ["expected 2", "got 1", ""]),
        (message("simple", two, &[&[0; 64], &[0; 64], &[0; 64]]), ["expected 2", "got 3", ""]),
        (message("identity", fp32(&[1, 2]), &[&[0; 7]]), ["'INPUT0'", "7 bytes", "8 bytes"]),
        (message("identity", fp32(&[1, 2]), &[&[]]), ["'INPUT0'", "0 bytes", "8 bytes"]),
        (message("identity", fp32(&[1, -2]), &[&[0; 8]]), ["'INPUT0'", "[1,-2]", "-2"]),
        (message("identity", fp32(&[i64::MAX, 2]), &[&[0; 8]]), ["'INPUT0'", "9223372036854775807", ""]),
        (message("identity", fp32(&[1 << 62, 1]), &[&[0; 8]]), ["'INPUT0'", "8 bytes", ""]),
        (message("identity", fp32(&[9, 1]), &[&[0; 36]]), ["<= 8", "got 9", ""]),
        (
            message("simple_string", vec![input("INPUT0", "BYTES", &[1, 16])], &[&[255; 5]]),
            ["'INPUT0'", "4294967295", "1 are left"],
        ),
    ] {
        refused(&mut client, message, &words).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn typed_contents_that_do_not_fit_are_refused() {
    let server = Setup::over(&samples()).start();
    let mut client = connect(&server).await;
    let floats = InferTensorContents { fp32_contents: vec![1.0, 2.0], ..Default::default() };
    let ints = InferTensorContents { int_contents: vec![1, 2], ..Default::default() };
    let both = InferTensorContents { int_contents: vec![1], ..floats.clone() };
    let large = InferTensorContents { uint_contents: vec![256], ..Default::default() };
    let typed = |datatype: &str, shape: &[i64], contents: &InferTensorContents| {
        vec![with_contents(input("INPUT0", datatype, shape), contents.clone())]
    };
    for (inputs, raw, words) in [
        (
            typed("FP32", &[1, 2], &floats),
            &[[0; 8].as_slice()][..],
            ["'INPUT0'", "raw_input_contents", "contents"],
        ),
        (typed("FP32", &[1, 2], &ints), &[], ["'INPUT0'", "fp32_contents", "int_contents"]),
        (typed("FP32", &[1, 2], &both), &[], ["'INPUT0'", "fp32_contents", "int_contents"]),
        (typed("FP32", &[1, 3], &floats), &[], ["'INPUT0'", "2 elements", "3 elements"]),
        (typed("UINT8", &[1, 1], &large), &[], ["'INPUT0'", "256", "UINT8"]),
        (typed("FP16", &[1, 2], &floats), &[], ["'INPUT0'", "FP16", "raw_input_contents"]),
        (typed("FP99", &[1, 2], &floats), &[], ["'INPUT0'", "'FP99'", ""]),
        (vec![input("INPUT0", "FP32", &[1, 2])], &[], ["'INPUT0'", "0 elements", "2 elements"]),
    ] {
        refused(&mut client, message("identity", inputs, raw), &words).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn unknown_names_are_told_with_their_own_status() {
    let server = Setup::over(&samples()).start();
    let mut client = connect(&server).await;
    let named = |model: &str, version: &str| ModelInferRequest {
        model_version: version.to_owned(),
        ..message(model, Vec::new(), &[])
    };
    check(client.model_infer(named("nothing", "")).await, Code::NotFound, &["'nothing'"]);
    check(client.model_infer(named("", "")).await, Code::NotFound, &["''"]);
    check(client.model_infer(named("digits", "99")).await, Code::NotFound, &["'digits'", "99"]);
    for version in ["abc", "0", "-1", "1.0", "18446744073709551616"] {
        check(client.model_infer(named("digits", version)).await, Code::InvalidArgument, &[version]);
        let request = ModelReadyRequest { name: "digits".to_owned(), version: version.to_owned() };
        check(client.model_ready(request).await, Code::InvalidArgument, &[version]);
    }
    let metadata = ModelMetadataRequest { name: "nothing".to_owned(), version: String::new() };
    check(client.model_metadata(metadata).await, Code::NotFound, &["'nothing'"]);
    let load = RepositoryModelLoadRequest::default();
    check(client.repository_model_load(load).await, Code::Unavailable, &["load", "not allowed"]);
    let output = InferRequestedOutputTensor { name: "OUTPUT9".to_owned(), ..Default::default() };
    let unknown_output = ModelInferRequest { outputs: vec![output], ..echo(1.0) };
    refused(&mut client, unknown_output, &["'OUTPUT9'", "OUTPUT0"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_long_name_does_not_make_a_long_status() {
    let server = Setup::over(&samples()).start();
    let mut client = connect(&server).await;
    let long = "ä".repeat(500_000);
    check(client.model_infer(message(&long, Vec::new(), &[])).await, Code::NotFound, &["ää"]);
    let mut unknown = echo(1.0);
    unknown.inputs[0].name = long.clone();
    refused(&mut client, unknown, &["ää"]).await;
    let with_id = ModelInferRequest { id: long, ..message("identity", Vec::new(), &[]) };
    refused(&mut client, with_id, &["1 inputs", "0 inputs"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn messages_that_are_none_are_refused() {
    let server = Setup::over(&samples()).start();
    let mut client = connect(&server).await;
    let channel = Channel::from_shared(format!("http://{}", server.grpc)).unwrap().connect().await.unwrap();
    // Where ModelInferRequest has its inputs, this has a 7, which begins no field.
    let nonsense = InferTensorContents { uint64_contents: vec![7], ..Default::default() };
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<InferTensorContents, ModelInferResponse>::default();
    let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
    let status = grpc.unary(Request::new(nonsense), path, codec).await.unwrap_err();
    check::<()>(Err(status), Code::InvalidArgument, &["not a ModelInferRequest"]);
    let answer = client.model_infer(echo(2.5)).await.unwrap();
    assert_eq!(echoed(answer.get_ref()).to_bits(), 2.5_f32.to_bits());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_message_may_not_be_larger_than_a_body_nor_become_so() {
    let server = Setup::over(&samples()).option("--http-max-input-size=1000000").start();
    let before = server.resident();
    let mut bomb = connect(&server).await.send_compressed(CompressionEncoding::Gzip);
    let zeros = vec![0; 64 << 20];
    let mut claim = message("identity", vec![input("INPUT0", "FP32", &[1, 16 << 20])], &[&zeros]);
    let refusal = bomb.model_infer(claim.clone()).await.unwrap_err();
    check::<()>(Err(refusal), Code::InvalidArgument, &["decompressed", "1000000 bytes"]);
    assert!(server.resident() < before + (32 << 20), "{} after {before}", server.resident());
    claim.raw_input_contents = vec![zeros.into()];
    let plain = connect(&server).await.max_decoding_message_size(usize::MAX).model_infer(claim).await;
    check(plain, Code::InvalidArgument, &["67108902 bytes", "1000000 bytes"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_whose_message_never_comes_ends_with_deadline_exceeded() {
    let server = Setup::over(&samples()).option("--client-timeout=1").start();
    let mut client = connect(&server).await;
    let channel = Channel::from_shared(format!("http://{}", server.grpc)).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<ModelInferRequest, ModelInferResponse>::default();
    let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
    let started = Instant::now();
    let silent = grpc.client_streaming(Request::new(stream::pending()), path, codec);
    let answer = client.model_infer(echo(1.5)).await.unwrap();
    assert_eq!(echoed(answer.get_ref()).to_bits(), 1.5_f32.to_bits());
    check(silent.await, Code::DeadlineExceeded, &["1s"]);
    assert!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_answers_200_pipelined_requests_in_their_order() {
    let server = Setup::over(&samples()).start();
    let mut client = connect(&server).await;
    let requests = stream::iter(0_u16..200)
        .map(|number| ModelInferRequest { id: number.to_string(), ..echo(f32::from(number)) });
    let mut answers = client.model_stream_infer(requests).await.unwrap().into_inner();
    for number in 0_u16..200 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.error_message, "");
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, number.to_string());
        assert_eq!(echoed(&response).to_bits(), f32::from(number).to_bits());
    }
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_error_in_a_stream_is_told_in_its_place_and_the_stream_goes_on() {
    let server = Setup::over(&samples()).start();
    let mut client = connect(&server).await;
    let mut wrong = ModelInferRequest { id: "wrong".to_owned(), ..echo(1.0) };
    wrong.inputs[0].shape = vec![1, 2];
    let unknown = ModelInferRequest { id: "unknown".to_owned(), ..message("nothing", Vec::new(), &[]) };
    let requests = [echo(1.0), wrong, echo(2.0), unknown, echo(3.0)];
    let mut answers = client.model_stream_infer(stream::iter(requests)).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let response = answer.infer_response.unwrap();
        told.push(match answer.error_message.as_str() {
            "" => echoed(&response).to_string(),
            error => format!("{}: {error}", response.id),
        });
    }
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!((&*told[0], &*told[2], &*told[4]), ("1", "2", "3"));
    assert!(told[1].starts_with("wrong: ") && told[1].contains("4 bytes"), "{}", told[1]);
    assert!(told[3].starts_with("unknown: ") && told[3].contains("'nothing'"), "{}", told[3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn with_triton_grpc_error_the_first_error_ends_the_stream() {
    let server = Setup::over(&samples()).start();
    let mut client = connect(&server).await;
    let requests = [echo(1.0), message("nothing", Vec::new(), &[]), echo(2.0)];
    let mut request = Request::new(stream::iter(requests).chain(stream::pending()));
    request.metadata_mut().insert("triton_grpc_error", "true".parse().unwrap());
    let mut answers = client.model_stream_infer(request).await.unwrap().into_inner();
    assert_eq!(
        echoed(&answers.message().await.unwrap().unwrap().infer_response.unwrap()).to_bits(),
        1_f32.to_bits()
    );
    check(answers.message().await, Code::NotFound, &["'nothing'"]);
    assert!(answers.message().await.unwrap_or_default().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_that_is_cancelled_while_it_waits_is_not_executed() {
    let repository = Repository::of(&["identity"]).with_work();
    let server = Setup::over(repository.path()).start();
    let mut client = connect(&server).await;
    let mut other = client.clone();
    let mut running = Box::pin(client.model_infer(work(3000)));
    assert!((&mut running).now_or_never().is_none());
    let metric = |name: &str| server.metric(&format!(r#"{name}{{model="work",version="1"}}"#)).unwrap_or(0.0);
    let in_flight = |count: f64| (metric("volley_inference_requests_in_flight") - count).abs() < 0.5;
    // The polling thread is the one that drives the calls: each needs a push to be sent.
    tokio::task::yield_now().await;
    wait_until("the first call runs", || {
        let _ = (&mut running).now_or_never();
        in_flight(1.0)
    });
    let mut waiting = Box::pin(other.model_infer(work(10)));
    wait_until("the second call waits", || {
        let _ = (&mut waiting).now_or_never();
        metric("nv_inference_pending_request_count") > 0.5
    });
    drop(waiting);
    assert_eq!(running.await.unwrap().into_inner().raw_output_contents.len(), 1);
    wait_until("the second call is gone", || in_flight(0.0));
    let canceled = r#"nv_inference_request_failure{model="work",version="1",reason="CANCELED"}"#;
    wait_until("the cancelled call is counted", || server.metric(canceled).is_some_and(|count| count > 0.5));
    assert!((metric("nv_inference_exec_count") - 1.0).abs() < 0.5);
}
