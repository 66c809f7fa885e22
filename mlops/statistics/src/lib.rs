//! The formulas by which rollouts judge: what the evidence says of a rate, of shares and of latencies.
//!
//! Start at [`RateGate`], which is what a rollout asks. `docs/rollout-statistics.md` tells all of it in plain words.
//!
//! - [`probability`]: the limits and levels of error that everything here is asked with;
//! - [`counts`]: failures among requests;
//! - [`rate`]: is the rate of failures above a limit? May be asked after each request;
//! - [`interval`]: is it below? Asked once, at the end; and how many requests that takes;
//! - [`verdict`]: both together: fail, pass, or inconclusive;
//! - [`shares`]: do counts fall as the traffic is divided? and [`baseline`]: does a canary have more than its share of
//!   the errors?
//! - [`band`] and [`latency`]: is one version slower than another?
//!
//! Invariants:
//! - pure: no I/O, no clock, no randomness, nothing of ours is imported;
//! - the state of every test is a sum of counts, so that replicas add theirs up and come to the same verdict;
//! - no counts, however large or wrong, panic or yield a NaN: what is nonsense says nothing.
#![forbid(unsafe_code)]

pub mod band;
pub mod baseline;
pub mod counts;
pub mod interval;
pub mod latency;
pub mod probability;
pub mod rate;
pub mod shares;
pub mod verdict;

mod beta;
mod deviance;
mod quadrature;

pub use baseline::BaselineTest;
pub use counts::Counts;
pub use latency::{Latencies, LatencyTest};
pub use probability::{Alpha, InvalidProbability, Rate};
pub use rate::RateTest;
pub use shares::{InvalidShares, SequentialP, ShareTest};
pub use verdict::{RateEvidence, RateGate, Verdict};
