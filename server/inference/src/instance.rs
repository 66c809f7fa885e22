//! The threads of the instances, and who runs what waits: such a thread, or the one that has brought it.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use tokio::task::yield_now;

use crate::backend::LoadError;
use crate::engine::Engine;
use crate::pace::BRIEF;
use crate::rate_limiter::Took;

/// Batches that the thread that brought a request runs before it goes on with its own work.
const MOST_RUNS_HERE: usize = 4;

/// Starts the thread of instance `index`; it ends when the scheduler is closed and empty.
pub(crate) fn start(engine: &Arc<Engine>, index: usize) -> Result<JoinHandle<()>, LoadError> {
    let name = format!("{}_{index}", engine.name);
    let engine = Arc::clone(engine);
    Builder::new()
        .name(name)
        .spawn(move || serve(&engine, index))
        .map_err(|error| LoadError::Unsupported(format!("cannot start the thread of an instance: {error}")))
}

fn serve(engine: &Engine, index: usize) {
    if let Some(contenders) = &engine.contenders {
        return contenders.serve(index, &engine.scheduler, || {
            let mut own = engine.workers[index].lock();
            match own.serve_once(engine) {
                _ if own.retired => Took::AndEnded,
                true => Took::ToRun,
                false => Took::Nothing,
            }
        });
    }
    while engine.scheduler.wait() {
        let mut own = engine.workers[index].lock();
        own.serve_once(engine);
        if own.retired {
            drop(own);
            return engine.scheduler.tell(); // the wake was meant for one that can run
        }
    }
}

/// Tells an instance of what waits when it is dropped, whatever becomes of the request that brought it.
struct Teller<'a>(&'a Engine);

impl Drop for Teller<'_> {
    fn drop(&mut self) {
        self.0.scheduler.tell();
    }
}

/// Tells an instance of what waits, once the thread that has brought it has nothing else at hand. Nobody else tells
/// one until then, so this must be polled.
pub(crate) async fn tell_soon(engine: &Engine) {
    let teller = Teller(engine);
    // The other tasks that this thread has at hand come first: what they bring costs no wake of its own.
    yield_now().await;
    teller.0.run_here_if_brief();
}

impl Engine {
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
