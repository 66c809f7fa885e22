//! The commands of `volley`, run as a person would.

use std::fs;
use std::process::Output;

use crate::real_server::{Server, Setup, volley};
use crate::repository_files::{Repository, samples};

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(arguments: &[&str]) -> Said {
    let Output { status, stdout, stderr } = volley().args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// Runs a command against `server`.
fn ask(server: &Server, arguments: &[&str]) -> Said {
    let url = format!("--url=http://{}", server.http);
    run(&[arguments, &[&url]].concat())
}

impl Said {
    #[track_caller]
    fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    /// Fails with `code`, in one line that holds each of `words`.
    #[track_caller]
    fn badly(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        let line = self.err.lines().last().unwrap_or_default();
        for words in words {
            assert!(self.err.contains(words), "{line:?} does not say {words:?}");
        }
    }
}

#[test]
fn check_passes_a_sound_repository() {
    let out = run(&["check", samples().to_str().unwrap()]).well();
    for line in [
        "ok     digits 1",
        "ok     digits 2",
        "ok     identity 1",
        "ok     simple 1",
        "ok     simple_string 1",
    ] {
        assert!(out.lines().any(|printed| printed == line), "{out}");
    }
}

#[test]
fn check_prints_every_problem_and_fails() {
    let repository = Repository::of(&["identity"]);
    repository.write("corrupt/1/model.onnx", "garbage");
    repository.copy("simple/1", "unknown_field/1").write("unknown_field/config.pbtxt", "max_batch_sise: 8");
    repository.copy("simple/1", "contradiction/1").write("contradiction/config.pbtxt", "name: \"other\"");
    let said = run(&["check", repository.path().to_str().unwrap(), "no/such/directory"]);
    for line in
        ["ok     identity 1", "error  corrupt 1: ", "error  unknown_field: ", "error  contradiction: "]
    {
        assert!(said.out.lines().any(|printed| printed.starts_with(line)), "{line}: {}", said.out);
    }
    for words in ["max_batch_sise", "\"other\"", "no/such/directory"] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    said.badly(1, &["4 problems"]);
    run(&["check", Repository::empty().path().to_str().unwrap()]).badly(1, &["no model was found"]);
    run(&["check"]).badly(2, &["DIR"]);
}

/// It took no setting, so that it passed what the server refuses and refused what the server takes.
#[test]
fn check_has_the_settings_that_a_server_would_have() {
    let repository = Repository::of(&["identity"]);
    repository.write("identity/configs/fast.pbtxt", "max_batch_sise: 8").write("bare/README.md", "");
    repository.copy("simple/1", "bare/1");
    let path = repository.path().to_str().unwrap();
    run(&["check", path]).well();
    run(&["check", path, "--model-config-name=fast"]).badly(1, &["1 problem"]);
    let said = run(&["check", path, "--disable-auto-complete-config"]);
    assert!(said.out.contains("error  bare 1: ") && said.out.contains("ok     identity 1"), "{}", said.out);
    let Output { status, stdout, .. } =
        volley().args(["check", path]).env("VOLLEY_MODEL_CONFIG_NAME", "fast").output().unwrap();
    assert!(!status.success() && String::from_utf8_lossy(&stdout).contains("max_batch_sise"));
    let file = repository.path().join("README.toml");
    fs::write(&file, "model-config-name = \"fast\"").unwrap();
    run(&["check", path, "--config", file.to_str().unwrap()]).badly(1, &["1 problem"]);
    run(&["check", path, "--model-control-mode=some"]).badly(64, &["--model-control-mode", "\"some\""]);
    run(&["check", path, "--http-port=1"]).badly(2, &["--http-port"]);
}

#[test]
fn infer_reads_json_and_npy_and_prints_a_readable_answer() {
    let server = Setup::over(&samples()).start();
    let json = samples().join("digits/request.json");
    let out = ask(&server, &["infer", "digits", "--input", json.to_str().unwrap(), "--classes=3"]).well();
    assert!(out.starts_with("digits, version 2\n"), "{out}");
    assert!(out.contains("probabilities") && out.contains("label"), "{out}");
    // value, index, label; the likeliest first
    let labels = fs::read_to_string(samples().join("digits/labels.txt")).unwrap();
    let row = out.lines().skip_while(|line| !line.contains("label")).nth(1).unwrap();
    let row: Vec<_> = row.split_whitespace().collect();
    assert!(row[0].parse::<f32>().unwrap() > 0.5, "{out}");
    assert_eq!(labels.lines().nth(row[1].parse().unwrap()), Some(row[2]), "{out}");

    let directory = Repository::empty();
    directory.write("image.npy", npy(&[8, 8], &[0.0; 64]));
    let image = directory.path().join("image.npy");
    let named = format!("image={}", image.display());
    let out = ask(&server, &["infer", "digits", &named, "--model-version=1", "--classes=1"]).well();
    assert!(out.starts_with("digits, version 1\n"), "{out}");
    let raw = ask(&server, &["infer", "digits", &named, "--json"]).well();
    let raw: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(raw["outputs"][0]["shape"], serde_json::json!([1, 10]));
}

/// A file as numpy writes it.
fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let shape: Vec<_> = shape.iter().map(usize::to_string).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}\n", shape.join(", "));
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    let values = values.iter().flat_map(|value| value.to_le_bytes());
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &values.collect::<Vec<_>>()].concat()
}

#[test]
fn infer_scales_a_picture_to_what_the_model_takes() {
    let server = Setup::over(&samples()).start();
    let directory = Repository::empty();
    let picture = directory.path().join("digit.png");
    let bar =
        image::GrayImage::from_fn(28, 28, |x, _| image::Luma([if (12..16).contains(&x) { 255 } else { 0 }]));
    bar.save(&picture).unwrap();
    let picture = picture.to_str().unwrap();
    let out = ask(&server, &["infer", "digits", "--input", picture, "--scale=16/255", "--classes=1"]).well();
    assert!(out.starts_with("digits, version 2\n"), "{out}");
}

#[test]
fn infer_says_what_is_wrong() {
    let server = Setup::over(&samples()).start();
    let request = samples().join("digits/request.json");
    let request = request.to_str().unwrap();
    ask(&server, &["infer", "nothing", "--input", request]).badly(1, &["'nothing'"]);
    ask(&server, &["infer", "digits", "--input", request, "--model-version=99"])
        .badly(1, &["'digits'", "99"]);
    ask(&server, &["infer", "digits", "--input", "no/such/file.json"]).badly(1, &["no/such/file.json"]);
    ask(&server, &["infer", "digits"]).badly(2, &["NAME=FILE"]);
    let directory = Repository::empty();
    directory.write("small.npy", npy(&[4, 4], &[0.0; 16])).write("broken.npy", "garbage");
    for (file, words) in [("small.npy", "4"), ("broken.npy", "broken.npy")] {
        let path = directory.path().join(file);
        ask(&server, &["infer", "digits", "--input", path.to_str().unwrap()]).badly(1, &[words]);
    }
    let nowhere = server.http.clone();
    drop(server);
    let said = run(&["infer", "digits", "--input", request, &format!("--url=http://{nowhere}")]);
    said.badly(1, &[&nowhere, "is the server running"]);
}

#[test]
fn models_lists_what_the_server_has() {
    let repository = Repository::of(&["identity", "digits"]);
    repository.write("broken/1/model.onnx", "garbage");
    let mut server = Setup::over(repository.path()).may_complain().listen();
    server.wait_for_line("the first load is over");
    let out = ask(&server, &["models"]).well();
    let row = |words: &[&str]| out.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(row(&["NAME", "VERSION", "STATE"]), "{out}");
    assert!(row(&["digits", "1", "READY"]) && row(&["digits", "2", "READY", "image FP32"]), "{out}");
    assert!(row(&["identity", "1", "READY", "INPUT0 FP32"]), "{out}");
    assert!(row(&["broken", "UNAVAILABLE", "model.onnx"]), "{out}");
    let json: serde_json::Value = serde_json::from_str(&ask(&server, &["models", "--json"]).well()).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 4);
    drop(server);
    run(&["models", "--url=http://127.0.0.1:9", "--timeout=5"]).badly(1, &["127.0.0.1:9"]);
}

#[test]
fn help_is_grouped_and_short() {
    let out = run(&["--help"]).well();
    let headings = ["Commands:", "Models:", "HTTP:", "gRPC:", "Metrics:", "Logging:", "Shutdown:"];
    let places = headings.map(|heading| out.find(heading));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{out}");
    for option in ["--model-repository", "--http-port", "--drain-delay"] {
        assert!(out.contains(option), "{out}");
    }
    assert!(out.lines().count() < 125, "{} lines", out.lines().count());
    for command in ["check", "infer", "models", "load", "unload", "rollback", "events", "push"] {
        assert!(run(&[command, "--help"]).well().contains("Usage:"));
    }
    assert!(run(&["--version"]).well().starts_with("volley "));
}

#[test]
fn a_flag_that_is_not_known_is_refused() {
    run(&["--http-prt=1"]).badly(2, &["--http-prt", "--http-port"]);
    run(&["serve-it"]).badly(2, &["serve-it"]);
    run(&["--http-port=many"]).badly(64, &["http-port", "many"]);
    run(&["--http-port=65536"]).badly(64, &["http-port", "65536"]);
    run(&["--config=no/such/file.toml"]).badly(64, &["no/such/file.toml"]);
}

#[test]
fn settings_come_from_the_environment_and_a_file_too() {
    let directory = Repository::empty();
    directory.write("volley.toml", "http-port = \"many\"\n");
    let config = format!("--config={}", directory.path().join("volley.toml").display());
    run(&[&config]).badly(64, &["volley.toml", "http-port", "many"]);
    let mut command = volley();
    command.arg(&config).env("VOLLEY_HTTP_PORT", "more");
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("VOLLEY_HTTP_PORT") && err.contains("more"), "{err}");
}
