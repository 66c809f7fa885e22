//! Which version of a model a request goes to.
//!
//! A request goes to the version that it names; else where a rule of its model sends its headers and parameters; else,
//! where the traffic of its model is divided, by its slot among [`SLOTS`]: a hash of who asks, the same on every replica;
//! else to the latest version that is ready.
//!
//! Invariants:
//! - pure: no I/O, no clock, no lock, no chance of its own; a table is immutable and published whole;
//! - an explicit version in the request always wins;
//! - raising the share of a version sends only more callers to it, and never one of them back.
#![forbid(unsafe_code)]

mod caller;
mod matching;
mod slot;
mod split;
mod table;

pub use caller::{Caller, KeySource};
pub use matching::{InvalidPattern, Match, Pattern, Source};
pub use slot::{Hash, SLOTS, Salt, Slot};
pub use split::{Arm, Choice, InvalidSplit, Mirror, RoutedBy, Rule, Split, SplitParts};
pub use table::{Route, TrafficTable};
