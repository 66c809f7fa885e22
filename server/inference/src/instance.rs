//! A thread that owns one instance: takes a request, runs it, records it, answers it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use model::{InferError, ModelName, ModelVersion};
use parking_lot::Mutex;
use smallvec::SmallVec;
use smol_str::SmolStr;
use tokio::sync::oneshot;
use tracing::{debug, error};

use crate::backend::{Execution, Instance, InstanceInput, InstanceOutput, LoadError, LoadedModel};
use crate::current_request;
use crate::queue::Queue;
use crate::request_check::RequestCheck;
use crate::statistics::{Failure, Moments, Statistics};

/// The outputs of one request, in the order it asked for.
pub(crate) type Outputs = SmallVec<[InstanceOutput; 2]>;

/// One request on its way through an instance.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) request: Unanswered,
}

/// What an instance has to do.
pub(crate) struct Work {
    /// Inputs in the shapes the graph wants.
    pub(crate) inputs: SmallVec<[InstanceInput; 2]>,
    /// Indexes of the outputs to compute.
    pub(crate) outputs: SmallVec<[usize; 4]>,
    /// Items in the request's batch, at least 1.
    pub(crate) rows: u64,
    pub(crate) queued: Instant,
}

/// A request that has no answer yet.
pub(crate) struct Unanswered {
    /// What the log calls it.
    pub(crate) id: SmolStr,
    pub(crate) arrived: Instant,
    /// Dropped by the receiver when the client goes away: then nobody needs the answer.
    pub(crate) reply: oneshot::Sender<Result<Outputs, InferError>>,
}

/// What the threads of one version share.
pub(crate) struct Shared {
    pub(crate) name: ModelName,
    pub(crate) version: ModelVersion,
    pub(crate) model: Arc<dyn LoadedModel>,
    pub(crate) check: RequestCheck,
    pub(crate) queue: Queue<Job>,
    /// What each instance is at. Held to put a request in or to take it out: by its instance, which answers
    /// it, or by a stop that cannot wait for that.
    pub(crate) running: Box<[Mutex<Option<Unanswered>>]>,
    /// Threads that take requests.
    pub(crate) instances: AtomicUsize,
    /// Why the last of them has ended, when it did so before its time.
    pub(crate) failure: OnceLock<String>,
    pub(crate) statistics: Statistics,
}

/// Starts the thread of instance `index`; it ends when the queue is closed and empty.
pub(crate) fn start(shared: &Arc<Shared>, index: usize) -> Result<JoinHandle<()>, LoadError> {
    let instance = shared.model.instance()?;
    let thread_shared = Arc::clone(shared);
    Builder::new()
        .name(format!("{}_{index}", shared.name))
        .spawn(move || serve(&thread_shared, index, instance))
        .map_err(|error| LoadError::Unsupported(format!("cannot start the thread of an instance: {error}")))
}

fn serve(shared: &Shared, index: usize, mut instance: Box<dyn Instance>) {
    while let Some(Job { work, request }) = shared.queue.pop() {
        if request.reply.is_closed() {
            shared.statistics.record_failure(Failure::Canceled, request.arrived.elapsed());
            continue;
        }
        let _noted = current_request::note(request.id.clone());
        *shared.running[index].lock() = Some(request);
        let executed = catch_unwind(AssertUnwindSafe(|| execute(shared, instance.as_mut(), &work)));
        let request = shared.running[index].lock().take(); // gone when a stop has refused it
        if let Ok(executed) = executed {
            if let Some(request) = request {
                answer(shared, &work, request, executed);
            }
            continue;
        }
        if let Some(request) = request {
            // Dropping it tells its receiver that nobody answers.
            shared.statistics.record_failure(Failure::Backend, request.arrived.elapsed());
        }
        current_request::in_span(|| {
            error!(model = %shared.name, version = %shared.version, "an instance panicked; making a new one");
        });
        match catch_unwind(AssertUnwindSafe(|| shared.model.instance())) {
            Ok(Ok(fresh)) => instance = fresh,
            Ok(Err(error)) => return retire(shared, &error.to_string()),
            Err(_) => return retire(shared, "the backend panicked"),
        }
    }
}

/// Ends an instance that cannot go on, because of `reason`. When it was the last, nobody would answer what
/// waits, so it is refused, and the version is not ready any more.
fn retire(shared: &Shared, reason: &str) {
    let (model, version) = (&shared.name, shared.version);
    current_request::in_span(|| error!(%model, %version, error = reason, "no new instance"));
    if shared.instances.fetch_sub(1, Ordering::AcqRel) != 1 {
        return;
    }
    // Set before the queue is closed: who finds it closed reads here why.
    let _ = shared.failure.set(format!("its instances panicked, and no new one could be made: {reason}"));
    error!(%model, %version, "no instance is left; the version is unavailable until the server starts again");
    for Job { request, .. } in shared.queue.close_and_take() {
        shared.statistics.record_failure(Failure::Backend, request.arrived.elapsed());
        // A client that has left needs no answer.
        let _ = request.reply.send(Err(InferError::VersionFailed { model: model.clone(), version }));
    }
}

/// What came of a run, and when it was done.
struct Executed {
    taken: Instant,
    result: Result<Execution, String>,
    done: Instant,
}

fn execute(shared: &Shared, instance: &mut dyn Instance, work: &Work) -> Executed {
    let taken = Instant::now();
    let executed = instance.execute(&work.inputs, &work.outputs).map_err(|error| error.0);
    let result = executed.and_then(|execution| {
        let outputs = work.outputs.iter().zip(&execution.outputs);
        outputs.into_iter().try_for_each(|(index, output)| shared.check.output_fits(*index, output))?;
        Ok(execution)
    });
    Executed { taken, result, done: Instant::now() }
}

/// Records what came of `request`, and answers it.
fn answer(shared: &Shared, work: &Work, request: Unanswered, executed: Executed) {
    let Executed { taken, result, done } = executed;
    let answer = match result {
        Ok(execution) => {
            let moments = Moments {
                arrived: request.arrived,
                queued: work.queued,
                taken,
                inputs_ready: execution.inputs_ready,
                inferred: execution.inferred,
                outputs_ready: done,
            };
            shared.statistics.record_success(work.rows, &moments);
            Ok(execution.outputs)
        }
        Err(reason) => {
            shared.statistics.record_failure(Failure::Backend, request.arrived.elapsed());
            Err(InferError::Execution { model: shared.name.clone(), version: shared.version, reason })
        }
    };
    if request.reply.send(answer).is_err() {
        current_request::in_span(|| {
            debug!(model = %shared.name, version = %shared.version, "the client left before its answer was ready");
        });
    }
}
