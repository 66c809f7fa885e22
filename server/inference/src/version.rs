//! A loaded version of a model, as a request holds it.

mod admission;
mod waits;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::{DataType, Dims, InferError, InferRequest, InferResponse, ModelName, ModelVersion, Parameters};
use parking_lot::Mutex;
use proto::ModelConfig;
use smallvec::SmallVec;
use smol_str::SmolStr;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::backend::{LoadError, LoadedModel};
use crate::batcher::{Batcher, Waiting};
use crate::cache::{self, Asked, Found, Tensors, VersionCache};
use crate::classification::{self, Labels};
use crate::config::Batching;
use crate::cost::{CostModel, LearnedCost};
use crate::engine::{Engine, Job, Unanswered};
use crate::execution::{Outputs, Work};
use crate::instance;
use crate::pace::Pace;
use crate::padding::Padding;
use crate::ragged::Ragged;
use crate::rate_limiter::Contenders;
use crate::remote::LocalCopy;
use crate::reply::{AnswerOrder, Reply};
use crate::repository::{Share, Step};
use crate::request_check::{Checked, CheckedOutput, RequestCheck};
use crate::scheduler::Scheduler;
use crate::statistics::{Failure, Statistics};
use crate::warmup::Warmup;
use crate::worker::Worker;
use admission::{Expected, Schedule};
use waits::Waits;

/// A version that answers requests. It serves for as long as anyone holds it; when the last holder lets go,
/// its queue closes and its threads end.
pub struct ServedVersion {
    engine: Arc<Engine>,
    config: ModelConfig,
    batching: Batching,
    /// Set when answers leave in the order of the requests.
    order: Option<Arc<AnswerOrder<Outputs>>>,
    /// Set when answers are kept.
    cache: Option<VersionCache>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The model may open its files again at any time.
    _files: Option<Arc<dyn LocalCopy>>,
    loaded_in: Duration,
    /// The part of it that warm-up took, if there was any.
    warmed_up_in: Option<Duration>,
    /// Its part of the memory of all models.
    memory: Arc<Share>,
    /// Last, since fields are dropped in this order: when it is, nothing is left of the rest.
    alive: Alive,
}

/// Told by its end that its owner is gone.
#[derive(Debug)]
struct Alive {
    _sender: mpsc::Sender<()>,
    ended: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Alive {
    fn new() -> Alive {
        let (sender, ended) = mpsc::channel();
        Alive { _sender: sender, ended: Mutex::new(Some(ended)) }
    }
}

/// The end of a version, for one who waits for it.
pub(crate) struct Departure {
    ended: Option<mpsc::Receiver<()>>,
    threads: Vec<JoinHandle<()>>,
    /// So that it is not the thread of a request that gives its memory back.
    _engine: Arc<Engine>,
}

impl Departure {
    /// Returns when nobody holds the version any more, and its instances are gone. Blocks: not for async code.
    pub(crate) fn wait(self) {
        if let Some(ended) = self.ended {
            let _ = ended.recv(); // nothing is ever sent
        }
        for thread in self.threads {
            let _ = thread.join(); // one that panicked has said so in the log
        }
    }
}

/// An input or output as the metadata endpoints show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMetadata {
    /// Its name.
    pub name: SmolStr,
    /// Its element type.
    pub datatype: DataType,
    /// Its dimensions, the batch dimension first (-1) when the model takes batches.
    pub shape: Dims,
}

/// All that makes a [`ServedVersion`].
pub(crate) struct Parts {
    pub(crate) name: ModelName,
    pub(crate) version: ModelVersion,
    /// Completed and checked against the graph.
    pub(crate) config: ModelConfig,
    pub(crate) model: Arc<dyn LoadedModel>,
    /// Label files by output name.
    pub(crate) labels: BTreeMap<String, Labels>,
    pub(crate) instances: usize,
    /// The instances, when they wait for their turn to run.
    pub(crate) contenders: Option<Contenders>,
    /// How requests wait and run together, as `config` says.
    pub(crate) batching: Batching,
    /// How requests of different length run together, if they may.
    pub(crate) padding: Option<Padding>,
    /// Requests that may wait, of all priorities together.
    pub(crate) queue_capacity: usize,
    /// Where answers are kept.
    pub(crate) cache: Option<VersionCache>,
    /// Nothing runs before so many wait, once; 0 holds nothing up.
    pub(crate) held_until: usize,
    /// What each instance runs before it takes requests.
    pub(crate) warmup: Warmup,
    /// What keeps the files where they are, if that takes something.
    pub(crate) files: Option<Arc<dyn LocalCopy>>,
    /// Before the warm-up.
    pub(crate) loaded_in: Duration,
    /// Its part of the memory of all models.
    pub(crate) memory: Arc<Share>,
    /// What is known of it already.
    pub(crate) known: Known,
}

/// What a version has been seen to do.
#[derive(Debug, Default)]
pub(crate) struct Known {
    statistics: Arc<Statistics>,
    cost: CostModel,
}

impl ServedVersion {
    /// Warms the instances up and starts them.
    pub(crate) fn start(parts: Parts, tell: &dyn Fn(Step)) -> Result<ServedVersion, LoadError> {
        let Parts { name, version, config, model, labels, batching, padding, instances, contenders, .. } =
            parts;
        let check = RequestCheck::new(&name, &config, model.signature(), labels, padding);
        let ragged = Ragged::new(&config, model.signature());
        let batcher = Batcher::new(batching.policy.clone());
        let workers = (0..instances).map(|index| Ok(Mutex::new(Worker::new(&*model, index)?)));
        let workers = workers.collect::<Result<_, LoadError>>()?;
        let runs_here = check.requests_are_alike() && ragged.is_none() && contenders.is_none();
        let engine = Arc::new(Engine {
            name,
            version,
            model,
            check,
            ragged,
            scheduler: Scheduler::new(batcher, parts.queue_capacity, parts.held_until),
            contenders,
            workers,
            pace: Pace::default(),
            cost: Mutex::new(parts.known.cost),
            objective: batching.objective,
            running: (0..instances).map(|_| Mutex::default()).collect(),
            instances: AtomicUsize::new(instances),
            failure: OnceLock::new(),
            batch_failed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            runs_here,
            max_batch_size: batching.policy.max_batch_size,
            statistics: parts.known.statistics,
        });
        let warmed_up_in = parts.warmup.run(&engine, tell)?;
        let served = ServedVersion {
            engine: Arc::clone(&engine),
            config,
            order: batching.preserve_ordering.then(Arc::default),
            cache: parts.cache,
            batching,
            threads: Mutex::new(Vec::with_capacity(instances)),
            _files: parts.files,
            loaded_in: parts.loaded_in + warmed_up_in.unwrap_or_default(),
            warmed_up_in,
            memory: parts.memory,
            alive: Alive::new(),
        };
        for index in 0..instances {
            let thread = instance::start(&engine, index)?; // on failure, dropping `served` ends the others
            served.threads.lock().push(thread);
        }
        Ok(served)
    }

    /// The model's name.
    pub fn name(&self) -> &ModelName {
        &self.engine.name
    }

    /// The version.
    pub fn version(&self) -> ModelVersion {
        self.engine.version
    }

    /// The configuration in force: as written, completed from the graph.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What it has done so far.
    pub fn statistics(&self) -> &Statistics {
        &self.engine.statistics
    }

    /// What its runs cost, as learned from them.
    pub fn learned_cost(&self) -> LearnedCost {
        self.engine.cost.lock().learned()
    }

    /// Requests that wait for an instance.
    pub fn waiting(&self) -> usize {
        self.engine.scheduler.len()
    }

    /// Instances that have something to do and wait for what they take; `None` when they never wait for it.
    pub fn instances_waiting(&self) -> Option<usize> {
        self.engine.contenders.as_ref().map(Contenders::waiting)
    }

    /// Whether its answers are kept.
    pub fn keeps_answers(&self) -> bool {
        self.cache.is_some()
    }

    /// Whether requests of different length run together, padded.
    pub fn pads(&self) -> bool {
        self.engine.check.padding().is_some()
    }

    /// What is loaded of it.
    pub(crate) fn model(&self) -> Arc<dyn LoadedModel> {
        Arc::clone(&self.engine.model)
    }

    /// What it has been seen to do, for another set of its instances, which counts on.
    pub(crate) fn known(&self) -> Known {
        Known { statistics: Arc::clone(&self.engine.statistics), cost: self.engine.cost.lock().clone() }
    }

    /// Its part of the memory of all models.
    pub(crate) fn memory(&self) -> Arc<Share> {
        Arc::clone(&self.memory)
    }

    /// How long it took to load, warm-up included.
    pub fn loaded_in(&self) -> Duration {
        self.loaded_in
    }

    /// How long warm-up took; `None` where the configuration asks for none.
    pub fn warmed_up_in(&self) -> Option<Duration> {
        self.warmed_up_in
    }

    /// Why it answers no more, although nobody has stopped it: no instance is left.
    pub fn failure(&self) -> Option<&str> {
        self.engine.failure.get().map(String::as_str)
    }

    /// The inputs it takes.
    pub fn inputs(&self) -> Vec<TensorMetadata> {
        self.engine.check.input_metadata()
    }

    /// The outputs it gives.
    pub fn outputs(&self) -> Vec<TensorMetadata> {
        self.engine.check.output_metadata()
    }

    /// True when requests carry a batch dimension.
    pub fn takes_batches(&self) -> bool {
        self.config.max_batch_size > 0
    }

    /// Checks, queues and executes `request`, which arrived at `arrived`, unless its answer is in the cache. The log
    /// calls it `id`.
    ///
    /// Dropping the future cancels the request: if it still waits, it is never executed. It must be polled as soon as it
    /// is woken, by a task that does nothing else: requests of others may wait for what it does next.
    ///
    /// # Errors
    /// When the request contradicts the model, the queue is full or closed, or the execution fails.
    pub async fn infer(
        &self,
        request: &InferRequest,
        id: &str,
        arrived: Instant,
    ) -> Result<InferResponse, InferError> {
        let statistics = &self.engine.statistics;
        let _in_flight = statistics.in_flight_guard();
        let refuse = |_: &_| statistics.record_failure(Failure::Other, arrived.elapsed());
        let level = self.level(request).inspect_err(refuse)?;
        let checked = self.engine.check.check(request).inspect_err(refuse)?;
        let queued = Instant::now();
        let schedule = Schedule {
            id,
            level,
            arrived,
            queued,
            deadline: self.deadline(request, level, queued),
            client_deadline: request.deadline,
        };
        let mut answer = pin!(self.answer(request, checked, &schedule));
        let outputs = match request.deadline {
            None => answer.await?,
            Some(deadline) => timeout_at(deadline.into(), answer.as_mut()).await.map_err(|_| {
                InferError::DeadlineExceeded { model: self.name().clone(), waited: arrived.elapsed() }
            })??,
        };
        Ok(InferResponse {
            id: request.id.clone(),
            model: request.model.clone(),
            version: self.version(),
            parameters: Parameters::default(),
            outputs,
        })
    }

    /// The outputs, from the cache or from a run.
    async fn answer(
        &self,
        request: &InferRequest,
        checked: Checked<'_>,
        schedule: &Schedule<'_>,
    ) -> Result<Tensors, InferError> {
        match &self.cache {
            None => self.run(checked, schedule).await,
            // In a box, so that requests of models without a cache do not carry what it takes.
            Some(cache) => Box::pin(self.answer_once(cache, request, checked, schedule)).await,
        }
    }

    /// The outputs from `cache`, or from a run, and then kept.
    async fn answer_once(
        &self,
        cache: &VersionCache,
        request: &InferRequest,
        checked: Checked<'_>,
        schedule: &Schedule<'_>,
    ) -> Result<Tensors, InferError> {
        match self.look_up(cache, request, &checked, schedule).await? {
            Found::Hit(outputs) => Ok(outputs),
            Found::Miss(miss) => {
                let outputs = self.run(checked, schedule).await?;
                miss.keep(&outputs);
                Ok(outputs)
            }
        }
    }

    /// Looks for the answer in the cache.
    ///
    /// # Errors
    /// When too many wait for one that is being made, or the request has waited for too long.
    async fn look_up<'a>(
        &'a self,
        cache: &'a VersionCache,
        request: &InferRequest,
        checked: &Checked<'_>,
        schedule: &Schedule<'_>,
    ) -> Result<Found<'a>, InferError> {
        let outputs: SmallVec<[_; 4]> =
            checked.outputs.iter().map(|output| (output.spec.index, output.classification)).collect();
        let asked = Asked { inputs: &checked.inputs, outputs: &outputs, parameters: &request.parameters };
        let (arrived, model) = (schedule.arrived, self.name());
        let found = cache
            .look_up(asked, &self.engine.statistics, arrived, self.rejection(schedule))
            .await
            .map_err(|refused| match refused {
                cache::Refused::Full { capacity } => InferError::QueueFull { model: model.clone(), capacity },
                cache::Refused::Expired => {
                    InferError::QueueTimeout { model: model.clone(), waited: arrived.elapsed() }
                }
            })?;
        if let (Found::Hit(_), Some(order)) = (&found, &self.order) {
            let (sender, turn) = oneshot::channel();
            Reply::in_turn(sender, order).send(Ok(Outputs::new()));
            // It comes: whatever is before it is answered or given up.
            let _ = turn.await;
        }
        Ok(found)
    }

    /// Queues a request and waits for its outputs.
    ///
    /// # Errors
    /// When the queue is full or closed, or the execution fails.
    async fn run(&self, checked: Checked<'_>, schedule: &Schedule<'_>) -> Result<Tensors, InferError> {
        let Checked { inputs, outputs, rows, shape, size } = checked;
        let Schedule { id, level, arrived, queued, deadline, .. } = *schedule;
        self.refuse_what_cannot_be_in_time(Expected { rows, size }, schedule)?;
        let indexes = outputs.iter().map(|output| output.spec.index).collect();
        let (sender, answer) = oneshot::channel();
        let reply = match &self.order {
            None => Reply::at_once(sender),
            Some(order) => Reply::in_turn(sender, order),
        };
        let work = Work { inputs, outputs: indexes, rows, size, queued };
        let job = Job { work, request: Unanswered { id: id.into(), arrived, reply } };
        let waiting = Waiting { rows, size, shape, level, queued, deadline, request: job };
        let (ticket, tell) =
            self.engine.scheduler.push(waiting).map_err(|refused| self.refuse(refused, arrived))?;
        let mut waits = Waits { engine: &self.engine, ticket, answer };
        if tell {
            instance::tell_soon(&self.engine).await;
        }
        let answered = waits.answer(self.rejection(schedule)).await;
        let raw = answered.map_err(|_| InferError::InstanceFailed {
            model: self.name().clone(),
            version: self.version(),
        })??;
        self.finish(&outputs, raw)
    }

    /// Takes no request from now on, and waits for those that wait to be answered. Blocks: not for async
    /// code.
    pub fn drain(&self) {
        self.engine.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A thread ends by itself; if it panicked, it has said so in the log.
            let _ = thread.join();
        }
    }

    /// What tells when it is gone; for the one who lets go of it when it serves no more.
    pub(crate) fn departure(&self) -> Departure {
        let threads = std::mem::take(&mut *self.threads.lock());
        let _engine = Arc::clone(&self.engine);
        Departure { ended: self.alive.ended.lock().take(), threads, _engine }
    }

    /// Takes no request from now on, and answers those that wait or run with [`InferError::ShuttingDown`].
    pub fn abandon(&self) -> Abandoned {
        self.engine.abandoned.store(true, Ordering::SeqCst); // before looking: what begins later sees it
        let waiting = self.engine.close_and_take();
        let running = self.engine.running.iter().flat_map(|running| running.lock().abandon());
        let refuse = |request| self.engine.refuse_for_the_stop(request);
        let running = running.map(refuse).count();
        let waiting = waiting.into_iter().map(|job| refuse(job.request)).count();
        // They are refused when they try to run, one after the other.
        let waiting = waiting + self.cache.as_ref().map_or(0, VersionCache::waiting);
        Abandoned { waiting, running }
    }

    /// Gives each output its name and the shape the configuration promises, and its classes if asked for.
    fn finish(&self, requested: &[CheckedOutput<'_>], raw: Outputs) -> Result<Tensors, InferError> {
        let batched = self.takes_batches();
        let name_and_shape = |(requested, raw): (&CheckedOutput<'_>, _)| {
            let tensor = requested.spec.tensor(raw, batched);
            match requested.classification {
                None => Ok(tensor),
                Some(count) => {
                    classification::classify(&tensor, count, batched, requested.spec.labels.as_ref())
                }
            }
        };
        requested.iter().zip(raw).map(name_and_shape).collect()
    }
}

/// How many requests were refused by [`ServedVersion::abandon`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abandoned {
    /// Waited for an instance.
    pub waiting: usize,
    /// Were being executed.
    pub running: usize,
}

impl Drop for ServedVersion {
    fn drop(&mut self) {
        self.engine.close();
    }
}

impl fmt::Debug for ServedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedVersion")
            .field("name", self.name())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
