//! Where requests wait for an instance and instances for requests: the batcher behind one lock.
//!
//! An idle instance forms its own batch, so no thread stands between a request and the one that runs it. At most
//! one idle instance waits for company to join a batch; the others sleep until there is work for them.

use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::batcher::{Batcher, Next, Ticket, Waiting};

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
        let state =
            State { batcher, idle: 0, watch: None, held_until: held_until.min(capacity), closed: false };
        Scheduler { state: Mutex::new(state), work: Condvar::new(), company: Condvar::new(), capacity }
    }

    /// How many requests wait now.
    pub fn len(&self) -> usize {
        self.state.lock().batcher.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes `waiting` in, without waiting.
    ///
    /// # Errors
    /// When as many wait as may, or the scheduler is closed; it is dropped.
    pub fn push(&self, waiting: Waiting<R>) -> Result<Ticket, Refused> {
        let (now, rows) = (waiting.queued, waiting.rows);
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.batcher.len() >= self.capacity {
            return Err(Refused::Full { capacity: self.capacity });
        }
        let joins = state.batcher.joins_the_last(&waiting);
        let pushed = state.batcher.push(waiting, now);
        let ticket = pushed.map_err(|full| Refused::Full { capacity: full.capacity })?;
        self.tell(state, rows, joins);
        Ok(ticket)
    }

    /// Wakes an instance if one request more, of `rows` items, is a reason.
    fn tell(&self, mut guard: MutexGuard<'_, State<R>>, rows: u64, joins: bool) {
        let state = &mut *guard;
        let waiting = state.batcher.len();
        if waiting < state.held_until {
            return;
        }
        state.held_until = 0;
        if let Some(watch) = &mut state.watch {
            watch.missing_rows = watch.missing_rows.saturating_sub(rows);
            if waiting >= watch.requests || watch.missing_rows == 0 || !joins {
                drop(guard);
                self.company.notify_one();
            }
        } else if state.idle > 0 {
            state.idle -= 1;
            drop(guard);
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
            if state.watch.is_none() && state.held_until == 0 || state.closed {
                state.batcher.expire(now, &mut batch.expired);
                match state.batcher.next(now, state.closed, &mut batch.requests) {
                    Next::Execute => {
                        self.pass_on(guard);
                        return true;
                    }
                    _ if !batch.expired.is_empty() => return true,
                    Next::Wait { until, requests, missing_rows } => {
                        state.watch = Some(Watch { requests, missing_rows });
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
