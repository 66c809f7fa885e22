//! The client against a server of a few lines, on a port the system picks.

use std::convert::Infallible;
use std::future::{Future, pending};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;
use crate::Tensor;

/// Runs `test` against a server that answers every request with `answer`.
async fn with_server<A, T>(
    answer: impl Fn(Request<Bytes>) -> A + Copy,
    test: impl AsyncFnOnce(String) -> T,
) -> T
where
    A: Future<Output = Response<Full<Bytes>>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: Request<Incoming>| async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(answer(Request::from_parts(head, body)).await)
            });
            // One connection at a time: the client under test keeps one.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    };
    tokio::select! {
        () = serve => unreachable!("the server runs until the test is done"),
        outcome = test(url) => outcome,
    }
}

fn reply(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

#[tokio::test]
async fn a_refusal_carries_the_status_and_the_servers_words() {
    for (status, body, text) in [
        (
            404,
            r#"{"error":"Request for unknown model: 'x'"}"#,
            "the server answered 404: Request for unknown model: 'x'",
        ),
        (422, r#"{"detail":"no"}"#, "the server answered 422: no"),
        (
            502,
            "<html>bad gateway</html>",
            "the server answered 502: Bad Gateway (its answer is a page, so it may be no V2 inference server)",
        ),
        (502, "upstream is gone", "the server answered 502: upstream is gone"),
        (503, "", "the server answered 503: Service Unavailable"),
    ] {
        let error = with_server(
            async |_| reply(status, body),
            async |url| HttpClient::new(&url).unwrap().model_metadata("x", None).await.unwrap_err(),
        );
        assert_eq!(error.await.to_string(), text);
    }
}

#[tokio::test]
async fn readiness_is_yes_or_no_and_anything_else_an_error() {
    for (status, ready) in [(200, Some(true)), (400, Some(false)), (503, Some(false)), (500, None)] {
        let got = with_server(
            async |_| reply(status, ""),
            async |url| HttpClient::new(&url).unwrap().ready().await.ok(),
        );
        assert_eq!(got.await, ready, "{status}");
    }
}

#[tokio::test]
async fn calls_go_to_the_routes_of_the_protocol() {
    let echo = async |request: Request<Bytes>| {
        let name = format!("{} {}", request.method(), request.uri());
        reply(200, format!(r#"{{"name":"{name}"}}"#))
    };
    with_server(echo, async |url| {
        let client = HttpClient::new(&url).unwrap();
        assert_eq!(client.server_metadata().await.unwrap().name, "GET /v2");
        let metadata = client.model_metadata("my model", Some("2")).await.unwrap();
        assert_eq!(metadata.name, "GET /v2/models/my%20model/versions/2");
        let config = client.model_config("m", None).await.unwrap();
        assert_eq!(config["name"], "GET /v2/models/m/config");
        assert!(client.live().await.unwrap());
        assert!(client.model_ready("m", None).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn statistics_and_the_index_are_read_with_what_servers_leave_out() {
    let answer = async |request: Request<Bytes>| match request.uri().path() {
        "/v2/repository/index" => reply(200, r#"[{"name":"a"},{"name":"b","version":"1","state":"READY"}]"#),
        "/v2/models/b/stats" => reply(
            200,
            r#"{"model_stats":[{"name":"b","version":"1","inference_count":3,"new":{},
                "inference_stats":{"success":{"count":3,"ns":9}}}]}"#,
        ),
        other => reply(404, other.to_owned()),
    };
    with_server(answer, async |url| {
        let client = HttpClient::new(&url).unwrap();
        let index = client.repository_index().await.unwrap();
        assert_eq!((index[0].state.as_str(), index[1].state.as_str()), ("", "READY"));
        let statistics = client.model_statistics("b", None).await.unwrap();
        assert_eq!(statistics[0].inference_stats.success.ns, 9);
    })
    .await;
}

/// Answers with its first input as the only output, as binary.
async fn identity(request: Request<Bytes>) -> Response<Full<Bytes>> {
    let length: usize = request.headers()[JSON_LENGTH].to_str().unwrap().parse().unwrap();
    let tensor = request.body().slice(length..);
    let json = format!(
        r#"{{"model_name":"m","outputs":[{{"name":"y","datatype":"FP32","shape":[2],
            "parameters":{{"binary_data_size":{}}}}}]}}"#,
        tensor.len()
    );
    let mut response = reply(200, [json.as_bytes(), &tensor].concat());
    response.headers_mut().insert(JSON_LENGTH, json.len().into());
    response
}

#[tokio::test]
async fn a_prepared_request_is_sent_many_times() {
    with_server(identity, async |url| {
        let client = HttpClient::new(&url).unwrap();
        let tensor = Tensor::from_slice("x", &[2], &[1.5_f32, 2.5]).unwrap();
        let prepared = client.prepare(&InferRequest::new("m").input(tensor)).unwrap();
        for _ in 0..3 {
            let response = client.send(&prepared).await.unwrap().decode().unwrap();
            assert_eq!(response.output("y").unwrap().as_f32().unwrap(), [1.5, 2.5]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_never_answers_ends_in_a_timeout() {
    let options = HttpOptions { timeout: Duration::from_millis(20), ..HttpOptions::default() };
    with_server(
        async |_| pending().await,
        async |url| {
            let error = HttpClient::with_options(&url, options).unwrap().live().await.unwrap_err();
            assert!(matches!(error, ClientError::Timeout { .. }));
            assert!(
                error.to_string().starts_with(&format!("{url} gave no complete answer within 20ms")),
                "{error}"
            );
        },
    )
    .await;
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = HttpClient::new(&url).unwrap().live().await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }));
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot connect to {url} (Connection refused")), "{text}");
    assert!(text.contains("is the server running?"), "{text}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = HttpClient::new(&listener.local_addr().unwrap().to_string()).unwrap();
    let hang_up = async {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
    };
    let (error, ()) = tokio::join!(client.live(), hang_up);
    assert!(matches!(error, Err(ClientError::Disconnected { .. })), "{error:?}");
}

#[tokio::test]
async fn an_answer_larger_than_agreed_is_not_read() {
    let options = HttpOptions { max_response_bytes: 10, ..HttpOptions::default() };
    with_server(
        async |_| reply(200, vec![b' '; 11]),
        async |url| {
            let error = HttpClient::with_options(&url, options).unwrap().get("/v2").await.unwrap_err();
            assert!(matches!(error, ClientError::TooLarge { limit: 10, .. }), "{error}");
        },
    )
    .await;
}

#[tokio::test]
async fn what_is_not_v2_is_told_as_such() {
    with_server(
        async |_| reply(200, "hello"),
        async |url| {
            let error = HttpClient::new(&url).unwrap().server_metadata().await.unwrap_err().to_string();
            assert!(error.contains("is a V2 inference server listening there?"), "{error}");
        },
    )
    .await;
}

#[tokio::test]
async fn model_control_goes_to_its_routes_and_says_why_not() {
    let answer = async |request: Request<Bytes>| match request.uri().path() {
        "/v2/repository/models/my%20model/rollback" => {
            reply(200, r#"{"name":"my model","versions":["1","3"]}"#)
        }
        "/v2/repository/models/m/unload" => {
            assert_eq!(request.body(), r#"{"parameters":{"unload_dependents":true}}"#);
            reply(200, "")
        }
        "/v2/repository/models/m/load" => reply(400, r#"{"error":"load failed for model 'm'"}"#),
        other => reply(404, other.to_owned()),
    };
    with_server(answer, async |url| {
        let client = HttpClient::new(&url).unwrap();
        assert_eq!(client.roll_back("my model").await.unwrap(), ["1", "3"]);
        client.unload_model("m", true).await.unwrap();
        let error = client.load_model("m", &LoadParameters::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "the server answered 400: load failed for model 'm'");
    })
    .await;
}

#[tokio::test]
async fn events_are_followed_to_their_end() {
    let answer = async |request: Request<Bytes>| {
        assert_eq!(request.uri(), "/v2/repository/events?model=a%26b");
        assert_eq!(request.headers()["last-event-id"], "6");
        let event =
            r#"{"id":7,"time":"t","model":"a&b","version":null,"state":"READY","reason":"","more":1}"#;
        let text = format!(
            "id: 6\n\n:\n\nid: 7\nevent: version\ndata: {event}\n\nevent: missed\ndata: {{\"missed\":3}}\n\n\
             event: of a later server\ndata: x\n\nevent: version\ndata: nonsense\n\n"
        );
        let mut response = reply(200, text);
        response.headers_mut().insert("x-server-run", HeaderValue::from_static("abc"));
        response
    };
    with_server(answer, async |url| {
        let mut stream = HttpClient::new(&url).unwrap().follow_events(Some("a&b"), Some(6)).await.unwrap();
        assert_eq!((stream.server_run(), stream.last_event()), (Some("abc"), None));
        let Some(Told::Event(event)) = stream.next().await.unwrap() else { panic!("no event came") };
        assert_eq!((event.id, event.model.as_str(), event.version.as_deref()), (7, "a&b", None));
        assert_eq!(stream.last_event(), Some(7));
        assert_eq!(stream.next().await.unwrap(), Some(Told::Missed(3)));
        assert!(stream.next().await.unwrap_err().to_string().contains("cannot be read"));
        assert_eq!(stream.next().await.unwrap(), None);
    })
    .await;
    let refused = with_server(
        async |_| reply(404, r#"{"error":"no such route"}"#),
        async |url| HttpClient::new(&url).unwrap().follow_events(None, None).await.unwrap_err(),
    );
    assert_eq!(refused.await.to_string(), "the server answered 404: no such route");
}
