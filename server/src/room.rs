//! Places for connections, and who gives theirs up when others wait for one.
//!
//! Idle connections may stay for as long as there are places. When all are taken and someone waits, the one that
//! has been idle longest is asked to end: a pool of clients that hold connections for nothing does not lock out
//! everyone else, health probes among them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::activity::Activity;

/// The places of one listener.
#[derive(Clone, Debug)]
pub struct Room {
    permits: Arc<Semaphore>,
    held: Arc<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: AtomicU64,
    /// Of every open connection; locked to put in, take out, and, only when someone waits, to look through. Those
    /// that were asked to end are taken out.
    connections: Mutex<HashMap<u64, Arc<Activity>>>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    held: Arc<Held>,
    _permit: OwnedSemaphorePermit,
}

/// Who has been idle for less may be about to ask for something.
const LONG_ENOUGH: Duration = Duration::from_secs(1);

/// How often those that are idle are looked for while someone waits.
const LOOK: Duration = Duration::from_millis(100);

impl Room {
    /// Room for `connections`.
    pub fn new(connections: usize) -> Room {
        let permits = Semaphore::new(connections.min(Semaphore::MAX_PERMITS));
        Room { permits: Arc::new(permits), held: Arc::default() }
    }

    /// A place for the connection of `activity`, as soon as there is one.
    pub(crate) async fn place(&self, activity: &Arc<Activity>) -> Place {
        let mut permit = std::pin::pin!(Arc::clone(&self.permits).acquire_owned());
        let permit = loop {
            match tokio::time::timeout(LOOK, permit.as_mut()).await {
                Ok(permit) => break permit.expect("the semaphore is never closed"),
                Err(_) => self.held.ask_the_longest_idle(Instant::now()),
            }
        };
        let (held, number) = (Arc::clone(&self.held), self.held.next.fetch_add(1, Ordering::Relaxed));
        held.connections.lock().insert(number, Arc::clone(activity));
        Place { number, held, _permit: permit }
    }
}

impl Held {
    fn ask_the_longest_idle(&self, now: Instant) {
        let mut connections = self.connections.lock();
        let idle =
            connections.iter().filter_map(|(number, activity)| Some((activity.idle_for(now)?, *number)));
        if let Some((_, number)) = idle.filter(|(idle, _)| *idle >= LONG_ENOUGH).max()
            && let Some(activity) = connections.remove(&number)
        {
            activity.ask_to_leave();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.connections.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_longest_idle_is_asked_first_and_a_busy_one_never() {
        let room = Room::new(3);
        let activities: [Arc<Activity>; 3] = Default::default();
        let mut places = Vec::new();
        for activity in &activities {
            places.push(room.place(activity).await);
        }
        let busy = activities[0].answering();
        let asked = |index: usize| activities[index].asked_to_leave().now_or_never().is_some();
        room.held.ask_the_longest_idle(Instant::now());
        assert!(!asked(0) && !asked(1) && !asked(2), "none has been idle for long");
        let later = Instant::now() + LONG_ENOUGH;
        drop(activities[1].answering()); // it is idle since now
        room.held.ask_the_longest_idle(later + LONG_ENOUGH);
        room.held.ask_the_longest_idle(later + LONG_ENOUGH);
        assert!(!asked(0) && asked(1) && asked(2));
        drop(busy);
        drop(places);
        assert!(room.held.connections.lock().is_empty());
    }
}
