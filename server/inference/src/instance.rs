//! A thread that owns one instance: takes what may run together, runs it, records it, answers it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use model::{InferError, ModelName, ModelVersion};
use parking_lot::Mutex;
use smol_str::SmolStr;
use tracing::{debug, error, warn};

use crate::backend::{Instance, LoadError, LoadedModel, Terminate};
use crate::batch::Gather;
use crate::cost::CostModel;
use crate::current_request;
use crate::execution::{Executed, Model, Outputs, Work};
use crate::latency_objective::LatencyObjective;
use crate::pace::Pace;
use crate::ragged::Ragged;
use crate::reply::Reply;
use crate::request_check::RequestCheck;
use crate::scheduler::{Batch, Scheduler, Untold};
use crate::statistics::{Answered, Failure, Statistics};

/// Batches that the thread that brought a request runs before it goes on with its own work.
const MOST_RUNS_IN_PLACE: usize = 4;

/// One request on its way through an instance.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) request: Unanswered,
}

/// A request that has no answer yet.
pub(crate) struct Unanswered {
    /// What the log calls it.
    pub(crate) id: SmolStr,
    pub(crate) arrived: Instant,
    pub(crate) reply: Reply<Outputs>,
}

/// The requests of a run, and what ends it.
#[derive(Default)]
pub(crate) struct Running {
    pub(crate) requests: Vec<Unanswered>,
    terminator: Option<Arc<dyn Terminate>>,
}

impl Running {
    /// A run begins.
    fn begin(&mut self, requests: Vec<Unanswered>, instance: &dyn Instance) {
        self.requests = requests;
        self.terminator = instance.terminator();
        self.terminator.iter().for_each(|terminator| terminator.reset());
    }

    /// The run is over. The requests, but for those that a stop has refused.
    fn end(&mut self) -> Vec<Unanswered> {
        self.terminator = None;
        std::mem::take(&mut self.requests)
    }

    /// Ends the run early if nobody waits for any of it.
    fn end_unless_needed(&self) {
        if self.requests.iter().all(|request| request.reply.is_closed()) {
            self.terminator.iter().for_each(|terminator| terminator.terminate());
        }
    }

    /// Takes the requests out, and ends the run early.
    pub(crate) fn abandon(&mut self) -> Vec<Unanswered> {
        let requests = std::mem::take(&mut self.requests);
        self.end_unless_needed();
        requests
    }
}

/// What the threads of one version share.
pub(crate) struct Shared {
    pub(crate) name: ModelName,
    pub(crate) version: ModelVersion,
    pub(crate) model: Arc<dyn LoadedModel>,
    pub(crate) check: RequestCheck,
    pub(crate) ragged: Option<Ragged>,
    pub(crate) scheduler: Scheduler<Job>,
    /// By index. Each is held for as long as it runs a batch.
    pub(crate) workers: Box<[Mutex<Worker>]>,
    pub(crate) pace: Pace,
    /// Held to add a run or to ask.
    pub(crate) cost: Mutex<CostModel>,
    /// What batches are bounded for, if anything.
    pub(crate) objective: Option<LatencyObjective>,
    /// What each instance is at. Held to put requests in or to take them out: by its instance, which answers
    /// them, or by a stop that cannot wait for that; and to end a run, so that it is the one that was meant.
    pub(crate) running: Box<[Mutex<Running>]>,
    /// Threads that take requests.
    pub(crate) instances: AtomicUsize,
    /// Why the last of them has ended, when it did so before its time.
    pub(crate) failure: OnceLock<String>,
    /// A batch has failed, and the log says so.
    pub(crate) batch_failed: AtomicBool,
    pub(crate) statistics: Statistics,
}

/// Starts the thread of instance `index`; it ends when the scheduler is closed and empty.
pub(crate) fn start(shared: &Arc<Shared>, index: usize) -> Result<JoinHandle<()>, LoadError> {
    let name = format!("{}_{index}", shared.name);
    let shared = Arc::clone(shared);
    Builder::new()
        .name(name)
        .spawn(move || serve(&shared, index))
        .map_err(|error| LoadError::Unsupported(format!("cannot start the thread of an instance: {error}")))
}

/// One instance, and what it needs to run batches. Its own thread uses it, or, for a run that is shorter than it
/// takes to wake that thread, the thread that has brought the requests.
pub(crate) struct Worker {
    index: usize,
    instance: Box<dyn Instance>,
    /// Where inputs are put together.
    gather: Gather,
    batch: Batch<Job>,
    /// No new instance could be made in place of one that panicked.
    retired: bool,
}

/// Why a run gave nothing.
#[derive(Clone)]
enum Failed {
    /// In the backend's words.
    Said(String),
    Panicked,
}

/// See [`Worker::retired`].
struct Retired;

fn serve(shared: &Shared, index: usize) {
    let mut batch = Batch::default();
    let mut handed_out = 0;
    while shared.scheduler.next(handed_out, &mut batch) {
        handed_out = batch.requests.len();
        let mut own = shared.workers[index].lock();
        if !own.retired {
            own.take(shared, &mut batch);
        }
        if own.retired {
            drop(own);
            // It was retired by another thread, or by this batch, of which nothing is left then.
            return shared.leave_to_another(&mut batch);
        }
    }
}

impl Shared {
    /// Wakes an instance for the requests that `untold` stands for, or runs them here, when that takes less time.
    pub(crate) fn start(&self, untold: Untold<'_, Job>) {
        if self.pace.is_brief()
            && let Some(mut worker) = self.workers.iter().find_map(|worker| worker.try_lock())
            && !worker.retired
        {
            let mut batch = std::mem::take(&mut worker.batch);
            let mut answered = 0;
            for _ in 0..MOST_RUNS_IN_PLACE {
                if !self.scheduler.try_next(answered, &mut batch) || worker.retired {
                    break;
                }
                answered = batch.requests.len();
                worker.take(self, &mut batch);
            }
            worker.batch = batch;
        }
        drop(untold); // wakes an instance for what is left
    }

    /// Runs `batch` on an instance that is not retired, if there is one.
    fn leave_to_another(&self, batch: &mut Batch<Job>) {
        if let Some(mut worker) =
            self.workers.iter().map(|worker| worker.lock()).find(|worker| !worker.retired)
        {
            worker.take(self, batch);
        }
        batch.requests.clear(); // dropping them tells who waits that nobody answers
    }
}

impl Worker {
    pub(crate) fn new(model: &dyn LoadedModel, index: usize) -> Result<Worker, LoadError> {
        let (gather, batch) = (Gather::default(), Batch::default());
        Ok(Worker { index, instance: model.instance()?, gather, batch, retired: false })
    }

    /// Runs and answers all of `batch`.
    fn take(&mut self, shared: &Shared, batch: &mut Batch<Job>) {
        batch.expired.drain(..).for_each(|job| shared.refuse_expired(job.request));
        let count = batch.requests.len();
        let (mut works, mut requests) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for Job { work, request } in batch.requests.drain(..) {
            if request.reply.is_closed() {
                shared.statistics.record_failure(Failure::Canceled, request.arrived.elapsed());
            } else {
                works.push(work);
                requests.push(request);
            }
        }
        if !works.is_empty() {
            self.retired = self.run(shared, &works, requests).is_err();
        }
    }

    /// Runs `works` together and answers `requests`, one of each. When that fails, each runs alone, so that one
    /// that cannot be done takes no other with it.
    fn run(&mut self, shared: &Shared, works: &[Work], requests: Vec<Unanswered>) -> Result<(), Retired> {
        let _noted = current_request::note(requests[0].id.clone());
        shared.running[self.index].lock().begin(requests, self.instance.as_ref());
        let model = Model {
            signature: shared.model.signature(),
            check: &shared.check,
            ragged: shared.ragged.as_ref(),
        };
        let (instance, gather) = (self.instance.as_mut(), &mut self.gather);
        let executed = catch_unwind(AssertUnwindSafe(|| model.run(instance, gather, works)));
        // None is left when a stop has refused them.
        let requests = shared.running[self.index].lock().end();
        let failed = match executed {
            Ok(Ok(executed)) => {
                shared.learn(works, executed.moments.outputs_ready - executed.moments.taken);
                shared.answer(works, requests, executed);
                return Ok(());
            }
            Ok(Err(reason)) => Failed::Said(reason),
            Err(_) => Failed::Panicked,
        };
        let needed = requests.iter().any(|request| !request.reply.is_closed());
        if requests.len() == 1 || !needed {
            requests.into_iter().for_each(|request| shared.fail(request, failed.clone()));
            return self.recover(shared, &failed);
        }
        self.recover(shared, &failed)?; // without an instance they are dropped, which tells who waits that it failed
        shared.say_that_a_batch_failed(requests.len(), &failed);
        for (work, request) in works.iter().zip(requests) {
            self.run(shared, slice::from_ref(work), vec![request])?;
        }
        Ok(())
    }

    /// Makes a new instance in place of one that panicked.
    fn recover(&mut self, shared: &Shared, failed: &Failed) -> Result<(), Retired> {
        if let Failed::Said(_) = failed {
            return Ok(());
        }
        let (model, version) = (&shared.name, shared.version);
        current_request::in_span(|| error!(%model, %version, "an instance panicked; making a new one"));
        let reason = match catch_unwind(AssertUnwindSafe(|| shared.model.instance())) {
            Ok(Ok(fresh)) => {
                self.instance = fresh;
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the backend panicked".to_owned(),
        };
        shared.retire_one(&reason);
        Err(Retired)
    }
}

impl Shared {
    /// Takes into account that `works` took `took` together.
    fn learn(&self, works: &[Work], took: Duration) {
        self.pace.saw(took);
        let rows = works.iter().map(|work| work.rows).sum();
        let size = works.iter().map(|work| work.size).max().unwrap_or(1);
        let mut cost = self.cost.lock();
        cost.saw(rows, size, took);
        let limits = self.objective.and_then(|objective| objective.limits(&cost, size));
        drop(cost);
        if let Some(limits) = limits {
            self.scheduler.limit(limits);
        }
    }

    /// Records and answers `requests`.
    fn answer(&self, works: &[Work], requests: Vec<Unanswered>, executed: Executed) {
        // None is left when a stop has refused them.
        let answered = works.iter().zip(&requests);
        let answered = answered.map(|(work, request)| Answered {
            rows: work.rows,
            arrived: request.arrived,
            queued: work.queued,
        });
        self.statistics.record_execution(&executed.moments, answered);
        for (request, outputs) in requests.into_iter().zip(executed.outputs) {
            self.send(request, Ok(outputs));
        }
    }

    fn send(&self, request: Unanswered, answer: Result<Outputs, InferError>) {
        let Unanswered { id, reply, .. } = request;
        if !reply.send(answer) {
            let _noted = current_request::note(id);
            current_request::in_span(|| {
                debug!(model = %self.name, version = %self.version, "the client left before its answer was ready");
            });
        }
    }

    fn fail(&self, request: Unanswered, failed: Failed) {
        let failure = if request.reply.is_closed() { Failure::Canceled } else { Failure::Backend };
        self.statistics.record_failure(failure, request.arrived.elapsed());
        let (model, version) = (self.name.clone(), self.version);
        self.send(
            request,
            Err(match failed {
                Failed::Said(reason) => InferError::Execution { model, version, reason },
                Failed::Panicked => InferError::InstanceFailed { model, version },
            }),
        );
    }

    /// Ends the runs that nobody waits for any more.
    pub(crate) fn end_unneeded_runs(&self) {
        self.running.iter().for_each(|running| running.lock().end_unless_needed());
    }

    /// Refuses a request that has waited for too long.
    pub(crate) fn refuse_expired(&self, request: Unanswered) {
        let waited = request.arrived.elapsed();
        self.statistics.record_failure(Failure::Rejected, waited);
        self.send(request, Err(InferError::QueueTimeout { model: self.name.clone(), waited }));
    }

    fn say_that_a_batch_failed(&self, requests: usize, failed: &Failed) {
        let reason = match failed {
            Failed::Said(reason) => reason,
            Failed::Panicked => "it panicked",
        };
        let (model, version) = (&self.name, self.version);
        if self.batch_failed.swap(true, Ordering::Relaxed) {
            debug!(%model, %version, requests, reason, "a batch failed; its requests run one by one");
        } else {
            warn!(
                %model, %version, requests, reason,
                "a batch failed; its requests run one by one (said once for each version)"
            );
        }
    }

    /// Ends an instance that cannot go on, because of `reason`. When it was the last, nobody would answer what
    /// waits, so it is refused, and the version is not ready any more.
    fn retire_one(&self, reason: &str) {
        let (model, version) = (&self.name, self.version);
        current_request::in_span(|| error!(%model, %version, error = reason, "no new instance"));
        if self.instances.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        // Set before the scheduler is closed: who finds it closed reads here why.
        let _ = self.failure.set(format!("its instances panicked, and no new one could be made: {reason}"));
        error!(%model, %version, "no instance is left; the version is unavailable until the server starts again");
        for Job { request, .. } in self.scheduler.close_and_take() {
            self.statistics.record_failure(Failure::Backend, request.arrived.elapsed());
            self.send(request, Err(InferError::VersionFailed { model: model.clone(), version }));
        }
    }
}
