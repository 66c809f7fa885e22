//! A request that waits for its answer, and what becomes of it when its client leaves or its time is over.

use std::time::Instant;

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::batcher::Ticket;
use crate::engine::Engine;
use crate::execution::Outputs;
use crate::reply::Answer;

/// A request that waits for its answer; dropped when its client leaves.
pub(super) struct Waits<'a> {
    pub(super) engine: &'a Engine,
    pub(super) ticket: Ticket,
    pub(super) answer: oneshot::Receiver<Answer<Outputs>>,
}

impl Waits<'_> {
    /// The answer, or a refusal if it still waits for an instance at `deadline`.
    pub(super) async fn answer(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Answer<Outputs>, oneshot::error::RecvError> {
        if let Some(deadline) = deadline {
            match timeout_at(deadline.into(), &mut self.answer).await {
                Ok(answered) => return answered,
                // What is being run is not late any more.
                Err(_) => self.engine.expire(self.ticket),
            }
        }
        (&mut self.answer).await
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.answer.is_terminated() {
            return; // it has its answer
        }
        self.answer.close();
        match self.engine.remove(self.ticket) {
            Some(job) => self.engine.cancel(job.request),
            None => self.engine.end_unneeded_runs(),
        }
    }
}

impl Engine {
    /// Refuses a request for its time if it still waits.
    fn expire(&self, ticket: Ticket) {
        if let Some(job) = self.remove(ticket) {
            self.refuse_expired(job.request);
        }
    }
}
