//! What `dynamic_batching` and `ModelQueuePolicy` ask for, resolved.

use std::time::{Duration, Instant};

/// How requests become batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Items in a batch at most, at least 1.
    pub max_batch_size: u64,
    /// Whether requests are put together at all; else each runs alone, whatever its size.
    pub merges: bool,
    /// Whether requests of one [`ShapeKey`](super::ShapeKey) may differ in size, and are padded to run together.
    pub pads: bool,
    /// Sizes worth waiting for, ascending.
    pub preferred: Vec<u64>,
    /// How long a request may wait for company, at most.
    pub max_delay: Duration,
    /// Whether it waits for as long only while company is likely; else always, as Triton does.
    pub adaptive_delay: bool,
    /// By priority, the highest first; at least one.
    pub levels: Vec<QueuePolicy>,
}

/// What holds for the requests of one priority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Requests that may wait; `None` is as many as the server's own limit.
    pub max_queue_size: Option<usize>,
    /// How long a request may wait; `None` is for ever.
    pub default_timeout: Option<Duration>,
    /// Whether a request may ask for less.
    pub allow_timeout_override: bool,
    /// What happens then.
    pub timeout_action: TimeoutAction,
}

/// What happens to a request that has waited for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAction {
    /// It is refused.
    #[default]
    Reject,
    /// It is served after all those that have not.
    Delay,
}

impl QueuePolicy {
    /// When a request that came at `queued` and asks for `timeout` has waited for too long. A request may
    /// only shorten a timeout that there is.
    pub fn deadline(&self, queued: Instant, timeout: Option<Duration>) -> Option<Instant> {
        let default = self.default_timeout?;
        let allowed = match timeout {
            Some(timeout) if self.allow_timeout_override => default.min(timeout),
            _ => default,
        };
        queued.checked_add(allowed)
    }
}
