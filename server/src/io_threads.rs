//! The threads that serve connections. A connection stays on the one that got it, so what it needs is never handed
//! from core to core: a runtime that shares its tasks among threads wakes another thread for most answers, and over
//! gRPC for each of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Threads beside one of these for what takes long, such as to read much JSON. It computes, so that more of them
/// would do no more, only hold more.
const BLOCKING_THREADS: usize = 32;

/// The threads, each with a runtime of its own; they end when this is dropped.
#[derive(Clone, Debug)]
pub struct IoThreads {
    threads: Arc<[IoThread]>,
    _end: Arc<DropGuard>,
}

/// One thread.
#[derive(Debug)]
struct IoThread {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// A connection's place on a thread, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) runtime: Handle,
    connections: Arc<AtomicUsize>,
}

impl IoThreads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread or no descriptors.
    pub fn start(count: usize) -> io::Result<IoThreads> {
        let end = CancellationToken::new();
        let guard = Arc::new(end.clone().drop_guard()); // ends those that were started if another is not
        let threads =
            (0..count).map(|index| IoThread::start(index, end.clone())).collect::<io::Result<_>>()?;
        Ok(IoThreads { threads, _end: guard })
    }

    /// A place on the thread with the fewest connections.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let fewest = self.threads.iter().min_by_key(|thread| thread.connections.load(Ordering::Relaxed))?;
        fewest.connections.fetch_add(1, Ordering::Relaxed);
        Some(Seat { runtime: fewest.runtime.clone(), connections: Arc::clone(&fewest.connections) })
    }
}

impl IoThread {
    fn start(index: usize, end: CancellationToken) -> io::Result<IoThread> {
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new().name(format!("io_{index}")).spawn(move || {
            runtime.block_on(end.cancelled());
            runtime.shutdown_background();
        })?;
        Ok(IoThread { runtime: handle, connections: Arc::default() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_connection_goes_where_the_fewest_are() {
        let threads = IoThreads::start(3).unwrap();
        let counts = || {
            let counts = threads.threads.iter().map(|thread| thread.connections.load(Ordering::Relaxed));
            counts.collect::<Vec<_>>()
        };
        let mut seats: Vec<Seat> = (0..7).filter_map(|_| threads.seat()).collect();
        assert_eq!(counts(), [3, 2, 2]);
        drop(seats.remove(1));
        drop(seats.remove(3)); // the fifth: on the second thread as well
        assert_eq!(counts(), [3, 0, 2]);
        seats.extend([threads.seat().unwrap(), threads.seat().unwrap()]);
        assert_eq!(counts(), [3, 2, 2]);
    }

    #[test]
    fn what_runs_on_a_thread_stays_there_and_ends_with_it() {
        let threads = IoThreads::start(2).unwrap();
        let (name, names) = mpsc::channel();
        let seats = [threads.seat().unwrap(), threads.seat().unwrap()];
        for seat in &seats {
            let name = name.clone();
            drop(seat.runtime.spawn(async move {
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
        drop((name, threads));
        assert!(names.recv().is_err(), "the tasks are gone, and their senders with them");
    }
}
