//! Whether and until when a request may wait, before it does.

use std::time::{Duration, Instant};

use model::{InferError, InferRequest, Parameter, Parameters};

use super::ServedVersion;
use crate::batcher::TimeoutAction;
use crate::scheduler::Refused;
use crate::statistics::Failure;

/// How a request waits.
pub(super) struct Schedule<'a> {
    /// What the log calls it.
    pub(super) id: &'a str,
    pub(super) level: usize,
    pub(super) arrived: Instant,
    /// When it began to wait.
    pub(super) queued: Instant,
    /// When it has waited for too long.
    pub(super) deadline: Option<Instant>,
    /// When its client stops waiting for the answer.
    pub(super) client_deadline: Option<Instant>,
}

/// What is known of a request before it waits.
pub(super) struct Expected {
    pub(super) rows: u64,
    pub(super) size: u64,
}

impl ServedVersion {
    /// # Errors
    /// When the model has priorities, and the request's is none of them.
    pub(super) fn level(&self, request: &InferRequest) -> Result<usize, InferError> {
        self.batching
            .level(unsigned(&request.parameters, "priority"))
            .map_err(|reason| InferError::invalid(format!("{reason}, for model '{}'", self.name())))
    }

    /// When the request has waited for too long, if ever.
    pub(super) fn deadline(&self, request: &InferRequest, level: usize, queued: Instant) -> Option<Instant> {
        let policy = &self.batching.policy.levels[level];
        policy.default_timeout?;
        let timeout = unsigned(&request.parameters, "timeout");
        policy.deadline(queued, (timeout > 0).then(|| Duration::from_micros(timeout)))
    }

    /// Refuses a request at once that would wait until after its time: when it must run, or when its client stops
    /// waiting for the answer. One that waits for nobody is never refused: it may be done sooner than expected, and
    /// what never runs teaches nothing.
    pub(super) fn refuse_what_cannot_be_in_time(
        &self,
        expected: Expected,
        schedule: &Schedule<'_>,
    ) -> Result<(), InferError> {
        let Expected { rows, size } = expected;
        let (queue_deadline, deadline) = (self.rejection(schedule), schedule.client_deadline);
        if queue_deadline.is_none() && deadline.is_none() {
            return Ok(());
        }
        let ahead = self.engine.scheduler.ahead(schedule.level);
        if ahead.requests == 0 {
            return Ok(());
        }
        let policy = &self.batching.policy;
        let runs = if policy.merges { ahead.rows / policy.max_batch_size } else { ahead.requests };
        let cost = self.engine.cost.lock();
        let wait = cost.least(runs, ahead, self.engine.running.len());
        let run = cost.expected(rows, size);
        drop(cost);
        let (Some(wait), Some(run)) = (wait, run) else { return Ok(()) };
        let now = Instant::now();
        let left = |deadline: Instant| deadline.saturating_duration_since(now);
        let late = queue_deadline.map(left).filter(|left| wait > *left);
        let late = late.or_else(|| deadline.map(left).filter(|left| wait + run > *left));
        match late {
            None => Ok(()),
            Some(left) => {
                self.engine.statistics.record_failure(Failure::Rejected, schedule.arrived.elapsed());
                Err(InferError::TooLate { model: self.name().clone(), expected: wait + run, left })
            }
        }
    }

    /// When the request is refused for its time, if ever.
    pub(super) fn rejection(&self, schedule: &Schedule<'_>) -> Option<Instant> {
        let action = self.batching.policy.levels[schedule.level].timeout_action;
        schedule.deadline.filter(|_| action == TimeoutAction::Reject)
    }

    pub(super) fn refuse(&self, refused: Refused, arrived: Instant) -> InferError {
        self.engine.statistics.record_failure(Failure::Rejected, arrived.elapsed());
        match refused {
            Refused::Full { capacity } => InferError::QueueFull { model: self.name().clone(), capacity },
            Refused::Closed if self.failure().is_some() => {
                InferError::VersionFailed { model: self.name().clone(), version: self.version() }
            }
            Refused::Closed => InferError::ShuttingDown,
        }
    }
}

/// A parameter that is a count; 0 when it is not there.
pub(super) fn unsigned(parameters: &Parameters, name: &str) -> u64 {
    match parameters.get(name) {
        Some(Parameter::Int(value)) => u64::try_from(*value).unwrap_or_default(),
        Some(Parameter::Uint(value)) => *value,
        _ => 0,
    }
}
