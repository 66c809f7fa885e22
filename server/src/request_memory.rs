//! The memory that requests may take, all together: each alone is small, and there may be many.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::InferError;

/// Bytes of a request that are not counted: its connection reads as much at a time anyway, and most requests
/// are smaller.
const FREE: usize = 64 << 10;

/// What the bodies of all requests may take.
#[derive(Debug)]
pub struct RequestMemory {
    limit: usize,
    used: AtomicUsize,
}

impl RequestMemory {
    /// At most `limit` bytes (`--max-request-memory`).
    pub fn new(limit: usize) -> Arc<RequestMemory> {
        Arc::new(RequestMemory { limit, used: AtomicUsize::new(0) })
    }

    /// Bytes that requests take now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// What one request takes: nothing yet.
    pub fn hold(self: &Arc<Self>) -> Held {
        Held { memory: Arc::clone(self), bytes: AtomicUsize::new(0) }
    }
}

/// What one request takes; given back when dropped.
#[derive(Debug)]
pub struct Held {
    memory: Arc<RequestMemory>,
    /// Bytes of the request, those that are free included. Changed by one task at a time.
    bytes: AtomicUsize,
}

impl Held {
    /// Takes `bytes` more.
    ///
    /// # Errors
    /// When all requests together would take more than they may; then nothing more is taken.
    pub fn grow(&self, bytes: usize) -> Result<(), InferError> {
        let before = self.bytes.load(Ordering::Relaxed);
        let after = before.saturating_add(bytes);
        let more = counted(after) - counted(before);
        if more > 0 {
            let used = self.memory.used.fetch_add(more, Ordering::Relaxed);
            if used.saturating_add(more) > self.memory.limit {
                self.memory.used.fetch_sub(more, Ordering::Relaxed);
                return Err(InferError::RequestMemorySpent { limit: self.memory.limit });
            }
        }
        self.bytes.store(after, Ordering::Relaxed);
        Ok(())
    }

    /// Gives everything back.
    pub fn clear(&self) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        if counted(bytes) > 0 {
            self.memory.used.fetch_sub(counted(bytes), Ordering::Relaxed);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clear();
    }
}

fn counted(bytes: usize) -> usize {
    bytes.saturating_sub(FREE)
}

/// Half of the memory that this process may have, by its control group and the machine; half a GiB where
/// neither can be read.
pub fn default_limit() -> usize {
    // Version 2 of control groups, then version 1. "max" is no number, and no limit.
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group = groups.iter().find_map(|file| fs::read_to_string(file).ok()?.trim().parse::<usize>().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    group.into_iter().chain(machine).min().unwrap_or(1 << 30) / 2
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_and_given_back() {
        let memory = RequestMemory::new(1 << 20);
        let (one, other) = (memory.hold(), memory.hold());
        one.grow(FREE).unwrap();
        assert_eq!(memory.used(), 0, "small requests cost nothing");
        one.grow(1 << 19).unwrap();
        other.grow(FREE + (1 << 19)).unwrap();
        assert_eq!(memory.used(), 1 << 20);
        assert_eq!(other.grow(1), Err(InferError::RequestMemorySpent { limit: 1 << 20 }));
        assert_eq!(memory.used(), 1 << 20, "what is refused is not counted");
        one.clear();
        other.grow(1 << 19).unwrap();
        drop((one, other));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn the_machine_says_what_it_has() {
        assert_eq!(total("MemTotal:       24000 kB\nMemFree: 1 kB"), Some(24_000 << 10));
        assert_eq!(total("nothing"), None);
        assert!(default_limit() > 1 << 20);
    }
}
