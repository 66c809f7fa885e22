//! An orderly stop: tell everyone, then wait for everyone.

use std::future::Future;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// The two halves of an orderly stop. Whoever starts a task starts it here, so that the stop waits for it.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    stop: CancellationToken,
    work: TaskTracker,
}

impl Drain {
    /// Runs `task` in the background.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.work.spawn(task);
    }

    /// Runs `task` in the background, on `runtime`.
    pub fn spawn_on(&self, runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        self.work.spawn_on(task, runtime);
    }

    /// Runs `task` in the background for as long as its handle is held.
    pub fn spawn_owned<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        AbortOnDropHandle::new(self.work.spawn(task))
    }

    /// Tells everyone to finish what they have and take nothing new.
    pub fn stop(&self) {
        self.stop.cancel();
        self.work.close();
    }

    /// Returns once [`Drain::stop`] was called.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// A drain that stops with this one, for a task of its own: many that wait on one token share its lock.
    #[must_use]
    pub fn child(&self) -> Drain {
        Drain { stop: self.stop.child_token(), work: self.work.clone() }
    }

    /// Returns once every task has ended; only after [`Drain::stop`].
    pub async fn finished(&self) {
        self.work.wait().await;
    }

    /// Tasks that have not ended.
    pub fn unfinished(&self) -> usize {
        self.work.len()
    }
}
