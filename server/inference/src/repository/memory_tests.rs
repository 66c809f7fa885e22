//! Loads within a bound on the memory of all models, and loads on demand.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::tests::{FakeModel, infer, settings};
use super::*;
use crate::backend::{LoadedModel, ModelSource};

/// Answers with the number in its file, which takes twice its file in memory.
#[derive(Default)]
struct Twice {
    alive: Arc<AtomicUsize>,
    most: AtomicUsize,
}

impl Backend for Twice {
    fn load(&self, source: &ModelSource<'_>) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let text = fs::read_to_string(source.version_directory.join("model")).unwrap();
        let answer = text.trim().parse().map_err(|_| LoadError::Unsupported(text.trim().to_owned()))?;
        self.most.fetch_max(self.alive.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Ok(Arc::new(FakeModel::answering(answer, Arc::clone(&self.alive)).taking(2 * text.len() as u64)))
    }
}

struct Bench {
    directory: TempDir,
    backend: Arc<Twice>,
    repository: Repository,
}

impl Bench {
    /// A server whose models may take `limit` together, with one version of each of `models`.
    fn new(limit: u64, models: &[&str], settle: impl Fn(&mut Settings)) -> Bench {
        let (directory, backend) = (tempfile::tempdir().unwrap(), Arc::<Twice>::default());
        let mut settings =
            Settings { memory_limit: Some(limit), load_threads: 4, ..settings(directory.path()) };
        settle(&mut settings);
        let repository = Repository::new(settings, Arc::clone(&backend) as Arc<dyn Backend>);
        let bench = Bench { directory, backend, repository };
        for (index, name) in models.iter().enumerate() {
            bench.write(name, 1, &(index + 1).to_string());
        }
        bench.repository.load_all(None);
        bench
    }

    /// Writes a version whose file has 100 bytes.
    fn write(&self, model: &str, version: u64, text: &str) {
        let directory = self.directory.path().join(model);
        fs::create_dir_all(directory.join(version.to_string())).unwrap();
        fs::write(directory.join("config.pbtxt"), "instance_group { count: 1 }").unwrap();
        fs::write(directory.join(version.to_string()).join("model"), format!("{text:100}")).unwrap();
    }

    fn load(&self, model: &str) -> Result<(), String> {
        self.repository.load_model(&name(model), None).map_err(|error| error.to_string())
    }

    async fn answer(&self, model: &str) -> Option<u8> {
        infer(&*self.repository.ready(model, None).ok()?).await.ok()
    }

    async fn ask(&self, model: &str) -> Result<u8, String> {
        if let Some(name) = self.repository.on_demand(model) {
            self.repository.load_on_demand(&name).map_err(|error| error.to_string())?;
        }
        self.answer(model).await.ok_or_else(|| format!("{model} does not serve"))
    }

    fn most(&self) -> usize {
        self.backend.most.load(Ordering::SeqCst)
    }

    #[track_caller]
    fn wait_for_taken(&self, bytes: u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.repository.memory_taken() != bytes {
            assert!(Instant::now() < deadline, "{} are taken", self.repository.memory_taken());
            thread::yield_now();
        }
    }
}

/// Statistics say in milliseconds when a model was used.
fn next_millisecond() {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let before = now();
    while now() == before {
        thread::yield_now();
    }
}

fn name(model: &str) -> ModelName {
    ModelName::parse(model).unwrap()
}

fn as_usual(_: &mut Settings) {}

fn on_demand(settings: &mut Settings) {
    settings.on_demand = true;
}

#[tokio::test]
async fn what_versions_take_is_known_and_given_back() {
    let bench = Bench::new(1000, &["a", "b"], as_usual);
    let one = model::ModelVersion::new(1).unwrap();
    assert_eq!(bench.repository.memory_by_version(), [(name("a"), one, 200), (name("b"), one, 200)]);
    assert_eq!((bench.repository.memory_taken(), bench.repository.memory_limit()), (400, Some(1000)));
    bench.repository.unload_model(&name("a"));
    bench.wait_for_taken(200);
}

#[tokio::test]
async fn a_load_beyond_the_limit_is_refused_with_the_figures() {
    let bench = Bench::new(430, &["a", "b"], as_usual);
    bench.write("c", 1, "3");
    let error = bench.load("c").unwrap_err();
    assert!(
        error.contains("it needs about 1 MiB, and models have 1 of the 1 MiB that they may have"),
        "{error}"
    );
    assert_eq!((bench.answer("a").await, bench.answer("b").await), (Some(1), Some(2)));
    assert_eq!(bench.repository.memory_taken(), 400);
    bench.repository.unload_model(&name("b"));
    bench.load("c").unwrap();
    assert_eq!(bench.answer("c").await, Some(3));
}

#[tokio::test]
async fn where_both_do_not_fit_the_old_one_leaves_first_and_comes_back_if_the_next_fails() {
    let bench = Bench::new(300, &["a"], as_usual);
    bench.write("a", 2, "7");
    bench.load("a").unwrap();
    assert_eq!((bench.answer("a").await, bench.most()), (Some(7), 1), "never both at a time");
    bench.write("a", 3, "broken");
    bench.load("a").unwrap_err();
    assert_eq!(bench.answer("a").await, Some(7));
    let index = bench.repository.index();
    assert!(index.iter().any(|entry| entry.reason == "loaded again, since the next failed"), "{index:?}");
    assert_eq!(bench.repository.memory_taken(), 200);
}

#[tokio::test]
async fn what_is_only_kept_makes_room_before_what_serves_does() {
    let bench = Bench::new(500, &["a"], |settings| settings.keep_previous = 1);
    bench.write("a", 2, "2");
    bench.load("a").unwrap();
    assert_eq!(bench.repository.memory_taken(), 400);
    bench.write("a", 3, "3");
    bench.load("a").unwrap();
    assert_eq!((bench.answer("a").await, bench.most()), (Some(3), 2));
    assert_eq!(bench.repository.roll_back(&name("a")).unwrap().len(), 1, "the one before is kept");
    assert_eq!(bench.answer("a").await, Some(2));
}

#[tokio::test]
async fn on_demand_nothing_is_loaded_before_it_is_asked_for() {
    let bench = Bench::new(1000, &["a", "b"], on_demand);
    assert_eq!((bench.most(), bench.answer("a").await), (0, None));
    assert!(bench.repository.is_complete());
    assert_eq!(bench.ask("b").await, Ok(2));
    assert_eq!(bench.repository.on_demand("b"), None);
    assert_eq!((bench.most(), bench.repository.on_demand("unheard_of")), (1, None));
}

#[tokio::test]
async fn on_demand_the_one_asked_for_least_recently_leaves() {
    let bench = Bench::new(450, &["a", "b", "c"], on_demand);
    for (model, answer) in [("a", 1), ("b", 2), ("a", 1), ("c", 3), ("a", 1), ("b", 2), ("c", 3), ("c", 3)] {
        assert_eq!(bench.ask(model).await, Ok(answer));
        next_millisecond();
    }
    assert!(bench.most() <= 2 && bench.repository.memory_taken() <= 450);
    let loaded: Vec<_> =
        bench.repository.all_ready().iter().map(|served| served.name().to_string()).collect();
    assert_eq!(loaded, ["b", "c"]);
    let index = bench.repository.index();
    assert_eq!(index[0].reason, "unloaded", "{index:?}");
    let (events, _) = bench.repository.events().follow(0);
    assert!(
        events.iter().any(|event| event.model == name("a") && event.reason == "unloaded to make room for c")
    );
}

#[test]
fn on_demand_requests_that_are_at_a_model_are_answered_before_it_leaves() {
    let bench = Bench::new(300, &["a", "b"], on_demand);
    block_on(bench.ask("a")).unwrap();
    let held = bench.repository.ready("a", None).unwrap();
    thread::scope(|scope| {
        let load = scope.spawn(|| bench.repository.load_on_demand(&name("b")));
        while bench.repository.on_demand("a").is_none() {
            thread::yield_now();
        }
        assert!(!load.is_finished(), "its memory is still taken");
        assert_eq!(block_on(infer(&held)), Ok(1));
        drop(held);
        load.join().unwrap().unwrap();
    });
    assert_eq!((block_on(bench.answer("b")), bench.most()), (Some(2), 1));
}

#[tokio::test]
async fn on_demand_what_was_unloaded_by_request_stays_so_until_it_is_loaded() {
    let bench = Bench::new(1000, &["a"], on_demand);
    bench.ask("a").await.unwrap();
    bench.repository.unload_model(&name("a"));
    assert_eq!(bench.repository.on_demand("a"), None);
    bench.load("a").unwrap();
    assert_eq!(bench.answer("a").await, Some(1));
}

#[tokio::test]
async fn on_demand_polling_offers_what_comes_and_forgets_what_goes() {
    let bench = Bench::new(1000, &["a"], on_demand);
    bench.write("b", 1, "9");
    bench.repository.poll(Duration::ZERO);
    assert_eq!((bench.most(), bench.ask("b").await), (0, Ok(9)));
    bench.write("b", 2, "8");
    bench.repository.poll(Duration::ZERO);
    assert_eq!(bench.answer("b").await, Some(8), "what is loaded follows its files");
    fs::remove_dir_all(bench.directory.path().join("a")).unwrap();
    bench.repository.poll(Duration::ZERO);
    assert_eq!(bench.repository.on_demand("a"), None);
    bench.write("a", 1, "5");
    bench.repository.poll(Duration::ZERO);
    assert_eq!(bench.ask("a").await, Ok(5));
}

/// Either alone would not have been enough, and the load failed.
#[tokio::test]
async fn on_demand_others_leave_where_what_is_replaced_is_not_enough() {
    let bench = Bench::new(450, &["a", "b"], on_demand);
    bench.ask("a").await.unwrap();
    bench.ask("b").await.unwrap();
    fs::write(bench.directory.path().join("a/1/more"), format!("{:80}", "")).unwrap();
    fs::remove_dir_all(bench.directory.path().join("a/1")).unwrap();
    fs::create_dir_all(bench.directory.path().join("a/2")).unwrap();
    fs::write(bench.directory.path().join("a/2/model"), format!("{:210}", 5)).unwrap();
    bench.load("a").unwrap();
    assert_eq!((bench.answer("a").await, bench.answer("b").await, bench.most()), (Some(5), None, 2));
    assert_eq!(bench.repository.on_demand("b"), Some(name("b")));
}

/// It was loaded again from its files, as something else.
#[tokio::test]
async fn on_demand_what_could_not_come_back_as_it_is_stays() {
    let bench = Bench::new(650, &["given", "back", "a", "b"], |settings| {
        on_demand(settings);
        settings.keep_previous = 1;
    });
    let config = r#"{"instance_group": [{"count": 1}]}"#;
    let file = ("1/model".to_owned(), bytes::Bytes::from(format!("{:100}", 9)));
    bench.repository.load_model(&name("given"), Some(Override::new(config, [file]).unwrap())).unwrap();
    bench.ask("back").await.unwrap();
    bench.write("back", 2, "8");
    bench.load("back").unwrap();
    bench.repository.roll_back(&name("back")).unwrap();
    bench.wait_for_taken(400);
    for (model, answer) in [("a", 3), ("b", 4), ("given", 9), ("back", 2), ("a", 3)] {
        next_millisecond();
        assert_eq!(bench.ask(model).await, Ok(answer), "{:?}", bench.repository.index());
    }
}

/// A model whose every answer was kept seemed to be the one that nobody asked for.
#[tokio::test]
async fn on_demand_an_answer_from_the_cache_is_a_use() {
    let bench = Bench::new(450, &["a", "b", "c"], on_demand);
    bench.ask("a").await.unwrap();
    next_millisecond();
    bench.ask("b").await.unwrap();
    next_millisecond();
    let a = bench.repository.ready("a", None).unwrap();
    a.statistics().record_cache_hit(Duration::ZERO, Duration::ZERO);
    drop(a);
    bench.ask("c").await.unwrap();
    assert_eq!((bench.repository.on_demand("a"), bench.repository.on_demand("b")), (None, Some(name("b"))));
}

/// For a moment it looked as if it had been unloaded by request, and requests were refused.
#[test]
fn on_demand_what_leaves_for_others_can_be_asked_for_at_any_moment() {
    let bench = Bench::new(300, &["a", "b"], on_demand);
    let over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let entry = bench.repository.entry(&name("a"));
                if entry.unwanted && !entry.on_demand {
                    over.store(true, Ordering::SeqCst);
                    panic!("neither ready nor to be loaded");
                }
            }
        });
        for _ in 0..200 {
            if over.load(Ordering::SeqCst) {
                return;
            }
            let _ = block_on(bench.ask("a"));
            let _ = block_on(bench.ask("b"));
        }
        over.store(true, Ordering::SeqCst);
    });
}

/// Many ask for many models at once: each is answered by its own, or told that there is no room, and no more is taken
/// than there may be.
#[test]
fn on_demand_many_at_once_neither_hang_nor_take_too_much() {
    let models = ["a", "b", "c", "d", "e"];
    let bench = Bench::new(650, &models, on_demand);
    for model in models {
        block_on(bench.ask(model)).unwrap(); // from now on it is known what each takes
    }
    thread::scope(|scope| {
        for worker in 0..6 {
            let bench = &bench;
            scope.spawn(move || {
                for round in 0..40 {
                    let index = (worker + round * (worker + 1)) % models.len();
                    match block_on(bench.ask(models[index])) {
                        Ok(answer) => assert_eq!(usize::from(answer), index + 1),
                        Err(error) => assert!(
                            error.contains("--model-memory-limit") || error.ends_with("does not serve"),
                            "{error}"
                        ),
                    }
                    assert!(bench.repository.memory_taken() <= 650);
                }
            });
        }
    });
    assert!(bench.most() <= 3);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
