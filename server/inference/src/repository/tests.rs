//! The repository over a backend that does what the test wants: what goes wrong in one model is told of that
//! model, and ends nothing else.

use std::fs;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use model::{Code, DataType, Dims, InferRequest, Parameters, Tensor};
use smallvec::{SmallVec, smallvec};
use tempfile::TempDir;

use super::*;
use crate::backend::{
    ExecuteError, Execution, Instance, InstanceInput, InstanceOutput, LoadedModel, ModelSource, Signature,
    TensorSignature,
};

/// Models with names that say what they do: `load_panics`, `waits` in its load until it is told to go on, and
/// `dies` at its first execution.
struct Fake {
    loading: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
}

impl Backend for Fake {
    fn load(&self, source: &ModelSource<'_>) -> Result<Arc<dyn LoadedModel>, LoadError> {
        match source.name.as_str() {
            "load_panics" => panic!("a bug in {}", source.name),
            "waits" => {
                self.loading.lock().unwrap().send(()).unwrap();
                self.go_on.lock().unwrap().recv().unwrap();
            }
            _ => {}
        }
        let dies = source.name.as_str() == "dies";
        Ok(Arc::new(FakeModel::new(dies, None, None)))
    }
}

/// Gives back what it is given, or a number.
pub(super) struct FakeModel {
    signature: Signature,
    dies: bool,
    made_one: AtomicBool,
    answer: Option<u8>,
    /// One less when it is gone.
    alive: Option<Arc<AtomicUsize>>,
    memory: Option<u64>,
}

impl FakeModel {
    fn new(dies: bool, answer: Option<u8>, alive: Option<Arc<AtomicUsize>>) -> FakeModel {
        FakeModel {
            signature: signature(),
            dies,
            made_one: AtomicBool::new(false),
            answer,
            alive,
            memory: None,
        }
    }

    pub(super) fn answering(answer: u8, alive: Arc<AtomicUsize>) -> FakeModel {
        FakeModel::new(false, Some(answer), Some(alive))
    }

    /// The same, which takes so many bytes.
    pub(super) fn taking(mut self, bytes: u64) -> FakeModel {
        self.memory = Some(bytes);
        self
    }
}

impl Drop for FakeModel {
    fn drop(&mut self) {
        if let Some(alive) = &self.alive {
            alive.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl LoadedModel for FakeModel {
    fn memory(&self) -> Option<u64> {
        self.memory
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        if self.dies && self.made_one.swap(true, Ordering::Relaxed) {
            return Err(LoadError::Unsupported("no memory for a second one".to_owned()));
        }
        Ok(Box::new(FakeInstance { dies: self.dies, answer: self.answer }))
    }
}

struct FakeInstance {
    dies: bool,
    answer: Option<u8>,
}

impl Instance for FakeInstance {
    fn execute(&mut self, inputs: &[InstanceInput], _: &[usize]) -> Result<Execution, ExecuteError> {
        assert!(!self.dies, "a bug in the model");
        let tensor = &inputs[0].tensor;
        let data = match self.answer {
            Some(answer) => Bytes::from(vec![answer; tensor.data.len()]),
            None => tensor.data.clone(),
        };
        let outputs = smallvec![InstanceOutput { shape: tensor.shape.clone(), data }];
        let now = Instant::now();
        Ok(Execution { outputs, inputs_ready: now, inferred: now })
    }
}

fn signature() -> Signature {
    let tensor =
        |name: &str| TensorSignature { name: name.into(), datatype: DataType::Uint8, dims: Dims::new(&[1]) };
    Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")] }
}

/// A repository with a version 1 of each of `models`, each with one instance.
fn with_models(models: &[&str]) -> (TempDir, Repository) {
    let directory = tempfile::tempdir().unwrap();
    for model in models {
        fs::create_dir_all(directory.path().join(model).join("1")).unwrap();
        fs::write(directory.path().join(model).join("config.pbtxt"), "instance_group { count: 1 }").unwrap();
    }
    let repository = over(directory.path(), fake().0);
    (directory, repository)
}

fn over(path: &Path, backend: impl Backend) -> Repository {
    Repository::new(settings(path), Arc::new(backend))
}

pub(super) fn settings(path: &Path) -> Settings {
    Settings {
        repositories: vec![path.to_owned()],
        remotes: Vec::new(),
        load_threads: 2,
        config_name: None,
        completion: Completion { enabled: true, default_max_batch_size: 4 },
        cores: 1,
        default_queue_capacity: 10,
        held_until: 0,
        cache: None,
        rate_limiter: None,
        acts_on_parameter: |_| false,
        keep_previous: 0,
        memory_limit: None,
        on_demand: false,
        trial: None,
    }
}

/// A backend, what tells that `waits` is being loaded, and what lets that go on.
fn fake() -> (Fake, Receiver<()>, Sender<()>) {
    let ((loading, is_loading), (let_go, go_on)) = (channel(), channel());
    (Fake { loading: Mutex::new(loading), go_on: Mutex::new(go_on) }, is_loading, let_go)
}

fn code(result: Result<Arc<ServedVersion>, InferError>) -> Option<Code> {
    result.err().map(|error| error.code())
}

pub(super) fn version(number: u64) -> Option<ModelVersion> {
    ModelVersion::new(number)
}

pub(super) async fn infer(served: &ServedVersion) -> Result<u8, InferError> {
    infer_of(served, 7).await
}

async fn infer_of(served: &ServedVersion, value: u8) -> Result<u8, InferError> {
    let inputs: SmallVec<_> = smallvec![Tensor {
        name: "x".into(),
        datatype: DataType::Uint8,
        shape: Dims::new(&[1]),
        data: Bytes::copy_from_slice(&[value]),
    }];
    let request = InferRequest {
        id: "".into(),
        model: served.name().clone(),
        version: None,
        parameters: Parameters::default(),
        inputs,
        outputs: smallvec![],
        deadline: None,
    };
    served.infer(&request, "r-1", Instant::now()).await.map(|response| response.outputs[0].data[0])
}

/// Its model keeps an execution of 9 until it is told to go on.
struct Slow(Arc<Mutex<Receiver<()>>>);

struct SlowModel(Signature, Arc<Mutex<Receiver<()>>>);

struct SlowInstance(Arc<Mutex<Receiver<()>>>);

impl Backend for Slow {
    fn load(&self, _: &ModelSource<'_>) -> Result<Arc<dyn LoadedModel>, LoadError> {
        Ok(Arc::new(SlowModel(signature(), Arc::clone(&self.0))))
    }
}

impl LoadedModel for SlowModel {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(SlowInstance(Arc::clone(&self.1))))
    }
}

impl Instance for SlowInstance {
    fn execute(&mut self, inputs: &[InstanceInput], outputs: &[usize]) -> Result<Execution, ExecuteError> {
        if *inputs[0].tensor.data == [9] {
            self.0.lock().unwrap().recv().unwrap();
        }
        FakeInstance { dies: false, answer: None }.execute(inputs, outputs)
    }
}

/// An answer from the cache does not overtake one that is still being made, nor does it wait for the same request
/// behind it.
#[tokio::test]
async fn answers_from_the_cache_keep_the_order_of_the_requests() {
    let (directory, _) = with_models(&["ordered"]);
    let config = "instance_group { count: 1 } dynamic_batching { preserve_ordering: true } response_cache { enable: true }";
    fs::write(directory.path().join("ordered/config.pbtxt"), config).unwrap();
    let cache = Some(Arc::new(ResponseCache::new(1 << 20)));
    let (let_go, go_on) = channel();
    let backend = Arc::new(Slow(Arc::new(Mutex::new(go_on))));
    let repository = Repository::new(Settings { cache, ..settings(directory.path()) }, backend);
    repository.load_all(None);
    let served = repository.ready("ordered", None).unwrap();
    assert_eq!(infer_of(&served, 7).await, Ok(7));
    let (mut slow, mut kept) = (pin!(infer_of(&served, 9)), pin!(infer_of(&served, 7)));
    let mut not_yet = Context::from_waker(Waker::noop());
    assert!(slow.as_mut().poll(&mut not_yet).is_pending());
    assert!(kept.as_mut().poll(&mut not_yet).is_pending(), "it overtook the other");
    let_go.send(()).unwrap();
    assert_eq!((slow.await, kept.await), (Ok(9), Ok(7)));
    let totals = served.statistics().snapshot();
    assert_eq!((totals.cache_hit.count, totals.cache_miss.count, totals.execution_count), (1, 2, 2));
}

/// It ended the whole server: the scope of the loading threads passed the panic on.
#[test]
fn a_load_that_panics_fails_that_model_alone() {
    let (_directory, repository) = with_models(&["load_panics", "sound"]);
    repository.load_all(None);
    let index = repository.index();
    assert_eq!(index[0].state, Some(State::Unavailable));
    assert_eq!(index[0].reason, "the load panicked: a bug in load_panics");
    assert_eq!(index[1].state, Some(State::Ready));
    assert_eq!(code(repository.ready("load_panics", version(1))), Some(Code::Unavailable));
}

/// It stayed ready, and every request was told that the server was shutting down.
#[tokio::test]
async fn a_version_whose_last_instance_is_gone_is_unavailable_and_says_why() {
    let (_directory, repository) = with_models(&["dies", "sound"]);
    repository.load_all(None);
    let served = repository.ready("dies", None).unwrap();
    let lost = infer(&served).await.unwrap_err();
    assert_eq!(lost.code(), Code::Internal, "{lost}");
    served.drain(); // its thread has ended: what it leaves behind is there
    let index = repository.index();
    assert_eq!(index[0].state, Some(State::Unavailable));
    assert!(index[0].reason.contains("no memory for a second one"), "{}", index[0].reason);
    let failed = InferError::VersionFailed { model: served.name().clone(), version: served.version() };
    assert_eq!(failed.code(), Code::Unavailable);
    assert_eq!(infer(&served).await.unwrap_err(), failed, "of those that hold it still");
    assert_eq!(repository.ready("dies", version(1)).unwrap_err(), failed);
    assert_eq!(repository.ready("dies", None).unwrap_err(), failed);
    assert_eq!(repository.ready_versions("dies").unwrap_err(), failed);
    let ready: Vec<_> = repository.all_ready().iter().map(|served| served.name().to_string()).collect();
    assert_eq!(ready, ["sound"]);
    assert_eq!(infer(&repository.ready("sound", None).unwrap()).await, Ok(7));
}

/// What served was replaced by what answers nothing.
#[tokio::test]
async fn nobody_rolls_back_to_a_version_whose_instances_are_gone() {
    let (directory, _) = with_models(&["dies"]);
    let (backend, ..) = fake();
    let settings = Settings { keep_previous: 2, ..settings(directory.path()) };
    let repository = Repository::new(settings, Arc::new(backend));
    repository.load_all(None);
    let first = repository.ready("dies", None).unwrap();
    let name = first.name().clone();
    fs::create_dir_all(directory.path().join("dies/2")).unwrap();
    repository.load_model(&name, None).unwrap();
    infer(&first).await.unwrap_err(); // a request that it took before
    first.drain();
    let error = repository.roll_back(&name).unwrap_err();
    assert_eq!(error, crate::repository::ControlError::NothingKept { model: name });
    assert_eq!(repository.ready("dies", None).unwrap().version().get(), 2);
}

/// Everything was not found, which clients and meshes do not try again.
#[test]
fn what_is_not_known_yet_may_be_retried_and_what_is_known_not_to_be_there_may_not() {
    let (directory, _) = with_models(&["sound", "waits"]);
    let (backend, is_loading, let_go) = fake();
    let repository = over(directory.path(), backend);
    for (model, number) in [("sound", None), ("nope", None), ("nope", version(1))] {
        assert_eq!(
            code(repository.ready(model, number)),
            Some(Code::Unavailable),
            "before the scan: {model}"
        );
    }
    thread::scope(|scope| {
        scope.spawn(|| repository.load_all(None));
        is_loading.recv().unwrap();
        assert_eq!(code(repository.ready("nope", None)), Some(Code::NotFound));
        for number in [None, version(1)] {
            let refused = repository.ready("waits", number).unwrap_err();
            assert_eq!(refused.code(), Code::Unavailable);
            assert!(refused.to_string().contains("not at ready state"), "{refused}");
        }
        assert_eq!(code(repository.ready("waits", version(2))), Some(Code::NotFound));
        let_go.send(()).unwrap();
    });
    assert_eq!(code(repository.ready("waits", None)), None);
    assert_eq!(code(repository.ready("waits", version(2))), Some(Code::NotFound));
}

#[test]
fn what_is_wrong_with_a_repository_is_kept() {
    let (directory, repository) = with_models(&[]);
    repository.load_all(None);
    assert!(repository.scan_errors().is_empty(), "an empty repository is a repository");
    let missing = over(&directory.path().join("missing"), fake().0);
    missing.load_all(None);
    assert!(matches!(&*missing.scan_errors(), [ScanError::Unreadable { .. }]));
    assert_eq!(code(missing.ready("nope", None)), Some(Code::NotFound));
}
