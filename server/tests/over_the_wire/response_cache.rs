//! The response cache: what was answered is answered again without the model, and only what was.

use std::fs;

use serde_json::{Value, json};

use crate::raw_http::post;
use crate::real_server::{Server, Setup, wait_until};
use crate::repository_files::{Repository, samples, work};

const ENABLED: &str = "response_cache { enable: true }";

/// The sample `model`, whose answers are kept.
fn with_cache(repository: &Repository, model: &str) {
    let config = fs::read_to_string(samples().join(model).join("config.pbtxt")).unwrap();
    repository.write(&format!("{model}/config.pbtxt"), format!("{config}\n{ENABLED}\n"));
}

fn infer(server: &Server, model: &str, request: &Value) -> Value {
    let answer = server.post(&format!("/v2/models/{model}/infer"), request.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["outputs"].clone()
}

fn statistics(server: &Server, model: &str) -> Value {
    server.get(&format!("/v2/models/{model}/stats")).json()["model_stats"][0].clone()
}

/// Hits, misses, successes and executions.
fn counts(server: &Server, model: &str) -> [u64; 4] {
    let all = statistics(server, model);
    let phase = |name: &str| all["inference_stats"][name]["count"].as_u64().unwrap_or_default();
    [
        phase("cache_hit"),
        phase("cache_miss"),
        phase("success"),
        all["execution_count"].as_u64().unwrap_or_default(),
    ]
}

/// A request to `identity`.
fn floats(shape: &[i64], data: &[f32]) -> Value {
    json!({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": shape, "data": data}]})
}

/// A request to `simple`, with the inputs in this order.
fn sums(inputs: [(&str, i32); 2], outputs: &Value) -> Value {
    let input = |(name, value): (&str, i32)| json!({"name": name, "datatype": "INT32", "shape": [1, 16], "data": vec![value; 16]});
    json!({"inputs": inputs.map(input), "outputs": outputs})
}

#[test]
fn a_request_that_was_answered_is_answered_without_the_model() {
    let repository = Repository::of(&["identity", "simple"]);
    with_cache(&repository, "identity");
    let server = Setup::over(repository.path()).option("--cache-config=local,size=1048576").start();
    let request = floats(&[1, 2], &[1.5, -2.0]);
    let first = infer(&server, "identity", &request);
    let mut named = request.clone();
    named["id"] = json!("another");
    assert_eq!(infer(&server, "identity", &named), first);
    assert_eq!(infer(&server, "identity", &request), first);
    assert_eq!(counts(&server, "identity"), [2, 1, 3, 1]);
    let stats = statistics(&server, "identity");
    assert_eq!(stats["inference_count"], 1);
    assert_eq!(stats["inference_stats"]["queue"]["count"], 3, "as with Triton, hits count there");
    assert_eq!(stats["inference_stats"]["compute_infer"]["count"], 1);
    assert!(stats["inference_stats"]["cache_hit"]["ns"].as_u64() > Some(0));
    assert!(stats["inference_stats"]["cache_miss"]["ns"].as_u64() > Some(0));

    let of = |name: &str, model: &str| server.metric(&format!(r#"{name}{{model="{model}",version="1"}}"#));
    assert_eq!(of("nv_cache_num_hits_per_model", "identity"), Some(2.0));
    assert_eq!(of("nv_cache_num_misses_per_model", "identity"), Some(1.0));
    assert!(of("nv_cache_hit_duration_per_model", "identity").is_some());
    assert!(of("nv_cache_miss_duration_per_model", "identity").is_some());
    assert_eq!(of("nv_cache_num_hits_per_model", "simple"), None, "its answers are not kept");
    assert_eq!(server.metric("volley_cache_entries"), Some(1.0));
    assert_eq!(server.metric("volley_cache_limit_bytes"), Some(1_048_576.0));
    assert!(server.metric("volley_cache_bytes").is_some_and(|bytes| (16.0..2000.0).contains(&bytes)));
}

/// Triton's key has neither shapes nor outputs: the second of these got `[2,2]`, and the last got OUTPUT0.
#[test]
fn what_differs_in_shape_or_outputs_is_another_request() {
    let repository = Repository::of(&["identity", "simple"]);
    with_cache(&repository, "identity");
    with_cache(&repository, "simple");
    let server = Setup::over(repository.path()).option("--response-cache-byte-size=1048576").start();
    for shape in [[2, 2], [1, 4], [4, 1], [2, 2]] {
        let outputs = infer(&server, "identity", &floats(&shape, &[1.0, 2.0, 3.0, 4.0]));
        assert_eq!(outputs[0]["shape"], json!(shape));
        assert_eq!(outputs[0]["data"], json!([1.0, 2.0, 3.0, 4.0]));
    }
    assert_eq!(counts(&server, "identity"), [1, 3, 4, 3]);

    let ask = |outputs: Value| {
        let outputs = infer(&server, "simple", &sums([("INPUT0", 5), ("INPUT1", 3)], &outputs));
        let named = |output: &Value| (output["name"].as_str().unwrap().to_owned(), output["data"][0].clone());
        outputs.as_array().unwrap().iter().map(named).collect::<Vec<_>>()
    };
    let sum = || ("OUTPUT0".to_owned(), json!(8));
    let difference = || ("OUTPUT1".to_owned(), json!(2));
    for _ in 0..2 {
        assert_eq!(ask(json!([{"name": "OUTPUT0"}])), [sum()]);
        assert_eq!(ask(json!([{"name": "OUTPUT1"}])), [difference()]);
        assert_eq!(ask(json!([{"name": "OUTPUT1"}, {"name": "OUTPUT0"}])), [difference(), sum()]);
        assert_eq!(ask(json!([{"name": "OUTPUT0"}, {"name": "OUTPUT1"}])), [sum(), difference()]);
        let classes = ask(json!([{"name": "OUTPUT0", "parameters": {"classification": 1}}]));
        assert_eq!(classes, [("OUTPUT0".to_owned(), json!("8:0"))]);
    }
    assert_eq!(counts(&server, "simple"), [5, 5, 10, 5]);
    // All outputs, said in another way, and the inputs in another order; then each under the other's name.
    let turned = sums([("INPUT1", 3), ("INPUT0", 5)], &Value::Null);
    assert_eq!(infer(&server, "simple", &turned)[1]["data"][0], 2);
    assert_eq!(counts(&server, "simple"), [6, 5, 11, 5]);
    let swapped = sums([("INPUT0", 3), ("INPUT1", 5)], &Value::Null);
    assert_eq!(infer(&server, "simple", &swapped)[1]["data"][0], -2);
    assert_eq!(counts(&server, "simple"), [6, 6, 12, 6]);
}

#[test]
fn requests_that_ask_the_same_at_once_run_once() {
    let repository = Repository::empty().with_work();
    let config = fs::read_to_string(repository.path().join("work/config.pbtxt")).unwrap();
    repository.write("work/config.pbtxt", format!("{config} {ENABLED}"));
    let server = Setup::over(repository.path()).option("--cache-config=local,size=1048576").start();
    let send = |_| {
        let mut connection = server.connect();
        connection.send(post("/v2/models/work/infer", "", work(2000).as_bytes()));
        connection
    };
    let connections: Vec<_> = (0..4).map(send).collect();
    let in_flight = r#"volley_inference_requests_in_flight{model="work",version="1"}"#;
    wait_until("all are in flight", || server.metric(in_flight) > Some(3.5));
    let answers: Vec<_> = connections.into_iter().map(|mut connection| connection.answer().json()).collect();
    assert!(answers.iter().all(|answer| answer["outputs"] == answers[0]["outputs"]), "{answers:?}");
    assert_eq!(counts(&server, "work"), [3, 1, 4, 1]);
}

#[test]
fn a_request_that_fails_is_not_kept() {
    let repository = Repository::empty().with_work();
    let config = fs::read_to_string(repository.path().join("work/config.pbtxt")).unwrap();
    repository.write("work/config.pbtxt", format!("{config} {ENABLED}"));
    let server =
        Setup::over(repository.path()).may_complain().option("--cache-config=local,size=1048576").start();
    let negative = work(1).replace("[1,1]", "[-1,-1]");
    for misses in 1..=2 {
        server.post("/v2/models/work/infer", &negative).refuses(500, &["failed to execute"]);
        assert_eq!(counts(&server, "work"), [0, misses, 0, 0]);
    }
    assert_eq!(server.metric("volley_cache_entries"), Some(0.0));
}

#[test]
fn a_model_with_a_cache_on_a_server_without_one_is_served_and_told_once() {
    let repository = Repository::of(&["identity"]);
    with_cache(&repository, "identity");
    let server = Setup::over(repository.path()).may_complain().start();
    server.still_serves();
    server.still_serves();
    assert_eq!(counts(&server, "identity"), [0, 0, 2, 2]);
    assert_eq!(server.metric("volley_cache_bytes"), None);
    server.terminate();
    let log = server.wait_for_the_end().log;
    assert_eq!(log.matches("response_cache has no effect").count(), 1, "{log}");
}
