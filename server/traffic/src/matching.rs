//! Requests that a rule is about: by what stands in their headers and parameters.

use regex::Regex;
use smol_str::SmolStr;

use crate::caller::{Caller, KeySource};

/// Where a condition looks: a header or a parameter.
pub type Source = KeySource;

/// What stands there must be.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// This.
    Exact(SmolStr),
    /// This at first, and anything after it.
    Prefix(SmolStr),
    /// Matched by this from its beginning to its end.
    Regex(Regex),
}

/// A regular expression that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is no regular expression that can be used: {reason}")]
pub struct InvalidPattern {
    pattern: String,
    reason: String,
}

/// A compiled expression takes at most so many bytes: patterns come from requests.
const LARGEST_REGEX: usize = 256 << 10;

impl Pattern {
    /// What is matched by `pattern` as a whole.
    ///
    /// # Errors
    /// When it is no regular expression, or a huge one.
    pub fn regex(pattern: &str) -> Result<Pattern, InvalidPattern> {
        regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
            .size_limit(LARGEST_REGEX)
            .dfa_size_limit(LARGEST_REGEX)
            .build()
            .map(Pattern::Regex)
            .map_err(|error| InvalidPattern { pattern: pattern.to_owned(), reason: error.to_string() })
    }

    fn fits(&self, value: &str) -> bool {
        match self {
            Pattern::Exact(exact) => value == exact,
            Pattern::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Pattern::Regex(regex) => regex.is_match(value),
        }
    }
}

/// A condition on one header or parameter. One that is not there fits nothing.
#[derive(Clone, Debug)]
pub struct Match {
    /// Where to look.
    pub source: Source,
    /// What must stand there.
    pub pattern: Pattern,
}

impl Match {
    /// Whether `caller` is one of those.
    pub fn fits(&self, caller: &impl Caller) -> bool {
        self.source.read(caller).is_some_and(|value| self.pattern.fits(&value))
    }
}
