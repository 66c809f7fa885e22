//! What a new version has to keep to.

use std::fmt;
use std::time::Duration;

use statistics::{Alpha, Rate};

/// One condition, and how often it may be wrong.
#[derive(Clone, Debug)]
pub struct Gate {
    /// What is looked at.
    pub measure: Measure,
    /// In how many rollouts of a version that is just good enough it may fail, and in how many of one that is just too
    /// bad it may pass.
    pub alpha: Alpha,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// The share of requests that fail is below a limit.
    ErrorRate {
        /// Of 1.
        limit: Rate,
    },
    /// A quantile of the latency is below a limit: the share of answers that take longer is below what the quantile
    /// leaves.
    Latency {
        /// 0.95 for p95.
        quantile: Rate,
        /// The latency.
        limit: Duration,
    },
    /// The share of requests that fail is not above that of the stable version, but for a margin.
    ErrorsAgainst {
        /// Which callers of the stable version.
        whom: Against,
        /// Of 1: what is not worth a rollback.
        margin: Rate,
    },
    /// A quantile of the latency is not above that of the stable version, but for a tolerance.
    LatencyAgainst {
        /// 0.95 for p95.
        quantile: Rate,
        /// Which callers of the stable version.
        whom: Against,
        /// How much longer it may be: 0.1 for a tenth.
        tolerance: f64,
    },
}

/// Which callers of the stable version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// As many as the canary has.
    Baseline,
    /// All of them.
    Stable,
}

impl Measure {
    /// Whether it compares with as many callers of the stable version.
    pub fn wants_baseline(&self) -> bool {
        let whom = match self {
            Measure::ErrorsAgainst { whom, .. } | Measure::LatencyAgainst { whom, .. } => Some(*whom),
            Measure::ErrorRate { .. } | Measure::Latency { .. } => None,
        };
        whom == Some(Against::Baseline)
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Measure::ErrorRate { limit } => write!(f, "error rate below {} %", percent(limit.get())),
            Measure::Latency { quantile, limit } => {
                write!(f, "p{} below {}", percent(quantile.get()), humantime::format_duration(*limit))
            }
            Measure::ErrorsAgainst { whom, margin } => {
                write!(f, "error rate at most {} points above the {whom}'s", percent(margin.get()))
            }
            Measure::LatencyAgainst { quantile, whom, tolerance } => {
                write!(f, "p{} at most {} % above the {whom}'s", percent(quantile.get()), percent(*tolerance))
            }
        }
    }
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Against::Baseline => "baseline",
            Against::Stable => "stable version",
        })
    }
}

/// A share as a percentage, with as many digits as it takes and no more than six.
pub(crate) fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}
