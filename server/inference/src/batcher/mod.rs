//! Which of the waiting requests run together, and when. Pure: the time is an argument, and nothing waits here.
//!
//! The rules are Triton's (dynamic batcher and queue policies), but for one: a batch waits for company only
//! while company is likely, so that `max_queue_delay_microseconds` is a maximum and not a toll.
//!
//! Invariants:
//! - a batch never holds more items than `max_batch_size`, but for a single request larger than that;
//! - every request pushed comes out once: in a batch, as expired, or removed by its ticket;
//! - requests of one level and one shape leave in the order they came, those that expired before apart.

mod arrivals;
mod level;
mod policy;
mod similar;

use std::time::{Duration, Instant};

use arrivals::Arrivals;
use level::Level;
pub use policy::{BatchPolicy, QueuePolicy, TimeoutAction};
pub use similar::RunCost;
use similar::{Candidate, Room};
use smallvec::SmallVec;

/// What must be equal for two requests to run together: the sizes of the dimensions that the model leaves open,
/// and which optional inputs are there. Empty for most models.
pub type ShapeKey = SmallVec<[i64; 4]>;

/// The requests that wait for one model version.
#[derive(Debug)]
pub struct Batcher<R> {
    policy: BatchPolicy,
    levels: Vec<Level<R>>,
    arrivals: Arrivals,
    limits: Limits,
    /// What runs cost, once it is known; asked where requests are padded.
    cost: Option<RunCost>,
    /// What the next request is called.
    next_number: u64,
}

/// A request that comes to wait.
#[derive(Debug)]
pub struct Waiting<R> {
    /// Items in it, at least 1.
    pub rows: u64,
    /// Elements of each item in the inputs whose shape is open; 1 where none is.
    pub size: u64,
    /// See [`ShapeKey`].
    pub shape: ShapeKey,
    /// Priority, from 0 for the highest.
    pub level: usize,
    /// When it came.
    pub queued: Instant,
    /// When it has waited for too long, if ever.
    pub deadline: Option<Instant>,
    /// What is to be run.
    pub request: R,
}

/// What waits, in what its time grows with (see `cost.rs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests.
    pub requests: u64,
    /// Items.
    pub rows: u64,
    /// Items times their size.
    pub work: u128,
    /// Items times the square of their size.
    pub square: u128,
}

impl Load {
    fn of<R>(waiting: &Waiting<R>) -> Load {
        let (rows, size) = (u128::from(waiting.rows), u128::from(waiting.size));
        let work = rows.saturating_mul(size);
        // A u64 squared fits a u128; what is added up is bounded, since no tensor has 2^60 elements.
        Load { requests: 1, rows: waiting.rows, work, square: work.saturating_mul(size) }
    }

    pub(crate) fn plus(self, other: Load) -> Load {
        Load {
            requests: self.requests + other.requests,
            rows: self.rows.saturating_add(other.rows),
            work: self.work.saturating_add(other.work),
            square: self.square.saturating_add(other.square),
        }
    }

    fn minus(self, other: Load) -> Load {
        Load {
            requests: self.requests.saturating_sub(other.requests),
            rows: self.rows.saturating_sub(other.rows),
            work: self.work.saturating_sub(other.work),
            square: self.square.saturating_sub(other.square),
        }
    }
}

/// Names a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    level: usize,
    number: u64,
}

/// Bounds of a batch that change while the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Items times the size of the largest, at most; a single request may be more.
    pub work: u64,
    /// How long a request may wait for company, at most.
    pub delay: Duration,
}

/// What an idle instance is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Run what was handed out, in that order.
    Execute,
    /// Ask again then, or once so many requests or items wait.
    Wait {
        /// At the latest.
        until: Instant,
        /// With so many requests waiting the wait is over.
        requests: usize,
        /// With so many items more the wait is over.
        missing_rows: u64,
    },
    /// Ask again when a request has come.
    WaitForRequest,
}

/// As many requests of its level wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelFull {
    /// How many that is.
    pub capacity: usize,
}

impl<R> Batcher<R> {
    /// Nothing waits yet.
    pub fn new(policy: BatchPolicy) -> Batcher<R> {
        let levels = policy.levels.iter().map(|_| Level::default()).collect();
        let limits = Limits { work: u64::MAX, delay: policy.max_delay };
        Batcher { policy, levels, arrivals: Arrivals::default(), limits, cost: None, next_number: 0 }
    }

    /// What it goes by.
    pub fn policy(&self) -> &BatchPolicy {
        &self.policy
    }

    /// Bounds batches from now on, besides what the policy says of their size.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes into account what runs cost, from now on.
    pub fn learned(&mut self, cost: RunCost) {
        self.cost = Some(cost);
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.levels.iter().map(Level::len).sum()
    }

    /// What runs before a request that comes now at `level`.
    pub fn ahead(&self, level: usize) -> Load {
        self.levels[..=level].iter().map(Level::load).fold(Load::default(), Load::plus)
    }

    /// What waits and has not waited for too long.
    pub fn load(&self) -> Load {
        self.levels.iter().map(Level::load).fold(Load::default(), Load::plus)
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(Level::is_empty)
    }

    /// Takes `waiting` in.
    ///
    /// # Errors
    /// When as many wait at its level as may; it is dropped.
    pub fn push(&mut self, waiting: Waiting<R>, now: Instant) -> Result<Ticket, LevelFull> {
        let level = waiting.level;
        if let Some(capacity) = self.policy.levels[level].max_queue_size
            && self.levels[level].len() >= capacity
        {
            return Err(LevelFull { capacity });
        }
        let number = self.next_number;
        self.next_number += 1;
        self.levels[level].push(number, waiting);
        self.arrivals.arrived(now);
        Ok(Ticket { level, number })
    }

    /// Whether `waiting` will surely run together with the request that is next to run, if there is room.
    pub fn joins_the_next(&self, waiting: &Waiting<R>) -> bool {
        let joins = |next: &Waiting<R>| {
            // Whether one of another size joins is decided when all that wait are seen.
            next.shape == waiting.shape && (!self.policy.pads || next.size == waiting.size)
        };
        self.in_order().next().is_none_or(|(_, next)| joins(next))
    }

    /// Takes a request out; `None` when it does not wait any more.
    pub fn remove(&mut self, ticket: Ticket, now: Instant) -> Option<R> {
        let removed = self.levels[ticket.level].remove(ticket.number)?;
        self.arrivals.left(1, now);
        Some(removed)
    }

    /// Says that `requests` handed out before were answered.
    pub fn answered(&mut self, requests: usize, now: Instant) {
        self.arrivals.left(requests, now);
    }

    /// Moves those that have waited for too long to `expired`, or behind all others, as the policy of their level
    /// says.
    pub fn expire(&mut self, now: Instant, expired: &mut Vec<R>) {
        let before = expired.len();
        for (level, policy) in self.levels.iter_mut().zip(&self.policy.levels) {
            level.expire(now, policy.timeout_action, expired);
        }
        self.arrivals.left(expired.len() - before, now);
    }

    /// What an idle instance is to do; what it is to run is appended to `batch`. Call [`Batcher::expire`] first.
    /// In a `hurry` nothing is waited for.
    pub fn next(&mut self, now: Instant, hurry: bool, batch: &mut Vec<R>) -> Next {
        let (next, chosen) = self.decide(now, hurry);
        match chosen {
            Chosen::First(count) => self.take(count, batch),
            Chosen::Similar(candidates) => {
                for Candidate { ticket, .. } in candidates {
                    let removed = self.levels[ticket.level].remove(ticket.number);
                    debug_assert!(removed.is_some(), "{ticket:?} waits no more");
                    batch.extend(removed);
                }
            }
        }
        next
    }

    /// What [`Batcher::next`] would say.
    pub fn peek(&self, now: Instant, hurry: bool) -> Next {
        self.decide(now, hurry).0
    }

    /// What to do, and what to run.
    fn decide(&self, now: Instant, hurry: bool) -> (Next, Chosen) {
        if self.is_empty() {
            return (Next::WaitForRequest, Chosen::First(0));
        }
        let (found, similar) = self.gather();
        if !hurry && let Some(wait) = self.worth_waiting(&found, now) {
            return (wait, Chosen::First(0));
        }
        let first = found.preferred.map_or(found.requests, |(requests, _)| requests);
        (Next::Execute, similar.map_or(Chosen::First(first), Chosen::Similar))
    }

    /// Takes out everything, in the order in which it would have run.
    pub fn take_all(&mut self, now: Instant) -> Vec<R> {
        let mut all = Vec::new();
        self.take(self.len(), &mut all);
        self.arrivals.left(all.len(), now);
        all
    }

    /// What may run together now.
    fn gather(&self) -> (Gathered, Option<Vec<Candidate>>) {
        if self.policy.pads && self.policy.merges {
            let (found, similar) = self.gather_similar();
            (found, Some(similar))
        } else {
            (self.gather_in_order(), None)
        }
    }

    /// Chooses among the first that wait those that gain by running together, padded.
    fn gather_similar(&self) -> (Gathered, Vec<Candidate>) {
        let most = usize::try_from(self.policy.max_batch_size).unwrap_or(usize::MAX);
        let most = most.saturating_mul(CANDIDATES_PER_ROW).clamp(FEWEST_CANDIDATES, MOST_CANDIDATES);
        let mut oldest = None;
        let (mut similar, mut others) = (Vec::new(), Vec::new());
        let like_the_first = self.like_the_first();
        let first = self.in_order().next();
        let shape = first.map(|(_, next)| &next.shape);
        let alike =
            self.in_order().take(most).enumerate().filter(|(_, (_, each))| Some(&each.shape) == shape);
        for (place, (ticket, waiting)) in alike {
            oldest = oldest.min(Some(waiting.queued)).or(Some(waiting.queued));
            let candidate = Candidate { place, ticket, rows: waiting.rows, size: waiting.size };
            // Those of another priority, or that have waited for too long, only fill what room is left.
            if place < like_the_first { similar.push(candidate) } else { others.push(candidate) }
        }
        let room = Room { rows: self.policy.max_batch_size, work: self.limits.work };
        similar::choose(&mut similar, self.cost.as_ref(), room);
        similar::fill(&mut similar, &others, self.cost.as_ref(), room);
        let mut found = Gathered {
            requests: similar.len(),
            rows: similar.iter().map(|each| each.rows).fold(0, u64::saturating_add),
            size: similar.iter().map(|each| each.size).max().unwrap_or(1),
            oldest,
            ..Gathered::default()
        };
        // One that does not join is not to wait for the company of those that do.
        found.closed = found.rows >= self.most_rows(found.size) || similar.len() < self.len();
        (found, similar)
    }

    /// How many of [`Batcher::in_order`] are of the first one's priority, and in time as it is or not.
    fn like_the_first(&self) -> usize {
        let counts = self.levels.iter().map(Level::in_time).chain(self.levels.iter().map(Level::late));
        counts.into_iter().find(|count| *count > 0).unwrap_or_default()
    }

    /// Walks the queue from its front for as long as requests fit into one batch.
    fn gather_in_order(&self) -> Gathered {
        let mut found = Gathered::default();
        let largest_preferred = self.policy.preferred.last().copied();
        let mut shape: Option<&ShapeKey> = None;
        for (_, waiting) in self.in_order() {
            let rows = found.rows + waiting.rows;
            let size = found.size.max(waiting.size);
            let beyond_preferred =
                found.preferred.is_some() && largest_preferred.is_some_and(|largest| rows > largest);
            let joins = || {
                self.policy.merges
                    && shape == Some(&waiting.shape)
                    && rows <= self.policy.max_batch_size
                    && rows.saturating_mul(size) <= self.limits.work
                    && !beyond_preferred
            };
            if found.requests > 0 && !joins() {
                found.closed = true;
                break;
            }
            shape = Some(&waiting.shape);
            found.requests += 1;
            found.rows = rows;
            found.size = size;
            found.oldest = Some(found.oldest.map_or(waiting.queued, |oldest| oldest.min(waiting.queued)));
            if self.policy.preferred.contains(&rows) {
                found.preferred = Some((found.requests, rows));
            }
        }
        found.closed |= !self.policy.merges || found.rows >= self.most_rows(found.size);
        found
    }

    /// Until when it is worth waiting for more, if it is.
    fn worth_waiting(&self, found: &Gathered, now: Instant) -> Option<Next> {
        if self.limits.delay.is_zero() || found.closed || found.preferred.is_some() {
            return None;
        }
        let due = found.oldest?.checked_add(self.limits.delay)?;
        let wanted = self.wanted(found)?;
        if due <= now {
            return None;
        }
        if !self.policy.adaptive_delay {
            return Some(Next::Wait { until: due, requests: usize::MAX, missing_rows: wanted - found.rows });
        }
        let company = self.arrivals.company(self.len(), now)?;
        let until = due.min(company.until);
        (until > now).then_some(Next::Wait {
            until,
            requests: company.requests,
            missing_rows: wanted - found.rows,
        })
    }

    /// The next number of items that is worth waiting for.
    fn wanted(&self, found: &Gathered) -> Option<u64> {
        if self.policy.preferred.is_empty() {
            let most = self.most_rows(found.size);
            return (found.rows < most).then_some(most);
        }
        self.policy.preferred.iter().copied().find(|size| *size > found.rows)
    }

    /// Items of a batch of such items at most.
    fn most_rows(&self, size: u64) -> u64 {
        self.policy.max_batch_size.min(self.limits.work / size.max(1)).max(1)
    }

    /// Those that wait, in the order in which they run: by level, then those that have waited for too long.
    fn in_order(&self) -> impl Iterator<Item = (Ticket, &Waiting<R>)> {
        let ticket = |level| move |(number, waiting)| (Ticket { level, number }, waiting);
        let levels = || self.levels.iter().enumerate();
        let waiting = levels().flat_map(move |(level, each)| each.waiting().map(ticket(level)));
        waiting.chain(levels().flat_map(move |(level, each)| each.delayed().map(ticket(level))))
    }

    /// Appends the first `count` of [`Batcher::in_order`] to `batch`.
    fn take(&mut self, count: usize, batch: &mut Vec<R>) {
        let until = batch.len() + count;
        for level in &mut self.levels {
            level.take_waiting(until, batch);
        }
        for level in &mut self.levels {
            level.take_delayed(until, batch);
        }
    }
}

/// What is to run.
#[derive(Debug)]
enum Chosen {
    /// So many of those that are next to run.
    First(usize),
    /// These.
    Similar(Vec<Candidate>),
}

/// Requests among which those of similar size are looked for, for each row of the largest batch; more make fuller
/// batches, and let a request be overtaken by more.
const CANDIDATES_PER_ROW: usize = 4;
/// However small batches are.
const FEWEST_CANDIDATES: usize = 32;
/// However large they are: it takes time to look at them.
const MOST_CANDIDATES: usize = 256;

/// What may run together.
#[derive(Debug, Default)]
struct Gathered {
    requests: usize,
    rows: u64,
    /// The largest size of an item.
    size: u64,
    oldest: Option<Instant>,
    /// The largest preferred size that was met: requests and rows.
    preferred: Option<(usize, u64)>,
    /// Nothing more can join, whatever comes.
    closed: bool,
}

/// A batch is given up for as long a silence as holds no arrival one time in twenty.
const SILENCE_IN_GAPS: f64 = 3.0;

/// See [`Arrivals::company`].
#[derive(Clone, Copy, Debug, PartialEq)]
struct Company {
    /// When it is too late to hope for another request.
    until: Instant,
    /// Requests that wait when nobody is left to come.
    requests: usize,
}

/// The time that a rate leaves between two arrivals, times [`SILENCE_IN_GAPS`].
fn silence(rate: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(SILENCE_IN_GAPS / rate).ok()
}

#[cfg(test)]
mod tests;
