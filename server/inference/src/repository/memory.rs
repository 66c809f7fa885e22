//! What the models take of the memory that they may have together.
//!
//! A load takes its part before it begins, by an estimate from the size of its files, and the part is corrected by what
//! the backend says the version took. A load that finds no room waits for those that leave or may fail, and gives up
//! once nobody is left who could make any.

use std::collections::HashMap;
use std::sync::Arc;

use model::ModelName;
use parking_lot::{Condvar, Mutex};

use crate::backend::LoadError;

/// Bytes in memory for each byte of a version's files, where nothing has been learned yet: the weights, and what is
/// made of them.
const USUAL_GROWTH: f64 = 1.2;

/// What is learned stays between these: a small file of a large graph, or weights that are shared, tell little of the
/// next.
const LEARNED_GROWTH: std::ops::RangeInclusive<f64> = 0.5..=16.0;

/// Models of which the growth is remembered.
const MOST_REMEMBERED: usize = 10_000;

/// The memory of all models.
#[derive(Debug)]
pub(super) struct Memory {
    /// Bytes that they may take together, if that is bounded.
    limit: Option<u64>,
    state: Mutex<State>,
    /// Something was given back, or a load is over.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: u64,
    /// Loads that have their part: they may fail, and give it back.
    loading: usize,
    /// Versions that leave.
    leaving: usize,
    /// Bytes in memory for each byte of its files, of models that have been loaded.
    growth: HashMap<ModelName, f64>,
}

/// There is not enough memory for a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom {
    needed: u64,
    taken: u64,
    limit: u64,
}

impl NoRoom {
    /// Whether there would be room if `bytes` were given back.
    pub(super) fn is_helped_by(&self, bytes: u64) -> bool {
        self.taken.saturating_sub(bytes).saturating_add(self.needed) <= self.limit
    }

    pub(super) fn error(self) -> LoadError {
        LoadError::NoRoom { needed: self.needed, taken: self.taken, limit: self.limit }
    }
}

/// A version's part; given back by its end.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Arc<Memory>,
    bytes: Mutex<u64>,
}

/// Parts for the versions of one load, while it is under way.
#[derive(Debug)]
pub(super) struct Room {
    shares: Vec<Arc<Share>>,
    _under_way: Counted,
}

impl Room {
    /// The part of the version at `index` in the load.
    pub(super) fn share(&self, index: usize) -> Arc<Share> {
        Arc::clone(&self.shares[index])
    }
}

/// Something that gives memory back in the end, for one who waits for that.
#[derive(Debug)]
pub(super) struct Counted {
    memory: Arc<Memory>,
    of: fn(&mut State) -> &mut usize,
}

impl Counted {
    fn new(memory: &Arc<Memory>, of: fn(&mut State) -> &mut usize) -> Counted {
        *of(&mut memory.state.lock()) += 1;
        Counted { memory: Arc::clone(memory), of }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *(self.of)(&mut self.memory.state.lock()) -= 1;
        self.memory.changed.notify_all();
    }
}

impl Memory {
    /// Memory of which nothing is taken yet.
    pub(super) fn new(limit: Option<u64>) -> Arc<Memory> {
        Arc::new(Memory { limit, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Bytes that the models may take together, if that is bounded.
    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Bytes that they take, and that loads under way are expected to.
    pub(super) fn taken(&self) -> u64 {
        self.state.lock().taken
    }

    /// Bytes that a version of `model` with files of `size` bytes is expected to take.
    pub(super) fn estimate(&self, model: &ModelName, size: u64) -> u64 {
        let growth = self.state.lock().growth.get(model).copied().unwrap_or(USUAL_GROWTH);
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bytes = (size as f64 * growth) as u64;
        bytes
    }

    /// Learns that a version of `model` with files of `size` bytes took `bytes`.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn learn(&self, model: &ModelName, size: u64, bytes: u64) {
        if size == 0 {
            return;
        }
        let growth = (bytes as f64 / size as f64).clamp(*LEARNED_GROWTH.start(), *LEARNED_GROWTH.end());
        let mut state = self.state.lock();
        if state.growth.len() < MOST_REMEMBERED || state.growth.contains_key(model) {
            state.growth.insert(model.clone(), growth);
        }
    }

    /// Takes parts of so many bytes each for a load. Waits for those that leave or are being loaded where there is not
    /// enough; blocks: not for async code.
    ///
    /// # Errors
    /// When nobody is left who could give back enough.
    pub(super) fn take(self: &Arc<Memory>, parts: &[u64]) -> Result<Room, NoRoom> {
        let needed = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(*part));
        let mut state = self.state.lock();
        if let Some(limit) = self.limit {
            while needed > 0 && state.taken.saturating_add(needed) > limit {
                if needed > limit || state.loading + state.leaving == 0 {
                    return Err(NoRoom { needed, taken: state.taken, limit });
                }
                self.changed.wait(&mut state);
            }
        }
        state.taken = state.taken.saturating_add(needed);
        drop(state);
        Ok(self.room(parts))
    }

    /// Takes parts of so many bytes each for what was loaded before, whatever the limit.
    pub(super) fn take_again(self: &Arc<Memory>, parts: &[u64]) -> Room {
        let mut state = self.state.lock();
        state.taken = parts.iter().fold(state.taken, |sum, part| sum.saturating_add(*part));
        drop(state);
        self.room(parts)
    }

    fn room(self: &Arc<Memory>, parts: &[u64]) -> Room {
        let share = |bytes: &u64| Arc::new(Share { memory: Arc::clone(self), bytes: Mutex::new(*bytes) });
        Room {
            shares: parts.iter().map(share).collect(),
            _under_way: Counted::new(self, |state| &mut state.loading),
        }
    }

    /// A version leaves, until the value is dropped.
    pub(super) fn leaving(self: &Arc<Memory>) -> Counted {
        Counted::new(self, |state| &mut state.leaving)
    }
}

impl Share {
    /// A part of what has no bound.
    #[cfg(test)]
    pub(crate) fn of_plenty() -> Arc<Share> {
        Memory::new(None).take_again(&[0]).share(0)
    }

    /// Bytes that the version takes, as far as is known.
    pub(crate) fn bytes(&self) -> u64 {
        *self.bytes.lock()
    }

    /// Corrects the estimate by what the version took.
    pub(super) fn correct(&self, bytes: u64) {
        let mut own = self.bytes.lock();
        let mut state = self.memory.state.lock();
        state.taken = state.taken.saturating_sub(*own).saturating_add(bytes);
        *own = bytes;
        drop(state);
        self.memory.changed.notify_all();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.memory.state.lock();
        state.taken = state.taken.saturating_sub(*self.bytes.get_mut());
        drop(state);
        self.memory.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    #[test]
    fn parts_are_taken_up_to_the_limit_corrected_and_given_back() {
        let memory = Memory::new(Some(100));
        let room = memory.take(&[30, 40]).unwrap();
        assert_eq!(memory.taken(), 70);
        let [first, second] = [room.share(0), room.share(1)];
        drop(room);
        assert_eq!(memory.take(&[31]).unwrap_err(), NoRoom { needed: 31, taken: 70, limit: 100 });
        first.correct(10);
        assert_eq!((memory.taken(), first.bytes()), (50, 10));
        drop(memory.take(&[50]).unwrap());
        drop((first, second));
        assert_eq!(memory.taken(), 0);
        // What is measured counts, be it beyond the limit.
        let room = memory.take(&[100]).unwrap();
        room.share(0).correct(150);
        assert_eq!(memory.taken(), 150);
    }

    #[test]
    fn without_a_limit_all_have_room_and_are_counted() {
        let memory = Memory::new(None);
        let room = memory.take(&[u64::MAX, u64::MAX]).unwrap();
        assert_eq!(memory.taken(), u64::MAX);
        drop(room);
        assert_eq!(memory.taken(), 0);
    }

    #[test]
    fn a_load_waits_for_those_that_leave_and_for_those_that_may_fail() {
        let memory = Memory::new(Some(100));
        let room = memory.take(&[80]).unwrap();
        let share = room.share(0);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            let waiting = || {
                let sender = sender.clone();
                let memory = Arc::clone(&memory);
                scope.spawn(move || sender.send(memory.take(&[50]).map(drop)).unwrap());
            };
            waiting();
            assert!(receiver.try_recv().is_err());
            let leaving = memory.leaving();
            drop(room); // it did not fail, but another leaves
            assert!(receiver.try_recv().is_err());
            drop(share);
            assert_eq!(receiver.recv().unwrap(), Ok(()));
            drop(leaving);
            // Two that wait do not wait for each other.
            let room = memory.take(&[80]).unwrap();
            let share = room.share(0);
            waiting();
            waiting();
            drop(room);
            assert!(receiver.recv().unwrap().is_err() && receiver.recv().unwrap().is_err());
            drop(share);
        });
    }

    #[test]
    fn what_can_never_fit_does_not_wait() {
        let memory = Memory::new(Some(100));
        let _room = memory.take(&[80]).unwrap();
        let no_room = memory.take(&[60, 60]).unwrap_err();
        assert!(!no_room.is_helped_by(80) && NoRoom { needed: 60, ..no_room }.is_helped_by(40));
    }

    #[test]
    fn the_next_version_is_expected_to_grow_as_the_last_did() {
        let memory = Memory::new(None);
        assert_eq!(memory.estimate(&model("a"), 1000), 1200);
        memory.learn(&model("a"), 1000, 3000);
        memory.learn(&model("b"), 1000, 1_000_000);
        memory.learn(&model("c"), 1000, 1);
        memory.learn(&model("d"), 0, 1);
        let estimates = ["a", "b", "c", "d"].map(|name| memory.estimate(&model(name), 100));
        assert_eq!(estimates, [300, 1600, 50, 120]);
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_shares_hold(steps in prop::collection::vec((0_u8..4, 0_u64..60, 0_usize..8), 0..64)) {
            let memory = Memory::new(Some(200));
            let mut shares: Vec<Arc<Share>> = Vec::new();
            for (step, bytes, index) in steps {
                match step {
                    0 | 1 => {
                        let before = memory.taken();
                        match memory.take(&[bytes]) {
                            Ok(room) => shares.push(room.share(0)),
                            Err(_) => prop_assert!(before + bytes > 200),
                        }
                    }
                    2 if index < shares.len() => drop(shares.swap_remove(index)),
                    3 if index < shares.len() => shares[index].correct(bytes),
                    _ => {}
                }
                prop_assert_eq!(memory.taken(), shares.iter().map(|share| share.bytes()).sum::<u64>());
            }
        }
    }
}
