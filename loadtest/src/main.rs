//! `volley-load`: sends inference requests to a V2 server, and says what came of them.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the engine that makes measurements is not here yet")]

mod compare;
mod measurement;
mod report;
mod server_side;

fn main() {}
