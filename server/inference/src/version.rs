//! A loaded version of a model, as a request holds it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::{
    DataType, Dims, InferError, InferRequest, InferResponse, ModelName, ModelVersion, Parameter, Parameters,
};
use parking_lot::Mutex;
use proto::ModelConfig;
use smallvec::SmallVec;
use smol_str::SmolStr;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::backend::{LoadError, LoadedModel};
use crate::batcher::{Batcher, Ticket, TimeoutAction, Waiting};
use crate::cache::{self, Asked, Found, Tensors, VersionCache};
use crate::classification::{self, Labels};
use crate::config::Batching;
use crate::cost::LearnedCost;
use crate::execution::{Outputs, Work};
use crate::instance::{self, Job, Shared, Unanswered, Worker};
use crate::pace::Pace;
use crate::ragged::Ragged;
use crate::reply::{Answer, AnswerOrder, Reply};
use crate::request_check::{Checked, CheckedOutput, RequestCheck};
use crate::scheduler::{Refused, Scheduler};
use crate::statistics::{Failure, Statistics};

/// A version that answers requests. It serves for as long as anyone holds it; when the last holder lets go,
/// its queue closes and its threads end.
pub struct ServedVersion {
    shared: Arc<Shared>,
    config: ModelConfig,
    batching: Batching,
    /// Set when answers leave in the order of the requests.
    order: Option<Arc<AnswerOrder<Outputs>>>,
    /// Set when answers are kept.
    cache: Option<VersionCache>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    loaded_in: Duration,
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
    /// How requests wait and run together, as `config` says.
    pub(crate) batching: Batching,
    /// Requests that may wait, of all priorities together.
    pub(crate) queue_capacity: usize,
    /// Where answers are kept.
    pub(crate) cache: Option<VersionCache>,
    /// Nothing runs before so many wait, once; 0 holds nothing up.
    pub(crate) held_until: usize,
    pub(crate) loaded_in: Duration,
}

impl ServedVersion {
    /// Starts the instances.
    pub(crate) fn start(parts: Parts) -> Result<ServedVersion, LoadError> {
        let Parts { name, version, config, model, labels, batching, instances, .. } = parts;
        let check = RequestCheck::new(&name, &config, model.signature(), labels);
        let ragged = Ragged::new(&config, model.signature());
        let batcher = Batcher::new(batching.policy.clone());
        let workers = (0..instances).map(|index| Ok(Mutex::new(Worker::new(&*model, index)?)));
        let workers = workers.collect::<Result<_, LoadError>>()?;
        let runs_here = check.requests_are_alike() && ragged.is_none();
        let shared = Arc::new(Shared {
            name,
            version,
            model,
            check,
            ragged,
            scheduler: Scheduler::new(batcher, parts.queue_capacity, parts.held_until),
            workers,
            pace: Pace::default(),
            cost: Mutex::default(),
            objective: batching.objective,
            running: (0..instances).map(|_| Mutex::default()).collect(),
            instances: AtomicUsize::new(instances),
            failure: OnceLock::new(),
            batch_failed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            runs_here,
            max_batch_size: batching.policy.max_batch_size,
            statistics: Statistics::default(),
        });
        let served = ServedVersion {
            shared: Arc::clone(&shared),
            config,
            order: batching.preserve_ordering.then(Arc::default),
            cache: parts.cache,
            batching,
            threads: Mutex::new(Vec::with_capacity(instances)),
            loaded_in: parts.loaded_in,
        };
        for index in 0..instances {
            let thread = instance::start(&shared, index)?; // on failure, dropping `served` ends the others
            served.threads.lock().push(thread);
        }
        Ok(served)
    }

    /// The model's name.
    pub fn name(&self) -> &ModelName {
        &self.shared.name
    }

    /// The version.
    pub fn version(&self) -> ModelVersion {
        self.shared.version
    }

    /// The configuration in force: as written, completed from the graph.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What it has done so far.
    pub fn statistics(&self) -> &Statistics {
        &self.shared.statistics
    }

    /// What its runs cost, as learned from them.
    pub fn learned_cost(&self) -> LearnedCost {
        self.shared.cost.lock().learned()
    }

    /// Requests that wait for an instance.
    pub fn waiting(&self) -> usize {
        self.shared.scheduler.len()
    }

    /// Whether its answers are kept.
    pub fn keeps_answers(&self) -> bool {
        self.cache.is_some()
    }

    /// How long it took to load.
    pub fn loaded_in(&self) -> Duration {
        self.loaded_in
    }

    /// Why it answers no more, although nobody has stopped it: no instance is left.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(String::as_str)
    }

    /// The inputs it takes.
    pub fn inputs(&self) -> Vec<TensorMetadata> {
        self.shared.check.input_metadata()
    }

    /// The outputs it gives.
    pub fn outputs(&self) -> Vec<TensorMetadata> {
        self.shared.check.output_metadata()
    }

    /// True when requests carry a batch dimension.
    pub fn takes_batches(&self) -> bool {
        self.config.max_batch_size > 0
    }

    /// Checks, queues and executes `request`, which arrived at `arrived`, unless its answer is in the cache. The log
    /// calls it `id`.
    ///
    /// Dropping the future cancels the request: if it still waits, it is never executed.
    ///
    /// # Errors
    /// When the request contradicts the model, the queue is full or closed, or the execution fails.
    pub async fn infer(
        &self,
        request: InferRequest,
        id: &str,
        arrived: Instant,
    ) -> Result<InferResponse, InferError> {
        let statistics = &self.shared.statistics;
        let _in_flight = statistics.in_flight_guard();
        let refuse = |_: &_| statistics.record_failure(Failure::Other, arrived.elapsed());
        let level = self.level(&request).inspect_err(refuse)?;
        let checked = self.shared.check.check(&request).inspect_err(refuse)?;
        let queued = Instant::now();
        let schedule = Schedule {
            id,
            level,
            arrived,
            queued,
            deadline: self.deadline(&request, level, queued),
            client_deadline: request.deadline,
        };
        let answer = self.answer(&request, checked, &schedule);
        let outputs = match request.deadline {
            None => answer.await?,
            Some(deadline) => timeout_at(deadline.into(), answer).await.map_err(|_| {
                InferError::DeadlineExceeded { model: self.name().clone(), waited: arrived.elapsed() }
            })??,
        };
        Ok(InferResponse {
            id: request.id,
            model: request.model,
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
        let Some(cache) = &self.cache else { return self.run(checked, schedule).await };
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
            .look_up(asked, &self.shared.statistics, arrived, self.rejection(schedule))
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
            self.shared.scheduler.push(waiting).map_err(|refused| self.refuse(refused, arrived))?;
        let mut waits = Waits { shared: &self.shared, ticket, answer };
        if tell {
            instance::tell_soon(&self.shared);
        }
        let answered = waits.answer(self.rejection(schedule)).await;
        let raw = answered.map_err(|_| InferError::InstanceFailed {
            model: self.name().clone(),
            version: self.version(),
        })??;
        self.finish(&outputs, raw)
    }

    /// # Errors
    /// When the model has priorities, and the request's is none of them.
    fn level(&self, request: &InferRequest) -> Result<usize, InferError> {
        self.batching
            .level(unsigned(&request.parameters, "priority"))
            .map_err(|reason| InferError::invalid(format!("{reason}, for model '{}'", self.name())))
    }

    /// When the request has waited for too long, if ever.
    fn deadline(&self, request: &InferRequest, level: usize, queued: Instant) -> Option<Instant> {
        let policy = &self.batching.policy.levels[level];
        policy.default_timeout?;
        let timeout = unsigned(&request.parameters, "timeout");
        policy.deadline(queued, (timeout > 0).then(|| Duration::from_micros(timeout)))
    }

    /// Refuses a request at once that would wait until after its time: when it must run, or when its client stops
    /// waiting for the answer. One that waits for nobody is never refused: it may be done sooner than expected, and
    /// what never runs teaches nothing.
    fn refuse_what_cannot_be_in_time(
        &self,
        expected: Expected,
        schedule: &Schedule<'_>,
    ) -> Result<(), InferError> {
        let Expected { rows, size } = expected;
        let (queue_deadline, deadline) = (self.rejection(schedule), schedule.client_deadline);
        if queue_deadline.is_none() && deadline.is_none() {
            return Ok(());
        }
        let ahead = self.shared.scheduler.ahead(schedule.level);
        if ahead.requests == 0 {
            return Ok(());
        }
        let policy = &self.batching.policy;
        let runs = if policy.merges { ahead.rows / policy.max_batch_size } else { ahead.requests };
        let cost = self.shared.cost.lock();
        let wait = cost.least(runs, ahead, self.shared.running.len());
        let run = cost.expected(rows, size);
        drop(cost);
        let (Some(wait), Some(run)) = (wait, run) else { return Ok(()) };
        let now = Instant::now();
        let left = |deadline: Instant| deadline.saturating_duration_since(now);
        let late = queue_deadline.map(left).filter(|left| wait > *left);
        let late = late.or_else(|| deadline.map(left).filter(|left| wait + run > *left));
        match late {
            None => Ok(()),
            Some(left) => {
                self.shared.statistics.record_failure(Failure::Rejected, schedule.arrived.elapsed());
                Err(InferError::TooLate { model: self.name().clone(), expected: wait + run, left })
            }
        }
    }

    /// When the request is refused for its time, if ever.
    fn rejection(&self, schedule: &Schedule<'_>) -> Option<Instant> {
        let action = self.batching.policy.levels[schedule.level].timeout_action;
        schedule.deadline.filter(|_| action == TimeoutAction::Reject)
    }

    /// Takes no request from now on, and waits for those that wait to be answered. Blocks: not for async
    /// code.
    pub fn drain(&self) {
        self.shared.scheduler.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A thread ends by itself; if it panicked, it has said so in the log.
            let _ = thread.join();
        }
    }

    /// Takes no request from now on, and answers those that wait or run with [`InferError::ShuttingDown`].
    pub fn abandon(&self) -> Abandoned {
        self.shared.abandoned.store(true, Ordering::SeqCst); // before looking: what begins later sees it
        let waiting = self.shared.scheduler.close_and_take();
        let running = self.shared.running.iter().flat_map(|running| running.lock().abandon());
        let refuse = |request| self.shared.refuse_for_the_stop(request);
        let running = running.map(refuse).count();
        let waiting = waiting.into_iter().map(|job| refuse(job.request)).count();
        // They are refused when they try to run, one after the other.
        let waiting = waiting + self.cache.as_ref().map_or(0, VersionCache::waiting);
        Abandoned { waiting, running }
    }

    fn refuse(&self, refused: Refused, arrived: Instant) -> InferError {
        self.shared.statistics.record_failure(Failure::Rejected, arrived.elapsed());
        match refused {
            Refused::Full { capacity } => InferError::QueueFull { model: self.name().clone(), capacity },
            Refused::Closed if self.failure().is_some() => {
                InferError::VersionFailed { model: self.name().clone(), version: self.version() }
            }
            Refused::Closed => InferError::ShuttingDown,
        }
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

/// How a request waits.
struct Schedule<'a> {
    /// What the log calls it.
    id: &'a str,
    level: usize,
    arrived: Instant,
    /// When it began to wait.
    queued: Instant,
    /// When it has waited for too long.
    deadline: Option<Instant>,
    /// When its client stops waiting for the answer.
    client_deadline: Option<Instant>,
}

/// How many requests were refused by [`ServedVersion::abandon`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abandoned {
    /// Waited for an instance.
    pub waiting: usize,
    /// Were being executed.
    pub running: usize,
}

/// What is known of a request before it waits.
struct Expected {
    rows: u64,
    size: u64,
}

/// A request that waits for its answer; dropped when its client leaves.
struct Waits<'a> {
    shared: &'a Shared,
    ticket: Ticket,
    answer: oneshot::Receiver<Answer<Outputs>>,
}

impl Waits<'_> {
    /// The answer, or a refusal if it still waits for an instance at `deadline`.
    async fn answer(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Answer<Outputs>, oneshot::error::RecvError> {
        if let Some(deadline) = deadline {
            match timeout_at(deadline.into(), &mut self.answer).await {
                Ok(answered) => return answered,
                // What is being run is not late any more.
                Err(_) => self.shared.expire(self.ticket),
            }
        }
        (&mut self.answer).await
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.answer.is_terminated() {
            return; // it has its answer
        }
        self.answer.close();
        match self.shared.scheduler.remove(self.ticket) {
            Some(job) => self.shared.cancel(job.request),
            None => self.shared.end_unneeded_runs(),
        }
    }
}

impl Shared {
    /// Refuses a request for its time if it still waits.
    fn expire(&self, ticket: Ticket) {
        if let Some(job) = self.scheduler.remove(ticket) {
            self.refuse_expired(job.request);
        }
    }
}

/// A parameter that is a count; 0 when it is not there.
fn unsigned(parameters: &Parameters, name: &str) -> u64 {
    match parameters.get(name) {
        Some(Parameter::Int(value)) => u64::try_from(*value).unwrap_or_default(),
        Some(Parameter::Uint(value)) => *value,
        _ => 0,
    }
}

impl Drop for ServedVersion {
    fn drop(&mut self) {
        self.shared.scheduler.close();
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
