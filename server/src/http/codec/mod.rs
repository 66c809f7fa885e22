//! The V2 inference codec: HTTP bodies to values of [`model`], and back.
//!
//! Invariants:
//! - JSON is read once, front to back, straight into tensor bytes; there is no tree of values;
//! - nothing recurses: nesting costs a counter, and its limit is [`MAX_DEPTH`];
//! - memory grows with the bytes that came, never with what a shape claims;
//! - binary tensors are slices of the body, and of the response: never copies.
//!
//! JSON has no NaN and no infinities. They are written, and read, as proto3's JSON mapping has them: the
//! strings `"NaN"`, `"Infinity"` and `"-Infinity"`. The bare words, which Python's `json` writes, are read
//! too, but only inside `data`.

mod decimal;
mod decode;
mod encode;
mod fp32;
mod input;
mod output;
mod parameters;
mod read_data;
mod reader;
mod short_float;
mod write_data;

#[cfg(test)]
mod tests;

pub use decode::{InferBody, Limits, decode};
pub use encode::{Encoded, encode};
pub use output::OutputSpec;
pub use reader::MAX_DEPTH;
