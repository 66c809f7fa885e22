//! One place for a request in flight: what wakes its task, and what cuts its request short.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};

/// Why a request in flight is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It took longer than one request may.
    Timeout,
    /// The run is over, and what was due has been waited for.
    GivenUp,
    /// The measurement ends early.
    Stopped,
}

/// One place for a request in flight. Its deadline is looked at by a watchdog: a timer for each request would cost
/// more than the request.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// When the request in flight has taken too long; `None` when there is none.
    deadline: Cell<Option<u64>>,
    cut: Cell<Option<Cut>>,
    assigned: Cell<Option<u64>>,
    dismissed: Cell<bool>,
    /// Connections that were lost in a row.
    lost: Cell<u32>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    /// Runs `exchange`, unless it is cut short.
    pub(super) async fn uncut<F: Future>(&self, deadline: u64, exchange: F) -> Result<F::Output, Cut> {
        self.deadline.set(Some(deadline));
        self.cut.set(None);
        let mut exchange = pin!(exchange);
        let outcome = poll_fn(|context| {
            if let Poll::Ready(output) = exchange.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            if let Some(cut) = self.cut.take() {
                return Poll::Ready(Err(cut));
            }
            self.park(context.waker());
            Poll::Pending
        })
        .await;
        self.deadline.set(None);
        outcome
    }

    /// Takes note that the connection was lost; gives how often that was in a row.
    pub(super) fn lose(&self) -> u32 {
        self.lost.replace(self.lost.get().saturating_add(1)).saturating_add(1)
    }

    /// Takes note that an answer came.
    pub(super) fn recover(&self) {
        self.lost.set(0);
    }

    /// Waits for a request to send; gives when it is due, or `None` when no more will come.
    pub(super) async fn assignment(&self) -> Option<u64> {
        poll_fn(|context| {
            if let Some(due) = self.assigned.take() {
                return Poll::Ready(Some(due));
            }
            if self.dismissed.get() {
                return Poll::Ready(None);
            }
            self.park(context.waker());
            Poll::Pending
        })
        .await
    }

    /// Gives a waiting slot a request.
    pub(super) fn assign(&self, due: u64) {
        self.assigned.set(Some(due));
        self.wake();
    }

    /// Tells a waiting slot that no more requests will come.
    pub(super) fn dismiss(&self) {
        self.dismissed.set(true);
        self.wake();
    }

    /// Cuts the request in flight short, if there is one.
    pub(super) fn cut(&self, cut: Cut) {
        if self.deadline.get().is_some() {
            self.cut.set(Some(cut));
            self.wake();
        }
    }

    /// Cuts the request in flight short if it has taken too long at `now`.
    pub(super) fn expire(&self, now: u64) {
        if self.deadline.get().is_some_and(|deadline| deadline <= now) {
            self.cut(Cut::Timeout);
        }
    }

    /// The task is the same every time, so its waker is cloned once.
    fn park(&self, waker: &Waker) {
        let mut parked = self.waker.borrow_mut();
        match &*parked {
            Some(known) if known.will_wake(waker) => {}
            _ => *parked = Some(waker.clone()),
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}
