//! Model control over a backend that does what the files say: what serves while others are loaded, and what is told.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::Code;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::LookAgain;
use super::tests::{FakeModel, infer, settings, version};
use super::*;
use crate::backend::{LoadedModel, ModelSource};
use crate::trial::{Trial, TrialOf};

/// Answers with what its file `model` says, a number; a file with other words cannot be loaded, and they are why.
#[derive(Default)]
struct Files {
    alive: Arc<AtomicUsize>,
    /// Most models in memory at a time.
    most: AtomicUsize,
    loads: Mutex<Vec<String>>,
}

impl Backend for Files {
    fn load(&self, source: &ModelSource<'_>) -> Result<Arc<dyn LoadedModel>, LoadError> {
        self.loads.lock().push(format!("{}/{}", source.name, source.version));
        let what = || format!("{}/{}", source.name, source.version);
        let unreadable = |reason: String| LoadError::Unreadable { what: what(), reason };
        let text = fs::read_to_string(source.version_directory.join("model"))
            .map_err(|error| unreadable(error.to_string()))?;
        let answer = text.parse().map_err(|_| unreadable(text))?;
        let now = self.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Ok(Arc::new(FakeModel::answering(answer, Arc::clone(&self.alive))))
    }
}

/// A repository of one model `m`, and its backend.
struct Bench {
    directory: TempDir,
    backend: Arc<Files>,
    repository: Repository,
    name: ModelName,
}

impl Bench {
    fn new(config: &str, versions: &[(u64, &str)]) -> Bench {
        Bench::keeping(0, config, versions)
    }

    fn keeping(keep_previous: usize, config: &str, versions: &[(u64, &str)]) -> Bench {
        Bench::set(config, versions, |settings| settings.keep_previous = keep_previous)
    }

    fn set(config: &str, versions: &[(u64, &str)], set: impl FnOnce(&mut Settings)) -> Bench {
        let (directory, backend) = (tempfile::tempdir().unwrap(), Arc::<Files>::default());
        let mut settings = settings(directory.path());
        set(&mut settings);
        let repository = Repository::new(settings, Arc::clone(&backend) as Arc<dyn Backend>);
        let bench = Bench { directory, backend, repository, name: ModelName::parse("m").unwrap() };
        bench.configure(config);
        versions.iter().for_each(|(number, text)| bench.write(*number, text));
        bench.repository.load_all(None);
        bench
    }

    fn model(&self) -> PathBuf {
        self.directory.path().join("m")
    }

    fn configure(&self, config: &str) {
        fs::create_dir_all(self.model()).unwrap();
        fs::write(self.model().join("config.pbtxt"), format!("instance_group {{ count: 1 }} {config}"))
            .unwrap();
    }

    fn write(&self, number: u64, text: &str) {
        let directory = self.model().join(number.to_string());
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("model"), text).unwrap();
    }

    fn load(&self) -> Result<(), String> {
        self.repository.load_model(&self.name, None).map_err(|error| error.to_string())
    }

    /// What the model answers now.
    async fn answer(&self) -> Option<u8> {
        infer(&*self.repository.ready("m", None).ok()?).await.ok()
    }

    /// The index as `VERSION STATE REASON`.
    fn index(&self) -> Vec<String> {
        let line = |entry: IndexEntry| {
            let version = entry.version.map_or("-".to_owned(), |version| version.to_string());
            let state = entry.state.map_or("-", State::name);
            format!("{version} {state} {}", entry.reason).trim_end().to_owned()
        };
        self.repository.index().into_iter().map(line).collect()
    }

    /// Waits until so many models are in memory.
    #[track_caller]
    fn wait_for_alive(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.backend.alive.load(Ordering::SeqCst) != count {
            assert!(Instant::now() < deadline, "{} are in memory", self.backend.alive.load(Ordering::SeqCst));
            thread::yield_now();
        }
    }

    /// Waits until the index has `line`.
    #[track_caller]
    fn wait_for(&self, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.index().iter().any(|found| found == line) {
            assert!(Instant::now() < deadline, "{:?}", self.index());
            thread::yield_now();
        }
    }

    /// What was told, as `VERSION STATE`.
    fn told(&self) -> Vec<String> {
        let (events, _) = self.repository.events().follow(0);
        let line = |event: &Arc<Event>| {
            let version = event.version.map_or("-".to_owned(), |version| version.to_string());
            format!("{version} {}", event.state.name())
        };
        events.iter().map(line).collect()
    }

    fn loads(&self) -> Vec<String> {
        std::mem::take(&mut self.backend.loads.lock())
    }
}

const ALL: &str = "version_policy { all { } }";

#[tokio::test]
async fn a_new_version_takes_over_and_the_old_one_goes() {
    let bench = Bench::new("", &[(1, "1")]);
    assert_eq!(bench.answer().await, Some(1));
    let held = bench.repository.ready("m", None).unwrap();
    bench.write(2, "2");
    bench.load().unwrap();
    assert_eq!(bench.answer().await, Some(2));
    assert_eq!(infer(&held).await, Ok(1), "who holds it is answered by it");
    assert_eq!(bench.index()[0], "1 UNLOADING replaced");
    assert_eq!(bench.repository.ready("m", version(1)).unwrap_err().code(), Code::Unavailable);
    drop(held);
    bench.wait_for("1 UNAVAILABLE unloaded");
    bench.wait_for_alive(1);
    let (mut kept, _) = bench.repository.events().follow(0);
    while kept.len() < 6 {
        thread::yield_now(); // the index knows a moment before it is told
        kept = bench.repository.events().follow(0).0;
    }
    let told = ["1 LOADING", "1 READY", "2 LOADING", "2 READY", "1 UNLOADING", "1 UNAVAILABLE"];
    assert_eq!(bench.told(), told);
}

#[tokio::test]
async fn what_has_not_changed_is_not_loaded_again() {
    let bench = Bench::new(ALL, &[(1, "1"), (2, "2")]);
    assert_eq!(bench.loads(), ["m/1", "m/2"]);
    bench.load().unwrap();
    assert!(bench.loads().is_empty());
    bench.write(3, "3");
    bench.load().unwrap();
    assert_eq!(bench.loads(), ["m/3"], "only the difference");
    bench.configure("version_policy { specific { versions: [1, 3] } }");
    bench.load().unwrap();
    assert!(bench.loads().is_empty(), "a version policy alone loads nothing that is loaded");
    bench.wait_for("2 UNAVAILABLE unloaded");
    bench.write(1, "11");
    bench.load().unwrap();
    assert_eq!(bench.loads(), ["m/1"], "its file has changed");
    bench
        .configure("version_policy { specific { versions: [1, 3] } } max_batch_size: 0 model_operations { }");
    bench.load().unwrap();
    assert_eq!(bench.loads(), ["m/1", "m/3"], "the configuration is of all");
    bench.wait_for_alive(2);
}

#[tokio::test]
async fn other_instances_alone_are_changed_in_place() {
    let bench = Bench::keeping(1, ALL, &[(1, "1"), (2, "2")]);
    bench.answer().await.unwrap();
    bench.loads();
    let held = bench.repository.ready("m", None).unwrap();
    let config = |rest: &str| {
        fs::write(bench.model().join("config.pbtxt"), format!("instance_group {{ count: 3 }} {ALL} {rest}"))
            .unwrap();
    };
    config("");
    bench.load().unwrap();
    assert!(bench.loads().is_empty(), "nothing is loaded");
    let now = bench.repository.ready("m", None).unwrap();
    assert!(!Arc::ptr_eq(&held, &now));
    assert_eq!(now.config().instance_group[0].count, 3);
    assert_eq!((infer(&held).await, infer(&now).await), (Ok(2), Ok(2)), "who holds the others is answered");
    assert_eq!(now.statistics().snapshot().success.count, 3, "they count on");
    assert_eq!(bench.backend.alive.load(Ordering::SeqCst), 2);
    assert!(bench.repository.roll_back(&bench.name).is_err(), "these are no versions of their own");
    drop((held, now));
    // A new version is loaded beside, and the others only get their instances.
    bench.write(3, "3");
    fs::write(bench.model().join("config.pbtxt"), format!("instance_group {{ count: 2 }} {ALL}")).unwrap();
    bench.load().unwrap();
    assert_eq!((bench.loads(), bench.answer().await), (vec!["m/3".to_owned()], Some(3)));
    // Anything else that changes is a load of its own.
    config("max_batch_size: 0 model_operations { }");
    bench.load().unwrap();
    assert_eq!(bench.loads(), ["m/1", "m/2", "m/3"]);
}

#[tokio::test]
async fn a_load_that_fails_leaves_what_serves_and_says_why() {
    let bench = Bench::new(ALL, &[(1, "1")]);
    bench.write(2, "2");
    bench.write(3, "broken on purpose");
    let error = bench.load().unwrap_err();
    let why = "version 3 is at UNAVAILABLE state: cannot read m/3: broken on purpose;";
    assert_eq!(error, format!("load failed for model 'm': {why}"));
    assert_eq!(bench.answer().await, Some(1), "all of a load serve, or none");
    let index = bench.index();
    assert!(
        index[0].starts_with("1 READY the last load failed, and what served goes on: version 3"),
        "{index:?}"
    );
    assert!(index[1].starts_with("2 UN"), "{index:?}");
    assert_eq!(index[2], "3 UNAVAILABLE cannot read m/3: broken on purpose");
    assert!(bench.repository.is_complete(), "a version that came later sends nobody elsewhere");
    bench.wait_for_alive(1);
    bench.write(3, "3");
    bench.load().unwrap();
    assert_eq!(bench.answer().await, Some(3));
    assert_eq!(bench.index(), ["1 READY", "2 READY", "3 READY"]);
    bench.configure("max_batch_size: [");
    assert!(bench.load().unwrap_err().contains("m/config.pbtxt"));
    assert_eq!(bench.answer().await, Some(3));
    assert!(bench.index()[0].contains("m/config.pbtxt"), "{:?}", bench.index());
}

#[tokio::test]
async fn an_unloaded_model_is_not_found_and_comes_back_when_asked_for() {
    let bench = Bench::new("", &[(1, "1")]);
    bench.repository.unload_model(&bench.name);
    let refused = bench.repository.ready("m", None).unwrap_err();
    assert_eq!(refused.to_string(), "Request for unknown model: 'm' has no available versions");
    assert_eq!(refused.code(), Code::NotFound);
    bench.wait_for("1 UNAVAILABLE unloaded");
    bench.wait_for_alive(0);
    assert!(bench.repository.is_complete(), "it was asked for");
    bench.repository.unload_model(&ModelName::parse("nope").unwrap());
    bench.load().unwrap();
    assert_eq!(bench.answer().await, Some(1));
    let nope = bench.repository.load_model(&ModelName::parse("nope").unwrap(), None).unwrap_err().to_string();
    assert!(nope.starts_with("failed to load 'nope', failed to poll from model repository"), "{nope}");
    assert_eq!(bench.repository.index().len(), 1, "what is not there leaves nothing behind");
}

#[tokio::test]
async fn kept_versions_are_rolled_back_to_without_a_load() {
    let bench = Bench::keeping(1, "", &[(1, "1")]);
    for number in [2, 3] {
        bench.write(number, &number.to_string());
        bench.load().unwrap();
    }
    assert_eq!(bench.loads(), ["m/1", "m/2", "m/3"]);
    bench.wait_for("1 UNAVAILABLE unloaded");
    assert_eq!(bench.index()[1], "2 UNAVAILABLE kept loaded, so that it can be rolled back to");
    bench.wait_for_alive(2);
    assert_eq!(bench.repository.roll_back(&bench.name).unwrap(), [version(2).unwrap()]);
    assert_eq!(bench.answer().await, Some(2));
    assert!(bench.loads().is_empty());
    bench.wait_for("3 UNAVAILABLE unloaded");
    bench.wait_for_alive(1);
    assert!(matches!(bench.repository.roll_back(&bench.name), Err(ControlError::NothingKept { .. })));
    assert_eq!(bench.repository.poll(Duration::ZERO), LookAgain::default());
    assert_eq!(bench.answer().await, Some(2), "whoever rolled it back meant it");
    bench.load().unwrap();
    assert_eq!(bench.answer().await, Some(3), "whoever loads it means that");
}

#[tokio::test]
async fn where_there_is_no_room_for_both_the_old_one_goes_first_and_comes_back_if_the_next_fails() {
    let config = r#"parameters { key: "swap_policy" value { string_value: "resource" } }"#;
    let bench = Bench::keeping(3, config, &[(1, "1")]);
    bench.write(2, "2");
    bench.load().unwrap();
    assert_eq!(bench.answer().await, Some(2));
    assert_eq!(bench.backend.most.load(Ordering::SeqCst), 1, "never two at a time");
    bench.write(3, "broken");
    assert!(bench.load().is_err());
    assert_eq!(bench.answer().await, Some(2));
    assert_eq!(bench.backend.most.load(Ordering::SeqCst), 1);
    let index = bench.index();
    assert!(index.contains(&"2 READY loaded again, since the next failed".to_owned()), "{index:?}");
}

#[tokio::test]
async fn an_override_serves_what_it_gives_until_the_files_are_asked_for() {
    let bench = Bench::new("", &[(1, "1")]);
    let given = |files: &[(&str, &'static str)]| {
        let files =
            files.iter().map(|(path, text)| ((*path).to_owned(), Bytes::from_static(text.as_bytes())));
        Override::new(r#"{"instance_group": [{"count": 1}], "version_policy": {"all": {}}}"#, files).unwrap()
    };
    bench.repository.load_model(&bench.name, Some(given(&[("7/model", "70"), ("9/model", "90")]))).unwrap();
    assert_eq!(bench.answer().await, Some(90));
    assert_eq!(bench.repository.ready("m", version(7)).unwrap().version().get(), 7);
    assert_eq!(bench.repository.ready("m", version(1)).unwrap_err().code(), Code::Unavailable);
    assert_eq!(bench.repository.poll(Duration::ZERO), LookAgain::default());
    assert_eq!(bench.answer().await, Some(90), "the files have not changed, and were not asked for");
    bench.repository.load_model(&bench.name, Some(given(&[]))).unwrap();
    assert_eq!(bench.answer().await, Some(1), "its configuration over the files of the repository");
    bench.load().unwrap();
    assert_eq!(bench.answer().await, Some(1));
    let new = ModelName::parse("new").unwrap();
    bench.repository.load_model(&new, Some(given(&[("1/model", "5")]))).unwrap();
    assert_eq!(infer(&bench.repository.ready("new", None).unwrap()).await, Ok(5), "it is in no repository");
    let error = bench.repository.load_model(&new, None).unwrap_err().to_string();
    assert!(error.contains("no repository has a directory of that name"), "{error}");
}

#[tokio::test]
async fn polling_follows_the_files_once_nobody_writes_to_them() {
    let bench = Bench::new("", &[(1, "1")]);
    bench.loads();
    assert_eq!(bench.repository.poll(Duration::ZERO), LookAgain::default());
    assert!(bench.loads().is_empty());
    bench.write(2, "2");
    let wait = bench.repository.poll(Duration::from_secs(3600)).directories.unwrap();
    assert!(wait > Duration::from_secs(3000), "{wait:?}");
    assert_eq!(bench.answer().await, Some(1), "someone may still write to it");
    assert_eq!(bench.repository.poll(Duration::ZERO), LookAgain::default());
    assert_eq!(bench.answer().await, Some(2));
    fs::create_dir(bench.model().join("3")).unwrap();
    assert!(bench.repository.poll(Duration::ZERO).directories.is_some());
    assert_eq!(bench.answer().await, Some(2), "a directory without files is no version yet");
    bench.write(3, "broken");
    bench.loads();
    for _ in 0..3 {
        assert_eq!(bench.repository.poll(Duration::ZERO), LookAgain::default());
    }
    assert_eq!(bench.loads(), ["m/3"], "it is tried again when it changes");
    assert_eq!(bench.answer().await, Some(2));
    assert!(
        bench.index().iter().any(|line| line == "3 UNAVAILABLE cannot read m/3: broken"),
        "{:?}",
        bench.index()
    );
    fs::remove_dir_all(bench.model().join("3")).unwrap();
    bench.repository.poll(Duration::ZERO);
    assert!(!bench.index().iter().any(|line| line.starts_with('3')), "{:?}", bench.index());
    fs::rename(bench.model(), bench.directory.path().join("n")).unwrap();
    bench.repository.poll(Duration::ZERO);
    assert_eq!(bench.answer().await, None);
    assert_eq!(infer(&bench.repository.ready("n", None).unwrap()).await, Ok(2));
    bench.wait_for_alive(1);
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_has_not_lost_its_models() {
    let bench = Bench::new("", &[(1, "1")]);
    let (path, away) = (bench.directory.path().to_owned(), bench.directory.path().with_extension("away"));
    fs::rename(&path, &away).unwrap();
    bench.repository.poll(Duration::ZERO);
    assert_eq!(bench.answer().await, Some(1));
    assert_eq!(bench.repository.scan_errors().len(), 1);
    fs::rename(&away, &path).unwrap();
    bench.loads();
    bench.repository.poll(Duration::ZERO);
    assert!(bench.repository.scan_errors().is_empty());
    assert!(bench.loads().is_empty());
}

/// Whoever asks while versions come and go gets an answer of one of them, and nothing of what left stays.
#[test]
fn nobody_is_refused_while_versions_come_and_go() {
    let bench = Bench::keeping(1, "", &[(1, "1")]);
    let over = std::sync::atomic::AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = thread::scope(|scope| {
        let asks = (0..2).map(|_| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let mut asked = 0;
                while !over.load(Ordering::SeqCst) {
                    runtime.block_on(bench.answer()).expect("it serves all the time");
                    asked += 1;
                }
                asked
            })
        });
        let asks: Vec<_> = asks.collect();
        for number in 2..40_u64 {
            bench.write(number, if number % 5 == 0 { "broken" } else { "7" });
            assert_eq!(bench.load().is_err(), number % 5 == 0);
            if number % 7 == 0 && number % 5 != 0 {
                bench.repository.roll_back(&bench.name).unwrap();
            }
            if number % 5 == 0 {
                fs::remove_dir_all(bench.model().join(number.to_string())).unwrap();
            }
        }
        over.store(true, Ordering::SeqCst);
        asks.into_iter().map(|asks| asks.join().unwrap()).sum::<usize>()
    });
    assert!(asked > 0);
    assert!(runtime.block_on(bench.answer()).is_some());
    bench.repository.unload_model(&bench.name);
    bench.wait_for_alive(0);
    assert!(bench.index().len() <= 17, "{:?}", bench.index());
}

/// It named what there was at the start.
#[test]
fn a_look_names_the_models_that_are_there_now_and_loads_none() {
    let bench = Bench::new("", &[(1, "1")]);
    let names =
        || bench.repository.index().into_iter().map(|entry| entry.name.to_string()).collect::<Vec<_>>();
    let new = bench.directory.path().join("new");
    fs::create_dir_all(new.join("1")).unwrap();
    bench.repository.look();
    assert_eq!((names(), bench.loads().len()), (vec!["m".to_owned(), "new".to_owned()], 1));
    let index = bench.repository.index();
    assert_eq!((index[1].version, index[1].state), (None, None));
    assert!(bench.repository.is_complete());
    fs::remove_dir_all(new).unwrap();
    fs::remove_dir_all(bench.model()).unwrap();
    bench.repository.look();
    assert_eq!(names(), ["m"], "what serves is named wherever its files are");
}

/// What left first was loaded again only where nothing else served.
#[tokio::test]
async fn a_version_that_left_for_one_that_failed_comes_back_beside_those_that_stayed() {
    let config = r#"version_policy { latest { num_versions: 2 } } parameters { key: "swap_policy" value { string_value: "resource" } }"#;
    let bench = Bench::new(config, &[(1, "1"), (2, "2")]);
    bench.write(3, "broken");
    bench.load().unwrap_err();
    let ready: Vec<_> = bench.repository.all_ready().iter().map(|served| served.version().get()).collect();
    assert_eq!(ready, [1, 2], "{:?}", bench.index());
    assert_eq!(bench.index()[0], "1 READY loaded again, since the next failed");
    fs::remove_dir_all(bench.model().join("3")).unwrap();
    bench.load().unwrap();
    assert_eq!(bench.loads(), ["m/1", "m/2", "m/3", "m/1"], "they are what their files say");
}

/// Tries versions: of one whose file says so, a process would die.
#[derive(Debug, Default)]
struct Crashes {
    tried: Mutex<Vec<String>>,
}

impl Trial for Crashes {
    fn run(&self, of: &TrialOf<'_>) -> Result<(), LoadError> {
        let what = format!("{}/{}", of.name, of.version);
        self.tried.lock().push(what.clone());
        let text = fs::read_to_string(of.model_directory.join(of.version.to_string()).join("model"));
        let died = |what| LoadError::TrialDied {
            what,
            signal: "11 (SIGSEGV)".to_owned(),
            said: String::new(),
            advice: "do not",
        };
        match text.unwrap().as_str() {
            "crash" => Err(died(what)),
            "stop" => Err(LoadError::GivenUp),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn what_dies_in_its_trial_is_not_loaded_and_what_served_is_not_tried_again() {
    let trial = Arc::<Crashes>::default();
    let config = r#"parameters { key: "swap_policy" value { string_value: "resource" } }"#;
    let bench = Bench::set(config, &[(1, "1")], |settings| {
        settings.trial = Some(Arc::clone(&trial) as Arc<dyn Trial>);
    });
    bench.write(2, "crash");
    let error = bench.load().unwrap_err();
    assert!(error.contains("the trial process of m/2 died of signal 11 (SIGSEGV) while"), "{error}");
    assert_eq!(bench.answer().await, Some(1));
    assert_eq!(bench.loads(), ["m/1", "m/1"], "it left for the other, and came back");
    assert_eq!(*trial.tried.lock(), ["m/1", "m/2"]);
    bench.write(3, "no number");
    assert!(bench.load().unwrap_err().contains("no number"), "the load itself says why");
    bench.write(4, "stop");
    let stopped = bench.repository.load_model(&bench.name, None).unwrap_err();
    assert_eq!(stopped, ControlError::GivenUp { model: bench.name.clone() });
    assert_eq!(bench.answer().await, Some(1));
}
