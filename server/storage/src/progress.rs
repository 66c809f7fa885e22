//! How far a fetch has come.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a fetch. What the cache has already counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub done: u64,
    /// Those of them that were not here before.
    pub moved: u64,
    /// Bytes of all files that were asked for.
    pub total: u64,
}

/// Counts the bytes of a fetch and tells them after each [`STEP`].
pub(crate) struct Meter<'a> {
    done: AtomicU64,
    moved: AtomicU64,
    total: u64,
    tell: &'a (dyn Fn(Progress) + Sync),
}

/// Bytes between two calls, so that a fetch of many gigabytes makes thousands of them and not millions.
const STEP: u64 = 1 << 20;

impl<'a> Meter<'a> {
    pub(crate) fn start(total: u64, tell: &'a (dyn Fn(Progress) + Sync)) -> Meter<'a> {
        tell(Progress { done: 0, moved: 0, total });
        Meter { done: AtomicU64::new(0), moved: AtomicU64::new(0), total, tell }
    }

    /// Bytes were brought.
    pub(crate) fn add(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.add_what_is_here(bytes);
    }

    /// Bytes need not be brought.
    pub(crate) fn add_what_is_here(&self, bytes: u64) {
        // A count and nothing else: no other memory is ordered by it.
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let done = before + bytes;
        if bytes > 0 && (before / STEP != done / STEP || done == self.total) {
            let moved = self.moved.load(Ordering::Relaxed);
            (self.tell)(Progress { done, moved, total: self.total });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn the_first_the_last_and_each_step_are_told() {
        let told = Mutex::new(Vec::new());
        let tell = |progress: Progress| told.lock().unwrap().push((progress.done, progress.moved));
        let meter = Meter::start(3 * STEP, &tell);
        [1, STEP - 2, 1, 5].into_iter().for_each(|bytes| meter.add(bytes));
        meter.add_what_is_here(2 * STEP - 5);
        assert_eq!(*told.lock().unwrap(), [(0, 0), (STEP, STEP), (3 * STEP, STEP + 5)]);
    }
}
