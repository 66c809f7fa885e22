//! One line for each request when asked for, over both protocols, with the id that the caller can ask about.

use futures_util::{StreamExt, stream};
use proto::v2::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::v2::{ModelInferRequest, ModelReadyRequest};
use tonic::Request;

use crate::raw_http::post;
use crate::real_server::{SMALL_REQUEST, Server, Setup};
use crate::repository_files::samples;

fn started() -> Server {
    Setup::over(&samples()).option("--access-log=true").start()
}

#[track_caller]
fn line(server: &mut Server, words: &[&str]) {
    let line = server.wait_for_line(words[0]);
    for words in words {
        assert!(line.contains(words), "{line:?} does not say {words:?}");
    }
}

#[test]
fn every_http_request_has_its_line() {
    let mut server = started();
    let mut connection = server.connect();
    connection.send(post("/v2/models/identity/infer", "x-request-id: abc\r\n", SMALL_REQUEST.as_bytes()));
    assert_eq!(connection.answer().status, 200);
    line(
        &mut server,
        &["request_id=abc", "protocol=http", "status=200", "model=identity", "version=1", "microseconds="],
    );
    assert_eq!(connection.get("/v2/models/nope").status, 404);
    line(&mut server, &["route=/v2/models/{model}", "method=GET", "status=404", "model=nope"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_grpc_call_has_its_line_and_every_message_of_a_stream() {
    let mut server = started();
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", server.grpc)).await.unwrap();
    let mut ready = Request::new(ModelReadyRequest { name: "identity".to_owned(), ..Default::default() });
    ready.metadata_mut().insert("x-request-id", "ready-1".parse().unwrap());
    assert!(client.model_ready(ready).await.unwrap().into_inner().ready);
    line(
        &mut server,
        &["request_id=ready-1", "protocol=grpc", "route=ModelReady", "status=0", "model=identity"],
    );

    let unknown = ModelReadyRequest { name: "nope".to_owned(), ..Default::default() };
    let status = client.model_ready(unknown).await.unwrap_err();
    let id = status.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned();
    line(&mut server, &[&id, "route=ModelReady", "status=5", "model=nope"]);

    let message = |id: &str| ModelInferRequest {
        model_name: "nope".to_owned(),
        id: id.to_owned(),
        ..Default::default()
    };
    let answers = client.model_stream_infer(stream::iter([message("one"), message("two")])).await.unwrap();
    assert_eq!(answers.into_inner().count().await, 2);
    // The two are answered at the same time, so either line may be the first.
    let lines = [(); 2].map(|()| server.wait_for_line("route=ModelStreamInfer"));
    for id in ["one", "two"] {
        let line = lines.iter().find(|line| line.contains(&format!("request_id={id}")));
        assert!(line.is_some_and(|line| line.contains("status=5")), "{lines:?}");
    }
}
