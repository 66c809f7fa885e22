//! Where requests wait for an instance and instances for requests: the batcher behind one lock.
//!
//! An idle instance forms its own batch, so no thread stands between a request and the one that runs it. At most
//! one idle instance waits for company to join a batch; the others sleep until there is work for them.

use std::thread::{self, ThreadId};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::batcher::{Batcher, Limits, Load, Next, RunCost, Ticket, Waiting};

/// The requests that wait for the instances of one model version.
#[derive(Debug)]
pub struct Scheduler<R> {
    /// Held to move requests in or out, never while one runs or is dropped.
    state: Mutex<State<R>>,
    /// There is work for an instance that has none.
    work: Condvar,
    /// The instance that waits for company need not wait any longer.
    company: Condvar,
    /// More would only wait longer than any client does; a full queue answers at once.
    capacity: usize,
}

#[derive(Debug)]
struct State<R> {
    batcher: Batcher<R>,
    /// Instances that sleep until there is work, but for those that were woken.
    idle: usize,
    watch: Option<Watch>,
    /// A task of this thread is about to call [`Scheduler::tell`]. Those of other threads do not rely on it: a thread
    /// may be held up.
    untold: Option<ThreadId>,
    /// Nothing is handed out before this many wait; then it is 0.
    held_until: usize,
    closed: bool,
}

/// What the instance that waits for company waits for.
#[derive(Debug)]
struct Watch {
    /// Requests that wait.
    requests: usize,
    /// Items that must come.
    missing_rows: u64,
    /// One has come that cannot join.
    over: bool,
}

impl Watch {
    /// Whether it need not wait any longer once so many requests wait.
    fn is_over(&self, waiting: usize) -> bool {
        self.over || self.missing_rows == 0 || waiting >= self.requests
    }
}

impl<R> State<R> {
    /// Whether what waits is a reason to wake an instance.
    fn wants_to_know(&self) -> bool {
        let waiting = self.batcher.len();
        match &self.watch {
            _ if waiting == 0 || waiting < self.held_until => false,
            Some(watch) => watch.is_over(waiting),
            None => self.idle > 0,
        }
    }

    /// False while enough have not come yet, or an instance waits for company to join them.
    fn may_hand_out(&self) -> bool {
        let waiting = self.batcher.len();
        let held = waiting < self.held_until;
        self.closed || !held && self.watch.as_ref().is_none_or(|watch| watch.is_over(waiting))
    }
}

/// Why a request was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many as may wait are waiting.
    Full {
        /// How many that is.
        capacity: usize,
    },
    /// Nothing is taken in any more.
    Closed,
}

/// What an instance was given; kept by it, so that the memory is used again.
#[derive(Debug)]
pub struct Batch<R> {
    /// To be run together.
    pub requests: Vec<R>,
    /// Not to be run: they have waited for too long.
    pub expired: Vec<R>,
}

impl<R> Default for Batch<R> {
    fn default() -> Batch<R> {
        Batch { requests: Vec::new(), expired: Vec::new() }
    }
}

impl<R> Scheduler<R> {
    /// At most `capacity` requests wait, whatever their priority, and none is handed out before `held_until`
    /// have come.
    pub fn new(batcher: Batcher<R>, capacity: usize, held_until: usize) -> Scheduler<R> {
        let state = State {
            batcher,
            idle: 0,
            watch: None,
            untold: None,
            held_until: held_until.min(capacity),
            closed: false,
        };
        Scheduler { state: Mutex::new(state), work: Condvar::new(), company: Condvar::new(), capacity }
    }

    /// How many requests wait now.
    pub fn len(&self) -> usize {
        self.state.lock().batcher.len()
    }

    /// What runs before a request that comes now at `level`.
    pub fn ahead(&self, level: usize) -> Load {
        self.state.lock().batcher.ahead(level)
    }

    /// What waits.
    pub fn load(&self) -> Load {
        self.state.lock().batcher.load()
    }

    /// Says that `requests` handed out before are about to be answered.
    pub fn answered(&self, requests: usize) {
        self.state.lock().batcher.answered(requests, Instant::now());
    }

    /// Bounds batches from now on.
    pub fn limit(&self, limits: Limits) {
        self.state.lock().batcher.limit(limits);
    }

    /// Takes into account what runs cost, from now on.
    pub fn learned(&self, cost: RunCost) {
        self.state.lock().batcher.learned(cost);
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes `waiting` in, without waiting. True when an instance should know, and nobody is about to tell one: then
    /// the caller is to see that [`Scheduler::tell`] is called soon, whatever becomes of the request.
    ///
    /// # Errors
    /// When as many wait as may, or the scheduler is closed; it is dropped.
    pub fn push(&self, waiting: Waiting<R>) -> Result<(Ticket, bool), Refused> {
        let (now, rows) = (waiting.queued, waiting.rows);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.batcher.len() >= self.capacity {
            return Err(Refused::Full { capacity: self.capacity });
        }
        let joins = state.batcher.joins_the_next(&waiting);
        let pushed = state.batcher.push(waiting, now);
        let ticket = pushed.map_err(|full| Refused::Full { capacity: full.capacity })?;
        if let Some(watch) = &mut state.watch {
            watch.missing_rows = watch.missing_rows.saturating_sub(rows);
            watch.over |= !joins;
        }
        let here = thread::current().id();
        let tell = state.untold != Some(here) && state.wants_to_know();
        if tell {
            state.untold = Some(here);
        }
        Ok((ticket, tell))
    }

    /// Who was about to tell an instance sees to it in another way; from now on others do it for themselves.
    pub fn told(&self) {
        self.state.lock().untold = None;
    }

    /// Wakes an instance if what waits is a reason. For who was to call it, or has other reasons to.
    pub fn tell(&self) {
        let mut state = self.state.lock();
        state.untold = None;
        self.wake(state);
    }

    /// As [`Scheduler::tell`], unless another task of this thread is about to call that. For who has said that it is
    /// [`told`](Scheduler::told).
    pub fn tell_if_nobody_will(&self) {
        let state = self.state.lock();
        if state.untold != Some(thread::current().id()) {
            self.wake(state);
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State<R>>) {
        if !state.wants_to_know() {
            return;
        }
        if state.watch.is_some() {
            drop(state);
            self.company.notify_one();
        } else {
            state.idle -= 1;
            drop(state);
            self.work.notify_one();
        }
    }

    /// Takes a request out; `None` when it waits no more.
    pub fn remove(&self, ticket: Ticket) -> Option<R> {
        self.state.lock().batcher.remove(ticket, Instant::now())
    }

    /// Waits until there is something to be taken by [`Scheduler::take`]; false once the scheduler is closed and
    /// empty.
    pub fn wait(&self) -> bool {
        let mut guard = self.state.lock();
        loop {
            let state = &mut *guard;
            if state.batcher.len() >= state.held_until {
                state.held_until = 0;
            }
            if state.watch.is_none() && state.held_until == 0 || state.closed {
                match state.batcher.peek(Instant::now(), state.closed) {
                    Next::Execute => return true,
                    Next::Wait { until, requests, missing_rows } => {
                        state.watch = Some(Watch { requests, missing_rows, over: false });
                        self.company.wait_until(&mut guard, until);
                        guard.watch = None;
                        continue;
                    }
                    Next::WaitForRequest if state.closed => return false,
                    Next::WaitForRequest => {}
                }
            }
            state.idle += 1;
            self.work.wait(&mut guard);
        }
    }

    /// Whether there is something to be taken now, as far as anyone can say before it is.
    pub fn is_due(&self) -> bool {
        let state = self.state.lock();
        state.may_hand_out() && state.batcher.peek(Instant::now(), state.closed) == Next::Execute
    }

    /// Fills `batch` with what is to be run now, without waiting; false when there is nothing.
    pub fn take(&self, batch: &mut Batch<R>) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if !state.may_hand_out() {
            return false;
        }
        let now = Instant::now();
        state.batcher.expire(now, &mut batch.expired);
        let taken = state.batcher.next(now, state.closed, &mut batch.requests) == Next::Execute;
        let others = state.watch.is_none() && state.idle > 0 && !state.batcher.is_empty();
        if others {
            state.idle -= 1;
            drop(guard);
            self.work.notify_one();
        }
        taken || !batch.expired.is_empty()
    }

    /// Takes nothing in from now on. What waits is still handed out, at once.
    pub fn close(&self) {
        self.close_and(|_| ());
    }

    /// Takes nothing in from now on, and takes out what waits.
    pub fn close_and_take(&self) -> Vec<R> {
        self.close_and(|batcher| batcher.take_all(Instant::now()))
    }

    fn close_and<T>(&self, end: impl FnOnce(&mut Batcher<R>) -> T) -> T {
        let mut state = self.state.lock();
        state.closed = true;
        state.idle = 0;
        let ended = end(&mut state.batcher);
        drop(state);
        self.work.notify_all();
        self.company.notify_all();
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::batcher::{BatchPolicy, QueuePolicy, ShapeKey};

    fn scheduler(policy: BatchPolicy, capacity: usize, held_until: usize) -> Scheduler<u64> {
        Scheduler::new(Batcher::new(policy), capacity, held_until)
    }

    fn policy(max_batch_size: u64) -> BatchPolicy {
        BatchPolicy {
            max_batch_size,
            merges: max_batch_size > 1,
            pads: false,
            preferred: Vec::new(),
            max_delay: Duration::ZERO,
            adaptive_delay: true,
            levels: vec![QueuePolicy::default()],
        }
    }

    fn request(request: u64) -> Waiting<u64> {
        let queued = Instant::now();
        Waiting { rows: 1, size: 1, shape: ShapeKey::new(), level: 0, queued, deadline: None, request }
    }

    fn push(scheduler: &Scheduler<u64>, number: u64) -> Result<Ticket, Refused> {
        let (ticket, tell) = scheduler.push(request(number))?;
        if tell {
            scheduler.tell();
        }
        Ok(ticket)
    }

    fn next(scheduler: &Scheduler<u64>) -> Option<Vec<u64>> {
        let mut batch = Batch::default();
        while scheduler.wait() {
            if scheduler.take(&mut batch) {
                scheduler.answered(batch.requests.len());
                return Some(batch.requests);
            }
        }
        None
    }

    #[test]
    fn what_waits_runs_together_and_a_full_queue_says_so() {
        let scheduler = scheduler(policy(2), 3, 0);
        (0..3).for_each(|number| assert!(push(&scheduler, number).is_ok()));
        assert_eq!(push(&scheduler, 3), Err(Refused::Full { capacity: 3 }));
        assert_eq!(next(&scheduler), Some(vec![0, 1]));
        push(&scheduler, 4).unwrap();
        assert_eq!((next(&scheduler), scheduler.len()), (Some(vec![2, 4]), 0));
    }

    #[test]
    fn who_leaves_makes_room_at_once() {
        let scheduler = scheduler(policy(2), 1, 0);
        let ticket = push(&scheduler, 0).unwrap();
        assert_eq!(scheduler.remove(ticket), Some(0));
        assert_eq!((scheduler.remove(ticket), push(&scheduler, 1).is_ok()), (None, true));
    }

    #[test]
    fn a_closed_scheduler_hands_out_what_waits_and_then_ends() {
        let patient =
            BatchPolicy { max_delay: Duration::from_secs(3600), adaptive_delay: false, ..policy(8) };
        let scheduler = scheduler(patient, 8, 3);
        push(&scheduler, 0).unwrap();
        scheduler.close();
        assert_eq!(push(&scheduler, 1), Err(Refused::Closed));
        assert_eq!((next(&scheduler), next(&scheduler)), (Some(vec![0]), None));
        assert_eq!(scheduler.close_and_take(), [0_u64; 0]);
    }

    #[test]
    fn a_held_scheduler_starts_once_enough_wait() {
        let scheduler = Arc::new(scheduler(policy(8), 8, 3));
        let instance = {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || next(&scheduler))
        };
        (0..3).for_each(|number| assert!(push(&scheduler, number).is_ok()));
        assert_eq!(instance.join().unwrap(), Some(vec![0, 1, 2]));
        push(&scheduler, 3).unwrap();
        assert_eq!(next(&scheduler), Some(vec![3]));
    }

    /// The wait for company ends with the one that fills the batch, long before the delay does.
    #[test]
    fn the_last_of_a_batch_wakes_the_instance_that_waits_for_it() {
        let patient =
            BatchPolicy { max_delay: Duration::from_secs(3600), adaptive_delay: false, ..policy(3) };
        let scheduler = Arc::new(scheduler(patient, 8, 0));
        let instances = [0, 1].map(|_| {
            let scheduler = Arc::clone(&scheduler);
            thread::spawn(move || next(&scheduler))
        });
        (0..6).for_each(|number| assert!(push(&scheduler, number).is_ok()));
        let mut batches = instances.map(|instance| instance.join().unwrap().unwrap());
        batches.sort();
        assert_eq!(batches, [vec![0, 1, 2], vec![3, 4, 5]]);
    }

    #[test]
    fn closing_wakes_every_instance() {
        let scheduler = Arc::new(scheduler(policy(1), 1, 0));
        let instances: Vec<_> = (0..4)
            .map(|_| {
                let scheduler = Arc::clone(&scheduler);
                thread::spawn(move || next(&scheduler))
            })
            .collect();
        scheduler.close();
        for instance in instances {
            assert_eq!(instance.join().unwrap(), None);
        }
    }

    /// Pushed by some threads, left by some, run by others: each comes out once.
    #[test]
    fn nothing_is_lost_or_handed_out_twice_between_threads() {
        const EACH: u64 = 20_000;
        let company = BatchPolicy { max_delay: Duration::from_micros(50), ..policy(7) };
        let scheduler = Arc::new(scheduler(company, 64, 0));
        let instances: Vec<_> = (0..3)
            .map(|_| {
                let scheduler = Arc::clone(&scheduler);
                thread::spawn(move || {
                    let mut all = Vec::new();
                    while let Some(mut batch) = next(&scheduler) {
                        assert!(batch.len() <= 7);
                        all.append(&mut batch);
                    }
                    all
                })
            })
            .collect();
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let scheduler = Arc::clone(&scheduler);
                thread::spawn(move || {
                    let mut left = Vec::new();
                    for number in client * EACH..(client + 1) * EACH {
                        let ticket = loop {
                            match push(&scheduler, number) {
                                Ok(ticket) => break ticket,
                                Err(_) => thread::yield_now(),
                            }
                        };
                        if number % 5 == 0 {
                            left.extend(scheduler.remove(ticket));
                        }
                    }
                    left
                })
            })
            .collect();
        let mut out: Vec<u64> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        scheduler.close();
        out.extend(instances.into_iter().flat_map(|instance| instance.join().unwrap()));
        assert_eq!(out.len() as u64, 3 * EACH);
        assert_eq!(out.into_iter().collect::<HashSet<_>>().len() as u64, 3 * EACH);
    }
}
