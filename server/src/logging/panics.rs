//! A panic is a line of the log like any other: what was said, on which thread, where, about which request.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

use inference::current_request::in_span;
use tracing::{Level, error};

/// From now on panics are logged. Where the log leaves out errors, they are still told on stderr.
pub(super) fn log_them() {
    let on_stderr = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if tracing::enabled!(Level::ERROR) {
            in_span(|| log(panic));
        } else {
            on_stderr(panic);
        }
    }));
}

/// From now on panics are told on stderr, as before a log was there.
pub(super) fn leave_them() {
    // A hook cannot be changed in the middle of a panic; there, the last line has been written.
    if !thread::panicking() {
        drop(panic::take_hook());
    }
}

fn log(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture(); // empty unless RUST_BACKTRACE asks for it
    error!(
        thread = thread::current().name(),
        location = panic.location().map(tracing::field::display),
        backtrace =
            (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(&backtrace)),
        "panicked: {}",
        panic.payload_as_str().unwrap_or("no reason given")
    );
}
