//! Where requests wait for an instance and instances for requests: the batcher behind one lock.
//!
//! An idle instance forms its own batch, so no thread stands between a request and the one that runs it. At most
//! one idle instance waits for company to join a batch; the others sleep until there is work for them.

use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::batcher::{Batcher, Limits, Next, Ticket, Waiting};

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
    /// Somebody holds an [`Untold`].
    untold: bool,
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
}

/// Requests have come, and no instance knows: one is woken when this is dropped. Until then more may come, which
/// cost no wake of their own.
#[derive(Debug)]
#[must_use = "an instance is woken when it is dropped"]
pub struct Untold<'a, R>(&'a Scheduler<R>);

impl<R> Drop for Untold<'_, R> {
    fn drop(&mut self) {
        self.0.tell();
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
            untold: false,
            held_until: held_until.min(capacity),
            closed: false,
        };
        Scheduler { state: Mutex::new(state), work: Condvar::new(), company: Condvar::new(), capacity }
    }

    /// How many requests wait now.
    pub fn len(&self) -> usize {
        self.state.lock().batcher.len()
    }

    /// Items that run before a request that comes now at `level`.
    pub fn rows_ahead(&self, level: usize) -> u64 {
        self.state.lock().batcher.rows_ahead(level)
    }

    /// Bounds batches from now on.
    pub fn limit(&self, limits: Limits) {
        self.state.lock().batcher.limit(limits);
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes `waiting` in, without waiting. When an instance should know, and nobody is about to tell one, the
    /// caller is to do so by dropping what it is given.
    ///
    /// # Errors
    /// When as many wait as may, or the scheduler is closed; it is dropped.
    pub fn push(&self, waiting: Waiting<R>) -> Result<(Ticket, Option<Untold<'_, R>>), Refused> {
        let (now, rows) = (waiting.queued, waiting.rows);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.batcher.len() >= self.capacity {
            return Err(Refused::Full { capacity: self.capacity });
        }
        let joins = state.batcher.joins_the_last(&waiting);
        let pushed = state.batcher.push(waiting, now);
        let ticket = pushed.map_err(|full| Refused::Full { capacity: full.capacity })?;
        if let Some(watch) = &mut state.watch {
            watch.missing_rows = watch.missing_rows.saturating_sub(rows);
            watch.over |= !joins;
        }
        let tell = !state.untold && state.wants_to_know();
        state.untold |= tell;
        Ok((ticket, tell.then(|| Untold(self))))
    }

    /// Wakes an instance if what waits is a reason.
    fn tell(&self) {
        let mut state = self.state.lock();
        state.untold = false;
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

    /// Fills `batch` with what is to be run next, and waits until there is something. `answered` of the requests
    /// handed out before are done. False once the scheduler is closed and empty.
    pub fn next(&self, answered: usize, batch: &mut Batch<R>) -> bool {
        let mut guard = self.state.lock();
        guard.batcher.answered(answered, Instant::now());
        loop {
            let state = &mut *guard;
            let now = Instant::now();
            if state.batcher.len() >= state.held_until {
                state.held_until = 0;
            }
            if state.watch.is_none() && state.held_until == 0 || state.closed {
                state.batcher.expire(now, &mut batch.expired);
                match state.batcher.next(now, state.closed, &mut batch.requests) {
                    Next::Execute => {
                        self.pass_on(guard);
                        return true;
                    }
                    _ if !batch.expired.is_empty() => return true,
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

    /// As [`Scheduler::next`], but never waits: false when nothing is to be run now.
    pub fn try_next(&self, answered: usize, batch: &mut Batch<R>) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let now = Instant::now();
        state.batcher.answered(answered, now);
        if !state.watch.as_ref().is_none_or(|watch| watch.is_over(state.batcher.len()))
            || state.batcher.len() < state.held_until
        {
            return false;
        }
        state.batcher.expire(now, &mut batch.expired);
        state.batcher.next(now, state.closed, &mut batch.requests) == Next::Execute
            || !batch.expired.is_empty()
    }

    /// Wakes another instance if there is something left for it.
    fn pass_on(&self, mut guard: MutexGuard<'_, State<R>>) {
        if guard.idle > 0 && !guard.batcher.is_empty() {
            guard.idle -= 1;
            drop(guard);
            self.work.notify_one();
        }
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
            preferred: Vec::new(),
            max_delay: Duration::ZERO,
            adaptive_delay: true,
            levels: vec![QueuePolicy::default()],
        }
    }

    fn request(request: u64) -> Waiting<u64> {
        let queued = Instant::now();
        Waiting { rows: 1, shape: ShapeKey::new(), level: 0, queued, deadline: None, request }
    }

    fn push(scheduler: &Scheduler<u64>, number: u64) -> Result<Ticket, Refused> {
        scheduler.push(request(number)).map(|(ticket, _)| ticket)
    }

    fn next(scheduler: &Scheduler<u64>) -> Option<Vec<u64>> {
        let mut batch = Batch::default();
        scheduler.next(0, &mut batch).then_some(batch.requests)
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
                    let (mut batch, mut all, mut answered) = (Batch::default(), Vec::new(), 0);
                    while scheduler.next(answered, &mut batch) {
                        assert!(batch.requests.len() <= 7);
                        answered = batch.requests.len();
                        all.append(&mut batch.requests);
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
