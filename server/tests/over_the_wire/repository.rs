//! What is wrong in a model repository is told, and keeps nothing else from being served.

use std::fs;

use serde_json::{Value, json};

use crate::real_server::{Server, Setup};
use crate::repository_files::{Repository, samples};

/// The entries of the index for `model`: version, state and reason, where there are any.
fn index(server: &Server, model: &str) -> Vec<(String, String, String)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let index = server.post("/v2/repository/index", "").json();
    let entries = index.as_array().unwrap().iter().filter(|entry| entry["name"] == model);
    entries.map(|entry| (text(entry, "version"), text(entry, "state"), text(entry, "reason"))).collect()
}

/// A server over `identity` and what else is in `repository`, which is not all sound.
fn serve(repository: &Repository) -> Server {
    let mut server = Setup::over(repository.path()).may_complain().listen();
    server.wait_for_line("the first load is over");
    server
}

/// The one entry of `model` is unavailable for a reason that holds `words`; `identity` is served.
#[track_caller]
fn unavailable(server: &Server, model: &str, words: &[&str]) {
    let entries = index(server, model);
    let [(_, state, reason)] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(state, "UNAVAILABLE");
    for words in words {
        assert!(reason.contains(words), "{reason:?} does not say {words:?}");
    }
    assert_eq!(server.get(&format!("/v2/models/{model}/ready")).status, 400);
    let refusal = server.post(&format!("/v2/models/{model}/infer"), r#"{"inputs":[]}"#);
    refusal.refuses(404, &[model, "no available versions"]);
    server.still_serves();
}

/// What breaks a repository, as a directory `broken` beside `identity`.
fn with_broken(change: impl FnOnce(&Repository)) -> Repository {
    let repository = Repository::of(&["identity"]);
    change(&repository);
    repository
}

#[test]
fn a_file_that_is_no_onnx_makes_its_model_unavailable() {
    let model = fs::read(samples().join("simple/1/model.onnx")).unwrap();
    let garbage: [&[u8]; 4] = [b"garbage", b"", &model[..model.len() / 2], &[0xff; 10_000]];
    for bytes in garbage {
        let repository = with_broken(|repository| {
            repository.write("broken/1/model.onnx", bytes);
        });
        unavailable(&serve(&repository), "broken", &["broken"]);
    }
}

#[test]
fn a_model_without_a_file_or_a_version_is_unavailable() {
    let repository = with_broken(|repository| {
        repository.write("no_file/1/README.md", "").write("no_version/README.md", "");
        fs::create_dir_all(repository.path().join("directory/1/model.onnx")).unwrap();
    });
    let server = serve(&repository);
    unavailable(&server, "no_file", &["model.onnx"]);
    unavailable(&server, "no_version", &["no_version/1"]);
    unavailable(&server, "directory", &["model.onnx"]);
}

#[test]
fn a_configuration_that_cannot_be_read_makes_its_model_unavailable() {
    let repository = with_broken(|repository| {
        for model in ["folder", "binary"] {
            repository.copy("simple/1", &format!("{model}/1"));
        }
        fs::create_dir(repository.path().join("folder/config.pbtxt")).unwrap();
        repository.write("binary/config.pbtxt", [0xff, 0xfe, 0]);
    });
    let server = serve(&repository);
    unavailable(&server, "folder", &["folder/config.pbtxt"]);
    unavailable(&server, "binary", &["binary/config.pbtxt", "UTF-8"]);
}

#[test]
fn an_unknown_field_is_told_with_its_file_its_line_and_the_nearest_name() {
    let repository = with_broken(|repository| {
        repository.copy("simple", "broken");
        repository.write("broken/config.pbtxt", "name: \"broken\"\n\nmax_batch_sise: 8\n");
    });
    unavailable(
        &serve(&repository),
        "broken",
        &["broken/config.pbtxt", "3", "max_batch_sise", "max_batch_size"],
    );
}

#[test]
fn a_configuration_that_contradicts_the_graph_is_told_with_both_values() {
    let config = fs::read_to_string(samples().join("simple/config.pbtxt")).unwrap();
    let config = config.replace("name: \"simple\"", "");
    for (wrong, words) in [
        (config.replacen("TYPE_INT32", "TYPE_FP32", 1), ["\"INPUT0\"", "TYPE_FP32", "TYPE_INT32"]),
        (config.replacen("[ 16 ]", "[ 17 ]", 1), ["\"INPUT0\"", "[-1,17]", "[-1,16]"]),
        (config.replace("INPUT1", "INPUT9"), ["\"INPUT9\"", "\"INPUT0\"", "\"INPUT1\""]),
        (config.replace("max_batch_size: 8", "max_batch_size: -1"), ["max_batch_size", "-1", "0"]),
        (format!("name: \"other\" {config}"), ["\"other\"", "\"broken\"", "name"]),
        (
            format!("backend: \"python\" {}", config.replace("backend: \"onnxruntime\"", "")),
            ["\"python\"", "\"onnxruntime\"", ""],
        ),
    ] {
        let repository = with_broken(|repository| {
            repository.copy("simple", "broken").write("broken/config.pbtxt", wrong);
        });
        unavailable(&serve(&repository), "broken", &["broken/config.pbtxt", words[0], words[1], words[2]]);
    }
}

#[test]
fn a_file_that_is_outside_the_model_is_not_read() {
    let repository = with_broken(|repository| {
        repository.copy("digits", "broken");
        let config = fs::read_to_string(samples().join("digits/config.pbtxt")).unwrap();
        let config = config.replace("name: \"digits\"", "").replace("version_policy: { all {} }", "");
        repository.write("broken/config.pbtxt", config.replace("labels.txt", "../identity/config.pbtxt"));
        repository.copy("simple/1", "file/1");
        repository.write("file/config.pbtxt", "default_model_filename: \"../../identity/1/model.onnx\"");
    });
    let server = serve(&repository);
    unavailable(&server, "broken", &["label_filename", "../identity/config.pbtxt"]);
    unavailable(&server, "file", &["default_model_filename", "../../identity/1/model.onnx"]);
}

#[test]
fn a_model_in_two_repositories_is_served_from_neither() {
    let (one, two) = (Repository::of(&["identity", "simple"]), Repository::of(&["simple", "digits"]));
    let mut server = Setup::over(one.path()).repository(two.path()).may_complain().listen();
    server.wait_for_line("the first load is over");
    unavailable(&server, "simple", &["two or more repositories"]);
    assert_eq!(server.get("/v2/models/digits/ready").status, 200);
}

#[test]
fn readiness_is_of_all_models_unless_it_is_not_strict() {
    let repository = with_broken(|repository| {
        repository.write("broken/1/model.onnx", "garbage");
    });
    let server = serve(&repository);
    assert_eq!(server.get("/v2/health/ready").status, 400);
    assert_eq!(server.get("/v2/health/live").status, 200);
    let setup = Setup::over(repository.path()).option("--strict-readiness=false").may_complain();
    let server = setup.start();
    assert_eq!(server.get("/v2/health/ready").status, 200);
    unavailable(&server, "broken", &[]);
}

#[test]
fn with_exit_on_error_a_model_that_fails_ends_the_server_with_the_reason() {
    let repository = with_broken(|repository| {
        repository.write("broken/1/model.onnx", "garbage");
        repository.copy("simple/1", "other/1").write("other/config.pbtxt", "max_batch_sise: 8");
    });
    let ended = Setup::over(repository.path()).option("--exit-on-error=true").run_to_its_end();
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    let last = ended.log.lines().last().unwrap();
    for words in ["--exit-on-error", "broken version 1", "other", "max_batch_sise"] {
        assert!(last.contains(words), "{last:?} does not say {words:?}");
    }
}

#[test]
fn an_empty_repository_is_served_and_one_that_is_not_there_is_told() {
    let empty = Repository::empty();
    let server = Setup::over(empty.path()).start();
    assert_eq!(server.post("/v2/repository/index", "").json(), json!([]));
    drop(server);
    let missing = empty.path().join("nothing");
    let mut server = Setup::over(&missing).may_complain().listen();
    let line = server.wait_for_line("cannot read the model repository");
    assert!(line.contains("nothing"), "{line}");
    // A mistyped path or a failed mount took traffic, and every request was answered with 404.
    assert_eq!(server.get("/v2/health/ready").status, 400);
    assert_eq!(server.get("/v2/health/live").status, 200);
    drop(server);
    let lenient = Setup::over(&missing).option("--strict-readiness=false").may_complain().start();
    assert_eq!(lenient.get("/v2/health/ready").status, 200);
    drop(lenient);
    let ended = Setup::over(&missing).option("--exit-on-error=true").run_to_its_end();
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(ended.log.lines().last().unwrap().contains("cannot read the model repository"), "{}", ended.log);
}

#[test]
fn the_version_policy_chooses_the_versions() {
    let ready = |versions: &[&str]| -> Vec<_> {
        versions.iter().map(|version| ((*version).to_owned(), "READY".to_owned(), String::new())).collect()
    };
    for (policy, versions) in [
        ("", vec!["10"]),
        ("version_policy { latest { num_versions: 2 } }", vec!["9", "10"]),
        ("version_policy { all { } }", vec!["2", "9", "10"]),
        ("version_policy { specific { versions: [2, 9] } }", vec!["2", "9"]),
    ] {
        let repository = Repository::empty();
        for version in ["2", "9", "10"] {
            repository.copy("digits/1", &format!("m/{version}"));
        }
        repository.write("m/config.pbtxt", policy);
        let server = Setup::over(repository.path()).option("--log-warning=false").start();
        assert_eq!(index(&server, "m"), ready(&versions), "{policy}");
        let metadata = server.get("/v2/models/m").json();
        assert_eq!(metadata["versions"], json!(versions), "{policy}");
        for version in ["2", "9", "10", "11"] {
            let status = server.get(&format!("/v2/models/m/versions/{version}/ready")).status;
            assert_eq!(status, if versions.contains(&version) { 200 } else { 404 }, "{policy}: {version}");
        }
    }
}

#[test]
fn one_version_that_fails_leaves_the_others() {
    let repository = with_broken(|repository| {
        repository.copy("digits", "broken").write("broken/3/model.onnx", "garbage");
        let config = fs::read_to_string(samples().join("digits/config.pbtxt")).unwrap();
        repository.write("broken/config.pbtxt", config.replace("\"digits\"", "\"broken\""));
    });
    let server = serve(&repository);
    let states: Vec<_> =
        index(&server, "broken").into_iter().map(|(version, state, _)| (version, state)).collect();
    let expected = [("1", "READY"), ("2", "READY"), ("3", "UNAVAILABLE")];
    assert_eq!(states, expected.map(|(version, state)| (version.to_owned(), state.to_owned())));
    assert_eq!(server.get("/v2/models/broken").json()["versions"], json!(["1", "2"]));
    assert_eq!(server.get("/v2/models/broken/versions/3/ready").status, 400);
    server.post("/v2/models/broken/versions/3/infer", r#"{"inputs":[]}"#).refuses(503, &["'broken'", "3"]);
}

#[test]
fn labels_come_with_the_classes() {
    let server = Setup::over(&samples()).start();
    let request = fs::read(samples().join("digits/request.json")).unwrap();
    let answer = server.post("/v2/models/digits/infer", request).json();
    assert_eq!(answer["model_version"], "2");
    let class = answer["outputs"][0]["data"][0].as_str().unwrap();
    let [_, index, label] = class.split(':').collect::<Vec<_>>()[..] else { panic!("{class}") };
    let labels = fs::read_to_string(samples().join("digits/labels.txt")).unwrap();
    assert_eq!(Some(label), labels.lines().nth(index.parse().unwrap()));
}

#[test]
fn the_model_file_may_have_another_name() {
    let repository = Repository::empty();
    repository
        .copy("identity/1", "identity/1")
        .write("identity/config.pbtxt", "default_model_filename: \"graph.onnx\" max_batch_size: 8");
    let model = |name: &str| repository.path().join("identity/1").join(name);
    fs::rename(model("model.onnx"), model("graph.onnx")).unwrap();
    Setup::over(repository.path()).start().still_serves();
}

#[test]
fn a_model_needs_no_configuration() {
    let repository = Repository::empty();
    repository.copy("identity/1", "identity/1");
    let server = Setup::over(repository.path()).option("--log-warning=false").start();
    server.still_serves();
    let config = server.get("/v2/models/identity/config").json();
    assert_eq!(config["input"][0]["name"], "INPUT0");
    assert_eq!(config["input"][0]["data_type"], "TYPE_FP32");
}

#[test]
fn a_field_that_is_not_acted_on_yet_is_said_once() {
    let repository = Repository::of(&["identity"]);
    let config = fs::read_to_string(samples().join("identity/config.pbtxt")).unwrap();
    repository.write(
        "identity/config.pbtxt",
        format!("{config}\nmodel_operations {{ op_library_filename: \"o\" }}"),
    );
    let setup = Setup::over(repository.path()).may_complain();
    let server = setup.start();
    server.still_serves();
    server.still_serves();
    server.terminate();
    let log = server.wait_for_the_end().log;
    assert_eq!(log.matches("model_operations").count(), 1, "{log}");
}

#[test]
fn files_and_hidden_directories_beside_the_models_are_not_models() {
    let repository = Repository::of(&["identity"]);
    repository.write("README.md", "models").write(".git/1/model.onnx", "no").write("identity/warmup/x", "");
    let server = Setup::over(repository.path()).start();
    assert_eq!(server.post("/v2/repository/index", "").json().as_array().unwrap().len(), 1);
}
