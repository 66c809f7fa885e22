//! Why a measurement ends early: the user, or a server that is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

    /// Why, when it is set.
    pub(crate) fn reason(&self) -> Option<String> {
        self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
