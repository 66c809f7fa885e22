//! A thread that owns one instance: takes what may run together, runs it, records it, answers it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use model::{InferError, ModelName, ModelVersion};
use parking_lot::Mutex;
use smol_str::SmolStr;
use tracing::{debug, error, warn};

use crate::backend::{Instance, LoadError, LoadedModel};
use crate::batch::Gather;
use crate::current_request;
use crate::execution::{Executed, Model, Outputs, Work};
use crate::ragged::Ragged;
use crate::reply::Reply;
use crate::request_check::RequestCheck;
use crate::scheduler::{Batch, Scheduler};
use crate::statistics::{Answered, Failure, Statistics};

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

/// What the threads of one version share.
pub(crate) struct Shared {
    pub(crate) name: ModelName,
    pub(crate) version: ModelVersion,
    pub(crate) model: Arc<dyn LoadedModel>,
    pub(crate) check: RequestCheck,
    pub(crate) ragged: Option<Ragged>,
    pub(crate) scheduler: Scheduler<Job>,
    /// What each instance is at. Held to put requests in or to take them out: by its instance, which answers
    /// them, or by a stop that cannot wait for that.
    pub(crate) running: Box<[Mutex<Vec<Unanswered>>]>,
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
    let instance = shared.model.instance()?;
    let worker = Worker { shared: Arc::clone(shared), index, instance, gather: Gather::default() };
    Builder::new()
        .name(format!("{}_{index}", shared.name))
        .spawn(move || worker.serve())
        .map_err(|error| LoadError::Unsupported(format!("cannot start the thread of an instance: {error}")))
}

struct Worker {
    shared: Arc<Shared>,
    index: usize,
    instance: Box<dyn Instance>,
    /// Where inputs are put together.
    gather: Gather,
}

/// Why a run gave nothing.
#[derive(Clone)]
enum Failed {
    /// In the backend's words.
    Said(String),
    Panicked,
}

/// No new instance could be made in place of one that panicked.
struct Retired;

impl Worker {
    fn serve(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut batch = Batch::default();
        let mut handed_out = 0;
        while shared.scheduler.next(handed_out, &mut batch) {
            batch.expired.drain(..).for_each(|job| shared.refuse_expired(job.request));
            handed_out = batch.requests.len();
            let (mut works, mut requests) = (Vec::with_capacity(handed_out), Vec::with_capacity(handed_out));
            for Job { work, request } in batch.requests.drain(..) {
                if request.reply.is_closed() {
                    shared.statistics.record_failure(Failure::Canceled, request.arrived.elapsed());
                } else {
                    works.push(work);
                    requests.push(request);
                }
            }
            if !works.is_empty() && self.run(&works, requests).is_err() {
                return;
            }
        }
    }

    /// Runs `works` together and answers `requests`, one of each. When that fails, each runs alone, so that one
    /// that cannot be done takes no other with it.
    fn run(&mut self, works: &[Work], requests: Vec<Unanswered>) -> Result<(), Retired> {
        let shared = Arc::clone(&self.shared);
        let _noted = current_request::note(requests[0].id.clone());
        *shared.running[self.index].lock() = requests;
        let model = Model {
            signature: shared.model.signature(),
            check: &shared.check,
            ragged: shared.ragged.as_ref(),
        };
        let (instance, gather) = (self.instance.as_mut(), &mut self.gather);
        let executed = catch_unwind(AssertUnwindSafe(|| model.run(instance, gather, works)));
        // None is left when a stop has refused them.
        let requests = std::mem::take(&mut *shared.running[self.index].lock());
        let failed = match executed {
            Ok(Ok(executed)) => {
                shared.answer(works, requests, executed);
                return Ok(());
            }
            Ok(Err(reason)) => Failed::Said(reason),
            Err(_) => Failed::Panicked,
        };
        if requests.len() == 1 {
            requests.into_iter().for_each(|request| shared.fail(request, failed.clone()));
            return self.recover(&failed);
        }
        self.recover(&failed)?; // without an instance they are dropped, which tells who waits that it failed
        shared.say_that_a_batch_failed(requests.len(), &failed);
        for (work, request) in works.iter().zip(requests) {
            self.run(slice::from_ref(work), vec![request])?;
        }
        Ok(())
    }

    /// Makes a new instance in place of one that panicked.
    fn recover(&mut self, failed: &Failed) -> Result<(), Retired> {
        if let Failed::Said(_) = failed {
            return Ok(());
        }
        let shared = &self.shared;
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
        self.statistics.record_failure(Failure::Backend, request.arrived.elapsed());
        let (model, version) = (self.name.clone(), self.version);
        self.send(
            request,
            Err(match failed {
                Failed::Said(reason) => InferError::Execution { model, version, reason },
                Failed::Panicked => InferError::InstanceFailed { model, version },
            }),
        );
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
