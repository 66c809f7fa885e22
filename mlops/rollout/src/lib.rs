//! How a new version of a model is brought to all callers, step by step, on evidence.
//!
//! A [`Plan`] says what is to happen: steps, and gates that the new version has to pass. A [`State`] says how far that
//! has come; [`State::advance`] is told what was counted and how much time has passed, and says what it becomes, which
//! is a rollback as soon as a gate fails, and a promotion once all have passed. [`State::command`] is an operator's word
//! on it. [`State::split`] is what traffic has to look like meanwhile. A [`Tally`]
//! counts requests as they are answered.
//!
//! Invariants:
//! - pure: no I/O, no clock, no chance; a state is a value that can be stored and taken up elsewhere;
//! - all that is counted are sums, so that replicas add theirs up and come to the same verdict;
//! - without evidence nothing passes, and without a gate that fails nothing is rolled back;
//! - every state has a revision, so that of two who change it at the same time one learns that he lost.
#![forbid(unsafe_code)]

mod analysis;
mod condition;
mod counts;
mod gate;
mod measurements;
mod plan;
mod state;
mod tally;

pub use analysis::{Analysis, Finding, Ruling};
pub use condition::{Condition, InvalidCondition, Unanswerable, Value};
pub use counts::{Arms, Sums};
pub use gate::{Against, Gate, Measure};
pub use measurements::{Criteria, Measurements, MetricPhase};
pub use plan::{HeaderRoute, InvalidPlan, Plan, Routing, Step};
pub use state::{Change, Command, Phase, Refused, State, Tick};
pub use tally::{Outcome, Tally};
