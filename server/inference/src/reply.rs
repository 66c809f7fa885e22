//! The way back to who asked, in turn where the model's configuration says so.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use model::InferError;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What a request is answered with.
pub(crate) type Answer<T> = Result<T, InferError>;

/// Answers one request; when it is dropped, whoever waits is told that nobody answers.
pub(crate) struct Reply<T> {
    /// Gone once it has been used. The receiver is dropped when the client leaves.
    sender: Option<oneshot::Sender<Answer<T>>>,
    turn: Option<Turn<T>>,
}

/// A place in the order of answers.
struct Turn<T> {
    order: Arc<AnswerOrder<T>>,
    number: u64,
}

/// Lets answers go in the order in which their requests came (`preserve_ordering`).
pub(crate) struct AnswerOrder<T> {
    /// Held to send answers, which only wakes who waits for them; so two threads cannot send out of turn.
    state: Mutex<State<T>>,
}

struct State<T> {
    /// The number of the first slot.
    first: u64,
    /// For each request since the first that is not done. The first slot is never a done one.
    slots: VecDeque<Slot<T>>,
}

enum Slot<T> {
    /// Not answered yet.
    Open,
    /// Answered, or given up.
    Done(Option<(oneshot::Sender<Answer<T>>, Answer<T>)>),
}

impl<T> Reply<T> {
    /// Answers as soon as there is an answer.
    pub(crate) fn at_once(sender: oneshot::Sender<Answer<T>>) -> Reply<T> {
        Reply { sender: Some(sender), turn: None }
    }

    /// Answers after all that came before.
    pub(crate) fn in_turn(sender: oneshot::Sender<Answer<T>>, order: &Arc<AnswerOrder<T>>) -> Reply<T> {
        let number = order.enter();
        Reply { sender: Some(sender), turn: Some(Turn { order: Arc::clone(order), number }) }
    }

    /// True when nobody waits for the answer any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Answers. False when nobody waits for it any more.
    pub(crate) fn send(mut self, answer: Answer<T>) -> bool {
        let Some(sender) = self.sender.take() else { return false };
        match self.turn.take() {
            None => sender.send(answer).is_ok(),
            Some(turn) => {
                let waits = !sender.is_closed();
                turn.order.done(turn.number, Some((sender, answer)));
                waits
            }
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            turn.order.done(turn.number, None);
        }
    }
}

impl<T> AnswerOrder<T> {
    fn enter(&self) -> u64 {
        let mut state = self.state.lock();
        state.slots.push_back(Slot::Open);
        state.first + state.slots.len() as u64 - 1
    }

    fn done(&self, number: u64, held: Option<(oneshot::Sender<Answer<T>>, Answer<T>)>) {
        let mut state = self.state.lock();
        let slot = usize::try_from(number - state.first).ok().and_then(|index| state.slots.get_mut(index));
        if let Some(slot) = slot {
            *slot = Slot::Done(held);
        }
        while state.slots.front().is_some_and(|slot| matches!(slot, Slot::Done(_))) {
            state.first += 1;
            if let Some(Slot::Done(Some((sender, answer)))) = state.slots.pop_front() {
                // A client that has left needs no answer.
                let _ = sender.send(answer);
            }
        }
    }
}

impl<T> Default for AnswerOrder<T> {
    fn default() -> AnswerOrder<T> {
        AnswerOrder { state: Mutex::new(State { first: 0, slots: VecDeque::new() }) }
    }
}

impl<T> fmt::Debug for AnswerOrder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerOrder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_in_the_order_of_the_requests_and_what_is_given_up_holds_up_nobody() {
        let order = Arc::new(AnswerOrder::default());
        let (mut replies, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let (sender, receiver) = oneshot::channel();
            replies.push(Some(Reply::in_turn(sender, &order)));
            answers.push(receiver);
        }
        let mut send = |index: usize| replies[index].take().map(|reply| reply.send(Ok(index)));
        assert_eq!(send(3), Some(true));
        assert_eq!(send(1), Some(true));
        assert!(answers[1].try_recv().is_err(), "the first has no answer yet");
        assert_eq!(send(0), Some(true));
        assert_eq!((answers[0].try_recv(), answers[1].try_recv()), (Ok(Ok(0)), Ok(Ok(1))));
        assert!(answers[3].try_recv().is_err());
        replies[2] = None;
        assert_eq!(answers[3].try_recv(), Ok(Ok(3)));
        assert!(answers[2].try_recv().is_err(), "nobody answers it");
        assert!(order.state.lock().slots.is_empty());
    }

    #[test]
    fn without_an_order_each_is_answered_at_once() {
        let (sender, mut receiver) = oneshot::channel();
        assert!(Reply::at_once(sender).send(Ok(1)));
        assert_eq!(receiver.try_recv(), Ok(Ok(1)));
        let (sender, receiver) = oneshot::channel::<Answer<()>>();
        drop(receiver);
        let reply = Reply::at_once(sender);
        assert!(reply.is_closed());
        assert!(!reply.send(Ok(())));
    }
}
