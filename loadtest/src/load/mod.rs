//! Applies one load: threads that send, and what came of it.

mod closed;
mod connect;
mod lane;
mod open;
mod slot;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};

use self::lane::LaneStart;
use crate::arrivals::{Pattern, Share};
use crate::clock::Clock;
use crate::recorder::{Piece, Tally, Window};
use crate::stop::Stop;
use crate::transport::Endpoint;
use crate::workload::Workload;

/// How requests are sent.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// As many in flight.
    Closed { concurrency: usize },
    /// When they are due, over at most so many connections.
    Open { pattern: Pattern, max_connections: usize },
}

/// One load and how long it is applied.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) mode: Mode,
    pub(crate) warmup: Duration,
    /// Without one, `requests` ends the run.
    pub(crate) duration: Option<Duration>,
    pub(crate) requests: Option<u64>,
    /// How long one request may take, and how long those due are waited for after the end.
    pub(crate) timeout: Duration,
    pub(crate) threads: usize,
    pub(crate) seed: u64,
}

impl Spec {
    fn window(&self) -> Window {
        let open = nanos(self.warmup);
        let close = self.duration.map_or(u64::MAX, |duration| open.saturating_add(nanos(duration)));
        Window { open, close }
    }
}

/// What every thread of one load shares.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) spec: Spec,
    pub(crate) endpoint: Endpoint,
    pub(crate) workload: Arc<Workload>,
    pub(crate) stop: Stop,
}

/// The threads of one load while they run.
#[derive(Debug)]
pub(crate) struct Running {
    threads: Vec<thread::JoinHandle<anyhow::Result<Tally>>>,
    begin: Arc<Begin>,
    /// What they see, second by second; ends when they do.
    pub(crate) pieces: Receiver<Piece>,
}

/// Starts to apply a load.
///
/// # Errors
/// When the system has no more threads or files.
pub(crate) fn start(setting: &Setting) -> anyhow::Result<Running> {
    let lanes = setting.spec.threads;
    let (out, pieces) = channel();
    let begin = Arc::new(Begin {
        barrier: Barrier::new(lanes),
        clock: OnceLock::new(),
        connected: AtomicUsize::new(0),
    });
    // Before any thread waits for the others to be ready.
    let build = |_| tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtimes = (0..lanes).map(build).collect::<Result<Vec<_>, _>>().context("cannot start a thread")?;
    let threads = runtimes.into_iter().enumerate().map(|(lane, runtime)| {
        let (setting, begin, out) = (setting.clone(), Arc::clone(&begin), out.clone());
        let work = move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, send(setting, Share { lane, lanes }, &begin, out))
        };
        thread::Builder::new().name(format!("load-{lane}")).spawn(work)
    });
    let threads = threads.collect::<Result<_, _>>().context("cannot start a thread")?;
    Ok(Running { threads, begin, pieces })
}

impl Running {
    /// How long requests have been sent; `None` while connections are opened.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        self.begin.clock.get().map(|clock| Duration::from_nanos(clock.now()))
    }

    /// How many connections were opened before requests are sent.
    pub(crate) fn connected(&self) -> usize {
        self.begin.connected.load(Ordering::Relaxed)
    }

    /// Waits for the threads.
    ///
    /// # Errors
    /// When one could not go on.
    pub(crate) fn finish(self) -> anyhow::Result<Vec<Tally>> {
        let joined = |thread: thread::JoinHandle<_>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a thread that sends load panicked")))
        };
        self.threads.into_iter().map(joined).collect()
    }
}

/// Lets all threads begin at the same time.
#[derive(Debug)]
struct Begin {
    barrier: Barrier,
    clock: OnceLock<Clock>,
    /// Connections that are open, until the clock starts.
    connected: AtomicUsize,
}

/// The work of one thread.
async fn send(setting: Setting, share: Share, begin: &Begin, out: Sender<Piece>) -> anyhow::Result<Tally> {
    let ready = connect::connect(&setting, share, &begin.connected).await;
    begin.barrier.wait();
    let clock = *begin.clock.get_or_init(Clock::start);
    LaneStart { setting, share, clock, out }.run(ready).await
}

/// Of `total` things, those that `share` has.
fn part(total: usize, share: Share) -> usize {
    total / share.lanes + usize::from(share.lane < total % share.lanes)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
