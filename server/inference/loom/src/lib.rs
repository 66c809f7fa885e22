//! The scheduler and the batcher, compiled from the source that is served, over locks that loom runs in every order.
#![forbid(unsafe_code)]

#[path = "../../src/batcher/mod.rs"]
pub mod batcher;
#[path = "../../src/scheduler.rs"]
pub mod scheduler;
