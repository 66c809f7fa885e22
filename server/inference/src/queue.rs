//! Requests that wait for an instance: bounded, first in first out.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// A bounded queue between the tasks that serve connections and the threads that run instances.
#[derive(Debug)]
pub struct Queue<T> {
    /// Held only to push or pop one item. Waiters are notified after it is released.
    state: Mutex<State<T>>,
    pushed: Condvar,
    /// More would only wait longer than any client does; a full queue answers at once.
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    /// At least as many as nobody needs any more, since they were last dropped.
    dead: usize,
    closed: bool,
}

/// Why an item was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many as may wait are waiting.
    Full,
    /// Nothing is taken in any more.
    Closed,
}

impl<T> Queue<T> {
    /// A queue in which at most `capacity` items wait.
    pub fn new(capacity: usize) -> Queue<T> {
        let state = State { waiting: VecDeque::new(), dead: 0, closed: false };
        Queue { state: Mutex::new(state), pushed: Condvar::new(), capacity }
    }

    /// How many items may wait.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many items wait now.
    pub fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `item`, without waiting.
    ///
    /// # Errors
    /// When the queue is full or closed; `item` is dropped.
    pub fn push(&self, item: T) -> Result<(), Refused> {
        self.push_or_purge(item, |_| false)
    }

    /// Appends `item`, without waiting. A full queue first drops those of which `is_dead` says that nobody
    /// needs them any more.
    ///
    /// # Errors
    /// When the queue is still full, or closed; `item` is dropped.
    pub fn push_or_purge(&self, item: T, is_dead: impl Fn(&T) -> bool) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.waiting.len() >= self.capacity {
            state.waiting.retain(|waiting| !is_dead(waiting));
        }
        if state.waiting.len() >= self.capacity {
            return Err(Refused::Full);
        }
        state.waiting.push_back(item);
        drop(state);
        self.pushed.notify_one();
        Ok(())
    }

    /// Says that an item that waits may be needed no more. Those of which `is_dead` says so are dropped before
    /// they are an eighth of the queue, so that each costs little and none is kept for long.
    pub fn abandoned(&self, is_dead: impl Fn(&T) -> bool) {
        let mut state = self.state.lock();
        state.dead += 1;
        if state.dead * 8 > state.waiting.len() {
            state.waiting.retain(|waiting| !is_dead(waiting));
            state.dead = 0;
        }
    }

    /// Takes the oldest item, waiting for one; `None` once the queue is closed and empty.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(item) = state.waiting.pop_front() {
                return Some(item);
            }
            if state.closed {
                return None;
            }
            self.pushed.wait(&mut state);
        }
    }

    /// Takes nothing in from now on. What waits is still handed out.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.pushed.notify_all();
    }

    /// Closes the queue and takes out what waits.
    pub fn close_and_take(&self) -> VecDeque<T> {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.pushed.notify_all();
        waiting
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn the_oldest_leaves_first_and_a_full_queue_says_so() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Ok(()));
        assert_eq!(queue.push(3), Err(Refused::Full));
        assert_eq!((queue.pop(), queue.pop(), queue.len()), (Some(1), Some(2), 0));
        assert_eq!(queue.push(4), Ok(()), "room is made by popping");
    }

    #[test]
    fn a_full_queue_makes_room_of_what_nobody_needs() {
        let queue = Queue::new(3);
        (1..=3).for_each(|item| queue.push(item).unwrap());
        assert_eq!(queue.push_or_purge(4, |item| item % 2 == 1), Ok(()));
        assert_eq!((queue.pop(), queue.pop(), queue.len()), (Some(2), Some(4), 0));
        (1..=3).for_each(|item| queue.push(item).unwrap());
        assert_eq!(queue.push_or_purge(4, |_| false), Err(Refused::Full));
    }

    #[test]
    fn what_was_abandoned_leaves_before_it_is_an_eighth_of_the_queue() {
        let queue = Queue::new(100);
        (0..80).for_each(|item| queue.push(item).unwrap());
        (0..10).for_each(|_| queue.abandoned(|item| *item < 10));
        assert_eq!(queue.len(), 80);
        queue.abandoned(|item| *item < 11);
        assert_eq!((queue.len(), queue.pop()), (69, Some(11)));
    }

    #[test]
    fn a_closed_queue_hands_out_what_waits_and_then_ends() {
        let queue = Queue::new(8);
        queue.push("before").unwrap();
        queue.close();
        assert_eq!(queue.push("after"), Err(Refused::Closed));
        assert_eq!((queue.pop(), queue.pop()), (Some("before"), None));
    }

    #[test]
    fn closing_wakes_every_waiting_thread() {
        let queue = Arc::new(Queue::<u32>::new(1));
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || queue.pop())
            })
            .collect();
        queue.close();
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), None);
        }
    }

    #[test]
    fn nothing_is_lost_or_handed_out_twice_between_threads() {
        const EACH: u64 = 20_000;
        let queue = Arc::new(Queue::new(64));
        let poppers: Vec<_> = (0..3)
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || std::iter::from_fn(|| queue.pop()).sum::<u64>())
            })
            .collect();
        let pushers: Vec<_> = (0..3)
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    for item in 1..=EACH {
                        while queue.push(item) == Err(Refused::Full) {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        queue.close();
        let popped: u64 = poppers.into_iter().map(|popper| popper.join().unwrap()).sum();
        assert_eq!(popped, 3 * EACH * (EACH + 1) / 2);
    }
}
