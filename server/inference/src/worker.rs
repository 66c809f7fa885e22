//! One instance at work: takes a batch, runs it, and what to do when that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use tracing::error;

use crate::backend::{Instance, LoadError, LoadedModel};
use crate::batch::Gather;
use crate::current_request;
use crate::engine::{Engine, Job, Unanswered};
use crate::execution::{Executed, Failed, Model, Work};
use crate::scheduler::Batch;

/// One instance, and what it needs to run batches. Its own thread uses it, or, for a run that is shorter than it
/// takes to wake that thread, the thread that has brought the requests.
pub(crate) struct Worker {
    index: usize,
    instance: Box<dyn Instance>,
    /// Where inputs are put together.
    gather: Gather,
    batch: Batch<Job>,
    /// No new instance could be made in place of one that panicked.
    pub(crate) retired: bool,
}

/// See [`Worker::retired`].
pub(crate) struct Retired;

impl Worker {
    pub(crate) fn new(model: &dyn LoadedModel, index: usize) -> Result<Worker, LoadError> {
        let (gather, batch) = (Gather::default(), Batch::default());
        Ok(Worker { index, instance: model.instance()?, gather, batch, retired: false })
    }

    /// Takes what waits, runs and answers it. False when there was nothing.
    pub(crate) fn serve_once(&mut self, engine: &Engine) -> bool {
        if self.retired {
            return false;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let taken = engine.scheduler.take(&mut batch);
        engine.recall();
        self.run_all(engine, &mut batch);
        self.batch = batch;
        taken
    }

    fn run_all(&mut self, engine: &Engine, batch: &mut Batch<Job>) {
        batch.expired.drain(..).for_each(|job| engine.refuse_expired(job.request));
        let count = batch.requests.len();
        let (mut works, mut requests) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for Job { work, request } in batch.requests.drain(..) {
            if request.reply.is_closed() {
                engine.let_go(request);
            } else {
                works.push(work);
                requests.push(request);
            }
        }
        if !works.is_empty() {
            self.retired = self.run(engine, &works, requests).is_err();
        }
    }

    /// Runs `works` together and answers `requests`, one of each. When that fails, each half runs by itself, so that
    /// one that cannot be done takes no other with it.
    fn run(&mut self, engine: &Engine, works: &[Work], requests: Vec<Unanswered>) -> Result<(), Retired> {
        let _noted = current_request::note(requests[0].id.clone());
        if let Some(not_run) = engine.begin(self.index, requests, self.instance.as_ref()) {
            not_run.into_iter().for_each(|request| engine.let_go(request));
            return Ok(());
        }
        let executed = self.execute(engine, works);
        // None is left when a stop has refused them.
        let requests = engine.running[self.index].lock().end();
        let failed = match executed {
            Ok(Ok(executed)) => {
                engine.learn(works, executed.moments.outputs_ready - executed.moments.taken);
                engine.answer(works, requests, executed);
                return Ok(());
            }
            Ok(Err(reason)) => Failed::Said(reason),
            Err(_) => Failed::Panicked,
        };
        let recovered = self.recover(engine, &failed);
        let needed = requests.iter().any(|request| !request.reply.is_closed());
        if requests.len() <= 1 || !needed || recovered.is_err() {
            requests.into_iter().for_each(|request| engine.fail(request, failed.clone()));
            return recovered;
        }
        engine.say_that_a_batch_failed(requests.len(), &failed);
        self.run_halves(engine, works, requests)
    }

    /// Runs `works` together, and tells a panic of the backend apart from a failure: after one, the instance is of no
    /// use.
    pub(crate) fn execute(
        &mut self,
        engine: &Engine,
        works: &[Work],
    ) -> thread::Result<Result<Executed, String>> {
        let model = Model {
            signature: engine.model.signature(),
            check: &engine.check,
            ragged: engine.ragged.as_ref(),
        };
        let (instance, gather) = (self.instance.as_mut(), &mut self.gather);
        catch_unwind(AssertUnwindSafe(|| model.run(instance, gather, works)))
    }

    fn run_halves(
        &mut self,
        engine: &Engine,
        works: &[Work],
        mut requests: Vec<Unanswered>,
    ) -> Result<(), Retired> {
        let middle = works.len() / 2;
        let second = requests.split_off(middle);
        if self.run(engine, &works[..middle], requests).is_err() {
            second.into_iter().for_each(|request| engine.fail(request, Failed::Panicked));
            return Err(Retired);
        }
        self.run(engine, &works[middle..], second)
    }

    /// Makes a new instance in place of one that panicked.
    fn recover(&mut self, engine: &Engine, failed: &Failed) -> Result<(), Retired> {
        if !matches!(failed, Failed::Panicked) {
            return Ok(());
        }
        let (model, version) = (&engine.name, engine.version);
        current_request::in_span(|| error!(%model, %version, "an instance panicked; making a new one"));
        let reason = match catch_unwind(AssertUnwindSafe(|| engine.model.instance())) {
            Ok(Ok(fresh)) => {
                self.instance = fresh;
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the backend panicked".to_owned(),
        };
        engine.retire_one(&reason);
        Err(Retired)
    }
}
