//! What came of each request, gathered in one thread and handed over once a second.

use std::sync::mpsc::Sender;

use hdrhistogram::Histogram;

use crate::errors::Errors;
use crate::expect::Wrong;
use crate::thread_time::ThreadUse;
use crate::transport::Failure;

const SECOND: u64 = 1_000_000_000;
/// Latencies above an hour count as an hour.
const HOUR: u64 = 3600 * SECOND;

/// A histogram of nanoseconds, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HOUR, 3).expect("an hour at three digits is a histogram")
}

/// What is recorded, in nanoseconds of the run's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Requests due before are warm-up.
    pub(crate) open: u64,
    /// Nothing is due from here on; `u64::MAX` when the number of requests ends the run.
    pub(crate) close: u64,
}

/// What one thread saw in one second.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Which second since the warm-up, from 0.
    pub(crate) index: usize,
    /// Of the answers that were right, and of requests that timed out or were never answered.
    pub(crate) latency: Histogram<u64>,
    /// Requests that ended, well or badly.
    pub(crate) requests: u64,
    pub(crate) errors: u64,
}

/// What one thread saw in the whole run.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) send_lag: Histogram<u64>,
    /// Requests that ended, well or badly.
    pub(crate) requests: u64,
    /// Items of the requests answered well.
    pub(crate) items: u64,
    pub(crate) errors: Errors,
    pub(crate) wrong_answers: u64,
    pub(crate) unanswered: u64,
    /// By the model's place in the workload; those that were never asked may be missing at the end.
    pub(crate) models: Vec<OfModel>,
    /// Requests and items answered well while the window was open, whenever they were due.
    pub(crate) answered_in_window: u64,
    pub(crate) items_in_window: u64,
    /// Requests that ended while the window was open.
    pub(crate) ended_in_window: u64,
    /// What the thread used while the window was open.
    pub(crate) thread: ThreadUse,
    /// The first wrong answer, with its values.
    pub(crate) example: Option<String>,
    /// When the last request ended.
    pub(crate) last: u64,
}

/// A request that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// When it should have been sent; latency counts from here.
    pub(crate) due: u64,
    /// When its connection was free for it.
    pub(crate) free: u64,
    /// When it was sent.
    pub(crate) at: u64,
    pub(crate) items: u64,
    /// Of which model of the workload, from 0.
    pub(crate) model: usize,
}

/// What came of the requests of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfModel {
    /// Those answered well.
    pub(crate) answered: u64,
    /// What happened to the first that was not.
    pub(crate) first_error: Option<String>,
}

/// What came of a request that has no good answer.
#[derive(Clone, Debug)]
pub(crate) enum Problem {
    Failure(Failure),
    Wrong(Wrong),
    Timeout,
}

/// Gathers what one thread sees.
#[derive(Debug)]
pub(crate) struct Recorder {
    window: Window,
    /// Whether sending has a schedule, so that there is a lag.
    scheduled: bool,
    piece: Piece,
    out: Sender<Piece>,
    tally: Tally,
}

impl Recorder {
    pub(crate) fn new(window: Window, scheduled: bool, out: Sender<Piece>) -> Recorder {
        let tally = Tally {
            send_lag: histogram(),
            requests: 0,
            items: 0,
            errors: Errors::default(),
            wrong_answers: 0,
            unanswered: 0,
            models: Vec::new(),
            answered_in_window: 0,
            items_in_window: 0,
            ended_in_window: 0,
            thread: ThreadUse::default(),
            example: None,
            last: 0,
        };
        Recorder { window, scheduled, piece: piece(0), out, tally }
    }

    /// Takes note that `sent` ended at `now`.
    pub(crate) fn ended(&mut self, sent: &Sent, now: u64, outcome: Result<(), Problem>) {
        if (self.window.open..self.window.close).contains(&now) {
            self.tally.ended_in_window += 1;
            if outcome.is_ok() {
                self.tally.answered_in_window += 1;
                self.tally.items_in_window += sent.items;
            }
        }
        if sent.due < self.window.open {
            return;
        }
        self.roll(now);
        self.tally.last = now;
        self.tally.requests += 1;
        self.piece.requests += 1;
        // What reached no server waited for connections, and not for the generator.
        let reached = !matches!(outcome, Err(Problem::Failure(Failure::Unreachable(_) | Failure::Broken(_))));
        if self.scheduled && reached {
            self.tally.send_lag.saturating_record(sent.at.saturating_sub(sent.due.max(sent.free)).max(1));
        }
        match outcome {
            Ok(()) => {
                self.tally.items += sent.items;
                self.of_model(sent.model).answered += 1;
                self.latency(sent.due, now);
            }
            Err(problem) => self.failed(problem, sent, now),
        }
    }

    /// Takes note that a request due at `due` had no answer when it was given up at `now`.
    pub(crate) fn unanswered(&mut self, due: u64, now: u64) {
        if due >= self.window.open {
            self.tally.unanswered += 1;
            self.latency(due, now);
        }
    }

    /// Hands over the seconds before that of `now`.
    pub(crate) fn roll(&mut self, now: u64) {
        let Some(since) = now.checked_sub(self.window.open) else { return };
        let index = usize::try_from(since / SECOND).unwrap_or(usize::MAX);
        if index > self.piece.index {
            let done = std::mem::replace(&mut self.piece, piece(index));
            // Without anyone to take it the run is over.
            let _ = self.out.send(done);
        }
    }

    /// Takes note of what the thread has used since the window opened.
    pub(crate) fn used(&mut self, thread: ThreadUse) {
        self.tally.thread = thread;
    }

    /// Hands over what is left.
    pub(crate) fn finish(self) -> Tally {
        let _ = self.out.send(self.piece);
        self.tally
    }

    #[cold]
    fn failed(&mut self, problem: Problem, sent: &Sent, now: u64) {
        self.piece.errors += 1;
        let text = match problem {
            Problem::Failure(failure) => failure.to_string(),
            Problem::Wrong(wrong) => {
                self.tally.wrong_answers += 1;
                self.tally.example.get_or_insert(wrong.detail);
                wrong.kind
            }
            Problem::Timeout => {
                // It would have taken at least as long; left out, a server that hangs would look fast.
                self.latency(sent.due, now);
                "timeout".to_owned()
            }
        };
        self.of_model(sent.model).first_error.get_or_insert_with(|| text.clone());
        self.tally.errors.count(text);
    }

    fn of_model(&mut self, model: usize) -> &mut OfModel {
        if self.tally.models.len() <= model {
            self.tally.models.resize_with(model + 1, OfModel::default);
        }
        &mut self.tally.models[model]
    }

    fn latency(&mut self, due: u64, now: u64) {
        self.piece.latency.saturating_record(now.saturating_sub(due).max(1));
    }
}

fn piece(index: usize) -> Piece {
    Piece { index, latency: histogram(), requests: 0, errors: 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const WINDOW: Window = Window { open: SECOND, close: 3 * SECOND };

    fn recorder() -> (Recorder, Receiver<Piece>) {
        let (out, pieces) = channel();
        (Recorder::new(WINDOW, true, out), pieces)
    }

    fn sent(due: u64) -> Sent {
        Sent { due, free: 0, at: due + 10, items: 4, model: 0 }
    }

    #[test]
    fn the_warm_up_counts_for_the_rate_and_not_for_the_latency() {
        let (mut recorder, _pieces) = recorder();
        recorder.ended(&sent(0), SECOND - 1, Ok(()));
        recorder.ended(&sent(SECOND - 1), SECOND, Ok(()));
        recorder.ended(&sent(SECOND), SECOND + 5, Ok(()));
        recorder.ended(&sent(3 * SECOND - 1), 3 * SECOND, Ok(()));
        let tally = recorder.finish();
        assert_eq!((tally.requests, tally.answered_in_window, tally.items_in_window), (2, 2, 8));
        assert_eq!(tally.send_lag.len(), 2);
    }

    #[test]
    fn the_generator_is_not_late_for_a_server_that_is_gone() {
        let (mut recorder, _pieces) = recorder();
        for failure in [Failure::Unreachable(String::new()), Failure::Broken(String::new())] {
            recorder.ended(&sent(SECOND), SECOND, Err(Problem::Failure(failure)));
        }
        recorder.ended(&sent(SECOND), SECOND, Err(Problem::Failure(Failure::Failed(String::new()))));
        assert_eq!(recorder.finish().send_lag.len(), 1);
    }

    #[test]
    fn seconds_are_handed_over_as_they_end() {
        let (mut recorder, pieces) = recorder();
        recorder.ended(&sent(SECOND), SECOND + 1000, Ok(()));
        recorder.ended(&sent(SECOND), 2 * SECOND + 1, Err(Problem::Timeout));
        recorder.finish();
        let pieces: Vec<Piece> = pieces.iter().collect();
        let seen: Vec<_> = pieces.iter().map(|piece| (piece.index, piece.requests, piece.errors)).collect();
        assert_eq!(seen, [(0, 1, 0), (1, 1, 1)]);
        assert!(pieces[1].latency.max() >= SECOND, "a timeout is in the latency");
    }

    #[test]
    fn what_is_given_up_shows_in_the_latency() {
        let (mut recorder, pieces) = recorder();
        recorder.unanswered(SECOND - 1, 9 * SECOND);
        recorder.unanswered(2 * SECOND, 9 * SECOND);
        assert_eq!(recorder.finish().unanswered, 1);
        assert!(pieces.recv().unwrap().latency.max() >= 7 * SECOND);
    }

    #[test]
    fn a_wrong_answer_is_an_error_with_an_example() {
        let (mut recorder, _pieces) = recorder();
        let wrong = Wrong { kind: "wrong answer: y".to_owned(), detail: "y is 1".to_owned() };
        recorder.ended(&sent(SECOND), SECOND, Err(Problem::Wrong(wrong)));
        let tally = recorder.finish();
        assert_eq!(tally.errors.told(), [("wrong answer: y".to_owned(), 1)].into());
        assert_eq!((tally.wrong_answers, tally.example.as_deref()), (1, Some("y is 1")));
    }
}
