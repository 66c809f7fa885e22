//! What the cache keeps, and what goes.

use std::io::Write as _;

use super::*;

/// A cache of `capacity` bytes in a directory that goes with it.
fn cache(capacity: u64) -> (tempfile::TempDir, Cache) {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), capacity).unwrap();
    (directory, cache)
}

fn member(key: &str, size: u64) -> Member<'_> {
    Member { key, path: "1/model.onnx", size }
}

/// Writes what `staging` lacks of a file of `size` bytes.
fn fill(staging: &Staging<'_>, key: &str, size: usize) {
    if !staging.has(key) {
        let mut file = staging.open(key).unwrap();
        file.write_all(&vec![1; size]).unwrap();
        finish(&file).unwrap();
        staging.complete(key).unwrap();
    }
}

/// A snapshot `id` of one file of `size` bytes.
fn put(cache: &Cache, id: &str, size: u64) -> Result<Snapshot, StorageError> {
    let key = format!("key-{id}");
    let members = [member(&key, size)];
    let staging = cache.stage(&members)?;
    fill(&staging, &key, usize::try_from(size).unwrap());
    staging.publish(id, "m", &members, &["2".to_owned()])
}

fn here(cache: &Cache, id: &str, size: u64) -> bool {
    cache.hold(id, "m", &vec![("1/model.onnx", size)]).unwrap().is_some()
}

/// The names of what the cache keeps in `place`.
fn names(cache: &Cache, place: &str) -> Vec<String> {
    let mut names: Vec<String> = entries(&cache.root.join(place))
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_snapshot_is_a_directory_named_like_the_model() {
    let (_directory, cache) = cache(100);
    let snapshot = put(&cache, "a", 10).unwrap();
    assert!(snapshot.directory().ends_with("snapshots/a/m"));
    assert_eq!(fs::read(snapshot.directory().join("1/model.onnx")).unwrap(), [1; 10]);
    assert!(snapshot.directory().join("2").is_dir());
    let writing = OpenOptions::new().write(true).open(snapshot.directory().join("1/model.onnx"));
    assert!(writing.is_err() || is_superuser(), "a file of a snapshot may be written to");
}

/// The superuser may write to any file.
fn is_superuser() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

#[test]
fn what_was_used_least_recently_goes() {
    let (_directory, cache) = cache(25);
    put(&cache, "a", 10).unwrap();
    put(&cache, "b", 10).unwrap();
    set_last_use(&cache, "a", 2);
    set_last_use(&cache, "b", 1);
    put(&cache, "c", 10).unwrap();
    assert_eq!([here(&cache, "a", 10), here(&cache, "b", 10), here(&cache, "c", 10)], [true, false, true]);
    assert_eq!(names(&cache, FILES), ["key-a", "key-c"]);
}

/// Two uses may fall into one tick of the file system's clock.
fn set_last_use(cache: &Cache, id: &str, seconds: u64) {
    let lock = open_lock(&cache.root.join(LOCKS).join(id)).unwrap();
    lock.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
}

#[test]
fn what_is_in_use_stays_also_for_another_process() {
    let (directory, first) = cache(15);
    let held = put(&first, "a", 10).unwrap();
    let second = Cache::open(directory.path(), 15).unwrap();
    for cache in [&first, &second] {
        let error = put(cache, "b", 10).unwrap_err();
        assert!(matches!(error, StorageError::NoRoom { needed: 10, kept: 10, capacity: 15, .. }), "{error}");
    }
    drop(held);
    put(&second, "b", 10).unwrap();
    assert!(!here(&first, "a", 10) && here(&first, "b", 10));
}

#[test]
fn room_that_is_promised_is_not_promised_twice() {
    let (_directory, cache) = cache(25);
    let staging = cache.stage(&[member("a", 20)]).unwrap();
    assert!(matches!(cache.stage(&[member("b", 10)]), Err(StorageError::NoRoom { .. })));
    drop(staging);
    assert!(cache.stage(&[member("b", 10)]).is_ok());
    assert!(matches!(cache.stage(&[member("c", u64::MAX)]), Err(StorageError::NoRoom { .. })));
}

#[test]
fn room_that_one_process_takes_is_not_there_for_another() {
    let (directory, first) = cache(25);
    let second = Cache::open(directory.path(), 25).unwrap();
    let staging = first.stage(&[member("a", 20)]).unwrap();
    let error = second.stage(&[member("b", 10)]).unwrap_err();
    assert!(matches!(error, StorageError::NoRoom { kept: 20, .. }), "{error}");
    fill(&staging, "a", 20);
    assert!(matches!(second.stage(&[member("b", 10)]), Err(StorageError::NoRoom { kept: 20, .. })));
    drop(staging);
    // Now it is a file that nobody uses.
    second.stage(&[member("b", 10)]).unwrap();
}

#[test]
fn a_full_disk_is_a_reason_to_evict_as_a_full_cache_is() {
    let (_directory, mut cache) = cache(1000);
    cache.free = |root| {
        let files = entries(&root.join(FILES)).unwrap();
        Some(25 - files.iter().map(|file| file.metadata().unwrap().len()).sum::<u64>())
    };
    let held = put(&cache, "a", 10).unwrap();
    put(&cache, "b", 10).unwrap();
    put(&cache, "c", 10).unwrap();
    assert!(here(&cache, "a", 10) && !here(&cache, "b", 10) && here(&cache, "c", 10));
    let error = put(&cache, "d", 20).unwrap_err();
    assert!(matches!(error, StorageError::DiskFull { needed: 20, free: 15, .. }), "{error}");
    drop(held);
    put(&cache, "d", 20).unwrap();
}

#[test]
fn what_can_never_fit_evicts_nothing() {
    let (_directory, mut cache) = cache(25);
    put(&cache, "a", 10).unwrap();
    assert!(matches!(put(&cache, "b", 26), Err(StorageError::NoRoom { needed: 26, .. })));
    assert!(here(&cache, "a", 10));
    cache.free = |_| Some(5);
    assert!(matches!(put(&cache, "b", 20), Err(StorageError::DiskFull { needed: 20, free: 5, .. })));
    assert!(here(&cache, "a", 10));
}

#[test]
fn a_directory_of_something_else_is_no_cache() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str| Cache::open(&directory.path().join(name), 100);
    fs::create_dir_all(directory.path().join("ftp/incoming/theirs")).unwrap();
    let error = open("ftp").unwrap_err().to_string();
    assert!(error.contains("its directory \"incoming\" is of something else"), "{error}");
    assert!(directory.path().join("ftp/incoming/theirs").is_dir());
    // A new disk is not quite empty.
    fs::create_dir_all(directory.path().join("disk/lost+found")).unwrap();
    drop(open("disk").unwrap());
    fs::remove_dir(directory.path().join("disk/incoming")).unwrap();
    std::os::unix::fs::symlink("../ftp/incoming", directory.path().join("disk/incoming")).unwrap();
    let error = open("disk").unwrap_err().to_string();
    assert!(error.contains("\"incoming\" in it is a link"), "{error}");
    assert!(directory.path().join("ftp/incoming/theirs").is_dir());
}

#[test]
fn what_another_user_made_where_everyone_may_is_no_cache() {
    if !is_superuser() {
        return; // only the superuser can make what is another's
    }
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let everyones = tempfile::tempdir().unwrap();
    fs::set_permissions(everyones.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let theirs = everyones.path().join("volley");
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(65_534), None).unwrap();
    let error = Cache::open(&theirs.join("models"), 100).unwrap_err().to_string();
    assert!(error.contains("was made by the user 65534"), "{error}");
    // Where not everyone may, others have their reasons.
    fs::set_permissions(everyones.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Cache::open(&theirs.join("models"), 100).unwrap();
}

#[test]
fn a_fetch_that_ends_early_leaves_what_is_whole() {
    let (_directory, cache) = cache(100);
    let members = [member("a", 10), member("b", 10)];
    let staging = cache.stage(&members).unwrap();
    fill(&staging, "a", 10);
    staging.open("b").unwrap().write_all(&[1; 5]).unwrap();
    drop(staging);
    assert_eq!((names(&cache, FILES), names(&cache, SNAPSHOTS)), (vec!["a".to_owned()], vec![]));
    let staging = cache.stage(&members).unwrap();
    assert!(staging.has("a") && !staging.has("b"));
}

#[test]
fn what_a_dead_process_left_is_removed_and_what_a_living_one_does_is_not() {
    let (directory, cache) = cache(100);
    let staging = cache.stage(&[member("a", 10)]).unwrap();
    let dead = directory.path().join(INCOMING).join("1-0");
    fs::create_dir_all(dead.join("0")).unwrap();
    fs::write(dead.join("0/key.part"), "half").unwrap();
    Cache::open(directory.path(), 100).unwrap();
    assert!(!dead.exists());
    fill(&staging, "a", 10);
}

#[test]
fn a_snapshot_that_lost_a_file_is_made_again() {
    let (_directory, cache) = cache(100);
    let file = put(&cache, "a", 10).unwrap().directory().join("1/model.onnx");
    fs::remove_file(&file).unwrap();
    assert!(!here(&cache, "a", 10));
    put(&cache, "a", 10).unwrap();
    assert_eq!(fs::read(file).unwrap().len(), 10);
}

#[test]
fn two_who_are_as_quick_have_one_snapshot() {
    let (_directory, cache) = cache(100);
    let members = [member("key", 10)];
    let (one, other) = (cache.stage(&members).unwrap(), cache.stage(&members).unwrap());
    fill(&one, "key", 10);
    fill(&other, "key", 10);
    let first = one.publish("a", "m", &members, &[]).unwrap();
    let second = other.publish("a", "m", &members, &[]).unwrap();
    assert_eq!(first.directory(), second.directory());
    assert_eq!(names(&cache, FILES), ["key"]);
    // What is used is what is kept, so it counts, and it stays when room is made.
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let used = first.directory().join("1/model.onnx");
    assert_eq!(inode(&used), inode(&cache.root.join(FILES).join("key")));
    assert!(matches!(put(&cache, "b", 95), Err(StorageError::NoRoom { kept: 10, .. })));
}

#[test]
fn a_file_that_is_wrong_is_forgotten() {
    let (_directory, cache) = cache(100);
    drop(put(&cache, "a", 10).unwrap());
    let members = [member("key-a", 10)];
    let staging = cache.stage(&members).unwrap();
    staging.discard("key-a").unwrap();
    drop(staging);
    assert!(names(&cache, FILES).is_empty());
}
