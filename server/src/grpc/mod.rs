//! The V2 protocol over gRPC: decode, ask the app, encode. The twin of [`crate::http`].
//!
//! Invariants:
//! - no handler knows another protocol, and nothing outside this module knows this one;
//! - tensor bytes are the message's own, in and out: never copies, but for typed contents.

mod contents;
mod health;
pub mod infer;
mod server;
mod service;
pub mod status;
mod stream;

pub use server::{GrpcService, builder, routes};
