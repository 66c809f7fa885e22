//! The V2 protocol over HTTP: decode, ask the app, encode. One file for each step.
//!
//! Invariants:
//! - no handler knows another protocol, and nothing outside this module knows this one;
//! - a body is read within a limit and a time, whatever its client does;
//! - every refusal is `{"error": "…"}` with the status of its code (`status.rs`).

mod answer;
mod body;
pub mod codec;
mod compression;
mod event_stream;
mod infer;
mod model_control;
pub mod routes;
mod server;
pub mod status;
mod unread;

pub use server::{HttpService, builder};
