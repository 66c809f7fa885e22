//! The scheduler, the batcher and the rate limiter, compiled from the source that is served, over locks that loom runs in
//! every order.
#![forbid(unsafe_code)]

#[path = "../../src/batcher/mod.rs"]
pub mod batcher;
#[path = "../../src/rate_limiter/mod.rs"]
pub mod rate_limiter;
#[path = "../../src/scheduler.rs"]
pub mod scheduler;
