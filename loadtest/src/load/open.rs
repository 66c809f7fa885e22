//! An open loop: requests are sent when they are due, whatever the server does.
//!
//! A dispatcher gives each request that becomes due to an idle connection, or opens another. When there may be no
//! more, the request stays in the schedule, whose position is the whole backlog; a connection that becomes free
//! takes the oldest from there.

use std::rc::Rc;

use anyhow::Context;

use super::lane::Lane;
use super::slot::Slot;
use crate::clock::Timer;
use crate::transport::Connection;

/// The dispatcher looks at least this often whether the run is to end, in nanoseconds.
const LOOK: u64 = 50_000_000;

/// Sends what becomes due until nothing more does.
pub(super) async fn dispatch(lane: &Rc<Lane>, connections: Vec<Connection>) -> anyhow::Result<()> {
    let timer = Timer::new(lane.clock).context("cannot make a timer")?;
    for connection in connections {
        lane.begin(|slot| send(Rc::clone(lane), slot, connection, None));
    }
    loop {
        let next = lane.schedule.borrow().peek();
        let Some(due) = next.filter(|_| !lane.over.get()) else { break };
        let now = lane.clock.now();
        if due > now {
            timer.until(due.min(now + LOOK)).await.context("cannot set a timer")?;
            continue;
        }
        if let Some(slot) = lane.idle.borrow_mut().pop() {
            match lane.take(now) {
                Some(due) => slot.assign(due),
                None => slot.dismiss(),
            }
        } else if lane.slots.borrow().len() < lane.capacity {
            if let Some(due) = lane.take(now) {
                let connection = lane.opener.open();
                lane.begin(|slot| send(Rc::clone(lane), slot, connection, Some(due)));
            }
        } else {
            lane.freed.notified().await;
            continue;
        }
        // At high rates something is always due; the connections must have their turn.
        tokio::task::yield_now().await;
    }
    lane.over.set(true);
    lane.idle.borrow_mut().drain(..).for_each(|slot| slot.dismiss());
    Ok(())
}

impl Lane {
    /// Takes the oldest request that is due at `now`.
    fn take(&self, now: u64) -> Option<u64> {
        let mut schedule = self.schedule.borrow_mut();
        let due = schedule.peek().filter(|due| *due <= now)?;
        if !self.spend(due) {
            schedule.end();
        }
        schedule.take_due(now)
    }
}

/// One connection's requests; `first` is when its first is due.
async fn send(lane: Rc<Lane>, slot: Rc<Slot>, mut connection: Connection, mut first: Option<u64>) {
    let mut free = first.unwrap_or_default();
    let mut now = lane.clock.now();
    loop {
        let due = match first.take().or_else(|| lane.take(now)) {
            Some(due) => due,
            None if lane.over.get() || lane.schedule.borrow().peek().is_none() => break,
            None => {
                lane.idle.borrow_mut().push(Rc::clone(&slot));
                lane.freed.notify_one();
                let Some(due) = slot.assignment().await else { break };
                now = lane.clock.now();
                due
            }
        };
        let Some(freed) = lane.perform(&slot, &mut connection, (due, free, now)).await else { break };
        (now, free) = (freed.ready, freed.answered);
    }
    lane.freed.notify_one();
}
