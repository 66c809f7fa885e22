//! Why a measurement ends early: the user, or a server that is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;

/// Who waits for it sees it within this time.
const LOOK: Duration = Duration::from_millis(20);

/// A request to stop, seen by every thread. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Looked at often; the reason only when it is set.
    set: AtomicBool,
    reason: Mutex<Option<String>>,
}

impl Stop {
    /// Asks to stop; the first reason counts.
    pub(crate) fn set(&self, reason: impl Into<String>) {
        let mut slot = self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(reason.into());
        self.shared.set.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.shared.set.load(Ordering::Acquire)
    }

    /// Waits until it is set; inside a Tokio runtime.
    pub(crate) async fn wait(&self) {
        while !self.is_set() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What `step` gives, unless it is set before.
    ///
    /// # Errors
    /// Why it was set.
    pub(crate) async fn unless<T>(&self, step: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            done = step => Ok(done),
            () = self.wait() => Err(anyhow!(self.reason().unwrap_or_default())),
        }
    }

    /// Why, when it is set.
    pub(crate) fn reason(&self) -> Option<String> {
        self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_step_that_hangs_ends_when_it_is_set_and_one_that_is_done_does_not() {
        let stop = Stop::default();
        assert_eq!(stop.unless(async { 1 }).await.unwrap(), 1);
        let hanging = stop.unless(std::future::pending::<()>());
        let (ended, ()) = tokio::join!(hanging, async { stop.set("a signal") });
        assert_eq!(ended.unwrap_err().to_string(), "a signal");
        assert_eq!(stop.unless(async { 2 }).await.unwrap(), 2, "what is there is given");
    }
}
