//! volley.
fn main() {}
