//! SHA256SUMS: which files a version has, and what is in them. Who publishes a version writes it beside them.
#![forbid(unsafe_code)]

mod directory;
mod file_name;
mod sums;

pub use directory::{ManifestError, named_in, verify};
pub use file_name::refusal;
pub use sums::{MANIFEST, MAX_MANIFEST, Sha256, parse, sum};
