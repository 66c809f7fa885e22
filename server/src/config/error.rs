//! Why the server does not start with the settings it was given.

use std::fmt;
use std::path::PathBuf;

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag,
    /// In the environment.
    Environment,
    /// In the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Nowhere: it is the default.
    Default,
}

/// Settings that contradict themselves, each other, or what the server can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that its setting does not take.
    #[error("{} is {value:?}, but it must be {accepts}", Named { name, origin })]
    InvalidValue {
        /// The setting.
        name: &'static str,
        /// The value given, shortened when very long.
        value: String,
        /// Where it was given.
        origin: Origin,
        /// What the value must be.
        accepts: &'static str,
    },
    /// An option that Triton has, and that this server cannot leave without effect.
    #[error("{} is refused: {reason}", Named { name, origin })]
    Refused {
        /// The option.
        name: &'static str,
        /// Where it was given.
        origin: Origin,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A value that is known but not supported.
    #[error("{} is {value:?}: {reason}", Named { name, origin })]
    Unsupported {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// Where it was given.
        origin: Origin,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// A model repository that cannot be one. Its text may hold what is secret, and is not shown here.
    #[error("{}: {reason}", Named { name: "model-repository", origin })]
    Repository {
        /// Where it was given.
        origin: Origin,
        /// Which, why not, and what to do.
        reason: String,
    },
    /// A key in the configuration file that is no setting.
    #[error("{}:{line}: there is no setting {key:?}{}", path.display(), Suggestion(nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The setting whose name is most like it, if any is.
        nearest: Option<&'static str>,
    },
    /// A configuration file that is not the TOML it should be.
    #[error("{}:{line}: {reason}", path.display())]
    MalformedFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A configuration file that cannot be read.
    #[error("cannot read the configuration file {} (given by {given_by}): {reason}", path.display())]
    UnreadableFile {
        /// The file.
        path: PathBuf,
        /// The flag or variable that names it.
        given_by: String,
        /// Why.
        reason: String,
    },
    /// Settings that exclude each other.
    #[error("{reason}")]
    Contradiction {
        /// The whole sentence.
        reason: String,
    },
}

/// A setting and where it was given, in the words its user knows it by.
struct Named<'a> {
    name: &'a str,
    origin: &'a Origin,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Flag => write!(f, "--{}", self.name),
            Origin::Environment => {
                write!(f, "the environment variable {}", super::setting::variable(self.name))
            }
            Origin::File { path, line } => write!(f, "{}:{line}: {}", path.display(), self.name),
            Origin::Default => write!(f, "the default of --{}", self.name),
        }
    }
}

/// The end of a sentence about an unknown name.
struct Suggestion<'a>(&'a Option<&'static str>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
            None => f.write_str("; docs/settings.md lists them all"),
        }
    }
}
