//! One thread of load: its connections, its share of the requests, and a watchdog over them.

mod start;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub(super) use self::start::LaneStart;
use super::slot::{Cut, Slot};
use super::{Spec, nanos};
use crate::arrivals::Schedule;
use crate::clock::Clock;
use crate::expect::Wrong;
use crate::recorder::{Problem, Recorder, Sent, Window};
use crate::stop::Stop;
use crate::thread_time::ThreadTime;
use crate::transport::{Connection, Failure, Opener};
use crate::workload::{Picker, Place, Prepared, Workload};

/// How long nothing may accept connections before the server counts as gone.
const GONE: u64 = 2_000_000_000;
/// Before another attempt to connect, so that a server that is down is not flooded.
const BACKOFF: Duration = Duration::from_millis(50);

/// One thread of load.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) spec: Spec,
    pub(super) clock: Clock,
    pub(super) window: Window,
    pub(super) opener: Opener,
    /// Connections it may have.
    pub(super) capacity: usize,
    pub(super) recorder: RefCell<Recorder>,
    /// When requests are due; empty in a closed loop.
    pub(super) schedule: RefCell<Schedule>,
    pub(super) slots: RefCell<Vec<Rc<Slot>>>,
    pub(super) idle: RefCell<Vec<Rc<Slot>>>,
    /// Tells the dispatcher that a slot became idle or ended.
    pub(super) freed: Notify,
    /// Set when nothing more is to be sent.
    pub(super) over: Cell<bool>,
    workload: Arc<Workload>,
    picker: RefCell<Picker>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
    /// Requests that may still be sent in the window.
    budget: Cell<u64>,
    /// Since when nothing accepts connections.
    unreachable_since: Cell<Option<u64>>,
    stop: Stop,
}

/// When a slot may go on after a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freed {
    /// When the answer had come, and its connection was free.
    pub(super) answered: u64,
    /// When the next may be sent: what the generator did in between is none of the server's.
    pub(super) ready: u64,
}

impl Lane {
    /// Cuts short what takes too long. What the thread used is counted between the first and the last look inside the
    /// window.
    async fn watch(&self) {
        let every = (self.spec.timeout / 20).clamp(Duration::from_millis(1), Duration::from_millis(20));
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let give_up = self.give_up();
        let mut began = None;
        loop {
            tick.tick().await;
            let now = self.clock.now();
            self.recorder.borrow_mut().roll(now);
            if self.stop.is_set() {
                self.cut_all(Cut::Stopped);
            } else if now >= give_up {
                self.cut_all(Cut::GivenUp);
            } else {
                self.slots.borrow().iter().for_each(|slot| slot.expire(now));
            }
            if (self.window.open..self.window.close).contains(&now) {
                let time = ThreadTime::read(now);
                self.recorder.borrow_mut().used(time.since(began.get_or_insert(time)));
            }
        }
    }

    /// When what was due is no longer waited for.
    pub(super) fn give_up(&self) -> u64 {
        self.window.close.saturating_add(nanos(self.spec.timeout))
    }

    fn cut_all(&self, cut: Cut) {
        self.over.set(true);
        self.slots.borrow().iter().for_each(|slot| slot.cut(cut));
        self.idle.borrow_mut().drain(..).for_each(|slot| slot.dismiss());
        self.freed.notify_one();
    }

    /// Whether one more request that is due at `due` may be sent; it is counted then.
    pub(super) fn spend(&self, due: u64) -> bool {
        let left = self.budget.get();
        if due >= self.window.open {
            self.budget.set(left.saturating_sub(1));
        }
        left > 0
    }

    /// A new slot, whose task is `task`.
    pub(super) fn begin<F: Future<Output = ()> + 'static>(&self, task: impl FnOnce(Rc<Slot>) -> F) {
        let slot = Rc::new(Slot::default());
        self.slots.borrow_mut().push(Rc::clone(&slot));
        self.tasks.borrow_mut().push(tokio::task::spawn_local(task(slot)));
    }

    /// Sends the next request and records what came of it; `None` when the slot is to end.
    pub(super) async fn perform(
        &self,
        slot: &Slot,
        connection: &mut Connection,
        (due, free, at): (u64, u64, u64),
    ) -> Option<Freed> {
        let place = self.picker.borrow_mut().next();
        let request = self.workload.request(place);
        let sent = Sent { due, free, at, items: request.items, model: place.model };
        let deadline = at.saturating_add(nanos(self.spec.timeout));
        let outcome = slot.uncut(deadline, connection.exchange(request)).await;
        let answered = self.clock.now();
        let outcome = match outcome {
            Ok(Ok(())) => {
                self.unreachable_since.set(None);
                slot.recover();
                checked(request, connection).map_err(|problem| self.located(problem, place))
            }
            Ok(Err(failure)) => Err(Problem::Failure(failure)),
            Err(Cut::Timeout) => Err(Problem::Timeout),
            Err(Cut::GivenUp) => {
                self.recorder.borrow_mut().unanswered(due, answered);
                return None;
            }
            Err(Cut::Stopped) => return None,
        };
        let lost = match &outcome {
            Err(Problem::Failure(failure @ (Failure::Unreachable(_) | Failure::Broken(_)))) => {
                Some(failure.clone())
            }
            _ => None,
        };
        self.recorder.borrow_mut().ended(&sent, answered, outcome);
        match lost {
            None if request.expected.is_none() => Some(Freed { answered, ready: answered }),
            None => Some(Freed { answered, ready: self.clock.now() }),
            Some(failure) => self.back_off(slot, answered, &failure).await,
        }
    }

    /// A wrong answer with the request that it is to.
    #[cold]
    fn located(&self, problem: Problem, place: Place) -> Problem {
        match problem {
            Problem::Wrong(Wrong { kind, detail }) => {
                Problem::Wrong(Wrong { kind, detail: format!("{}: {detail}", self.workload.name(place)) })
            }
            other => other,
        }
    }

    /// Lets the others have their turn: a connection that fails at once would else be all that the thread does.
    #[cold]
    async fn back_off(&self, slot: &Slot, now: u64, failure: &Failure) -> Option<Freed> {
        let pause = pause(slot.lose());
        let pause = if let Failure::Unreachable(reason) = failure {
            let since = self.unreachable_since.get().unwrap_or(now);
            self.unreachable_since.set(Some(since));
            if now - since >= GONE {
                self.stop.set(format!("the server is gone: {reason} for {} s", GONE / 1_000_000_000));
            }
            BACKOFF
        } else {
            pause
        };
        slot.uncut(u64::MAX, tokio::time::sleep(pause)).await.ok()?;
        let now = self.clock.now();
        Some(Freed { answered: now, ready: now })
    }

    /// Waits for every task that was begun.
    async fn finished(&self) -> anyhow::Result<()> {
        loop {
            let task = self.tasks.borrow_mut().pop();
            let Some(task) = task else { return Ok(()) };
            task.await.map_err(|_| anyhow!("the task of a connection panicked"))?;
        }
    }
}

/// What came of a request that was answered.
fn checked(request: &Prepared, connection: &Connection) -> Result<(), Problem> {
    let Some(expected) = &request.expected else { return Ok(()) };
    match connection.answer() {
        Ok(answer) => expected.check(&answer).map_err(Problem::Wrong),
        Err(error) => Err(Problem::Failure(Failure::Broken(error.to_string()))),
    }
}

/// How long a slot waits after so many lost connections in a row.
fn pause(lost: u32) -> Duration {
    Duration::from_millis(1 << lost.saturating_sub(1).min(6)).min(BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_keeps_breaking_is_tried_less_and_less() {
        assert_eq!([1, 2, 3, 6].map(|lost| pause(lost).as_millis()), [1, 2, 4, 32]);
        assert_eq!((pause(7), pause(u32::MAX)), (BACKOFF, BACKOFF));
    }
}
