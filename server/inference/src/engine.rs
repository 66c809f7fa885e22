//! What the threads of one version share, and how its requests end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use model::{InferError, ModelName, ModelVersion};
use parking_lot::Mutex;
use smol_str::SmolStr;
use tracing::{debug, error, warn};

use crate::backend::{Instance, LoadedModel, Terminate};
use crate::batcher::Ticket;
use crate::cost::CostModel;
use crate::current_request;
use crate::execution::{Executed, Failed, Outputs, Work};
use crate::latency_objective::LatencyObjective;
use crate::pace::Pace;
use crate::ragged::Ragged;
use crate::rate_limiter::Contenders;
use crate::reply::Reply;
use crate::request_check::RequestCheck;
use crate::scheduler::Scheduler;
use crate::statistics::{Answered, Failure, Statistics};
use crate::worker::Worker;

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
    pub(crate) fn begin(&mut self, requests: Vec<Unanswered>, instance: &dyn Instance) {
        self.requests = requests;
        self.terminator = instance.terminator();
        self.terminator.iter().for_each(|terminator| terminator.reset());
    }

    /// The run is over. The requests, but for those that a stop has refused.
    pub(crate) fn end(&mut self) -> Vec<Unanswered> {
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
pub(crate) struct Engine {
    pub(crate) name: ModelName,
    pub(crate) version: ModelVersion,
    pub(crate) model: Arc<dyn LoadedModel>,
    pub(crate) check: RequestCheck,
    pub(crate) ragged: Option<Ragged>,
    pub(crate) scheduler: Scheduler<Job>,
    /// Set when instances wait for their turn to run.
    pub(crate) contenders: Option<Contenders>,
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
    /// inputs have one shape, and no other set of outputs can be asked for, which a backend may have to prepare; and
    /// where no instance waits for its turn.
    pub(crate) runs_here: bool,
    /// Items in a batch at most.
    pub(crate) max_batch_size: u64,
    /// A batch has failed, and the log says so.
    pub(crate) batch_failed: AtomicBool,
    /// Shared with the instances that it had before.
    pub(crate) statistics: Arc<Statistics>,
}

impl Engine {
    /// Takes nothing in from now on; what waits is run.
    pub(crate) fn close(&self) {
        self.scheduler.close();
        self.recall();
    }

    /// Takes nothing in from now on, and takes out what waits.
    pub(crate) fn close_and_take(&self) -> Vec<Job> {
        let waiting = self.scheduler.close_and_take();
        self.recall();
        waiting
    }

    /// Takes a request out; `None` when it waits no more.
    pub(crate) fn remove(&self, ticket: Ticket) -> Option<Job> {
        let removed = self.scheduler.remove(ticket);
        self.recall();
        removed
    }

    /// To be called by all who take requests out, afterwards: see [`Contenders::recall`].
    pub(crate) fn recall(&self) {
        if let Some(contenders) = &self.contenders {
            contenders.recall(&self.scheduler);
        }
    }

    /// Takes into account that `works` took `took` together.
    pub(crate) fn learn(&self, works: &[Work], took: Duration) {
        self.pace.saw(took);
        let rows = works.iter().map(|work| work.rows).sum();
        let size = works.iter().map(|work| work.size).max().unwrap_or(1);
        let mut cost = self.cost.lock();
        cost.saw(rows, size, took);
        let limits = self.objective.and_then(|objective| objective.limits(&cost, size));
        let run_cost = self.check.padding().and_then(|_| cost.run_cost());
        drop(cost);
        if let Some(run_cost) = run_cost {
            self.scheduler.learned(run_cost);
        }
        if let Some(limits) = limits {
            self.scheduler.limit(limits);
        }
    }

    /// Notes that instance `index` runs `requests`. Hands them back when it must not, since the server stops, or need
    /// not, since nobody waits for any of them: looked at under the lock under which a client that leaves later ends
    /// the run.
    pub(crate) fn begin(
        &self,
        index: usize,
        requests: Vec<Unanswered>,
        instance: &dyn Instance,
    ) -> Option<Vec<Unanswered>> {
        let mut running = self.running[index].lock();
        let needed = requests.iter().any(|request| !request.reply.is_closed());
        if !needed || self.abandoned.load(Ordering::SeqCst) {
            return Some(requests);
        }
        running.begin(requests, instance);
        None
    }

    /// Lets go of a request that was handed out and is not run: its client has left, or the server stops.
    pub(crate) fn let_go(&self, request: Unanswered) {
        self.scheduler.answered(1);
        if request.reply.is_closed() {
            self.cancel(request);
        } else {
            self.refuse_for_the_stop(request);
        }
    }

    /// Refuses a request because the server cannot wait for it.
    pub(crate) fn refuse_for_the_stop(&self, request: Unanswered) {
        self.statistics.record_failure(Failure::Rejected, request.arrived.elapsed());
        self.send(request, Err(InferError::ShuttingDown));
    }

    /// Records and answers `requests`.
    pub(crate) fn answer(&self, works: &[Work], requests: Vec<Unanswered>, executed: Executed) {
        // None is left when a stop has refused them.
        let answered = works.iter().zip(&requests);
        let answered = answered.map(|(work, request)| Answered {
            rows: work.rows,
            arrived: request.arrived,
            queued: work.queued,
        });
        self.statistics.record_execution(&executed.moments, answered);
        if executed.padded_inputs > 0 {
            self.statistics.record_padding(executed.padded_inputs, executed.padding);
        }
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

    /// Counts a request that does not run, and whose client has left.
    pub(crate) fn cancel(&self, request: Unanswered) {
        self.statistics.record_failure(Failure::Canceled, request.arrived.elapsed());
        self.say_that_the_client_left(request.id);
    }

    pub(crate) fn fail(&self, request: Unanswered, failed: Failed) {
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

    pub(crate) fn say_that_a_batch_failed(&self, requests: usize, failed: &Failed) {
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
    pub(crate) fn retire_one(&self, reason: &str) {
        let (model, version) = (&self.name, self.version);
        current_request::in_span(|| error!(%model, %version, error = reason, "no new instance"));
        if self.instances.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        // Set before the scheduler is closed: who finds it closed reads here why.
        let _ = self.failure.set(format!("its instances panicked, and no new one could be made: {reason}"));
        error!(%model, %version, "no instance is left; the version is unavailable until the server starts again");
        for Job { request, .. } in self.close_and_take() {
            self.statistics.record_failure(Failure::Backend, request.arrived.elapsed());
            self.send(request, Err(InferError::VersionFailed { model: model.clone(), version }));
        }
    }
}
