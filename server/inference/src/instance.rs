//! The threads of the instances, and who runs what waits: such a thread, or the one that has brought it.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
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
struct Teller<'a> {
    engine: &'a Engine,
    /// What came meanwhile is told by those who brought it.
    handed_on: bool,
}

impl Drop for Teller<'_> {
    fn drop(&mut self) {
        if self.handed_on {
            self.engine.scheduler.tell_if_nobody_will();
        } else {
            self.engine.scheduler.tell();
        }
    }
}

/// Tells an instance of what waits, once the thread that has brought it has nothing else at hand. Nobody else tells
/// one until then, so this must be polled.
pub(crate) async fn tell_soon(engine: &Engine) {
    let mut teller = Teller { engine, handed_on: false };
    // The other tasks that this thread has at hand come first: what they bring costs no wake of its own.
    yield_now().await;
    if engine.runs_here {
        teller.handed_on = engine.hand_on_what_comes();
        engine.run_here_if_brief();
    }
}

/// What this thread has had of the processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

impl Engine {
    /// Lets others tell of what comes from now on, if there is another instance that can take it.
    fn hand_on_what_comes(&self) -> bool {
        let others = self.workers.len() > 1;
        if others {
            self.scheduler.told();
        }
        others
    }

    /// Runs what waits on this thread, while that takes less time than to wake the thread of an instance.
    fn run_here_if_brief(&self) {
        let mut idle = self.workers.iter().filter_map(|worker| worker.try_lock());
        let Some(mut worker) = idle.find(|worker| !worker.retired) else { return };
        let (began, processor) = (Instant::now(), processor_time());
        for _ in 0..MOST_RUNS_HERE {
            if !self.is_brief(began) || !worker.serve_once(self) || worker.retired || began.elapsed() > BRIEF
            {
                break;
            }
        }
        // By the processor's time, since a thread that had to wait for a processor is not the model's fault.
        if began.elapsed() > BRIEF {
            self.pace.took_from_others(processor_time().saturating_sub(processor), began);
        }
    }

    /// Whether the next run is likely to be brief.
    fn is_brief(&self, now: Instant) -> bool {
        let waiting = self.scheduler.load();
        let most = self.max_batch_size.min(waiting.rows).max(1);
        self.pace.is_brief(now) && self.cost.lock().expected(most, 1).is_some_and(|expected| expected < BRIEF)
    }
}
