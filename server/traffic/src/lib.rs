//! Which version of a model a request goes to.
//!
//! Invariants:
//! - pure: no I/O, no clock, no lock; a table is immutable and published whole;
//! - an explicit version in the request always wins.
#![forbid(unsafe_code)]

use model::{ModelName, ModelVersion};

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The version that the request itself named.
    Explicit(ModelVersion),
    /// The highest version that is ready.
    Latest,
}

/// How the traffic of every model is divided among its versions. Today nothing divides it: a request goes
/// to the version it names, else to the latest.
#[derive(Clone, Debug, Default)]
pub struct TrafficTable;

impl TrafficTable {
    /// The route of a request for `_model` that names `version`, if it names one.
    pub fn route(&self, _model: &ModelName, version: Option<ModelVersion>) -> Route {
        match version {
            Some(version) => Route::Explicit(version),
            None => Route::Latest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_in_the_request_wins() {
        let model = ModelName::parse("simple").unwrap();
        let version = ModelVersion::new(3);
        assert_eq!(TrafficTable.route(&model, version), Route::Explicit(version.unwrap()));
        assert_eq!(TrafficTable.route(&model, None), Route::Latest);
    }
}
