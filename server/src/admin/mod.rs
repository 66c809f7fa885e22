//! What operators ask of the server, on a port of its own.

mod host;
mod metrics;
mod server;

pub use server::MetricsService;
