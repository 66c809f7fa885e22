//! How many files and sockets the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Files that are open beside connections: listeners, logs, libraries, models while they load.
const BESIDE: u64 = 256;

/// Descriptors that a thread that serves connections has for itself.
const A_THREAD: u64 = 8;

/// Raises the limit on open files to the most that the system allows, and warns when `connections` at once,
/// served by `threads`, would still be too many: then they wait to be accepted.
pub(crate) fn make_room(connections: u64, threads: u64) {
    let beside = BESIDE + threads.saturating_mul(A_THREAD);
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        Err(_) => before.current, // what was allowed is still allowed
    };
    if let Some(limit) = limit.filter(|limit| *limit < connections.saturating_add(beside)) {
        warn!(
            limit,
            connections,
            "fewer files may be open than connections are allowed; raise the limit (ulimit -n) or lower \
             --max-connections"
        );
    }
}
