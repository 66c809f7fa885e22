//! What operators ask of the server, on a port of its own.

mod host;
mod metrics;
mod repository;
mod server;

pub use server::MetricsService;
