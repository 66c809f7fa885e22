//! Requests of one version over a backend that does as it is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{DataType, Dims, InferError, InferRequest, InferResponse, ModelName, ModelVersion, Tensor};
use parking_lot::Mutex;

use super::*;
use crate::backend::{
    ExecuteError, Execution, Instance, InstanceInput, InstanceOutput, Signature, TensorSignature, Terminate,
};
use crate::config;

/// A model whose instance answers with its input, once it is let go or terminated.
struct Held {
    signature: Signature,
    /// Says that a run has begun.
    began: Sender<u64>,
    /// Lets one run go.
    go: Arc<Mutex<Receiver<()>>>,
    terminated: Arc<Terminated>,
}

#[derive(Default)]
struct Terminated(AtomicBool);

impl Terminate for Terminated {
    fn terminate(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn reset(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

struct HeldInstance {
    began: Sender<u64>,
    go: Arc<Mutex<Receiver<()>>>,
    terminated: Arc<Terminated>,
}

impl LoadedModel for Held {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        let (began, go, terminated) =
            (self.began.clone(), Arc::clone(&self.go), Arc::clone(&self.terminated));
        Ok(Box::new(HeldInstance { began, go, terminated }))
    }
}

impl Instance for HeldInstance {
    fn execute(&mut self, inputs: &[InstanceInput], _: &[usize]) -> Result<Execution, ExecuteError> {
        let tensor = &inputs[0].tensor;
        self.began.send(tensor.shape[0].unsigned_abs()).unwrap();
        while self.go.lock().recv_timeout(Duration::from_millis(1)).is_err() {
            if self.terminated.0.load(Ordering::SeqCst) {
                return Err(ExecuteError("terminated".to_owned()));
            }
        }
        let now = Instant::now();
        let output = InstanceOutput { shape: tensor.shape.clone(), data: tensor.data.clone() };
        Ok(Execution { outputs: [output].into_iter().collect(), inputs_ready: now, inferred: now })
    }

    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        Some(Arc::clone(&self.terminated) as Arc<dyn Terminate>)
    }
}

/// A version with one instance, and the test's hold on it.
struct Bench {
    version: Arc<ServedVersion>,
    began: Receiver<u64>,
    go: Sender<()>,
    terminated: Arc<Terminated>,
}

fn serve(dynamic_batching: &str) -> Bench {
    let text = format!(
        "max_batch_size: 8 dynamic_batching {{ {dynamic_batching} }}
         input {{ name: \"x\" data_type: TYPE_UINT8 dims: 1 }} output {{ name: \"y\" data_type: TYPE_UINT8 dims: 1 }}"
    );
    let config = proto::config_text::parse(&text, "config.pbtxt").unwrap();
    let tensor = |name: &str| TensorSignature {
        name: name.into(),
        datatype: DataType::Uint8,
        dims: Dims::new(&[-1, 1]),
    };
    let signature = Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")] };
    let ((began, has_begun), (go, waits)) = (channel(), channel());
    let terminated = Arc::<Terminated>::default();
    let model =
        Held { signature, began, go: Arc::new(Mutex::new(waits)), terminated: Arc::clone(&terminated) };
    let parts = Parts {
        name: ModelName::parse("held").unwrap(),
        version: ModelVersion::new(1).unwrap(),
        batching: config::batching(&config).unwrap(),
        config,
        model: Arc::new(model),
        labels: BTreeMap::new(),
        padding: None,
        instances: 1,
        queue_capacity: 100,
        cache: None,
        contenders: None,
        held_until: 0,
        warmup: Warmup::default(),
        files: None,
        loaded_in: Duration::ZERO,
        memory: Share::of_plenty(),
        known: Known::default(),
    };
    Bench {
        version: Arc::new(ServedVersion::start(parts, &|_| {}).unwrap()),
        began: has_begun,
        go,
        terminated,
    }
}

type Asked = tokio::task::JoinHandle<Result<InferResponse, InferError>>;

impl Bench {
    /// Sends a request that holds `value`.
    fn ask(&self, value: u8) -> Asked {
        self.ask_until(value, None)
    }

    /// Sends a request that holds `value` and is of no use after `deadline`.
    #[expect(clippy::disallowed_methods, reason = "the runtime ends with the test")]
    fn ask_until(&self, value: u8, deadline: Option<Instant>) -> Asked {
        let version = Arc::clone(&self.version);
        let data = Bytes::copy_from_slice(&[value]);
        let tensor = Tensor { name: "x".into(), datatype: DataType::Uint8, shape: Dims::new(&[1, 1]), data };
        let request = InferRequest {
            id: "".into(),
            model: version.name().clone(),
            version: None,
            parameters: Parameters::default(),
            inputs: [tensor].into_iter().collect(),
            outputs: SmallVec::new(),
            deadline,
        };
        tokio::spawn(async move { version.infer(&request, "", Instant::now()).await })
    }

    /// Waits until an execution has begun; its items.
    fn begun(&self) -> u64 {
        self.began.recv_timeout(Duration::from_secs(60)).expect("a run begins")
    }

    async fn waiting(&self, count: usize) {
        while self.version.waiting() != count {
            tokio::task::yield_now().await;
        }
    }
}

fn value(answer: Result<Result<InferResponse, InferError>, tokio::task::JoinError>) -> u8 {
    answer.unwrap().unwrap().outputs[0].data[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_during_a_run_is_the_next_batch() {
    let bench = serve("");
    let first = bench.ask(1);
    assert_eq!(bench.begun(), 1);
    let others = [2, 3, 4].map(|value| bench.ask(value));
    bench.waiting(3).await;
    bench.go.send(()).unwrap();
    assert_eq!(bench.begun(), 3);
    bench.go.send(()).unwrap();
    assert_eq!(value(first.await), 1);
    for (other, expected) in others.into_iter().zip(2..) {
        assert_eq!(value(other.await), expected);
    }
    let totals = bench.version.statistics().snapshot();
    assert_eq!((totals.inference_count, totals.execution_count, totals.success.count), (4, 2, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_nobody_waits_for_is_ended_and_the_next_goes_on() {
    let bench = serve("");
    let first = bench.ask(1);
    assert_eq!(bench.begun(), 1);
    let pair = [2, 3].map(|value| bench.ask(value));
    bench.waiting(2).await;
    first.abort();
    assert_eq!(bench.begun(), 2, "the first run has ended although it was not let go");
    let [second, third] = pair;
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    assert!(!bench.terminated.0.load(Ordering::SeqCst), "one still waits for it");
    bench.go.send(()).unwrap();
    assert_eq!(value(third.await), 3);
    let totals = bench.version.statistics().snapshot();
    assert_eq!(totals.failures[Failure::Canceled as usize], 1);
    assert_eq!(totals.failures[Failure::Backend as usize], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_cannot_wait_refuses_all_and_ends_the_run() {
    let bench = serve("");
    let first = bench.ask(1);
    bench.begun();
    let second = bench.ask(2);
    bench.waiting(1).await;
    assert_eq!(bench.version.abandon(), Abandoned { waiting: 1, running: 1 });
    for refused in [first, second] {
        assert_eq!(refused.await.unwrap().unwrap_err(), InferError::ShuttingDown);
    }
    bench.version.drain(); // its thread ends without being let go
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_request_is_refused_while_the_instance_is_busy() {
    let bench = serve("default_queue_policy { default_timeout_microseconds: 20000 }");
    let first = bench.ask(1);
    bench.begun();
    let late = bench.ask(2).await.unwrap().unwrap_err();
    assert!(
        matches!(late, InferError::QueueTimeout { waited, .. } if waited >= Duration::from_millis(20)),
        "{late}"
    );
    bench.go.send(()).unwrap();
    assert_eq!(value(first.await), 1, "what runs is not late any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_in_time_is_refused_at_once_with_the_estimate() {
    let bench = serve("preferred_batch_size: 8");
    let took = Duration::from_millis(50);
    (0..20).for_each(|_| bench.version.engine.cost.lock().saw(8, 1, took));
    let first = bench.ask(1);
    bench.begun();
    let others: Vec<_> = (0..16).map(|value| bench.ask(value)).collect();
    bench.waiting(16).await;
    // Two batches of eight are ahead of it.
    let soon = Instant::now() + Duration::from_millis(100);
    let error = bench.ask_until(9, Some(soon)).await.unwrap().unwrap_err();
    assert!(matches!(error, InferError::TooLate { expected, .. } if expected >= 2 * took), "{error}");
    assert!(error.retry_after().is_some());
    assert_eq!(bench.version.statistics().snapshot().failures[Failure::Rejected as usize], 1);
    let later = bench.ask_until(9, Some(Instant::now() + Duration::from_secs(60)));
    bench.waiting(17).await;
    (0..4).for_each(|_| bench.go.send(()).unwrap());
    assert_eq!(value(first.await), 1);
    assert_eq!(value(later.await), 9);
    for (other, expected) in others.into_iter().zip(0..) {
        assert_eq!(value(other.await), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_ends_the_wait_and_the_run() {
    let bench = serve("");
    let deadline = Instant::now() + Duration::from_millis(20);
    let error = bench.ask_until(1, Some(deadline)).await.unwrap().unwrap_err();
    assert!(matches!(error, InferError::DeadlineExceeded { .. }), "{error}");
    assert_eq!(bench.begun(), 1);
    let next = bench.ask(2);
    assert_eq!(bench.begun(), 1, "the run has ended although it was not let go");
    bench.go.send(()).unwrap();
    assert_eq!(value(next.await), 2);
}
