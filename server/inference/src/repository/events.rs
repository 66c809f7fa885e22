//! What happens to versions, for those who follow it: kept for a while, and told as it comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use model::{ModelName, ModelVersion};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::snapshot::State;

/// Events that are kept for those who come later or fall behind.
const KEPT: usize = 1024;

/// One change of the state of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts from 1 since the server started.
    pub id: u64,
    /// When it happened.
    pub time: SystemTime,
    /// The model.
    pub model: ModelName,
    /// The version; `None` when it is about the model before its versions are known.
    pub version: Option<ModelVersion>,
    /// Its state since then.
    pub state: State,
    /// Why; empty when there is nothing to say.
    pub reason: String,
}

/// The events, in their order.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<VecDeque<Arc<Event>>>,
    sender: broadcast::Sender<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Events {
        Events { kept: Mutex::default(), sender: broadcast::Sender::new(KEPT) }
    }
}

impl Events {
    /// Tells of one more, at `time`.
    pub(super) fn tell(
        &self,
        time: SystemTime,
        model: &ModelName,
        version: Option<ModelVersion>,
        state: State,
        reason: String,
    ) {
        let mut kept = self.kept.lock(); // held while it is told, so that all see one order
        let id = kept.back().map_or(0, |event| event.id) + 1;
        let event = Arc::new(Event { id, time, model: model.clone(), version, state, reason });
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&event));
        let _ = self.sender.send(event); // nobody may be listening
    }

    /// What is kept of the events after number `after`, and those that come from now on: none is missing between
    /// the two.
    pub fn follow(&self, after: u64) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let kept = self.kept.lock();
        let before = kept.iter().filter(|event| event.id > after).cloned().collect();
        (before, self.sender.subscribe())
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.kept.lock().back().map_or(0, |event| event.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_follows_misses_nothing_and_the_oldest_are_let_go() {
        let events = Events::default();
        let name = ModelName::parse("m").unwrap();
        let tell = || events.tell(SystemTime::now(), &name, None, State::Loading, String::new());
        let ids = |events: &[Arc<Event>]| events.iter().map(|event| event.id).collect::<Vec<_>>();
        tell();
        tell();
        let (before, mut coming) = events.follow(1);
        tell();
        assert_eq!(ids(&before), [2]);
        assert_eq!(coming.try_recv().unwrap().id, 3);
        assert!(coming.try_recv().is_err());
        for _ in 0..KEPT {
            tell();
        }
        let (kept, _) = events.follow(0);
        assert_eq!((kept.len(), kept[0].id, events.count()), (KEPT, 4, 3 + KEPT as u64));
    }
}
