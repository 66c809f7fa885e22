//! The requests of one priority.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Load, TimeoutAction, Waiting};

/// Places of removed requests are closed once there are this many more than requests.
const VACANT_SLACK: usize = 32;

#[derive(Debug)]
pub(super) struct Level<R> {
    /// By number, ascending. A place whose request was removed stays vacant for a while, so that a removal moves
    /// nothing; the first place never is.
    places: VecDeque<Place<R>>,
    vacant: usize,
    /// Of the requests in `places`.
    load: Load,
    /// Those that have waited for too long, where the policy is to serve them last.
    delayed: VecDeque<Place<R>>,
    /// Not later than the earliest deadline in `places`.
    earliest_deadline: Option<Instant>,
}

#[derive(Debug)]
struct Place<R> {
    number: u64,
    waiting: Option<Waiting<R>>,
}

impl<R> Place<R> {
    fn numbered(&self) -> Option<(u64, &Waiting<R>)> {
        self.waiting.as_ref().map(|waiting| (self.number, waiting))
    }
}

impl<R> Default for Level<R> {
    fn default() -> Level<R> {
        Level {
            places: VecDeque::new(),
            vacant: 0,
            load: Load::default(),
            delayed: VecDeque::new(),
            earliest_deadline: None,
        }
    }
}

impl<R> Level<R> {
    pub(super) fn len(&self) -> usize {
        self.in_time() + self.late()
    }

    /// How many have not waited for too long.
    pub(super) fn in_time(&self) -> usize {
        self.places.len() - self.vacant
    }

    /// How many have.
    pub(super) fn late(&self) -> usize {
        self.delayed.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.delayed.is_empty()
    }

    /// What waits and has not waited for too long.
    pub(super) fn load(&self) -> Load {
        self.load
    }

    pub(super) fn push(&mut self, number: u64, waiting: Waiting<R>) {
        self.earliest_deadline = earlier(self.earliest_deadline, waiting.deadline);
        self.load = self.load.plus(Load::of(&waiting));
        self.places.push_back(Place { number, waiting: Some(waiting) });
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<R> {
        // One that is delayed has left its place vacant here.
        if let Ok(index) = self.places.binary_search_by_key(&number, |place| place.number)
            && let Some(waiting) = self.places[index].waiting.take()
        {
            self.vacant += 1;
            self.load = self.load.minus(Load::of(&waiting));
            self.close_vacant_places();
            return Some(waiting.request);
        }
        let index = self.delayed.iter().position(|place| place.number == number)?;
        self.delayed.remove(index)?.waiting.map(|waiting| waiting.request)
    }

    /// Moves those whose deadline has passed to `expired`, or to the end.
    pub(super) fn expire(&mut self, now: Instant, action: TimeoutAction, expired: &mut Vec<R>) {
        if self.earliest_deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.earliest_deadline = None;
        for place in &mut self.places {
            let late =
                place.waiting.take_if(|waiting| waiting.deadline.is_some_and(|deadline| deadline <= now));
            if let Some(late) = late {
                self.vacant += 1;
                self.load = self.load.minus(Load::of(&late));
                match action {
                    TimeoutAction::Delay => {
                        self.delayed.push_back(Place { number: place.number, waiting: Some(late) });
                    }
                    TimeoutAction::Reject => expired.push(late.request),
                }
            } else if let Some(waiting) = &place.waiting {
                self.earliest_deadline = earlier(self.earliest_deadline, waiting.deadline);
            }
        }
        self.close_vacant_places();
    }

    /// Those that have not waited for too long, the oldest first, and their numbers.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u64, &Waiting<R>)> {
        self.places.iter().filter_map(Place::numbered)
    }

    /// Those that have waited for too long, and their numbers.
    pub(super) fn delayed(&self) -> impl Iterator<Item = (u64, &Waiting<R>)> {
        self.delayed.iter().filter_map(Place::numbered)
    }

    /// Moves from the front of [`Level::waiting`] to `batch`, until that holds `until`.
    pub(super) fn take_waiting(&mut self, until: usize, batch: &mut Vec<R>) {
        while batch.len() < until
            && let Some(place) = self.places.pop_front()
        {
            match place.waiting {
                Some(waiting) => {
                    self.load = self.load.minus(Load::of(&waiting));
                    batch.push(waiting.request);
                }
                None => self.vacant -= 1,
            }
        }
        self.close_vacant_places();
    }

    /// Moves from the front of [`Level::delayed`] to `batch`, until that holds `until`.
    pub(super) fn take_delayed(&mut self, until: usize, batch: &mut Vec<R>) {
        while batch.len() < until
            && let Some(place) = self.delayed.pop_front()
        {
            batch.extend(place.waiting.map(|waiting| waiting.request));
        }
    }

    /// At the front always, elsewhere when there are many, so that each costs little.
    fn close_vacant_places(&mut self) {
        if self.vacant == 0 {
            return;
        }
        while self.places.front().is_some_and(|place| place.waiting.is_none()) {
            self.places.pop_front();
            self.vacant -= 1;
        }
        if self.vacant > VACANT_SLACK + self.places.len() / 2 {
            self.places.retain(|place| place.waiting.is_some());
            self.vacant = 0;
        }
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(request: u64) -> Waiting<u64> {
        let queued = Instant::now();
        Waiting {
            rows: 1,
            size: 1,
            shape: crate::batcher::ShapeKey::new(),
            level: 0,
            queued,
            deadline: None,
            request,
        }
    }

    /// An old request at the front, and many behind it whose clients leave.
    #[test]
    fn vacant_places_never_outnumber_requests_by_much() {
        let mut level = Level::default();
        level.push(0, waiting(0));
        for number in 1..10_000 {
            level.push(number, waiting(number));
            assert_eq!(level.remove(number), Some(number));
            assert_eq!(level.remove(number), None);
            assert!(level.places.len() < 2 * VACANT_SLACK + 4, "{}", level.places.len());
        }
        assert_eq!((level.len(), level.load().rows), (1, 1));
        assert_eq!(level.remove(0), Some(0));
        assert!(level.is_empty() && level.load() == Load::default());
    }
}
