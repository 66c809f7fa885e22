//! A thread that owns one instance: takes a request, runs it, records it, answers it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use model::{InferError, ModelName, ModelVersion};
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tracing::{debug, error};

use crate::backend::{Instance, InstanceInput, InstanceOutput, LoadError, LoadedModel};
use crate::queue::Queue;
use crate::statistics::{Failure, Moments, Statistics};

/// The outputs of one request, in the order it asked for.
pub(crate) type Outputs = SmallVec<[InstanceOutput; 2]>;

/// One request on its way through an instance.
pub(crate) struct Job {
    /// Inputs in the shapes the graph wants.
    pub(crate) inputs: SmallVec<[InstanceInput; 2]>,
    /// Indexes of the outputs to compute.
    pub(crate) outputs: SmallVec<[usize; 4]>,
    /// Items in the request's batch, at least 1.
    pub(crate) rows: u64,
    pub(crate) arrived: Instant,
    pub(crate) queued: Instant,
    /// Dropped by the receiver when the client goes away: then nobody needs the answer.
    pub(crate) reply: oneshot::Sender<Result<Outputs, InferError>>,
}

/// What the threads of one version share.
pub(crate) struct Shared {
    pub(crate) name: ModelName,
    pub(crate) version: ModelVersion,
    pub(crate) model: Arc<dyn LoadedModel>,
    pub(crate) queue: Queue<Job>,
    /// Threads that take requests.
    pub(crate) instances: AtomicUsize,
    pub(crate) statistics: Statistics,
}

/// Starts the thread of instance `index`; it ends when the queue is closed and empty.
pub(crate) fn start(shared: &Arc<Shared>, index: usize) -> Result<JoinHandle<()>, LoadError> {
    let instance = shared.model.instance()?;
    let thread_shared = Arc::clone(shared);
    Builder::new()
        .name(format!("{}_{index}", shared.name))
        .spawn(move || serve(&thread_shared, instance))
        .map_err(|error| LoadError::Unsupported(format!("cannot start the thread of an instance: {error}")))
}

fn serve(shared: &Shared, mut instance: Box<dyn Instance>) {
    while let Some(job) = shared.queue.pop() {
        if job.reply.is_closed() {
            shared.statistics.record_failure(Failure::Canceled, job.arrived.elapsed());
            continue;
        }
        let arrived = job.arrived;
        let survived = catch_unwind(AssertUnwindSafe(|| answer(shared, instance.as_mut(), job)));
        if survived.is_err() {
            shared.statistics.record_failure(Failure::Backend, arrived.elapsed());
            error!(model = %shared.name, version = %shared.version, "an instance panicked; making a new one");
            match shared.model.instance() {
                Ok(fresh) => instance = fresh,
                Err(error) => {
                    error!(model = %shared.name, version = %shared.version, %error, "no new instance");
                    return retire(shared);
                }
            }
        }
    }
}

/// Ends an instance that cannot go on. When it was the last, nobody would answer what waits, so it is let go.
fn retire(shared: &Shared) {
    if shared.instances.fetch_sub(1, Ordering::AcqRel) == 1 {
        for job in shared.queue.close_and_take() {
            shared.statistics.record_failure(Failure::Backend, job.arrived.elapsed());
        }
    }
}

/// Runs one job. A panic in here drops the job's reply, which its receiver understands.
fn answer(shared: &Shared, instance: &mut dyn Instance, job: Job) {
    let taken = Instant::now();
    let executed = instance.execute(&job.inputs, &job.outputs);
    let answer = match executed {
        Ok(execution) => {
            let moments = Moments {
                arrived: job.arrived,
                queued: job.queued,
                taken,
                inputs_ready: execution.inputs_ready,
                inferred: execution.inferred,
                outputs_ready: Instant::now(),
            };
            shared.statistics.record_success(job.rows, &moments);
            Ok(execution.outputs)
        }
        Err(error) => {
            shared.statistics.record_failure(Failure::Backend, job.arrived.elapsed());
            let (model, version) = (shared.name.clone(), shared.version);
            Err(InferError::Execution { model, version, reason: error.0 })
        }
    };
    if job.reply.send(answer).is_err() {
        debug!(model = %shared.name, version = %shared.version, "the client left before its answer was ready");
    }
}
