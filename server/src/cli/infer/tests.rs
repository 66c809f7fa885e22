//! The command from its arguments to what it prints, against a server of a few lines.

use std::cell::RefCell;
use std::convert::Infallible;

use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: InferArgs,
}

fn parsed(args: &[&str]) -> Result<InferArgs, clap::Error> {
    Command::try_parse_from([&["infer"], args].concat()).map(|command| command.args)
}

/// What the command prints, and the infer request it sent, when run with `args` against a server of one model.
async fn ran(args: &[&str]) -> (anyhow::Result<String>, Option<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sent = RefCell::new(None);
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: Request<Incoming>| async {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                if head.method == "POST" {
                    let length = head.headers.get("inference-header-content-length");
                    let length =
                        length.map_or(body.len(), |length| length.to_str().unwrap().parse().unwrap());
                    *sent.borrow_mut() = Some(serde_json::from_slice(&body[..length]).unwrap());
                }
                Ok::<_, Infallible>(Response::new(Full::new(answer(head.uri.path()))))
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    };
    let args = parsed(&[&["digits", "--url", &url], args].concat()).unwrap();
    let mut out = Vec::new();
    let outcome = tokio::select! {
        () = serve => unreachable!("the server runs until the command is done"),
        outcome = run(args, &mut out) => outcome,
    };
    (outcome.map(|()| String::from_utf8(out).unwrap()), sent.into_inner())
}

fn answer(path: &str) -> Bytes {
    let answer = if path.ends_with("/infer") {
        json!({"model_name": "digits", "model_version": "2", "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [7]},
            {"name": "probabilities", "datatype": "BYTES", "shape": [1, 1], "data": ["0.9:7:seven"]},
        ]})
    } else {
        json!({"name": "digits", "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 4]}], "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        ]})
    };
    answer.to_string().into()
}

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[tokio::test]
async fn an_array_is_sent_as_the_only_input_and_its_classes_printed() {
    let (_directory, path) = file("digit.json", b"[0, 1, 2, 3.5]");
    let (printed, sent) = ran(&[&path, "--classes", "1"]).await;
    assert_eq!(
        printed.unwrap(),
        "digits, version 2\n\nlabel  INT64 [1]\n  7\n\
         \nprobabilities  BYTES [1,1]\n  value  index  label\n  0.9    7      seven\n"
    );
    assert_eq!(
        sent.unwrap(),
        json!({
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}],
            "outputs": [
                {"name": "label", "parameters": {"binary_data": true}},
                {"name": "probabilities", "parameters": {"binary_data": true, "classification": 1}},
            ],
        })
    );
}

#[tokio::test]
async fn a_whole_request_is_sent_as_it_is_and_the_answer_printed_as_it_came() {
    let request = json!({"id": "7", "inputs": [{"name": "image", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0]}]});
    let (_directory, path) = file("request.json", request.to_string().as_bytes());
    let (printed, sent) = ran(&["--input", &path, "--json"]).await;
    assert_eq!(sent.unwrap(), request);
    assert_eq!(printed.unwrap().as_bytes(), [&answer("/infer")[..], b"\n"].concat());
}

#[tokio::test]
async fn what_does_not_fit_is_one_line_that_names_file_and_input() {
    let (_directory, path) = file("digit.json", b"[0, 1]");
    let (printed, sent) = ran(&[&format!("image={path}")]).await;
    assert_eq!(
        format!("{:#}", printed.unwrap_err()),
        format!(
            "{path} does not fit: its shape is [2], but input \"image\" of model \"digits\" takes FP32 [-1,4]; \
             give it that shape"
        )
    );
    assert!(sent.is_none(), "nothing is sent");
    let (printed, _) = ran(&[&path, &path]).await;
    assert!(printed.is_err());
}

#[tokio::test]
async fn an_input_given_twice_is_refused() {
    let (_directory, path) = file("digit.json", b"[0, 1, 2, 3]");
    let (printed, _) = ran(&[&path, &format!("image={path}")]).await;
    let error = printed.unwrap_err().to_string();
    assert_eq!(error, format!("input \"image\" is given twice; the second time by {path}"));
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for bad in
        [&["m"][..], &["m", "x.npy", "--classes", "0"], &["m", "x.npy", "--scale", "-"], &["m", "="], &[]]
    {
        assert!(parsed(bad).is_err(), "{bad:?}");
    }
    assert!(parsed(&["m", "a=x.npy", "b=y.npy"]).is_ok());
}
