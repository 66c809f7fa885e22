//! Documents that clients read by their members: each is held whole. What changes with the machine or the time
//! is masked. `INSTA_UPDATE=always cargo test -p volley --test over_the_wire golden` writes them anew.

use serde_json::{Value, json};

use crate::real_server::{SMALL_REQUEST, Server, Setup};
use crate::repository_files::samples;

const MODELS: [&str; 4] = ["digits", "identity", "simple", "simple_string"];

fn server() -> Server {
    Setup::over(&samples()).start()
}

#[track_caller]
fn holds(name: &str, document: &Value) {
    insta::assert_snapshot!(name, serde_json::to_string_pretty(document).unwrap());
}

/// Replaces every member whose name `is_masked`.
fn mask(value: &mut Value, is_masked: &impl Fn(&str) -> bool) {
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(name, member)| {
            if is_masked(name) {
                *member = if member.is_string() { json!("masked") } else { json!(-1) };
            }
            mask(member, is_masked);
        }),
        Value::Array(elements) => elements.iter_mut().for_each(|element| mask(element, is_masked)),
        _ => {}
    }
}

#[test]
fn the_configuration_of_each_sample_model() {
    let server = server();
    for model in MODELS {
        holds(&format!("config_{model}"), &server.get(&format!("/v2/models/{model}/config")).json());
    }
}

#[test]
fn the_metadata_of_the_server_and_of_a_model() {
    let server = server();
    let mut metadata = server.get("/v2").json();
    mask(&mut metadata, &|name| name == "version");
    holds("metadata_server", &metadata);
    holds("metadata_digits", &server.get("/v2/models/digits").json());
}

#[test]
fn the_statistics_of_a_model_that_answered_and_failed() {
    let server = server();
    let infer = |body: &str| server.post("/v2/models/identity/infer", body).status;
    assert_eq!((infer(SMALL_REQUEST), infer(SMALL_REQUEST)), (200, 200));
    assert_eq!(infer(&SMALL_REQUEST.replace("INPUT0", "INPUT9")), 400);
    let mut statistics = server.get("/v2/models/identity/stats").json();
    mask(&mut statistics, &|name| ["ns", "last_inference"].contains(&name));
    holds("statistics_identity", &statistics);
}

#[test]
fn the_index_of_the_repository() {
    let mut index = server().post("/v2/repository/index", "{}").json();
    for entry in index.as_array_mut().unwrap() {
        let since = entry.as_object_mut().unwrap().remove("since").unwrap();
        assert!(since.as_str().unwrap().ends_with('Z'), "{since}");
    }
    holds("index", &index);
}
