//! What is asked of a service, and how long it may take.

use std::fmt;
use std::time::Duration;

/// How a repository is spoken to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where credentials, region and endpoints come from.
    pub environment: Environment,
    /// What is bounded.
    pub limits: Limits,
}

impl Options {
    /// The environment of this process, and the usual limits.
    pub fn from_environment() -> Options {
        Options { environment: Environment::of_process(), limits: Limits::default() }
    }
}

/// Bounds on what a service may make us do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Objects of a listing; more are an error.
    pub objects: usize,
    /// Bytes that one request fetches.
    pub part_size: u64,
    /// Until a connection stands.
    pub connect: Duration,
    /// Without a byte.
    pub idle: Duration,
    /// For one request with its answer, which is at most a part or a page of a listing.
    pub request: Duration,
    /// For a whole listing.
    pub listing: Duration,
    /// Times that a request is made again.
    pub retries: usize,
    /// After which no request is made again.
    pub retry_within: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            objects: 1_000_000,
            part_size: 8 << 20,
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(15),
            request: Duration::from_secs(120),
            listing: Duration::from_secs(600),
            retries: 3,
            retry_within: Duration::from_secs(15),
        }
    }
}

/// Variables that the services' own programs read as well, such as `AWS_ACCESS_KEY_ID`. Values are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// What this process was started with.
    pub fn of_process() -> Environment {
        let texts = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        texts.collect()
    }

    /// The value of `name`, unless it is empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().rev().find(|(known, _)| known == name)?;
        (!value.is_empty()).then_some(value.as_str())
    }

    /// The variables whose names begin with `prefix`, in the order of their names, without empty ones.
    pub(crate) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let mut known: Vec<(&str, &str)> = self
            .0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, value)| name.starts_with(prefix) && !value.is_empty())
            .collect();
        known.sort_unstable();
        known.into_iter()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Environment {
        Environment(variables.into_iter().collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_shown() {
        let environment: Environment =
            [("AWS_SECRET_ACCESS_KEY".to_owned(), "SECRET".to_owned())].into_iter().collect();
        let shown = format!("{:?}", Options { environment, limits: Limits::default() });
        assert!(!shown.contains("SECRET"), "{shown}");
    }

    #[test]
    fn an_empty_variable_is_one_that_is_not_set() {
        let environment: Environment = [("AWS_REGION", ""), ("AWS_ENDPOINT_URL", "http://h"), ("HOME", "h")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into_iter()
            .collect();
        assert_eq!(environment.get("AWS_REGION"), None);
        assert_eq!(environment.with_prefix("AWS_").collect::<Vec<_>>(), [("AWS_ENDPOINT_URL", "http://h")]);
    }
}
