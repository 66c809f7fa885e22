//! The program over gRPC, against a server that speaks HTTP/2 and does as it is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use prost::Message;
use proto::v2;
use server::run;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What the server does with the n-th inference, from 0.
type Reply = fn(u64) -> Answer;

#[derive(Clone, Copy)]
enum Answer {
    /// The answer, in DATA frames of at most so many bytes.
    Right(usize),
    /// A status other than OK; in a stream, an `error_message`.
    Refuse,
    /// The stream ends with a status, after no answer.
    End,
    /// The answer, twice.
    Twice,
    /// Nothing, ever; the call stays open.
    Nothing,
    /// The answer, and the connection takes no more calls (GOAWAY); it stays open while calls are.
    GoAway,
}

struct Server {
    url: String,
    connections: Arc<AtomicU64>,
    streams: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Shared {
    reply: Reply,
    seen: Arc<AtomicU64>,
    streams: Arc<AtomicU64>,
    /// Tells the connection that it shall take no more calls.
    leave: Arc<Notify>,
}

fn start(reply: Reply) -> Server {
    let (connections, streams) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen, leave) = (Arc::default(), Arc::default());
    let shared = Shared { reply, seen, streams: Arc::clone(&streams), leave };
    let (tell, told) = std::sync::mpsc::channel();
    let accepted = Arc::clone(&connections);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let mut tasks = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                tasks.spawn(connection(stream, Shared { leave: Arc::default(), ..shared.clone() }));
            }
        });
    });
    let address: SocketAddr = told.recv().unwrap();
    Server { url: format!("http://{address}"), connections, streams }
}

async fn connection(stream: TcpStream, shared: Shared) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                calls.spawn(call(request, respond, shared.clone()));
            }
            () = shared.leave.notified() => connection.graceful_shutdown(),
        }
    }
}

async fn call(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, shared: Shared) -> Option<()> {
    let method = request.uri().path().rsplit('/').next()?.to_owned();
    let incoming = request.into_body();
    let head = Response::builder().header("content-type", "application/grpc").body(()).ok()?;
    match method.as_str() {
        "ModelMetadata" => {
            let mut outgoing = respond.send_response(head, false).ok()?;
            send(&mut outgoing, &metadata(), usize::MAX);
            end(&mut outgoing, 0, "");
        }
        "ModelInfer" => unary(incoming, respond.send_response(head, false).ok()?, &shared).await?,
        "ModelStreamInfer" => stream(incoming, (respond, head), &shared).await?,
        _ => {
            let refused = Response::builder().header("content-type", "application/grpc");
            let refused = refused.header("grpc-status", "12").header("grpc-message", "not here");
            respond.send_response(refused.body(()).ok()?, true).ok()?;
        }
    }
    Some(())
}

async fn unary(mut incoming: RecvStream, mut outgoing: SendStream<Bytes>, shared: &Shared) -> Option<()> {
    let message = message(&mut incoming, &mut BytesMut::new()).await?;
    let told = shared.answer();
    match told {
        Answer::Right(cut) => send(&mut outgoing, &identity(message), cut),
        Answer::Twice => {
            send(&mut outgoing, &identity(message.clone()), usize::MAX);
            send(&mut outgoing, &identity(message), 3);
        }
        Answer::GoAway => send(&mut outgoing, &identity(message), usize::MAX),
        Answer::Nothing => std::future::pending().await,
        Answer::Refuse | Answer::End => {
            end(&mut outgoing, 14, "queue is full");
            return Some(());
        }
    }
    end(&mut outgoing, 0, "");
    if let Answer::GoAway = told {
        shared.leave.notify_one();
    }
    Some(())
}

async fn stream(
    mut incoming: RecvStream,
    (mut respond, head): (SendResponse<Bytes>, Response<()>),
    shared: &Shared,
) -> Option<()> {
    shared.streams.fetch_add(1, Ordering::SeqCst);
    let mut pending = BytesMut::new();
    let first = message(&mut incoming, &mut pending).await?;
    // The head comes with the first answer, as some servers send it.
    let mut outgoing = respond.send_response(head, false).ok()?;
    let mut next = Some(first);
    while let Some(received) = next {
        let told = shared.answer();
        match told {
            Answer::Nothing => std::future::pending().await,
            Answer::Right(_) | Answer::GoAway | Answer::Twice => {
                let cut = if let Answer::Right(cut) = told { cut } else { usize::MAX };
                let infer_response = Some(identity(received));
                let answer = v2::ModelStreamInferResponse { infer_response, ..Default::default() };
                send(&mut outgoing, &answer, cut);
            }
            Answer::Refuse => {
                let error_message = "queue is full".to_owned();
                let refusal = v2::ModelStreamInferResponse { error_message, ..Default::default() };
                send(&mut outgoing, &refusal, usize::MAX);
            }
            Answer::End => {
                end(&mut outgoing, 13, "gone wrong");
                return None;
            }
        }
        if let Answer::GoAway = told {
            shared.leave.notify_one();
        }
        next = message(&mut incoming, &mut pending).await;
    }
    end(&mut outgoing, 0, "");
    Some(())
}

impl Shared {
    fn answer(&self) -> Answer {
        (self.reply)(self.seen.fetch_add(1, Ordering::SeqCst))
    }
}

/// The next message of a call.
async fn message(incoming: &mut RecvStream, pending: &mut BytesMut) -> Option<Bytes> {
    loop {
        if let Some([0, a, b, c, d]) = pending.first_chunk::<5>().copied() {
            let end = 5 + u32::from_be_bytes([a, b, c, d]) as usize;
            if pending.len() >= end {
                return Some(pending.split_to(end).freeze().slice(5..));
            }
        }
        let piece = incoming.data().await?.ok()?;
        incoming.flow_control().release_capacity(piece.len()).ok()?;
        pending.extend_from_slice(&piece);
    }
}

fn send(outgoing: &mut SendStream<Bytes>, message: &impl Message, cut: usize) {
    let message = message.encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(&message);
    let mut framed = framed.freeze();
    while !framed.is_empty() {
        let piece = framed.split_to(cut.min(framed.len()));
        // A client that has left needs no more.
        let _ = outgoing.send_data(piece, false);
    }
}

fn end(outgoing: &mut SendStream<Bytes>, status: i32, text: &str) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.into());
    trailers.insert("grpc-message", text.parse().unwrap());
    let _ = outgoing.send_trailers(trailers);
}

fn metadata() -> v2::ModelMetadataResponse {
    let input = v2::model_metadata_response::TensorMetadata {
        name: "x".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![-1, 2],
    };
    v2::ModelMetadataResponse { name: "m".to_owned(), inputs: vec![input], ..Default::default() }
}

/// Answers with the first input, as output `y`.
fn identity(message: Bytes) -> v2::ModelInferResponse {
    let request = v2::ModelInferRequest::decode(message).unwrap();
    let input = &request.inputs[0];
    let output = v2::model_infer_response::InferOutputTensor {
        name: "y".to_owned(),
        datatype: input.datatype.clone(),
        shape: input.shape.clone(),
        ..Default::default()
    };
    v2::ModelInferResponse {
        model_name: request.model_name,
        outputs: vec![output],
        raw_output_contents: request.raw_input_contents,
        ..Default::default()
    }
}

/// Five rows of numbers as a .npy file: what is sent, and what comes back.
fn rows(folder: &std::path::Path) -> String {
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 2), }\n";
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    let data: Vec<u8> = (0_u8..10).flat_map(|number| f32::from(number).to_le_bytes()).collect();
    let path = folder.join("rows.npy");
    let file = [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), &data].concat();
    std::fs::write(&path, file).unwrap();
    path.display().to_string()
}

#[test]
fn answers_are_matched_to_their_requests_however_they_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(folder.path());
    let server = start(|n| Answer::Right([usize::MAX, 7, 3][(n % 3) as usize]));
    for protocol in ["grpc", "grpc-stream"] {
        let ran = run(
            &server.url,
            &format!("-c 8 -n 400 --warmup 0 --protocol {protocol} --input x={rows} --expect y={rows}"),
        );
        assert_eq!((ran.status, ran.errors()), (0, vec![]), "{protocol}: {}", ran.err);
        assert_eq!(ran.figure("/requests").to_bits(), 400_f64.to_bits());
        let other = ran.json["target"]["protocol"].as_str().unwrap().to_owned();
        assert_eq!(other, protocol);
    }
}

#[test]
fn requests_share_the_connections_that_are_asked_for() {
    let server = start(|_| Answer::Right(usize::MAX));
    let connections = |args: &str| {
        let before = server.connections.load(Ordering::SeqCst);
        assert_eq!(run(&server.url, args).status, 0);
        server.connections.load(Ordering::SeqCst) - before
    };
    let one = connections("-c 16 -n 200 --warmup 0 --protocol grpc");
    let three = connections("-c 16 -n 200 --warmup 0 --protocol grpc --connections 3");
    assert_eq!(three - one, 2, "the other connections ask for metadata and the like");
}

#[test]
fn a_stream_carries_many_requests() {
    let server = start(|_| Answer::Right(usize::MAX));
    let ran = run(&server.url, "-c 4 -n 400 --warmup 0 --protocol grpc-stream");
    assert_eq!(ran.status, 0, "{}", ran.err);
    // Four, and one that tries the server out.
    assert_eq!(server.streams.load(Ordering::SeqCst), 5);
}

#[test]
fn refusals_are_counted_and_a_stream_goes_on() {
    let server = start(|n| if n % 4 == 3 { Answer::Refuse } else { Answer::Right(usize::MAX) });
    let unary = run(&server.url, "-c 2 -n 200 --warmup 0 --protocol grpc");
    assert_eq!(unary.errors()[0].0, "status UNAVAILABLE: queue is full");
    assert!(unary.errors()[0].1.abs_diff(50) <= 1, "{:?}", unary.errors());
    let streamed = run(&server.url, "-c 2 -n 200 --warmup 0 --protocol grpc-stream");
    assert_eq!(streamed.errors()[0].0, "error_message: queue is full");
    assert!(streamed.errors()[0].1.abs_diff(50) <= 1, "{:?}", streamed.errors());
    assert_eq!(server.streams.load(Ordering::SeqCst), 3, "no stream was opened anew");
}

#[test]
fn a_stream_that_ends_is_opened_anew() {
    let server = start(|n| if n % 10 == 9 { Answer::End } else { Answer::Right(usize::MAX) });
    let ran = run(&server.url, "-c 1 -n 100 --warmup 0 --protocol grpc-stream");
    assert_eq!(ran.errors(), [("status INTERNAL: gone wrong".to_owned(), 10)]);
    assert_eq!(ran.figure("/latency/count").to_bits(), 90_f64.to_bits());
}

#[test]
fn an_open_loop_works_over_grpc() {
    let server = start(|_| Answer::Right(usize::MAX));
    for protocol in ["grpc", "grpc-stream"] {
        let ran = run(&server.url, &format!("--rate 500 -d 500ms --warmup 100ms --protocol {protocol}"));
        assert_eq!((ran.status, ran.errors()), (0, vec![]), "{}", ran.err);
        assert!((249.0..=251.0).contains(&ran.figure("/requests")), "{}", ran.run());
    }
}

/// The server says that the connection takes no more calls, and one call keeps it open: calls go on over another, and
/// the one that is never answered is all that fails.
#[test]
fn a_connection_that_takes_no_more_calls_is_replaced() {
    let server = start(|n| match n {
        5 => Answer::Nothing,
        9 => Answer::GoAway,
        _ => Answer::Right(usize::MAX),
    });
    let ran = run(&server.url, "-c 2 -d 1500ms --warmup 0 --timeout 1s --protocol grpc");
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert_eq!(ran.errors(), [("timeout".to_owned(), 1)]);
    assert!(ran.figure("/latency/count") > 100.0, "{}", ran.run());
}

#[test]
fn a_second_answer_to_a_call_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(folder.path());
    for check in [String::new(), format!("--input x={rows} --expect y={rows}")] {
        // The requests of a file are tried before the load, at most 32 of them.
        let server = start(|n| if n >= 32 && n % 2 == 1 { Answer::Twice } else { Answer::Right(usize::MAX) });
        let ran = run(&server.url, &format!("-c 1 -n 60 --warmup 0 --protocol grpc {check}"));
        let [(kind, count)] = &ran.errors()[..] else { panic!("{:?}", ran.errors()) };
        assert_eq!(kind, "the call has more than one answer");
        assert!((14..=18).contains(count), "{count}");
    }
}
