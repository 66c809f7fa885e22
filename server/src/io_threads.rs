//! The threads that serve connections. A connection stays on the one that got it, so what it needs is never handed
//! from core to core: a runtime that shares its tasks among threads wakes another thread for most answers, and over
//! gRPC for each of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Threads beside one of these for what takes long, such as to read much JSON. It computes, so that more of them
/// would do no more, only hold more.
const BLOCKING_THREADS: usize = 32;

/// How many tasks of its own a thread polls before it looks for what others have woken: answers of instances, mostly.
const TURNS: u32 = 8;

/// The threads, each with a runtime of its own, and the connections of one listener on them.
#[derive(Clone, Debug)]
pub struct IoThreads {
    threads: Arc<[IoThread]>,
    /// Connections of this listener, by thread.
    connections: Arc<[AtomicUsize]>,
    /// Picks among equals.
    next: Arc<AtomicUsize>,
}

/// One thread.
#[derive(Debug)]
struct IoThread {
    runtime: Handle,
    /// Connections of all listeners.
    connections: AtomicUsize,
    is_running: Arc<AtomicBool>,
}

/// What ends the threads when it is dropped.
#[derive(Debug)]
pub struct IoThreadsGuard {
    end: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

/// A connection's place on a thread, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    index: usize,
    threads: IoThreads,
}

impl IoThreads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread or no descriptors.
    pub fn start(count: usize) -> io::Result<(IoThreads, IoThreadsGuard)> {
        // Ends those that were started if another is not.
        let mut guard = IoThreadsGuard { end: CancellationToken::new(), threads: Vec::new() };
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let (thread, handle) = IoThread::start(index, guard.end.clone())?;
            threads.push(thread);
            guard.threads.push(handle);
        }
        let connections = (0..count).map(|_| AtomicUsize::new(0)).collect();
        Ok((IoThreads { threads: threads.into(), connections, next: Arc::default() }, guard))
    }

    /// The same threads, for another listener. Its connections are spread by themselves: those of two listeners often
    /// come in pairs, one busy and one idle, and all of one kind would meet on one thread.
    #[must_use]
    pub fn for_another(&self) -> IoThreads {
        let connections = self.connections.iter().map(|_| AtomicUsize::new(0)).collect();
        IoThreads { connections, ..self.clone() }
    }

    /// A place on the thread with the fewest connections.
    pub(crate) fn seat(&self) -> Option<Seat> {
        // Not in order, for the same reason. The constant is the golden ratio's: no pattern of clients fits it.
        let turn = self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let load = |connections: &AtomicUsize| connections.load(Ordering::Relaxed);
        let running =
            (0..self.threads.len()).filter(|index| self.threads[*index].is_running.load(Ordering::Relaxed));
        let index = running.min_by_key(|&index| {
            let order = (index + turn) % self.threads.len();
            (load(&self.connections[index]), load(&self.threads[index].connections), order)
        })?;
        self.connections[index].fetch_add(1, Ordering::Relaxed);
        self.threads[index].connections.fetch_add(1, Ordering::Relaxed);
        Some(Seat { index, threads: self.clone() })
    }
}

impl IoThread {
    fn start(index: usize, end: CancellationToken) -> io::Result<(IoThread, JoinHandle<()>)> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .global_queue_interval(TURNS)
            .build()?;
        let handle = runtime.handle().clone();
        let running = Running(Arc::new(AtomicBool::new(true)));
        let is_running = Arc::clone(&running.0);
        let thread = thread::Builder::new().name(format!("io_{index}")).spawn(move || {
            let running = running;
            runtime.block_on(end.cancelled());
            drop(running);
            runtime.shutdown_background();
        })?;
        Ok((IoThread { runtime: handle, connections: AtomicUsize::new(0), is_running }, thread))
    }
}

/// Says that a thread has ended, however it did: its runtime drops what it is given.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl IoThreadsGuard {
    /// Ends the threads, and with them what is left of their connections. Waits no longer than `limit` for one that is
    /// at something. Blocks: not for async code.
    pub fn end(mut self, limit: Duration) {
        self.end.cancel();
        let deadline = Instant::now() + limit;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::park_timeout(Duration::from_millis(1)); // a thread can only be asked whether it has ended
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for IoThreadsGuard {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Seat {
    pub(crate) fn runtime(&self) -> &Handle {
        &self.threads.threads[self.index].runtime
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.threads.connections[self.index].fetch_sub(1, Ordering::Relaxed);
        self.threads.threads[self.index].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn counts(threads: &IoThreads) -> Vec<usize> {
        let mut counts: Vec<_> =
            threads.connections.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        counts.sort_unstable();
        counts
    }

    #[test]
    fn a_connection_goes_where_the_fewest_of_its_listener_are() {
        let (http, _guard) = IoThreads::start(3).unwrap();
        let grpc = http.for_another();
        let mut seats: Vec<Seat> = (0..7).filter_map(|_| http.seat()).collect();
        assert_eq!(counts(&http), [2, 2, 3]);
        let full = (0..3).find(|index| http.connections[*index].load(Ordering::Relaxed) == 3).unwrap();
        seats.retain(|seat| seat.index == full);
        assert_eq!(counts(&http), [0, 0, 3]);
        let others: Vec<Seat> = (0..2).filter_map(|_| grpc.seat()).collect();
        assert!(others.iter().all(|seat| seat.index != full), "there are fewer of other listeners elsewhere");
        assert_eq!(counts(&grpc), [0, 1, 1]);
        drop((seats, others));
        assert_eq!(counts(&http), [0, 0, 0]);
    }

    /// All that were busy met on one thread.
    #[test]
    fn every_second_connection_is_not_on_one_thread() {
        let (threads, _guard) = IoThreads::start(2).unwrap();
        let seats: Vec<Seat> = (0..64).filter_map(|_| threads.seat()).collect();
        let on_first = seats.iter().step_by(2).filter(|seat| seat.index == 0).count();
        assert!((4..=28).contains(&on_first), "{on_first} of 32");
    }

    #[test]
    fn what_runs_on_a_thread_stays_there_and_ends_with_it() {
        let (threads, guard) = IoThreads::start(2).unwrap();
        let (name, names) = mpsc::channel();
        let seats = [threads.seat().unwrap(), threads.seat().unwrap()];
        for seat in &seats {
            let name = name.clone();
            drop(seat.runtime().spawn(async move {
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                    let _ = name.send(thread::current().name().map(str::to_owned));
                }
                std::future::pending::<()>().await;
            }));
        }
        let mut seen: Vec<_> = (0..200).map(|_| names.recv().unwrap().unwrap()).collect();
        seen.sort();
        assert_eq!((&*seen[0], &*seen[99], &*seen[100], &*seen[199]), ("io_0", "io_0", "io_1", "io_1"));
        drop(name);
        guard.end(Duration::from_secs(60));
        assert!(names.recv().is_err(), "the tasks are gone, and their senders with them");
        assert!(threads.seat().is_none(), "nothing would be served there");
    }
}
