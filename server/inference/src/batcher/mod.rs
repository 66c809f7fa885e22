//! Which of the waiting requests run together, and when. Pure: the time is an argument, and nothing waits here.
//!
//! The rules are Triton's (dynamic batcher and queue policies), but for one: a batch waits for company only
//! while company is likely, so that `max_queue_delay_microseconds` is a maximum and not a toll.
//!
//! Invariants:
//! - a batch never holds more items than `max_batch_size`, but for a single request larger than that;
//! - every request pushed comes out once: in a batch, as expired, or as dead;
//! - requests of one level and one shape leave in the order they came, those that expired before apart.

mod arrivals;
mod policy;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use arrivals::Arrivals;
pub(crate) use policy::{BatchPolicy, QueuePolicy, TimeoutAction};

/// The requests that wait for one model version.
#[derive(Debug)]
pub(crate) struct Batcher<R> {
    policy: BatchPolicy,
    levels: Vec<Level<R>>,
    arrivals: Arrivals,
    /// Hands out nothing before this many wait; then never again. For tests that need to know what is
    /// batched together.
    held_until: usize,
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting<R> {
    /// Items in it, at least 1.
    pub(crate) rows: u64,
    /// What must be equal for two requests to run together.
    pub(crate) shape_key: u64,
    /// Priority, from 0 for the highest.
    pub(crate) level: usize,
    /// When it came.
    pub(crate) queued: Instant,
    /// When it has waited for too long, if ever.
    pub(crate) deadline: Option<Instant>,
    pub(crate) request: R,
}

#[derive(Debug)]
struct Level<R> {
    waiting: VecDeque<Waiting<R>>,
    /// Those that have waited for too long, where the policy is to serve them last.
    delayed: VecDeque<Waiting<R>>,
    /// Not later than the earliest deadline in `waiting`.
    earliest_deadline: Option<Instant>,
}

/// What an idle instance is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<R> {
    /// Run these together; in this order.
    Execute(Vec<R>),
    /// Ask again then, or when a request has come.
    WaitUntil(Instant),
    /// Ask again when a request has come.
    WaitForRequest,
}

/// As many requests of its level wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LevelFull {
    pub(crate) capacity: usize,
}

impl<R> Batcher<R> {
    pub(crate) fn new(policy: BatchPolicy, held_until: usize) -> Batcher<R> {
        let level = |_: &QueuePolicy| Level {
            waiting: VecDeque::new(),
            delayed: VecDeque::new(),
            earliest_deadline: None,
        };
        let levels = policy.levels.iter().map(level).collect();
        Batcher { policy, levels, arrivals: Arrivals::default(), held_until }
    }

    /// Requests that wait.
    pub(crate) fn len(&self) -> usize {
        self.levels.iter().map(Level::len).sum()
    }

    /// Takes `waiting` in.
    ///
    /// # Errors
    /// When as many wait at its level as may; it is handed back.
    pub(crate) fn push(
        &mut self,
        waiting: Waiting<R>,
        now: Instant,
    ) -> Result<(), (LevelFull, Waiting<R>)> {
        let policy = &self.policy.levels[waiting.level];
        let level = &mut self.levels[waiting.level];
        if let Some(capacity) = policy.max_queue_size
            && level.len() >= capacity
        {
            return Err((LevelFull { capacity }, waiting));
        }
        level.earliest_deadline = earlier(level.earliest_deadline, waiting.deadline);
        level.waiting.push_back(waiting);
        self.arrivals.arrived(now);
        Ok(())
    }

    /// Says that `requests` handed out before were answered.
    pub(crate) fn answered(&mut self, requests: usize, now: Instant) {
        self.arrivals.left(requests, now);
    }

    /// Takes out those that have waited for too long and are to be refused for it.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<R> {
        let mut expired = Vec::new();
        for (level, policy) in self.levels.iter_mut().zip(&self.policy.levels) {
            if level.earliest_deadline.is_none_or(|deadline| now < deadline) {
                continue;
            }
            let late = |waiting: &Waiting<R>| waiting.deadline.is_some_and(|deadline| deadline <= now);
            let (late, waiting): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(&mut level.waiting).into_iter().partition(late);
            level.waiting = waiting;
            level.earliest_deadline = level.waiting.iter().filter_map(|waiting| waiting.deadline).min();
            match policy.timeout_action {
                TimeoutAction::Delay => level.delayed.extend(late),
                TimeoutAction::Reject => expired.extend(late.into_iter().map(|waiting| waiting.request)),
            }
        }
        self.arrivals.left(expired.len(), now);
        expired
    }

    /// Takes out those that nobody needs any more.
    pub(crate) fn take_dead(&mut self, is_dead: impl Fn(&R) -> bool, now: Instant) -> Vec<R> {
        let mut dead = Vec::new();
        for level in &mut self.levels {
            for queue in [&mut level.waiting, &mut level.delayed] {
                let (gone, alive): (VecDeque<_>, VecDeque<_>) =
                    std::mem::take(queue).into_iter().partition(|waiting| is_dead(&waiting.request));
                *queue = alive;
                dead.extend(gone.into_iter().map(|waiting| waiting.request));
            }
        }
        self.arrivals.left(dead.len(), now);
        dead
    }

    /// What an idle instance is to do. Call [`Batcher::expire`] first.
    pub(crate) fn next(&mut self, now: Instant) -> Next<R> {
        let waiting = self.len();
        if waiting < self.held_until {
            return Next::WaitForRequest;
        }
        self.held_until = 0;
        if waiting == 0 {
            return Next::WaitForRequest;
        }
        let found = self.gather();
        if let Some(until) = self.worth_waiting(&found, now) {
            return Next::WaitUntil(until);
        }
        let count = found.preferred.map_or(found.requests, |(requests, _)| requests);
        Next::Execute(self.take(count))
    }

    /// Takes out everything, in the order in which it would have run.
    pub(crate) fn take_all(&mut self, now: Instant) -> Vec<R> {
        let all = self.take(self.len());
        self.arrivals.left(all.len(), now);
        all
    }

    /// Walks the queue from its front for as long as requests fit into one batch.
    fn gather(&self) -> Gathered {
        let mut found = Gathered::default();
        let largest_preferred = self.policy.preferred.last().copied();
        let mut key = None;
        for waiting in self.in_order() {
            let rows = found.rows + waiting.rows;
            let beyond_preferred =
                found.preferred.is_some() && largest_preferred.is_some_and(|largest| rows > largest);
            let fits = found.requests == 0
                || (self.policy.merges
                    && *key.get_or_insert(waiting.shape_key) == waiting.shape_key
                    && rows <= self.policy.max_batch_size
                    && !beyond_preferred);
            if !fits {
                found.closed = true;
                break;
            }
            key.get_or_insert(waiting.shape_key);
            found.requests += 1;
            found.rows = rows;
            found.oldest = Some(found.oldest.map_or(waiting.queued, |oldest: Instant| oldest.min(waiting.queued)));
            if self.policy.preferred.contains(&rows) {
                found.preferred = Some((found.requests, rows));
            }
        }
        found.closed |= !self.policy.merges || found.rows >= self.policy.max_batch_size;
        found
    }

    /// Until when it is worth waiting for more, if it is.
    fn worth_waiting(&self, found: &Gathered, now: Instant) -> Option<Instant> {
        if self.policy.max_delay.is_zero() || found.closed || found.preferred.is_some() {
            return None;
        }
        let due = found.oldest?.checked_add(self.policy.max_delay)?;
        let left = due.saturating_duration_since(now);
        let missing = self.missing(found.rows);
        (left > Duration::ZERO && missing > 0 && self.arrivals.expected(left) >= 1.0).then_some(due)
    }

    /// Items until the next size that is worth waiting for.
    fn missing(&self, rows: u64) -> u64 {
        let next = self.policy.preferred.iter().copied().find(|size| *size > rows);
        let wanted = next.or(if self.policy.preferred.is_empty() { Some(self.policy.max_batch_size) } else { None });
        wanted.map_or(0, |wanted| wanted.saturating_sub(rows))
    }

    /// Those that wait, in the order in which they run: by level, then those that have waited for too long.
    fn in_order(&self) -> impl Iterator<Item = &Waiting<R>> {
        let waiting = self.levels.iter().flat_map(|level| &level.waiting);
        waiting.chain(self.levels.iter().flat_map(|level| &level.delayed))
    }

    /// Takes the first `count` of [`Batcher::in_order`].
    fn take(&mut self, count: usize) -> Vec<R> {
        let mut taken = Vec::with_capacity(count);
        for level in &mut self.levels {
            let from_here = level.waiting.len().min(count - taken.len());
            taken.extend(level.waiting.drain(..from_here).map(|waiting| waiting.request));
        }
        for level in &mut self.levels {
            let from_here = level.delayed.len().min(count - taken.len());
            taken.extend(level.delayed.drain(..from_here).map(|waiting| waiting.request));
        }
        taken
    }
}

impl<R> Level<R> {
    fn len(&self) -> usize {
        self.waiting.len() + self.delayed.len()
    }
}

/// What stands at the front of the queue and may run together.
#[derive(Debug, Default)]
struct Gathered {
    requests: usize,
    rows: u64,
    oldest: Option<Instant>,
    /// The largest preferred size that was met: requests and rows.
    preferred: Option<(usize, u64)>,
    /// Nothing more can join, whatever comes.
    closed: bool,
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests;
