//! The probe against servers started here: real sockets, hand-written answers.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A server that answers each request on each connection by `answer(path)`: a status and a body. It lives as
/// long as the test's runtime.
async fn serve(answer: fn(&str, u64) -> (u16, String)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut asked = 0;
    #[expect(clippy::disallowed_methods, reason = "a test's server ends with its runtime")]
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if socket.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            let text = String::from_utf8(request).unwrap();
            let path = text.split(' ').nth(1).unwrap_or_default();
            asked += 1;
            let (status, body) = answer(path, asked);
            let head =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            socket.write_all((head + &body).as_bytes()).await.unwrap();
        }
    });
    url
}

fn target(url: &str) -> ProbeTarget {
    ProbeTarget { url: url.to_owned(), grpc: false, models: vec!["digits".to_owned()] }
}

fn statistics(requests: u64) -> String {
    let ns = requests * 2_000_000;
    format!(
        r#"{{"model_stats": [{{"name": "digits", "version": "1", "inference_count": {requests},
        "execution_count": {requests}, "inference_stats": {{"success": {{"count": {requests}, "ns": {ns}}}}}}}]}}"#
    )
}

#[tokio::test]
async fn a_server_with_statistics_on_this_machine_tells_all() {
    let url = serve(|path, asked| match path {
        "/v2/models/digits/stats" => (200, statistics(100 * asked)),
        _ => (404, String::new()),
    })
    .await;
    let probe = Probe::find(&target(&url), &ProbeArgs::default()).await.unwrap();
    assert_eq!(probe.remarks(), [] as [String; 0]);
    let before = probe.read().await;
    let after = probe.read().await;
    let server = probe.between(&before, &after, 100).server.unwrap();
    let model = &server.models["digits"];
    assert_eq!((model.requests, model.request_micros), (100, 2_000.0));
    // The server is this very process, which listens at the address.
    assert!(server.resident_bytes > Some(1 << 20), "{server:?}");
    assert!(server.cpu_micros_per_request.is_some());
}

#[tokio::test]
async fn statistics_of_all_models_do_where_those_of_one_are_missing() {
    let url = serve(|path, asked| match path {
        "/v2/models/stats" => (200, statistics(10 * asked)),
        _ => (404, String::new()),
    })
    .await;
    let probe = Probe::find(&target(&url), &ProbeArgs::default()).await.unwrap();
    let before = probe.read().await;
    let after = probe.read().await;
    assert_eq!(probe.between(&before, &after, 20).server.unwrap().models["digits"].requests, 20);
}

#[tokio::test]
async fn a_server_that_tells_nothing_is_measured_by_its_process() {
    let url = serve(|_, _| (404, String::new())).await;
    let probe = Probe::find(&target(&url), &ProbeArgs::default()).await.unwrap();
    assert_eq!(probe.remarks().len(), 1, "{:?}", probe.remarks());
    assert!(
        probe.remarks()[0]
            .starts_with("The server tells no statistics of its models: the server answered 404")
    );
    let before = probe.read().await;
    let after = probe.read().await;
    let server = probe.between(&before, &after, 1).server.unwrap();
    assert!(server.models.is_empty() && server.resident_bytes.is_some());
}

#[tokio::test]
async fn metrics_stand_in_for_statistics() {
    let url = serve(|path, asked| match path {
        "/metrics" => (
            200,
            format!(
                "nv_inference_request_success{{model=\"digits\",version=\"1\"}} {0}\n\
                 nv_inference_request_duration_us{{model=\"digits\",version=\"1\"}} {1}\n",
                40 * asked,
                40 * asked * 750
            ),
        ),
        _ => (404, String::new()),
    })
    .await;
    let args = ProbeArgs { metrics_url: Some(format!("{url}/metrics")), server_pid: None };
    let probe = Probe::find(&target(&url), &args).await.unwrap();
    let before = probe.read().await;
    let after = probe.read().await;
    let model = probe.between(&before, &after, 40).server.unwrap().models["digits"].clone();
    assert_eq!((model.requests, model.request_micros), (40, 750.0));
}

#[tokio::test]
async fn what_the_user_named_in_vain_is_refused() {
    let url = serve(|path, asked| match path {
        "/v2/models/digits/stats" => (200, statistics(asked)),
        _ => (403, String::new()),
    })
    .await;
    let args = ProbeArgs { metrics_url: Some(url.clone()), server_pid: None };
    let refusal = Probe::find(&target(&url), &args).await.unwrap_err();
    assert!(refusal.contains("cannot be read: the answer is 403"), "{refusal}");
    // No process can have this number: Linux ends at 2^22.
    let args = ProbeArgs { metrics_url: None, server_pid: Some(u32::MAX / 4) };
    let refusal = Probe::find(&target(&url), &args).await.unwrap_err();
    assert!(refusal.contains("process 1073741823"), "{refusal}");
}

#[test]
fn addresses_have_a_host_and_a_port() {
    let parts = |url| host_and_port(url, 7);
    assert_eq!(parts("http://a:80/x/y"), ("a".to_owned(), 80));
    assert_eq!(parts("http://[::1]:9"), ("[::1]".to_owned(), 9));
    assert_eq!(parts("[::1]"), ("[::1]".to_owned(), 7));
    assert_eq!(parts("localhost"), ("localhost".to_owned(), 7));
}

#[tokio::test]
async fn statistics_that_are_too_large_are_not_taken() {
    let url = serve(|_, _| (200, " ".repeat(MAX_STATISTICS_BYTES + 1))).await;
    let probe = Probe::find(&target(&url), &ProbeArgs::default()).await.unwrap();
    assert!(probe.remarks()[0].contains("more than 16777216 bytes"), "{:?}", probe.remarks());
}

/// A server that takes connections and says nothing keeps nobody waiting for long.
#[tokio::test]
async fn statistics_that_do_not_come_are_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let models = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let began = std::time::Instant::now();
    let probe = Probe::find(&ProbeTarget { url, grpc: true, models }, &ProbeArgs::default()).await.unwrap();
    assert!(probe.remarks()[0].contains("no complete answer within 5s"), "{:?}", probe.remarks());
    assert!(began.elapsed() < 3 * TIMEOUT, "{:?}", began.elapsed());
}
