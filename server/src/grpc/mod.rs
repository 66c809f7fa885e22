//! The V2 protocol over gRPC: decode, ask the app, encode. The twin of [`crate::http`].
//!
//! Invariants:
//! - no handler knows another protocol, and nothing outside this module knows this one;
//! - what a message becomes is bounded before it becomes it (`codec.rs`), and so is its time (`request_body.rs`);
//! - tensor bytes are the message's own, in and out: never copies, but for typed contents.

mod call;
mod codec;
mod contents;
mod deadline;
mod health;
pub mod infer;
mod inference_service;
mod request_body;
mod server;
mod service;
pub mod status;
mod stream;

pub use server::{GrpcService, builder, routes};
