//! Models with a rate limiter over a backend whose runs last until they are told to end.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{DataType, Dims, InferRequest, InferResponse, Parameters, Tensor};
use parking_lot::{Condvar, Mutex};
use smallvec::{SmallVec, smallvec};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::backend::{
    ExecuteError, Execution, Instance, InstanceInput, InstanceOutput, LoadedModel, ModelSource, Signature,
    TensorSignature,
};
use crate::rate_limiter::{ResourceTotal, ResourceUse};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run that has begun: the model, the index of its instance, the items, and the thread.
type Began = (String, usize, i64, String);

/// What lets runs end.
#[derive(Default)]
struct Gate {
    /// How many runs of each model may end.
    may_end: Mutex<HashMap<String, usize>>,
    changed: Condvar,
}

struct Held {
    began: Sender<Began>,
    gate: Arc<Gate>,
}

struct HeldModel {
    name: String,
    signature: Signature,
    instances: AtomicUsize,
    began: Sender<Began>,
    gate: Arc<Gate>,
}

struct HeldInstance {
    name: String,
    index: usize,
    began: Sender<Began>,
    gate: Arc<Gate>,
}

impl Backend for Held {
    fn load(&self, source: &ModelSource<'_>) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let tensor = |name: &str| TensorSignature {
            name: name.into(),
            datatype: DataType::Uint8,
            dims: Dims::new(&[-1, 1]),
        };
        Ok(Arc::new(HeldModel {
            name: source.name.to_string(),
            signature: Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")] },
            instances: AtomicUsize::new(0),
            began: self.began.clone(),
            gate: Arc::clone(&self.gate),
        }))
    }
}

impl LoadedModel for HeldModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        let index = self.instances.fetch_add(1, Ordering::Relaxed);
        if self.name == "dies" && index > 0 {
            return Err(LoadError::Unsupported("no memory for a second one".to_owned()));
        }
        let (name, began, gate) = (self.name.clone(), self.began.clone(), Arc::clone(&self.gate));
        Ok(Box::new(HeldInstance { name, index, began, gate }))
    }
}

impl Instance for HeldInstance {
    fn execute(&mut self, inputs: &[InstanceInput], _: &[usize]) -> Result<Execution, ExecuteError> {
        let tensor = &inputs[0].tensor;
        let thread = thread::current().name().unwrap_or_default().to_owned();
        let _ = self.began.send((self.name.clone(), self.index, tensor.shape[0], thread));
        let mut may_end = self.gate.may_end.lock();
        while may_end.get(&self.name).is_none_or(|count| *count == 0) {
            self.gate.changed.wait(&mut may_end);
        }
        *may_end.get_mut(&self.name).unwrap() -= 1;
        drop(may_end);
        assert!(self.name != "dies", "a bug in the model");
        let outputs = smallvec![InstanceOutput { shape: tensor.shape.clone(), data: tensor.data.clone() }];
        let now = Instant::now();
        Ok(Execution { outputs, inputs_ready: now, inferred: now })
    }
}

/// Servers that share a rate limiter, each of one model, and the test's hold on their runs.
struct Bench {
    limiter: Arc<RateLimiter>,
    backend: Arc<Held>,
    began: Receiver<Began>,
    models: HashMap<&'static str, (TempDir, Repository)>,
}

impl Bench {
    fn new(totals: &[(&str, u32)]) -> Bench {
        let total =
            |(name, count): &(&str, u32)| ResourceTotal { name: (*name).into(), count: *count, device: None };
        let limiter = Arc::new(RateLimiter::new(totals.iter().map(total).collect()));
        let (began, has_begun) = channel();
        let backend = Arc::new(Held { began, gate: Arc::default() });
        Bench { limiter, backend, began: has_begun, models: HashMap::new() }
    }

    /// Loads `model` with these instance groups, each given as its count and its `rate_limiter`.
    fn with(mut self, model: &'static str, groups: &[(usize, &str)]) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let group = |(count, limiter): &(usize, &str)| {
            format!("instance_group {{ count: {count} rate_limiter {{ {limiter} }} }}\n")
        };
        let groups: String = groups.iter().map(group).collect();
        fs::create_dir_all(directory.path().join(model).join("1")).unwrap();
        let config = format!("max_batch_size: 8 dynamic_batching {{ }}\n{groups}");
        fs::write(directory.path().join(model).join("config.pbtxt"), config).unwrap();
        let settings = Settings {
            rate_limiter: Some(Arc::clone(&self.limiter)),
            ..super::tests::settings(directory.path())
        };
        let repository = Repository::new(settings, Arc::clone(&self.backend) as Arc<dyn Backend>);
        repository.load_all(None);
        self.models.insert(model, (directory, repository));
        self
    }

    fn served(&self, model: &str) -> Arc<ServedVersion> {
        self.models[model].1.ready(model, None).unwrap()
    }

    /// Why `model` is not served.
    fn problem(&self, model: &str) -> String {
        self.models[model].1.index()[0].reason.clone()
    }

    #[expect(clippy::disallowed_methods, reason = "the runtime ends with the test")]
    fn ask(&self, model: &str) -> JoinHandle<Result<InferResponse, InferError>> {
        let served = self.served(model);
        let tensor = Tensor {
            name: "x".into(),
            datatype: DataType::Uint8,
            shape: Dims::new(&[1, 1]),
            data: Bytes::from_static(&[7]),
        };
        let request = InferRequest {
            id: "".into(),
            model: served.name().clone(),
            version: None,
            parameters: Parameters::default(),
            inputs: smallvec![tensor],
            outputs: SmallVec::new(),
            deadline: None,
        };
        tokio::spawn(async move { served.infer(&request, "r-1", Instant::now()).await })
    }

    /// Waits until a run has begun; the model, the index of its instance, and the items.
    fn begun(&self) -> (String, usize, i64) {
        let (model, instance, items, _) = self.began.recv_timeout(PATIENCE).expect("a run begins");
        (model, instance, items)
    }

    fn nothing_begins(&self) {
        assert_eq!(self.began.try_recv().ok(), None);
    }

    /// Lets a run of `model` end.
    fn go(&self, model: &str) {
        *self.backend.gate.may_end.lock().entry(model.to_owned()).or_default() += 1;
        self.backend.gate.changed.notify_all();
    }

    /// How much there is of each resource, and how much is held.
    fn resources(&self) -> Vec<(String, u64, u64)> {
        let told = |held: ResourceUse| (held.resource.name.to_string(), held.total, held.used);
        self.limiter.resources().into_iter().map(told).collect()
    }
}

/// Yields until `condition` holds.
async fn until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "it never holds");
        tokio::task::yield_now().await;
    }
}

/// Yields until so many instances and requests of `served` wait.
async fn waiting(served: &ServedVersion, instances: usize, requests: usize) {
    until(|| served.instances_waiting() == Some(instances) && served.waiting() == requests).await;
}

const ONE: (usize, &str) = (1, r#"resources { name: "r" count: 1 }"#);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_that_share_a_resource_run_one_after_the_other_and_batches_grow_meanwhile() {
    let bench = Bench::new(&[]).with("a", &[ONE]).with("b", &[ONE]);
    let first = bench.ask("a");
    assert_eq!(bench.begun(), ("a".to_owned(), 0, 1));
    let others = [0; 3].map(|_| bench.ask("b"));
    waiting(&bench.served("b"), 1, 3).await;
    assert_eq!(bench.resources(), [("r".to_owned(), 1, 1)]);
    bench.nothing_begins();
    bench.go("a");
    assert_eq!(bench.begun(), ("b".to_owned(), 0, 3), "what came while it waited is in its batch");
    assert!(first.await.unwrap().is_ok());
    bench.go("b");
    for other in others {
        assert!(other.await.unwrap().is_ok());
    }
    until(|| bench.resources() == [("r".to_owned(), 1, 0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_beyond_the_most_that_one_takes_lets_them_run_together() {
    let bench = Bench::new(&[("R", 2)]).with("a", &[ONE]).with("b", &[ONE]);
    let asked = [bench.ask("a"), bench.ask("b")];
    let mut begun = [bench.begun().0, bench.begun().0];
    begun.sort();
    assert_eq!(begun, ["a", "b"]);
    assert_eq!(bench.resources(), [("r".to_owned(), 2, 2)]);
    ["a", "b"].iter().for_each(|model| bench.go(model));
    for asked in asked {
        assert!(asked.await.unwrap().is_ok());
    }
}

/// The instance that was woken waits for what it takes; the request does not wait for that instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instance_of_the_model_runs_what_one_must_wait_for() {
    let groups = [ONE, (1, r#"resources { name: "s" count: 1 }"#)];
    let bench = Bench::new(&[]).with("a", &[ONE]).with("groups", &groups);
    let first = bench.ask("a");
    bench.begun();
    for _ in 0..10 {
        let asked = bench.ask("groups");
        assert_eq!(bench.begun(), ("groups".to_owned(), 1, 1));
        bench.go("groups");
        assert!(asked.await.unwrap().is_ok());
        waiting(&bench.served("groups"), 0, 0).await;
    }
    let one = bench.ask("groups");
    assert_eq!(bench.begun().1, 1);
    let other = bench.ask("groups");
    waiting(&bench.served("groups"), 1, 1).await;
    bench.go("a");
    assert_eq!(bench.begun().1, 0, "both run once both are free");
    (0..2).for_each(|_| bench.go("groups"));
    for asked in [first, one, other] {
        assert!(asked.await.unwrap().is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_requests_leave_waits_no_more_and_makes_way() {
    let two = (2, r#"resources { name: "r" count: 2 }"#);
    let bench = Bench::new(&[("r", 2)]).with("a", &[ONE]).with("two", &[two]).with("b", &[ONE]);
    let first = bench.ask("a");
    bench.begun();
    let leaving = bench.ask("two");
    waiting(&bench.served("two"), 2, 1).await;
    let behind = bench.ask("b");
    waiting(&bench.served("b"), 1, 1).await;
    leaving.abort();
    assert_eq!(bench.begun().0, "b", "one of two was free");
    waiting(&bench.served("two"), 0, 0).await;
    ["a", "b"].iter().for_each(|model| bench.go(model));
    assert!(first.await.unwrap().is_ok() && behind.await.unwrap().is_ok());
    let again = bench.ask("two");
    assert_eq!(bench.begun().0, "two");
    bench.go("two");
    assert!(again.await.unwrap().is_ok());
}

/// A client may leave while an instance is about to wait for its turn, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_instance_waits_for_a_turn_that_it_has_no_use_for() {
    let bench = Bench::new(&[]).with("a", &[ONE]).with("b", &[(2, ONE.1)]);
    let first = bench.ask("a");
    bench.begun();
    let served = bench.served("b");
    for round in 0..3_000_u32 {
        let leaving = bench.ask("b");
        for _ in 0..round % 50 {
            tokio::task::yield_now().await;
        }
        leaving.abort();
        assert!(leaving.await.is_err());
        waiting(&served, 0, 0).await;
    }
    bench.nothing_begins();
    bench.go("a");
    assert!(first.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_what_waits_and_takes_no_more_than_there_is() {
    let bench = Bench::new(&[]).with("a", &[ONE]).with("b", &[(3, ONE.1)]);
    let first = bench.ask("a");
    bench.begun();
    let waits = [bench.ask("b"), bench.ask("b")];
    let served = bench.served("b");
    waiting(&served, 3, 2).await;
    let draining = tokio::task::spawn_blocking(move || served.drain());
    loop {
        let probe = bench.ask("b");
        until(|| probe.is_finished() || bench.served("b").waiting() == 3).await;
        if probe.is_finished() {
            assert_eq!(probe.await.unwrap().unwrap_err(), InferError::ShuttingDown);
            break;
        }
        probe.abort(); // it came before the drain
        until(|| bench.served("b").waiting() == 2).await;
    }
    bench.nothing_begins();
    assert!(!draining.is_finished());
    bench.go("a");
    let (model, _, items) = bench.begun();
    assert_eq!((model.as_str(), items), ("b", 2));
    bench.go("b");
    for waits in waits {
        assert!(waits.await.unwrap().is_ok());
    }
    draining.await.unwrap();
    assert!(first.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_cannot_wait_ends_the_wait_of_instances_too() {
    let bench = Bench::new(&[]).with("a", &[ONE]).with("b", &[(3, ONE.1)]);
    let first = bench.ask("a");
    bench.begun();
    let waits = bench.ask("b");
    let served = bench.served("b");
    waiting(&served, 3, 1).await;
    assert_eq!(served.abandon().waiting, 1);
    assert_eq!(waits.await.unwrap().unwrap_err(), InferError::ShuttingDown);
    waiting(&served, 0, 0).await;
    tokio::task::spawn_blocking(move || served.drain()).await.unwrap(); // while `a` runs
    assert!(!first.is_finished());
    bench.go("a");
    assert!(first.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_unloaded_version_took_is_forgotten() {
    let mut bench =
        Bench::new(&[]).with("a", &[ONE]).with("big", &[(2, r#"resources { name: "r" count: 5 }"#)]);
    assert_eq!(bench.resources(), [("r".to_owned(), 5, 0)]);
    bench.models.remove("big");
    until(|| bench.resources() == [("r".to_owned(), 1, 0)]).await; // once its threads have ended
    bench.models.remove("a");
    until(|| bench.resources().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_lost_gives_back_what_it_held() {
    let much = (1, r#"resources { name: "r" count: 3 }"#);
    let bench = Bench::new(&[]).with("dies", &[much]).with("b", &[ONE]);
    let lost = bench.ask("dies");
    bench.begun();
    let waits = bench.ask("b");
    waiting(&bench.served("b"), 1, 1).await;
    bench.go("dies");
    assert!(lost.await.unwrap().is_err());
    assert_eq!(bench.begun().0, "b");
    until(|| bench.resources() == [("r".to_owned(), 1, 1)]).await; // nobody waits for what only it took
    bench.go("b");
    assert!(waits.await.unwrap().is_ok());
}

/// Brief runs are made by the thread that brings their requests, but for those that must wait for their turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_is_made_by_the_thread_of_its_instance() {
    let bench = Bench::new(&[]).with("a", &[ONE]);
    for _ in 0..100 {
        bench.go("a");
        assert!(bench.ask("a").await.unwrap().is_ok());
        assert_eq!(bench.began.recv().unwrap().3, "a_0");
    }
}

/// Requests that come and leave from many sides: each is answered, and at the end nobody waits for anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_among_instances_that_wait_for_each_other() {
    let both = (2, r#"resources { name: "r" count: 1 } resources { name: "s" count: 1 } priority: 3"#);
    let much = (1, r#"resources { name: "r" count: 2 }"#);
    let other = (2, r#"resources { name: "s" count: 1 }"#);
    let bench = Bench::new(&[]).with("a", &[(3, ONE.1)]).with("b", &[both, other]).with("c", &[much, other]);
    let models = ["a", "b", "c"];
    bench.backend.gate.may_end.lock().extend(models.map(|model| (model.to_owned(), usize::MAX)));
    for round in 0..200 {
        let asked: Vec<_> = (0..12).map(|number| bench.ask(models[(round + number) % 3])).collect();
        for (number, asked) in asked.into_iter().enumerate() {
            if (round + number) % 5 == 0 {
                tokio::task::yield_now().await;
                asked.abort();
            } else {
                assert!(asked.await.unwrap().is_ok());
            }
        }
    }
    for model in models {
        waiting(&bench.served(model), 0, 0).await;
    }
    until(|| bench.resources().iter().all(|(_, _, used)| *used == 0)).await;
    let served: Vec<_> = models.map(|model| bench.served(model)).into();
    tokio::task::spawn_blocking(move || served.iter().for_each(|served| served.drain())).await.unwrap();
}

#[test]
fn a_model_that_could_never_run_is_not_served_and_says_why() {
    let much = (1, r#"resources { name: "r" count: 4 }"#);
    let global = (1, r#"resources { name: "r" count: 1 global: true }"#);
    let twice = (1, r#"resources { name: "r" count: 1 } resources { name: "r" count: 1 }"#);
    let bench = Bench::new(&[("r", 3)])
        .with("much", &[much])
        .with("fits", &[ONE])
        .with("global", &[global])
        .with("twice", &[twice]);
    assert_eq!(
        bench.problem("much"),
        "much/config.pbtxt: instance_group \"much_0\" asks in rate_limiter.resources for 4 of the resource \"r\" of \
         device 0, but --rate-limit-resource gives 3; give at least r:4, or ask for less"
    );
    assert_eq!(bench.problem("fits"), "");
    assert_eq!(
        bench.problem("global"),
        "global/config.pbtxt: instance_group \"global_0\" asks in rate_limiter.resources for \"r\" as a resource that \
         is global, but instance_group \"fits_0\" of model \"fits\" for one that is of each device; set global alike in \
         both, or give one another name"
    );
    assert!(bench.problem("twice").contains("has \"r\" twice"), "{}", bench.problem("twice"));
    assert_eq!(bench.resources(), [("r".to_owned(), 3, 0)], "what is not served holds nothing");
}

/// As with Triton, what has no effect is not looked at; but it is told.
#[test]
fn without_a_rate_limiter_its_fields_have_no_effect_and_are_told() {
    let mut bench = Bench::new(&[]).with("a", &[(1, r#"resources { count: 1 } priority: 2"#)]);
    assert!(bench.problem("a").contains("without a name"), "{}", bench.problem("a"));
    let (directory, _) = bench.models.remove("a").unwrap();
    let settings = super::tests::settings(directory.path());
    let repository = Repository::new(settings, Arc::clone(&bench.backend) as Arc<dyn Backend>);
    repository.load_all(None);
    assert_eq!(repository.ready("a", None).unwrap().instances_waiting(), None);
    assert_eq!(
        repository.unacted()[0].1,
        ["instance_group.rate_limiter (--rate-limit is off; give execution_count)"]
    );
}
