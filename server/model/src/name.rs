//! What a model and its versions are called.

use std::borrow::Borrow;
use std::fmt;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::str::FromStr;

use smol_str::SmolStr;

/// A model's name: its directory in a model repository.
///
/// Safe as a path component, as a segment of a URL and as a metric label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(SmolStr);

/// A name that no model may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a model name: {reason}")]
pub struct InvalidModelName {
    name: String,
    reason: &'static str,
}

impl ModelName {
    /// Longest accepted name, in bytes: what common file systems allow for a directory.
    pub const MAX_LEN: usize = 255;

    /// # Errors
    /// When `raw` is empty or blank, longer than [`ModelName::MAX_LEN`], is `.` or `..`, or holds a slash,
    /// a backslash or a control character.
    pub fn parse(raw: &str) -> Result<ModelName, InvalidModelName> {
        let reason = if raw.trim().is_empty() {
            "it is empty"
        } else if raw.len() > Self::MAX_LEN {
            "it is longer than 255 bytes"
        } else if raw == "." || raw == ".." {
            "it would leave the model repository"
        } else if raw.contains(['/', '\\']) {
            "it holds a slash"
        } else if raw.chars().any(char::is_control) {
            "it holds a control character"
        } else {
            return Ok(ModelName(SmolStr::new(raw)));
        };
        let name = raw.chars().take(64).collect();
        Err(InvalidModelName { name, reason })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for ModelName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A version of a model: a positive integer, named by its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelVersion(NonZeroU64);

/// Text that names no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a model version: a version is a positive integer without leading zeros")]
pub struct InvalidModelVersion(String);

impl ModelVersion {
    /// The version `number`; `None` for 0.
    pub const fn new(number: u64) -> Option<ModelVersion> {
        match NonZeroU64::new(number) {
            Some(number) => Some(ModelVersion(number)),
            None => None,
        }
    }

    /// The version as a number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for ModelVersion {
    type Err = InvalidModelVersion;

    fn from_str(raw: &str) -> Result<ModelVersion, InvalidModelVersion> {
        let digits = !raw.is_empty() && raw.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits && !raw.starts_with('0') { raw.parse().ok() } else { None };
        number.and_then(ModelVersion::new).ok_or_else(|| InvalidModelVersion(raw.chars().take(32).collect()))
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_name_is_safe_as_a_path_and_a_label() {
        for good in ["simple", "my model", "résumé", "a.b-c_d", "...", "x".repeat(255).as_str()] {
            assert_eq!(ModelName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "  ", ".", "..", "a/b", "../a", "a\\b", "a\nb", "a\0b", "x".repeat(256).as_str()] {
            assert!(ModelName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_version_is_a_positive_integer_without_leading_zeros() {
        assert_eq!("17".parse::<ModelVersion>().unwrap().get(), 17);
        assert_eq!("18446744073709551615".parse::<ModelVersion>().unwrap().get(), u64::MAX);
        for bad in ["", "0", "01", "-1", "+1", "1.0", "one", " 1", "18446744073709551616"] {
            assert!(bad.parse::<ModelVersion>().is_err(), "{bad:?}");
        }
    }
}
