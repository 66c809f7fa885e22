//! A thread that owns one instance: takes what may run together, runs it, records it, answers it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use model::{InferError, ModelName, ModelVersion};
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::task::yield_now;
use tracing::{debug, error, warn};

use crate::backend::{Instance, LoadError, LoadedModel, Terminate};
use crate::batch::Gather;
use crate::cost::CostModel;
use crate::current_request;
use crate::execution::{Executed, Model, Outputs, Work};
use crate::latency_objective::LatencyObjective;
use crate::pace::{BRIEF, Pace};
use crate::ragged::Ragged;
use crate::reply::Reply;
use crate::request_check::RequestCheck;
use crate::scheduler::{Batch, Scheduler};
use crate::statistics::{Answered, Failure, Statistics};

/// Batches that the thread that brought a request runs before it goes on with its own work.
const MOST_RUNS_HERE: usize = 4;

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
    /// A stop that cannot wait has refused all; nothing runs any more.
    pub(crate) abandoned: AtomicBool,
    /// Whether brief runs may be made by the thread that brings their requests: only where each costs the same, since
    /// inputs have one shape, and no other set of outputs can be asked for, which a backend may have to prepare.
    pub(crate) runs_here: bool,
    /// Items in a batch at most.
    pub(crate) max_batch_size: u64,
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
    while shared.scheduler.wait() {
        let mut own = shared.workers[index].lock();
        own.serve_once(shared);
        if own.retired {
            drop(own);
            return shared.scheduler.tell(); // the wake was meant for one that can run
        }
    }
}

/// Tells an instance of what waits, once the thread that has brought it has nothing else at hand.
struct Teller(Arc<Shared>);

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.scheduler.tell();
    }
}

/// See [`Teller`]. A task of its own, since a request's future may be left unpolled for as long as its client likes.
#[expect(clippy::disallowed_methods, reason = "it ends by itself, and nobody needs to wait for it")]
pub(crate) fn tell_soon(shared: &Arc<Shared>) {
    let teller = Teller(Arc::clone(shared));
    tokio::spawn(async move {
        // The other tasks that this thread has at hand come first: what they bring costs no wake of its own.
        yield_now().await;
        teller.0.run_here_if_brief();
    });
}

impl Shared {
    /// Runs what waits on this thread, while that takes less time than to wake the thread of an instance.
    fn run_here_if_brief(&self) {
        if !self.runs_here {
            return;
        }
        if self.workers.len() > 1 {
            self.scheduler.told(); // another instance may take what comes meanwhile
        }
        let Some(mut worker) = self.workers.iter().find_map(|worker| worker.try_lock()) else { return };
        for _ in 0..MOST_RUNS_HERE {
            let began = Instant::now();
            if worker.retired || !self.is_brief() || !worker.serve_once(self) || began.elapsed() > BRIEF {
                break;
            }
        }
    }

    /// Whether the next run is likely to be brief.
    fn is_brief(&self) -> bool {
        let waiting = self.scheduler.load();
        let most = self.max_batch_size.min(waiting.rows).max(1);
        self.pace.is_brief() && self.cost.lock().expected(most, 1).is_some_and(|expected| expected < BRIEF)
    }
}

impl Worker {
    pub(crate) fn new(model: &dyn LoadedModel, index: usize) -> Result<Worker, LoadError> {
        let (gather, batch) = (Gather::default(), Batch::default());
        Ok(Worker { index, instance: model.instance()?, gather, batch, retired: false })
    }

    /// Takes what waits, runs and answers it. False when there was nothing.
    fn serve_once(&mut self, shared: &Shared) -> bool {
        if self.retired {
            return false;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let taken = shared.scheduler.take(&mut batch);
        self.run_all(shared, &mut batch);
        self.batch = batch;
        taken
    }

    fn run_all(&mut self, shared: &Shared, batch: &mut Batch<Job>) {
        batch.expired.drain(..).for_each(|job| shared.refuse_expired(job.request));
        let count = batch.requests.len();
        let (mut works, mut requests) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for Job { work, request } in batch.requests.drain(..) {
            if request.reply.is_closed() {
                shared.fail(request, Failed::Panicked); // counted as cancelled
            } else {
                works.push(work);
                requests.push(request);
            }
        }
        if !works.is_empty() {
            self.retired = self.run(shared, &works, requests).is_err();
        }
    }

    /// Runs `works` together and answers `requests`, one of each. When that fails, each half runs by itself, so that
    /// one that cannot be done takes no other with it.
    fn run(&mut self, shared: &Shared, works: &[Work], requests: Vec<Unanswered>) -> Result<(), Retired> {
        let _noted = current_request::note(requests[0].id.clone());
        if let Some(refused) = shared.begin(self.index, requests, self.instance.as_ref()) {
            refused.into_iter().for_each(|request| shared.refuse_for_the_stop(request));
            return Ok(());
        }
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
        let recovered = self.recover(shared, &failed);
        let needed = requests.iter().any(|request| !request.reply.is_closed());
        if requests.len() <= 1 || !needed || recovered.is_err() {
            requests.into_iter().for_each(|request| shared.fail(request, failed.clone()));
            return recovered;
        }
        shared.say_that_a_batch_failed(requests.len(), &failed);
        self.run_halves(shared, works, requests)
    }

    fn run_halves(
        &mut self,
        shared: &Shared,
        works: &[Work],
        mut requests: Vec<Unanswered>,
    ) -> Result<(), Retired> {
        let middle = works.len() / 2;
        let second = requests.split_off(middle);
        if self.run(shared, &works[..middle], requests).is_err() {
            second.into_iter().for_each(|request| shared.fail(request, Failed::Panicked));
            return Err(Retired);
        }
        self.run(shared, &works[middle..], second)
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

    /// Notes that instance `index` runs `requests`; those that it must not run, since the server stops.
    fn begin(
        &self,
        index: usize,
        requests: Vec<Unanswered>,
        instance: &dyn Instance,
    ) -> Option<Vec<Unanswered>> {
        let mut running = self.running[index].lock();
        if self.abandoned.load(Ordering::SeqCst) {
            return Some(requests);
        }
        running.begin(requests, instance);
        None
    }

    /// Refuses a request because the server cannot wait for it.
    pub(crate) fn refuse_for_the_stop(&self, request: Unanswered) {
        self.statistics.record_failure(Failure::Rejected, request.arrived.elapsed());
        self.send(request, Err(InferError::ShuttingDown));
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
        self.scheduler.answered(requests.len());
        for (request, outputs) in requests.into_iter().zip(executed.outputs) {
            self.send(request, Ok(outputs));
        }
    }

    fn send(&self, request: Unanswered, answer: Result<Outputs, InferError>) {
        let Unanswered { id, reply, .. } = request;
        if !reply.send(answer) {
            self.say_that_the_client_left(id);
        }
    }

    fn say_that_the_client_left(&self, id: SmolStr) {
        let _noted = current_request::note(id);
        current_request::in_span(|| {
            debug!(model = %self.name, version = %self.version, "the client left before its answer was ready");
        });
    }

    /// Lets go of a request that still waits and whose client has left.
    pub(crate) fn cancel(&self, request: Unanswered) {
        self.statistics.record_failure(Failure::Canceled, request.arrived.elapsed());
        self.say_that_the_client_left(request.id);
    }

    fn fail(&self, request: Unanswered, failed: Failed) {
        self.scheduler.answered(1);
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
            debug!(%model, %version, requests, reason, "a batch failed; its requests run in halves");
        } else {
            warn!(
                %model, %version, requests, reason,
                "a batch failed; its requests run in halves (said once for each version)"
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
