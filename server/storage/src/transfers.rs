//! What the fetches of all repositories share: the threads that serve connections, and a bound on requests.

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::Path;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::StorageError;

/// Threads that serve connections: TLS of more than one would want more, and a disk is slower than that.
const THREADS: usize = 2;

/// Requests for parts of files that are made at one time, over all repositories and models.
pub struct Transfers {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    /// A permit for each request. Who finds none waits; there are as many waiting as fetches have parts ready, which
    /// is this number again for each file.
    permits: Semaphore,
    at_once: usize,
}

impl Transfers {
    /// Makes at most `at_once` requests at a time.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(at_once: NonZeroUsize) -> Result<Transfers, StorageError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("storage")
            .enable_all()
            .build()
            .map_err(|error| StorageError::disk("start threads for", Path::new("object storage"), &error))?;
        let at_once = at_once.get().min(Semaphore::MAX_PERMITS);
        Ok(Transfers { runtime: Some(runtime), permits: Semaphore::new(at_once), at_once })
    }

    pub(crate) fn at_once(&self) -> usize {
        self.at_once
    }

    pub(crate) async fn permit(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the semaphore is never closed")
    }

    /// Runs `work` on this thread, which must not be one of a runtime.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("the runtime is there until the drop").block_on(work)
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Nobody waits for an answer any more, and waiting here is not allowed in async code.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Transfers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transfers({} at once)", self.at_once)
    }
}
