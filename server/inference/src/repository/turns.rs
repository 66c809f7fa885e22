//! Who may do something to a model: one at a time for each, and so many loads at a time in all.

use std::collections::HashMap;
use std::sync::Arc;

use model::ModelName;
use parking_lot::{ArcMutexGuard, Condvar, Mutex, RawMutex};

/// One turn at a time for each model.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<ModelName, Arc<Mutex<()>>>>);

/// A turn, until it is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    name: ModelName,
    held: Option<ArcMutexGuard<RawMutex, ()>>,
}

impl Turns {
    /// Waits until nobody else is at `name`.
    pub(super) fn take(&self, name: &ModelName) -> Turn<'_> {
        let lock = Arc::clone(self.0.lock().entry(name.clone()).or_default());
        Turn { turns: self, name: name.clone(), held: Some(lock.lock_arc()) }
    }
}

impl Turns {
    /// A turn at `name`, unless somebody else is at it.
    pub(super) fn try_take(&self, name: &ModelName) -> Option<Turn<'_>> {
        let mut turns = self.0.lock();
        let held = turns.entry(name.clone()).or_default().try_lock_arc()?;
        Some(Turn { turns: self, name: name.clone(), held: Some(held) })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock(); // so that nobody comes in between
        drop(self.held.take());
        if turns.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            turns.remove(&self.name);
        }
    }
}

/// Places for loads.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A place, until it is dropped.
pub(super) struct Slot<'a>(&'a Slots);

impl Slots {
    /// So many places, one at least.
    pub(super) fn new(count: usize) -> Slots {
        Slots { free: Mutex::new(count.max(1)), freed: Condvar::new() }
    }

    /// Waits for a place.
    pub(super) fn take(&self) -> Slot<'_> {
        let mut free = self.free.lock();
        self.freed.wait_while(&mut free, |free| *free == 0);
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn one_is_at_a_model_at_a_time_and_none_is_remembered() {
        let turns = Turns::default();
        let names = ["a", "b"].map(|name| ModelName::parse(name).unwrap());
        let at = [AtomicUsize::new(0), AtomicUsize::new(0)];
        thread::scope(|scope| {
            for worker in 0..8 {
                let (turns, names, at) = (&turns, &names, &at);
                scope.spawn(move || {
                    for round in 0..500 {
                        let model = (worker + round) % 2;
                        let _turn = turns.take(&names[model]);
                        assert_eq!(at[model].fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        at[model].fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(turns.0.lock().is_empty());
    }

    #[test]
    fn so_many_have_a_place_and_the_next_waits() {
        let (slots, within, most) = (Slots::new(3), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let _slot = slots.take();
                        most.fetch_max(within.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        within.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((2..=3).contains(&most.into_inner()));
    }
}
