//! Benches of the hot parts: each module asks one question, and lists the paths that answer it.
//!
//! A path is measured in two ways that share all of this: `benches/time.rs` times it, and the program
//! `instructions` runs it under callgrind. `cargo xtask bench` drives both.
#![forbid(unsafe_code)]

pub mod batch;
pub mod decode;
pub mod encode;
pub mod gate;
pub mod infer;
pub mod queue;
pub mod routing;
pub mod statistics;

mod echo;
mod hot_path;
mod tensor;

pub use hot_path::{HotPath, Work};

/// Every path, in the order a request meets the parts.
pub fn all() -> Vec<HotPath> {
    let parts = [
        routing::paths(),
        decode::paths(),
        infer::paths(),
        queue::paths(),
        batch::paths(),
        statistics::paths(),
        gate::paths(),
        encode::paths(),
    ];
    parts.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn every_path_has_a_name_of_its_own_and_runs_again_and_again() {
        let mut names = HashSet::new();
        for path in super::all() {
            assert!(names.insert(path.name.clone()), "{} is the name of two paths", path.name);
            let mut work = path.prepare();
            work();
            work();
        }
    }
}
