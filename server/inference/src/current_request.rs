//! The request that a thread is at, so that every line of the log about it can carry its id.
//!
//! A backend, its library and a panic speak deep inside an execution, where no id is passed. The thread notes the
//! id of each request it takes up, which costs next to nothing; a span is made only for a line.

use std::cell::RefCell;

use smol_str::SmolStr;

thread_local! {
    /// Empty when the thread is at none.
    static CURRENT: RefCell<SmolStr> = const { RefCell::new(SmolStr::new_static("")) };
}

/// Notes that this thread is at the request `id`, until the guard is dropped.
pub(crate) fn note(id: SmolStr) -> Noted {
    CURRENT.set(id);
    Noted
}

/// See [`note`].
pub(crate) struct Noted;

impl Drop for Noted {
    fn drop(&mut self) {
        CURRENT.set(SmolStr::default());
    }
}

/// Calls `log`, which writes a line, in the span of the request that this thread is at, if it is at one.
pub fn in_span<T>(log: impl FnOnce() -> T) -> T {
    // A thread that ends may speak, too.
    let id = CURRENT.try_with(|current| current.borrow().clone()).unwrap_or_default();
    if id.is_empty() {
        return log();
    }
    // As the front end's span, an error's, so that it is there whenever anything is logged at all.
    tracing::error_span!("request", request_id = id.as_str()).in_scope(log)
}
