//! What was typed, from the command line, the environment and the configuration file, as one text per value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::error::{ConfigError, Origin};
use super::flags::Flags;
use super::setting::{DefaultValue, Setting, variable};
use super::{file, settings, triton};

/// Variables by which Triton's own test tools set what is a setting here.
const TRITONS_VARIABLES: [(&str, &str); 1] = [("delay-scheduler", "TRITONSERVER_DELAY_SCHEDULER")];

/// Where the parts of a [`RawConfig`] come from.
pub(super) struct Sources<'a> {
    pub(super) flags: Flags,
    pub(super) environment: &'a dyn Fn(&str) -> Option<OsString>,
    pub(super) read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// The values given for one setting, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) values: Vec<String>,
    pub(super) origin: Origin,
}

/// Every setting that was given, each by the strongest of its sources: flag, then environment, then file.
#[derive(Debug, Default)]
pub(super) struct RawConfig {
    given: BTreeMap<&'static str, Given>,
}

impl RawConfig {
    pub(super) fn gather(sources: Sources<'_>) -> Result<RawConfig, ConfigError> {
        let mut raw = RawConfig::default();
        for (name, values) in sources.flags.given {
            raw.offer(name, Given { values, origin: Origin::Flag });
        }
        for (name, repeatable) in names() {
            if let Some(given) = from_environment(name, repeatable, sources.environment)? {
                raw.offer(name, given);
            }
        }
        if let Some(path) = raw.find(&settings::CONFIG)? {
            let text = (sources.read_file)(&path).map_err(|error| ConfigError::UnreadableFile {
                path: path.clone(),
                given_by: raw.config_given_by(),
                reason: error.to_string(),
            })?;
            for (name, given) in file::parse(&text, &path)? {
                raw.offer(name, given);
            }
        }
        Ok(raw)
    }

    /// Takes `given` for `name`, unless a stronger source gave it.
    fn offer(&mut self, name: &'static str, given: Given) {
        self.given.entry(name).or_insert(given);
    }

    fn config_given_by(&self) -> String {
        let name = settings::CONFIG.declaration.name;
        match self.origin(name) {
            Origin::Environment => variable(name),
            _ => format!("--{name}"),
        }
    }

    /// Where `name` was given.
    pub(super) fn origin(&self, name: &str) -> Origin {
        self.given.get(name).map_or(Origin::Default, |given| given.origin.clone())
    }

    /// The values given for `name`.
    pub(super) fn given(&self, name: &str) -> Option<&Given> {
        self.given.get(name)
    }

    /// The texts given for `name`, in their order.
    pub(super) fn texts(&self, name: &str) -> &[String] {
        self.given.get(name).map_or(&[], |given| &given.values)
    }

    /// Every value of `setting`, or its default.
    pub(super) fn all<T>(&self, setting: &Setting<T>) -> Result<Vec<T>, ConfigError> {
        let declaration = &setting.declaration;
        let parse = |value: &str, origin: &Origin| {
            (setting.parse)(value).ok_or_else(|| ConfigError::InvalidValue {
                name: declaration.name,
                value: shorten(value),
                origin: origin.clone(),
                accepts: declaration.accepts,
            })
        };
        match (self.given.get(declaration.name), declaration.default) {
            (Some(given), _) => given.values.iter().map(|value| parse(value, &given.origin)).collect(),
            (None, DefaultValue::Value(value)) => Ok(vec![parse(value, &Origin::Default)?]),
            (None, DefaultValue::Derived(_) | DefaultValue::Absent) => Ok(Vec::new()),
        }
    }

    /// The value of `setting`, if it was given or has a default.
    pub(super) fn find<T>(&self, setting: &Setting<T>) -> Result<Option<T>, ConfigError> {
        Ok(self.all(setting)?.pop())
    }

    /// The value of `setting`, which has a default.
    pub(super) fn get<T>(&self, setting: &Setting<T>) -> Result<T, ConfigError> {
        Ok(self.find(setting)?.expect("only settings with a default value are read by `get`"))
    }
}

fn names() -> impl Iterator<Item = (&'static str, bool)> {
    let own = settings::ALL.iter().map(|declaration| (declaration.name, declaration.repeatable));
    own.chain(triton::OPTIONS.iter().map(|option| (option.name, false)))
}

/// Every variable that is looked at.
pub(super) fn variables() -> impl Iterator<Item = String> {
    let tritons = TRITONS_VARIABLES.iter().map(|(_, own)| (*own).to_owned());
    names().map(|(name, _)| variable(name)).chain(tritons)
}

/// An empty variable gives nothing. Several values are parted by semicolons: colons occur in URLs, and commas in
/// the settings of backends.
fn from_environment(
    name: &'static str,
    repeatable: bool,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<Given>, ConfigError> {
    let named = |name: &str| environment(name).filter(|value| !value.is_empty());
    let tritons =
        || TRITONS_VARIABLES.iter().find(|(setting, _)| *setting == name).and_then(|(_, own)| named(own));
    let Some(value) = named(&variable(name)).or_else(tritons) else { return Ok(None) };
    let value = value.into_string().map_err(|value| ConfigError::InvalidValue {
        name,
        value: shorten(&value.to_string_lossy()),
        origin: Origin::Environment,
        accepts: "valid UTF-8",
    })?;
    let values = if repeatable {
        value.split(';').filter(|value| !value.is_empty()).map(str::to_owned).collect()
    } else {
        vec![value]
    };
    Ok(Some(Given { values, origin: Origin::Environment }))
}

/// `value`, cut where it grows too long to be read in a message.
pub(super) fn shorten(value: &str) -> String {
    const LONGEST: usize = 200;
    if value.chars().count() <= LONGEST {
        return value.to_owned();
    }
    value.chars().take(LONGEST).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the port is when it is given on the command line, in the environment and in the file, or not.
    #[track_caller]
    fn check(flag: Option<&str>, variable: Option<&str>, key: Option<&str>, expected: (u16, Origin)) {
        let mut flags = Flags::default();
        flags.given.push(("config", vec!["volley.toml".to_owned()]));
        flags.given.extend(flag.map(|value| ("http-port", vec![value.to_owned()])));
        let raw = RawConfig::gather(Sources {
            flags,
            environment: &|name| variable.filter(|_| name == "VOLLEY_HTTP_PORT").map(OsString::from),
            read_file: &|_| Ok(key.map(|value| format!("http-port = {value}")).unwrap_or_default()),
        })
        .unwrap();
        assert_eq!((raw.get(&settings::HTTP_PORT).unwrap(), raw.origin("http-port")), expected);
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_both_over_the_file() {
        let file = || Origin::File { path: "volley.toml".into(), line: 1 };
        check(None, None, None, (8000, Origin::Default));
        check(None, None, Some("3"), (3, file()));
        check(None, Some("2"), None, (2, Origin::Environment));
        check(None, Some("2"), Some("3"), (2, Origin::Environment));
        check(Some("1"), None, None, (1, Origin::Flag));
        check(Some("1"), None, Some("3"), (1, Origin::Flag));
        check(Some("1"), Some("2"), None, (1, Origin::Flag));
        check(Some("1"), Some("2"), Some("3"), (1, Origin::Flag));
    }

    #[test]
    fn an_empty_variable_gives_nothing() {
        check(None, Some(""), None, (8000, Origin::Default));
        check(None, Some(""), Some("3"), (3, Origin::File { path: "volley.toml".into(), line: 1 }));
    }

    #[test]
    fn a_list_in_the_environment_is_parted_by_semicolons() {
        let list = |value: &str| {
            let environment = |_: &str| Some(OsString::from(value));
            from_environment("model-repository", true, &environment).unwrap().map(|given| given.values)
        };
        assert_eq!(list("a;b:c"), Some(vec!["a".to_owned(), "b:c".to_owned()]));
        assert_eq!(list("a;"), Some(vec!["a".to_owned()]));
        assert_eq!(list(""), None);
    }

    #[test]
    fn the_environment_can_name_the_file() {
        let error = RawConfig::gather(Sources {
            flags: Flags::default(),
            environment: &|name| (name == "VOLLEY_CONFIG").then(|| OsString::from("gone.toml")),
            read_file: &|_| Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the configuration file gone.toml (given by VOLLEY_CONFIG): no such file"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_text_is_told() {
        use std::os::unix::ffi::OsStringExt;
        let environment = |_: &str| Some(OsString::from_vec(vec![b'a', 0xff]));
        let error = from_environment("id", false, &environment).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the environment variable VOLLEY_ID is \"a\u{fffd}\", but it must be valid UTF-8"
        );
    }
}
