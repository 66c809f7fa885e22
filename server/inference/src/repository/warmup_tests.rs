//! Models with `model_warmup` over a backend that tells what it runs.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use bytes::Bytes;
use model::{DataType, Dims, InferRequest, Parameters, Tensor};
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};
use tempfile::TempDir;

use super::*;
use crate::backend::{
    ExecuteError, Execution, Instance, InstanceInput, InstanceOutput, LoadedModel, ModelSource, Signature,
    TensorSignature,
};

/// A run: the index of its instance, and the shape and the elements of `x`.
type Ran = (usize, Vec<i64>, Vec<f32>);

/// Models of two instances that answer `x` with its half, and with names that say what else they do: `refuses` an
/// input, `panics`, gives `infinity` on its second instance, or is `held` until it is told to go on.
#[derive(Clone)]
struct Fake {
    ran: Arc<Mutex<Vec<Ran>>>,
    began: Sender<()>,
    go: Arc<Mutex<Receiver<()>>>,
}

struct FakeModel {
    name: String,
    signature: Signature,
    instances: AtomicUsize,
    fake: Fake,
}

struct FakeInstance {
    name: String,
    index: usize,
    fake: Fake,
}

impl Backend for Fake {
    fn load(&self, source: &ModelSource<'_>) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let tensor = |name: &str| TensorSignature {
            name: name.into(),
            datatype: DataType::Fp32,
            dims: Dims::new(&[-1, 2]),
        };
        Ok(Arc::new(FakeModel {
            name: source.name.to_string(),
            signature: Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")] },
            instances: AtomicUsize::new(0),
            fake: self.clone(),
        }))
    }
}

impl LoadedModel for FakeModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(FakeInstance {
            name: self.name.clone(),
            index: self.instances.fetch_add(1, Ordering::Relaxed),
            fake: self.fake.clone(),
        }))
    }
}

impl Instance for FakeInstance {
    fn execute(&mut self, inputs: &[InstanceInput], _: &[usize]) -> Result<Execution, ExecuteError> {
        let tensor = &inputs[0].tensor;
        let mut values = floats(&tensor.data);
        self.fake.ran.lock().push((self.index, tensor.shape.to_vec(), values.clone()));
        match self.name.as_str() {
            "refuses" => return Err(ExecuteError("it does not like x".to_owned())),
            "panics" => panic!("a bug in the model"),
            "held" => {
                self.fake.began.send(()).unwrap();
                self.fake.go.lock().recv().unwrap();
            }
            _ => {}
        }
        values.iter_mut().for_each(|value| *value /= 2.0);
        if self.name == "infinity" && self.index == 1 {
            values[3] = f32::NEG_INFINITY;
        }
        let outputs = smallvec![InstanceOutput { shape: tensor.shape.clone(), data: packed(&values) }];
        let now = Instant::now();
        Ok(Execution { outputs, inputs_ready: now, inferred: now })
    }
}

fn floats(data: &[u8]) -> Vec<f32> {
    data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn packed(values: &[f32]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A repository of one model, and what its backend has run.
struct Bench {
    directory: TempDir,
    repository: Repository,
    ran: Arc<Mutex<Vec<Ran>>>,
    /// Tells that `held` runs.
    has_begun: Receiver<()>,
    /// Lets that go on.
    go: Sender<()>,
}

const REQUIRE_FINITE: &str = r#"parameters { key: "warmup_require_finite" value { string_value: "true" } }"#;

/// A sample of `fields` whose input is `value`.
fn sample(fields: &str, value: &str) -> String {
    format!(
        "model_warmup {{ {fields} inputs {{ key: \"x\" value {{ data_type: TYPE_FP32 dims: 2 {value} }} }} }}"
    )
}

impl Bench {
    fn new(models: &[(&str, &str)]) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        for (model, more) in models {
            let model = directory.path().join(model);
            fs::create_dir_all(model.join("1")).unwrap();
            fs::create_dir_all(model.join("warmup")).unwrap();
            let config = format!("max_batch_size: 4 instance_group {{ count: 2 }} {more}");
            fs::write(model.join("config.pbtxt"), config).unwrap();
        }
        let ((began, has_begun), (go, waits), ran) = (channel(), channel(), Arc::default());
        let backend = Fake { ran: Arc::clone(&ran), began, go: Arc::new(Mutex::new(waits)) };
        let repository = Repository::new(tests::settings(directory.path()), Arc::new(backend));
        Bench { directory, repository, ran, has_begun, go }
    }

    fn load(self) -> Bench {
        self.repository.load_all(None);
        self
    }

    /// Why the first model is unavailable.
    #[track_caller]
    fn reason(&self) -> String {
        let first = self.repository.index().remove(0);
        assert_eq!(first.state, Some(State::Unavailable));
        first.reason
    }
}

async fn infer(served: &ServedVersion, values: &[f32]) -> Vec<f32> {
    let inputs: SmallVec<_> = smallvec![Tensor {
        name: "x".into(),
        datatype: DataType::Fp32,
        shape: Dims::new(&[1, 2]),
        data: packed(values),
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
    floats(&served.infer(&request, "", Instant::now()).await.unwrap().outputs[0].data)
}

#[tokio::test]
async fn every_sample_runs_on_every_instance_and_is_counted_nowhere() {
    let more = format!(
        "{} {} {}",
        sample("name: \"zeros\" batch_size: 3 count: 2", "zero_data: true"),
        sample("name: \"off\"", "zero_data: true"),
        sample("name: \"file\" batch_size: 1", "input_data_file: \"x.bin\""),
    );
    let bench = Bench::new(&[("halves", &more)]);
    fs::write(bench.directory.path().join("halves/warmup/x.bin"), packed(&[3.0, 4.0])).unwrap();
    let bench = bench.load();
    let on = |index| {
        let zeros = || (index, vec![3, 2], vec![0.0; 6]);
        [zeros(), zeros(), (index, vec![1, 2], vec![3.0, 4.0])]
    };
    assert_eq!(*bench.ran.lock(), [on(0), on(1)].concat());
    let served = bench.repository.ready("halves", None).unwrap();
    let totals = served.statistics().snapshot();
    assert_eq!((totals.inference_count, totals.execution_count, totals.success.count), (0, 0, 0));
    let warmed_up_in = served.warmed_up_in().unwrap();
    assert!(served.loaded_in() >= warmed_up_in);
    assert_eq!(served.learned_cost().runs, 0, "nothing is learned");
    assert_eq!(infer(&served, &[2.0, 8.0]).await, [1.0, 4.0]);
    assert_eq!(served.statistics().snapshot().execution_count, 1);
}

#[test]
fn a_version_is_ready_when_its_last_sample_has_run() {
    let bench = Bench::new(&[("held", &sample("batch_size: 1", "random_data: true"))]);
    let Bench { repository, has_begun, go, .. } = &bench;
    thread::scope(|scope| {
        scope.spawn(|| repository.load_all(None));
        for _ in 0..2 {
            has_begun.recv().unwrap();
            assert_eq!(repository.index()[0].state, Some(State::Loading));
            assert!(repository.ready("held", None).is_err());
            go.send(()).unwrap();
        }
    });
    assert_eq!(bench.repository.index()[0].state, Some(State::Ready));
}

#[test]
fn without_samples_nothing_runs() {
    let bench = Bench::new(&[("refuses", "")]).load();
    assert_eq!(bench.repository.ready("refuses", None).unwrap().warmed_up_in(), None);
    assert_eq!(*bench.ran.lock(), []);
}

#[tokio::test]
async fn a_sample_that_fails_or_panics_fails_its_model_alone() {
    let more = sample("name: \"w\" batch_size: 2", "zero_data: true");
    for (model, reason) in [
        ("refuses", "model_warmup \"w\": it does not like x (on instance 0)"),
        ("panics", "model_warmup \"w\": the run panicked: a bug in the model (on instance 0)"),
    ] {
        let bench = Bench::new(&[(model, &more), ("sound", &more)]).load();
        assert_eq!(bench.reason(), reason);
        assert!(bench.repository.ready(model, None).is_err());
        let sound = bench.repository.ready("sound", None).unwrap();
        assert_eq!(infer(&sound, &[2.0, 8.0]).await, [1.0, 4.0]);
    }
}

#[test]
fn an_output_that_is_not_finite_fails_the_load_where_that_is_asked_for() {
    let more = sample("name: \"w\" batch_size: 2", "random_data: true");
    let bench = Bench::new(&[("infinity", &more)]).load();
    assert!(bench.repository.ready("infinity", None).is_ok());
    let more = format!("{more} {REQUIRE_FINITE}");
    let bench = Bench::new(&[("infinity", &more), ("sound", &more)]).load();
    assert_eq!(
        bench.reason(),
        "model_warmup \"w\": output \"y\" of shape [1,2] holds -inf at element 1, which \
         parameters[\"warmup_require_finite\"] refuses (on instance 1)"
    );
    assert!(bench.repository.ready("sound", None).is_ok());
    assert_eq!(bench.repository.unacted(), []);
}

/// Whatever is wrong with any sample is told before one has run.
#[test]
fn what_is_wrong_is_told_before_anything_runs() {
    let sound = sample("name: \"sound\" batch_size: 4", "random_data: true");
    let refused = |more: &str, reason: &str| {
        let bench = Bench::new(&[("m", &format!("{sound} {more}"))]).load();
        assert_eq!(bench.reason(), reason);
        assert_eq!(*bench.ran.lock(), []);
    };
    refused(
        &sample("name: \"w\" batch_size: 5", "zero_data: true"),
        "m/config.pbtxt: model_warmup \"w\": batch_size is 5, but max_batch_size is 4; correct one of them",
    );
    refused(
        &sample("name: \"w\" batch_size: 1", "dims: 3 zero_data: true"),
        "m/config.pbtxt: model_warmup \"w\": inputs[\"x\"].dims is [2,3], but the model's is [2]; correct it (the batch \
         dimension is not written)",
    );
    refused(
        &sample("name: \"w\" batch_size: 1", "input_data_file: \"../config.pbtxt\""),
        "model_warmup \"w\": inputs[\"x\"].input_data_file is \"../config.pbtxt\", which leaves m/warmup",
    );
    refused(
        &sample("name: \"w\" batch_size: 1", "input_data_file: \"missing\""),
        "model_warmup \"w\": inputs[\"x\"].input_data_file is \"missing\", which cannot be read: No such file or \
         directory (os error 2)",
    );
    // The configuration leaves open what the graph fixes.
    let open = "input { name: \"x\" data_type: TYPE_FP32 dims: -1 } output { name: \"y\" data_type: TYPE_FP32 dims: -1 }";
    let wide = "inputs { key: \"x\" value { data_type: TYPE_FP32 dims: 3 zero_data: true } }";
    refused(
        &format!("{open} model_warmup {{ name: \"w\" batch_size: 1 {wide} }}"),
        "model_warmup \"w\": unexpected shape for input 'x' for model 'm'. Expected [-1,2], got [1,3]. NOTE: the \
         configuration leaves open what the model itself fixes",
    );
}
