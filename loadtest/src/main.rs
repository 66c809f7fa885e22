//! `volley-load`: sends inference requests to a V2 server, and says what came of them.
#![forbid(unsafe_code)]

mod measurement;

fn main() {}
