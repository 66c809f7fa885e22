//! Repositories in S3, as moto plays it. `cargo xtask test` runs these tests; by hand:
//! `VOLLEY_PYTHON=PYTHON cargo test -p storage --test s3 -- --ignored`, with a Python that has the packages of
//! `clients/python/requirements.txt`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod moto;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;
use storage::{Cache, Limits, Progress, RemoteModel, StorageError, Upload};

use moto::{Moto, content, shared};

const MIB: usize = 1 << 20;

/// Limits under which what hangs ends soon.
fn short() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        idle: Duration::from_secs(10),
        request: Duration::from_secs(60),
        retries: 1,
        retry_within: Duration::from_secs(5),
        ..Limits::default()
    }
}

fn cache() -> (tempfile::TempDir, Cache) {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 1 << 30).unwrap();
    (directory, cache)
}

/// Bytes that a fetch had to bring: those that were not done when it said so first after its start.
fn fetched(
    moto: &Moto,
    bucket: &str,
    model: &RemoteModel,
    cache: &Cache,
) -> (BTreeMap<String, Vec<u8>>, u64) {
    let told = Mutex::new(Vec::new());
    let tell = |progress: Progress| told.lock().unwrap().push(progress.done);
    let snapshot = moto.remote(&format!("{bucket}/models"), short()).fetch(model, cache, &tell).unwrap();
    let read = |path: &String| fs::read(snapshot.directory().join(path)).unwrap();
    let files = model.files.iter().map(|file| (file.path.clone(), read(&file.path))).collect();
    let told = told.into_inner().unwrap();
    assert_eq!(told.last(), Some(&model.size()));
    (files, told.len() as u64)
}

#[test]
#[ignore = "needs VOLLEY_PYTHON; cargo xtask test gives it"]
fn only_what_changed_is_fetched_again() {
    let moto = shared();
    moto.create("changes");
    moto.put("changes", "models/a/1/model.onnx", 3 * MIB, 1);
    moto.put("changes", "models/a/2/model.onnx", 2 * MIB, 2);
    moto.put_text("changes", "models/a/config.pbtxt", "max_batch_size: 8");
    moto.put_text("changes", "models/b/3/", "");
    let remote = moto.remote("changes/models", short());
    let (_directory, cache) = cache();
    let before = remote.list().unwrap();
    assert_eq!(before.models["b"].empty_versions, ["3"]);
    let (files, _) = fetched(moto, "changes", &before.models["a"], &cache);
    assert_eq!(files["1/model.onnx"], content(3 * MIB, 1));
    assert_eq!(files["config.pbtxt"], b"max_batch_size: 8");

    moto.put("changes", "models/a/2/model.onnx", MIB, 3);
    let after = remote.list().unwrap();
    assert_eq!(after.models["a"].files[0], before.models["a"].files[0]);
    // The file that did not change cannot be fetched any more, and need not be.
    moto.order(&json!({"do": "remove", "bucket": "changes", "key": "models/a/1/model.onnx"}));
    let (files, _) = fetched(moto, "changes", &after.models["a"], &cache);
    assert_eq!(files["1/model.onnx"], content(3 * MIB, 1));
    assert_eq!(files["2/model.onnx"], content(MIB, 3));
}

#[test]
#[ignore = "needs VOLLEY_PYTHON; cargo xtask test gives it"]
fn a_large_file_comes_in_parts() {
    let moto = shared();
    moto.create("large");
    moto.put("large", "models/a/1/model.onnx", 64 * MIB, 7);
    let remote = moto.remote("large/models", Limits { part_size: 8 << 20, ..short() });
    let (_directory, cache) = cache();
    let model = remote.list().unwrap().models["a"].clone();
    let (files, told) = fetched(moto, "large", &model, &cache);
    assert!(files["1/model.onnx"] == content(64 * MIB, 7), "the bytes are others");
    assert!(told >= 32, "progress was told {told} times");
}

#[test]
#[ignore = "needs VOLLEY_PYTHON; cargo xtask test gives it"]
fn a_file_that_is_replaced_midway_is_an_error_and_then_fetched() {
    let moto = shared();
    moto.create("replaced");
    moto.put("replaced", "models/a/1/model.onnx", 16 * MIB, 1);
    let remote = moto.remote("replaced/models", Limits { part_size: 1 << 20, ..short() });
    let (_directory, cache) = cache();
    let model = remote.list().unwrap().models["a"].clone();
    let replaced = Mutex::new(false);
    let replace = |progress: Progress| {
        let mut replaced = replaced.lock().unwrap();
        if progress.done > 4 << 20 && !std::mem::replace(&mut *replaced, true) {
            moto.put("replaced", "models/a/1/model.onnx", 16 * MIB, 2);
        }
    };
    let error = remote.fetch(&model, &cache, &replace).unwrap_err();
    assert!(matches!(&error, StorageError::Changed { object, .. } if object == "a/1/model.onnx"), "{error}");
    let model = remote.list().unwrap().models["a"].clone();
    let (files, _) = fetched(moto, "replaced", &model, &cache);
    assert!(files["1/model.onnx"] == content(16 * MIB, 2), "the bytes are a mixture");
}

#[test]
#[ignore = "needs VOLLEY_PYTHON; cargo xtask test gives it"]
fn a_server_that_is_killed_midway_is_an_error_in_time() {
    let moto = Moto::start();
    moto.create("killed");
    moto.put("killed", "models/a/1/model.onnx", 32 * MIB, 1);
    moto.put("killed", "models/a/2/model.onnx", 100, 1);
    let remote = moto.remote("killed/models", Limits { part_size: 1 << 20, ..short() });
    let (directory, cache) = cache();
    let model = remote.list().unwrap().models["a"].clone();
    let kill = |progress: Progress| {
        if progress.done > 4 << 20 {
            moto.kill();
        }
    };
    let started = Instant::now();
    let error = remote.fetch(&model, &cache, &kill).unwrap_err();
    assert!(matches!(error, StorageError::Unreachable { .. }), "{error}");
    assert!(error.is_passing() && started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    let error = remote.list().unwrap_err();
    assert!(matches!(error, StorageError::Unreachable { .. }), "{error}");
    assert_eq!(fs::read_dir(directory.path().join("snapshots")).unwrap().count(), 0);
}

#[test]
#[ignore = "needs VOLLEY_PYTHON; cargo xtask test gives it"]
fn a_manifest_that_is_not_kept_names_the_file() {
    let moto = shared();
    moto.create("manifest");
    let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // of "abc"
    moto.put_text("manifest", "models/a/1/SHA256SUMS", &format!("{sum}  model.onnx\n"));
    moto.put_text("manifest", "models/a/1/model.onnx", "abd");
    let remote = moto.remote("manifest/models", short());
    let (_directory, cache) = cache();
    let fetch = || remote.fetch(&remote.list().unwrap().models["a"], &cache, &|_| {});
    let error = fetch().unwrap_err();
    assert!(matches!(&error, StorageError::Mismatch { object, .. } if object == "a/1/model.onnx"), "{error}");
    moto.put_text("manifest", "models/a/1/model.onnx", "abc");
    fetch().unwrap();
    moto.order(&json!({"do": "remove", "bucket": "manifest", "key": "models/a/1/model.onnx"}));
    let error = fetch().unwrap_err().to_string();
    assert!(error.contains("\"model.onnx\", which it names, is not there"), "{error}");
}

#[test]
#[ignore = "needs VOLLEY_PYTHON; cargo xtask test gives it"]
fn a_bucket_that_is_not_there_is_told() {
    let moto = shared();
    let error = moto.remote("no-such-bucket/models", short()).list().unwrap_err();
    assert!(matches!(error, StorageError::MissingBucket { .. }), "{error}");
    moto.create("disappears");
    moto.put("disappears", "models/a/1/model.onnx", 10, 1);
    let remote = moto.remote("disappears/models", short());
    let model = remote.list().unwrap().models["a"].clone();
    moto.order(&json!({"do": "delete", "bucket": "disappears"}));
    let error = remote.list().unwrap_err();
    assert!(matches!(error, StorageError::MissingBucket { .. }), "{error}");
    let (_directory, cache) = cache();
    let error = remote.fetch(&model, &cache, &|_| {}).unwrap_err();
    assert!(matches!(error, StorageError::MissingBucket { .. }), "{error}");
}

#[test]
#[ignore = "needs VOLLEY_PYTHON; cargo xtask test gives it"]
fn wrong_credentials_are_told_and_not_shown() {
    let moto = Moto::start();
    moto.create("guarded");
    moto.put("guarded", "models/a/1/model.onnx", 10, 1);
    let user = moto.order(&json!({"do": "authenticate"}));
    let (id, secret) = (user["id"].as_str().unwrap(), user["secret"].as_str().unwrap());
    let list = |id: &str, secret: &str| moto.remote_as("guarded/models", id, secret, short()).list();
    assert_eq!(list(id, secret).unwrap().models.len(), 1);
    for (id, secret, code) in
        [(id, "WRONGSECRET", "SignatureDoesNotMatch"), ("AKIANOBODY", secret, "InvalidAccessKeyId")]
    {
        let error = list(id, secret).unwrap_err();
        assert!(matches!(&error, StorageError::Denied { reason, .. } if reason == code), "{error}");
        assert!(
            !error.to_string().contains(secret) && error.to_string().contains("AWS_ACCESS_KEY_ID"),
            "{error}"
        );
    }
}

#[test]
#[ignore = "needs VOLLEY_PYTHON; cargo xtask test gives it"]
fn names_that_would_escape_are_refused() {
    let moto = shared();
    for (bucket, key) in [
        ("escape-up", "models/a/../../../etc/passwd"),
        ("escape-empty", "models/a//1"),
        ("escape-backslash", "models/a\\..\\1"),
    ] {
        moto.create(bucket);
        moto.put_text(bucket, key, "x");
        let error = moto.remote(&format!("{bucket}/models"), short()).list().unwrap_err();
        let named = matches!(&error, StorageError::RefusedName { object, .. } if key.ends_with(object));
        assert!(named, "{key}: {error}");
    }
}

#[test]
#[ignore = "needs VOLLEY_PYTHON; cargo xtask test gives it"]
fn ten_thousand_versions_are_listed() {
    let moto = shared();
    moto.create("versions");
    let keys: Vec<String> = (1..=10_000).map(|version| format!("models/a/{version}/model.onnx")).collect();
    moto.order(&json!({"do": "put", "bucket": "versions", "keys": keys, "text": "x"}));
    let tree = moto.remote("versions/models", short()).list().unwrap();
    assert_eq!(tree.models["a"].files.len(), 10_000);
    let error = moto.remote("versions/models", Limits { objects: 9_999, ..short() }).list().unwrap_err();
    assert!(matches!(error, StorageError::TooManyObjects { limit: 9_999, .. }), "{error}");
}

#[test]
#[ignore = "needs VOLLEY_PYTHON; cargo xtask test gives it"]
fn a_version_is_published_in_parts_once() {
    let moto = shared();
    moto.create("published");
    let remote = moto.remote("published/models", Limits { part_size: 5 << 20, ..short() });
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("model.onnx"), content(12 * MIB, 3)).unwrap();
    fs::write(files.path().join("w.bin"), "w").unwrap();
    let upload = Upload { model: "a", version: 1, directory: files.path(), beside: &[], replace: false };
    let told = Mutex::new(0);
    let tell = |progress: Progress| *told.lock().unwrap() = progress.done;
    let sent = remote.upload(&upload, &tell).unwrap();
    assert_eq!((sent.files, sent.bytes, *told.lock().unwrap()), (2, 12 * (1 << 20) + 1, sent.bytes));
    let (_directory, cache) = cache();
    let model = remote.list().unwrap().models["a"].clone();
    let (there, _) = fetched(moto, "published", &model, &cache);
    assert!(there["1/model.onnx"] == content(12 * MIB, 3), "the bytes are others");
    assert_eq!(remote.upload(&upload, &|_| {}).unwrap().files, 0);
    // Another's of the same number.
    fs::write(files.path().join("w.bin"), "v").unwrap();
    let error = remote.upload(&upload, &|_| {}).unwrap_err();
    assert!(matches!(error, StorageError::Exists { .. }), "{error}");
    let nowhere = moto.remote("no-bucket-to-publish-to/models", short());
    let error = nowhere.upload(&upload, &|_| {}).unwrap_err();
    assert!(matches!(error, StorageError::MissingBucket { .. }), "{error}");
}
