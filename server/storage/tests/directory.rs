//! A repository in a directory: what every service's repository does, without a service.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};

use storage::{
    Cache, Environment, Limits, Options, Progress, Remote, Snapshot, StorageError, Transfers, Upload,
    Uploaded,
};

/// A repository, and a cache of it.
struct Case {
    directory: tempfile::TempDir,
    remote: Remote,
    cache: Cache,
}

fn case(limits: Limits) -> Case {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("models");
    fs::create_dir(&repository).unwrap();
    let options = Options { environment: Environment::default(), limits };
    let transfers = Arc::new(Transfers::start(NonZeroUsize::new(4).unwrap()).unwrap());
    let remote = Remote::open(&format!("file://{}", repository.display()), &options, &transfers).unwrap();
    let cache = Cache::open(&directory.path().join("cache"), 1 << 20).unwrap();
    Case { directory, remote, cache }
}

impl Case {
    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.directory.path().join("models").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn fetch(&self, model: &str) -> Result<Snapshot, StorageError> {
        self.remote.fetch(&self.remote.list().unwrap().models[model], &self.cache, &|_| {})
    }
}

fn read(directory: &Path, path: &str) -> String {
    fs::read_to_string(directory.join(path)).unwrap()
}

#[test]
fn a_model_is_listed_and_fetched_in_parts() {
    let case = case(Limits { part_size: 3, ..Limits::default() });
    case.write("a/1/model.onnx", "0123456789");
    case.write("a/config.pbtxt", "");
    case.write("b/1/model.onnx", "b");
    let tree = case.remote.list().unwrap();
    assert_eq!(tree.models.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(tree.models["a"].files[0].size, 10);
    let told = Mutex::new(Vec::new());
    let tell = |progress: Progress| told.lock().unwrap().push((progress.done, progress.total));
    let snapshot = case.remote.fetch(&tree.models["a"], &case.cache, &tell).unwrap();
    assert_eq!(read(snapshot.directory(), "1/model.onnx"), "0123456789");
    assert_eq!(read(snapshot.directory(), "config.pbtxt"), "");
    assert_eq!(*told.lock().unwrap(), [(0, 10), (10, 10)]);
}

#[test]
fn a_change_is_a_new_snapshot_and_the_old_one_stays() {
    let case = case(Limits::default());
    case.write("a/1/model.onnx", "old");
    let old = case.fetch("a").unwrap();
    assert_eq!(case.fetch("a").unwrap().id(), old.id());
    case.write("a/1/model.onnx", "new one");
    let new = case.fetch("a").unwrap();
    assert_ne!(new.id(), old.id());
    assert_eq!(read(old.directory(), "1/model.onnx"), "old");
    assert_eq!(read(new.directory(), "1/model.onnx"), "new one");
}

#[test]
fn a_file_that_changed_since_it_was_listed_is_not_fetched() {
    let case = case(Limits::default());
    case.write("a/1/model.onnx", "old");
    let model = case.remote.list().unwrap().models["a"].clone();
    case.write("a/1/model.onnx", "newer");
    let error = case.remote.fetch(&model, &case.cache, &|_| {}).unwrap_err();
    assert!(matches!(&error, StorageError::Changed { object, .. } if object == "a/1/model.onnx"), "{error}");
    fs::remove_file(case.directory.path().join("models/a/1/model.onnx")).unwrap();
    let error = case.remote.fetch(&model, &case.cache, &|_| {}).unwrap_err();
    assert!(matches!(error, StorageError::Changed { .. }), "{error}");
}

#[test]
fn a_manifest_is_held_against_the_files() {
    let case = case(Limits::default());
    let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // of "abc"
    case.write("a/1/model.onnx", "abc");
    case.write("a/1/SHA256SUMS", format!("{sum}  model.onnx\n"));
    case.fetch("a").unwrap();
    case.write("a/1/model.onnx", "abd");
    let error = case.fetch("a").unwrap_err();
    assert!(
        matches!(&error, StorageError::Mismatch { object, expected, .. } if object == "a/1/model.onnx" && expected == sum),
        "{error}"
    );
    case.write("a/1/model.onnx", "abc");
    case.write("a/1/SHA256SUMS", format!("{sum}  model.onnx\n{sum}  weights.bin\n"));
    let error = case.fetch("a").unwrap_err().to_string();
    assert!(error.contains("a/1/SHA256SUMS") && error.contains("weights.bin"), "{error}");
    case.write("a/1/SHA256SUMS", "nonsense");
    let error = case.fetch("a").unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn a_part_of_a_model_may_be_fetched() {
    let case = case(Limits::default());
    case.write("a/1/model.onnx", "1");
    case.write("a/2/model.onnx", "2");
    let model = case.remote.list().unwrap().models["a"].only(|path| path.starts_with("2/"));
    let snapshot = case.remote.fetch(&model, &case.cache, &|_| {}).unwrap();
    assert!(snapshot.directory().join("2/model.onnx").exists());
    assert!(!snapshot.directory().join("1").exists());
}

#[test]
fn more_objects_than_the_limit_are_an_error() {
    let case = case(Limits { objects: 2, ..Limits::default() });
    ["a/1/x", "a/1/y"].iter().for_each(|path| case.write(path, "1"));
    assert!(case.remote.list().is_ok());
    case.write("a/1/z", "1");
    let error = case.remote.list().unwrap_err();
    assert!(matches!(error, StorageError::TooManyObjects { limit: 2, .. }), "{error}");
}

#[test]
fn a_repository_that_disappears_is_an_error_and_not_empty() {
    let case = case(Limits::default());
    assert!(case.remote.list().unwrap().models.is_empty());
    fs::remove_dir(case.directory.path().join("models")).unwrap();
    let error = case.remote.list().unwrap_err();
    assert!(matches!(error, StorageError::MissingBucket { .. }), "{error}");
}

#[test]
fn a_name_with_a_backslash_is_refused() {
    let case = case(Limits::default());
    case.write("a/1/b\\c", "1");
    let error = case.remote.list().unwrap_err();
    assert!(matches!(&error, StorageError::RefusedName { object, .. } if object.contains('\\')), "{error}");
}

/// A directory of files that are to be published.
fn version(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn upload<'a>(directory: &'a tempfile::TempDir, beside: &'a [(String, std::path::PathBuf)]) -> Upload<'a> {
    Upload { model: "a", version: 2, directory: directory.path(), beside, replace: false }
}

#[test]
fn a_version_is_published_with_its_manifest_and_what_is_beside_it() {
    let case = case(Limits { part_size: 3, ..Limits::default() });
    let files = version(&[("model.onnx", "0123456789"), ("data/w.bin", "w")]);
    let config = version(&[("config.pbtxt", "max_batch_size: 4")]);
    let beside = [("config.pbtxt".to_owned(), config.path().join("config.pbtxt"))];
    let told = Mutex::new(Vec::new());
    let tell = |progress: Progress| told.lock().unwrap().push((progress.done, progress.total));
    let done = case.remote.upload(&upload(&files, &beside), &tell).unwrap();
    assert_eq!(done, Uploaded { files: 3, bytes: 28 });
    assert_eq!(told.lock().unwrap().last(), Some(&(28, 28)));
    let snapshot = case.fetch("a").unwrap();
    assert_eq!(read(snapshot.directory(), "2/model.onnx"), "0123456789");
    assert_eq!(read(snapshot.directory(), "config.pbtxt"), "max_batch_size: 4");
    let manifest = read(snapshot.directory(), "2/SHA256SUMS");
    let names: Vec<_> =
        manifest.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name).collect();
    assert_eq!(names, ["data/w.bin", "model.onnx"]);
}

#[test]
fn what_was_cut_off_goes_on_and_what_is_there_is_not_replaced_unasked() {
    let case = case(Limits::default());
    let files = version(&[("model.onnx", "one"), ("w.bin", "two")]);
    case.remote.upload(&upload(&files, &[]), &|_| {}).unwrap();
    fs::remove_file(case.directory.path().join("models/a/2/w.bin")).unwrap();
    let again = case.remote.upload(&upload(&files, &[]), &|_| {}).unwrap();
    assert_eq!(again, Uploaded { files: 1, bytes: 3 });
    let others = version(&[("model.onnx", "another")]);
    let error = case.remote.upload(&upload(&others, &[]), &|_| {}).unwrap_err();
    assert!(matches!(&error, StorageError::Exists { version, .. } if version == "a/2"), "{error}");
    let replaced = case.remote.upload(&Upload { replace: true, ..upload(&others, &[]) }, &|_| {}).unwrap();
    assert_eq!(replaced, Uploaded { files: 1, bytes: 7 });
    let snapshot = case.fetch("a").unwrap();
    assert_eq!(read(snapshot.directory(), "2/model.onnx"), "another");
    assert!(!snapshot.directory().join("2/w.bin").exists());
    case.write("b/2/model.onnx", "put by hand");
    let error = case.remote.upload(&Upload { model: "b", ..upload(&others, &[]) }, &|_| {}).unwrap_err();
    assert!(matches!(error, StorageError::Exists { .. }), "{error}");
}

#[test]
fn what_cannot_be_published_is_told_before_anything_is_sent() {
    let case = case(Limits::default());
    let good = version(&[("model.onnx", "abc")]);
    let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // of "abc"
    let manifest = format!("{sum}  model.onnx\n");
    let refused = |upload: &Upload<'_>, words: &str| {
        let error = case.remote.upload(upload, &|_| {}).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&Upload { version: 0, ..upload(&good, &[]) }, "numbered from 1");
    refused(&Upload { model: "../a", ..upload(&good, &[]) }, "leave its directory");
    refused(&Upload { model: "a/b", ..upload(&good, &[]) }, "no slash");
    refused(&upload(&version(&[]), &[]), "no file of a version");
    refused(&upload(&version(&[("a\\b", "x")]), &[]), "backslash");
    refused(&upload(&version(&[("model.onnx", "abd"), ("SHA256SUMS", &manifest)]), &[]), "has the SHA-256");
    refused(&upload(&version(&[("w.bin", "abc"), ("SHA256SUMS", &manifest)]), &[]), "is not there");
    refused(&upload(&good, &[("../x".to_owned(), good.path().join("model.onnx"))]), "leave its directory");
    let away = Upload { directory: &good.path().join("away"), ..upload(&good, &[]) };
    refused(&away, "cannot read");
    assert!(case.remote.list().unwrap().models.is_empty());
    case.remote
        .upload(&upload(&version(&[("model.onnx", "abc"), ("SHA256SUMS", &manifest)]), &[]), &|_| {})
        .unwrap();
}

#[test]
fn what_a_repository_held_is_recalled_as_far_as_the_cache_has_it() {
    let case = case(Limits::default());
    assert_eq!(case.remote.recall(&case.cache).models.len(), 0, "nothing was told");
    for path in ["a/config.pbtxt", "a/1/model.onnx", "a/2/model.onnx", "a/2/weights", "b/1/model.onnx"] {
        case.write(path, path);
    }
    let listed = case.remote.list().unwrap();
    case.remote.remember(&listed, &case.cache);
    let recalled = || case.remote.recall(&case.cache);
    let paths = |model: &str| {
        let files = recalled().models[model].files.clone();
        files.into_iter().map(|file| file.path).collect::<Vec<_>>()
    };
    // Of a model without a version here all is told: who loads it learns that it cannot be brought.
    assert_eq!(recalled(), listed);
    let first = listed.models["a"].only(|path| !path.starts_with("2/"));
    let held = case.remote.fetch(&first, &case.cache, &|_| {}).unwrap();
    assert_eq!(paths("a"), ["1/model.onnx", "config.pbtxt"]);
    assert_eq!(paths("b"), ["1/model.onnx"]);
    let half = listed.models["a"].only(|path| path == "2/weights");
    case.remote.fetch(&half, &case.cache, &|_| {}).unwrap();
    assert_eq!(paths("a"), ["1/model.onnx", "config.pbtxt"], "half a version is none");
    // What is recalled is found in the cache, without its repository.
    fs::remove_dir_all(case.directory.path().join("models")).unwrap();
    let again = case.remote.fetch(&recalled().models["a"], &case.cache, &|_| {}).unwrap();
    assert_eq!(again.id(), held.id());
    case.remote.remember_model("b", None, &case.cache);
    assert_eq!(recalled().models.into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_listing_that_is_damaged_is_none() {
    let case = case(Limits::default());
    case.write("a/1/model.onnx", "a");
    case.remote.remember(&case.remote.list().unwrap(), &case.cache);
    let listings = case.directory.path().join("cache/listings");
    let kept = fs::read_dir(&listings).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    fs::write(kept, "{").unwrap();
    assert_eq!(case.remote.recall(&case.cache).models.len(), 0);
    case.remote.remember(&case.remote.list().unwrap(), &case.cache);
    assert_eq!(case.remote.recall(&case.cache).models.len(), 1);
}
