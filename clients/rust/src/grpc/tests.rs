//! The client against a gRPC server of a few lines, on a port the system picks.

use std::convert::Infallible;
use std::future::pending;

use bytes::{BufMut, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use super::*;
use crate::Tensor;

type Answer = Result<Vec<Bytes>, (Code, &'static str)>;

/// Runs `test` against a server that answers each call, known by its method and its messages, with `answer`.
async fn with_server<A, T>(answer: fn(String, Vec<Bytes>) -> A, test: impl AsyncFnOnce(String) -> T) -> T
where
    A: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: hyper::Request<Incoming>| async move {
                let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
                let messages = unframed(request.into_body().collect().await.unwrap().to_bytes());
                Ok::<_, Infallible>(reply(answer(method, messages).await))
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    };
    tokio::select! {
        () = serve => unreachable!("the server runs until the test is done"),
        outcome = test(url) => outcome,
    }
}

fn reply(answer: Answer) -> hyper::Response<impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send> {
    let (messages, code, text) = match answer {
        Ok(messages) => (messages, Code::Ok, ""),
        Err((code, text)) => (vec![], code, text),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", i32::from(code).into());
    trailers.insert("grpc-message", text.parse().unwrap());
    let body = Full::new(framed(&messages)).with_trailers(async { Some(Ok(trailers)) });
    hyper::Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

/// gRPC puts a flag byte and a 4-byte big-endian length before each message.
fn framed(messages: &[Bytes]) -> Bytes {
    let mut body = BytesMut::new();
    for message in messages {
        body.put_u8(0);
        body.put_u32(message.len().try_into().unwrap());
        body.put_slice(message);
    }
    body.freeze()
}

fn unframed(mut body: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let head = body.split_to(5);
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        messages.push(body.split_to(length as usize));
    }
    messages
}

/// Answers an inference with its first input.
fn identity(message: &Bytes) -> v2::ModelInferResponse {
    let request = v2::ModelInferRequest::decode(message.clone()).unwrap();
    let input = &request.inputs[0];
    let output = v2::model_infer_response::InferOutputTensor {
        name: "y".to_owned(),
        datatype: input.datatype.clone(),
        shape: input.shape.clone(),
        ..Default::default()
    };
    v2::ModelInferResponse {
        model_name: request.model_name,
        id: request.id,
        outputs: vec![output],
        raw_output_contents: request.raw_input_contents,
        ..Default::default()
    }
}

fn encoded(message: impl Message) -> Bytes {
    message.encode_to_vec().into()
}

async fn server(method: String, messages: Vec<Bytes>) -> Answer {
    match method.as_str() {
        "ServerLive" => Ok(vec![encoded(v2::ServerLiveResponse { live: true })]),
        "ServerReady" => pending().await,
        "ModelReady" => Err((Code::NotFound, "unknown model")),
        "ModelInfer" => Ok(vec![encoded(identity(&messages[0]))]),
        "ModelStreamInfer" => {
            let refusal = v2::ModelStreamInferResponse {
                error_message: "no".to_owned(),
                infer_response: Some(v2::ModelInferResponse { id: "3".to_owned(), ..Default::default() }),
            };
            let answered = |message| v2::ModelStreamInferResponse {
                infer_response: Some(identity(message)),
                ..Default::default()
            };
            Ok(messages.iter().map(|message| encoded(answered(message))).chain([encoded(refusal)]).collect())
        }
        _ => Err((Code::Unimplemented, "not here")),
    }
}

fn request(id: &str) -> InferRequest {
    InferRequest::new("m").id(id).input(Tensor::from_slice("x", &[2], &[1.5_f32, 2.5]).unwrap())
}

#[tokio::test]
async fn a_prepared_request_is_sent_many_times() {
    with_server(server, async |url| {
        let client = GrpcClient::new(&url).unwrap();
        let prepared = client.prepare(&request("7"));
        for _ in 0..3 {
            let response = client.send(&prepared).await.unwrap().decode().unwrap();
            assert_eq!(response.output("y").unwrap().as_f32().unwrap(), [1.5, 2.5]);
            assert_eq!(response.id.as_deref(), Some("7"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_gives_answers_in_order_and_goes_on_after_a_refusal() {
    with_server(server, async |url| {
        let client = GrpcClient::new(&url).unwrap();
        let requests = tokio_stream::iter([request("1"), request("2")]);
        let mut answers = client.infer_stream(requests).await.unwrap();
        for id in ["1", "2"] {
            assert_eq!(answers.next().await.unwrap().unwrap().id.as_deref(), Some(id));
        }
        let refused = answers.next().await.unwrap();
        assert!(matches!(refused, Err(ClientError::InStream { id, .. }) if id == "3"));
        assert!(answers.next().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn statuses_are_the_servers_words() {
    with_server(server, async |url| {
        let client = GrpcClient::new(&url).unwrap();
        assert!(client.live().await.unwrap());
        assert!(!client.model_ready("m", None).await.unwrap(), "unknown is not ready");
        let error = client.server_metadata().await.unwrap_err();
        assert_eq!(error.to_string(), "the server answered Unimplemented: not here");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_never_answers_ends_in_a_timeout() {
    with_server(server, async |url| {
        let options = GrpcOptions { timeout: Duration::from_millis(20), ..GrpcOptions::default() };
        let error = GrpcClient::with_options(&url, options).unwrap().ready().await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = GrpcClient::new(&url).unwrap();
    for error in [client.live().await.unwrap_err(), client.infer(&request("1")).await.unwrap_err()] {
        assert!(
            error.to_string().starts_with(&format!("cannot connect to {url} (Connection refused")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = GrpcClient::new(&listener.local_addr().unwrap().to_string()).unwrap();
    let hang_up = async {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
    };
    let (answer, ()) = tokio::join!(client.live(), hang_up);
    assert!(
        matches!(answer, Err(ClientError::Disconnected { .. } | ClientError::Connect { .. })),
        "{answer:?}"
    );
}
