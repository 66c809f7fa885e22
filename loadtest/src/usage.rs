//! Errors that are the user's to correct, wherever they are found: the exit status tells them from a server's.

use std::fmt;

/// What is wrong with what was typed, or with a file that was named.
#[derive(Debug)]
pub(crate) struct BadUsage(String);

impl fmt::Display for BadUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

/// Marks `error` as one of usage; its words stay.
pub(crate) fn bad(error: impl Into<anyhow::Error>) -> anyhow::Error {
    BadUsage(format!("{:#}", error.into())).into()
}

/// Whether `error` is one of usage.
pub(crate) fn is_bad(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<BadUsage>())
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn usage_is_told_through_what_is_said_around_it() {
        let error = bad(anyhow!("no such file").context("--input"));
        assert_eq!(error.to_string(), "--input: no such file");
        assert!(is_bad(&Err::<(), _>(error).context("model").unwrap_err()));
        assert!(!is_bad(&anyhow!("the server is gone")));
    }
}
