//! From a checked request to its outputs, and the model repository that says what can be asked.
//!
//! In the order a request meets them: [`repository`] finds the ready version, `request_check` holds the
//! request against the model's configuration, the `cache` answers it if it was answered before; else the
//! [`scheduler`] keeps it until the [`batcher`] gives it to an `instance`, alone or with others, and the
//! [`backend`] runs them; where a [`rate_limiter`] says so, once what the instance takes is free.
//!
//! Invariants:
//! - no wire format, no model format: the first belongs to `server`, the second to a backend;
//! - a request holds an `Arc` of its version, so a version lives as long as anyone needs it;
//! - every queue is bounded; a full one answers at once;
//! - one thread owns one instance; it alone runs it and records what it did.
#![forbid(unsafe_code)]

pub mod backend;
pub mod batch;
pub mod batcher;
mod cache;
pub mod classification;
pub mod config;
mod cost;
pub mod current_request;
mod engine;
mod execution;
mod instance;
mod latency_objective;
mod pace;
mod padding;
mod ragged;
pub mod rate_limiter;
pub mod remote;
mod reply;
pub mod repository;
mod request_check;
pub mod scheduler;
pub mod statistics;
pub mod trial;
mod version;
mod warmup;
mod worker;

pub use cache::ResponseCache;
pub use cost::LearnedCost;
pub use version::{Abandoned, ServedVersion, TensorMetadata};
