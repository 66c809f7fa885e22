//! The configuration file: TOML, one key for each setting, no tables.

use std::io::{self, Read};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::raw::Given;
use super::setting::Declaration;
use super::{settings, triton};

/// Longest file read: a hundred times what all settings take.
const MAX_BYTES: u64 = 1 << 20;

/// Reads the file at `path`.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {MAX_BYTES} bytes"),
        ));
    }
    Ok(text)
}

/// The settings that `text`, read from `path`, gives.
pub(super) fn parse(text: &str, path: &Path) -> Result<Vec<(&'static str, Given)>, ConfigError> {
    let malformed = |offset: usize, reason: String| ConfigError::MalformedFile {
        path: path.to_owned(),
        line: line_at(text, offset),
        reason,
    };
    let table = DeTable::parse(text).map_err(|error| {
        malformed(error.span().map_or(0, |span| span.start), error.message().trim().to_owned())
    })?;
    let mut given: Vec<(&'static str, Given)> = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_at(text, key.span().start);
        let (name, repeatable) = find(key.get_ref()).ok_or_else(|| ConfigError::UnknownKey {
            key: key.get_ref().to_string(),
            path: path.to_owned(),
            line,
            nearest: nearest(key.get_ref()),
        })?;
        if given.iter().any(|(other, _)| *other == name) {
            return Err(malformed(key.span().start, format!("{name} is given twice")));
        }
        let values = values(value, repeatable)
            .map_err(|expected| malformed(value.span().start, format!("{name} must be {expected}")))?;
        given.push((name, Given { values, origin: Origin::File { path: path.to_owned(), line } }));
    }
    Ok(given)
}

/// The setting that `key` names, and whether it takes several values. Dashes and underscores are the same.
fn find(key: &str) -> Option<(&'static str, bool)> {
    let key = key.replace('_', "-");
    own()
        .map(|declaration| (declaration.name, declaration.repeatable))
        .chain(triton::OPTIONS.iter().map(|option| (option.name, !option.switch)))
        .find(|(name, _)| *name == key)
}

/// The settings that a file may give: all but the one that names the file.
fn own() -> impl Iterator<Item = &'static Declaration> {
    let all = settings::ALL.iter().copied();
    all.filter(|declaration| declaration.name != settings::CONFIG.declaration.name)
}

fn nearest(key: &str) -> Option<&'static str> {
    /// Below this, two names have too little in common to be worth a guess.
    const ALIKE: f64 = 0.8;
    let key = key.replace('_', "-");
    own()
        .map(|declaration| (strsim::jaro_winkler(&key, declaration.name), declaration.name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

fn values(value: &Spanned<DeValue<'_>>, repeatable: bool) -> Result<Vec<String>, &'static str> {
    match value.get_ref() {
        DeValue::Array(array) if repeatable => array
            .iter()
            .map(|element| scalar(element.get_ref()).ok_or("a value or an array of values"))
            .collect(),
        other => scalar(other).map(|value| vec![value]).ok_or("a string, a number or a boolean"),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|integer| integer.to_string())
        }
        DeValue::Float(float) => Some(float.as_str().to_owned()),
        DeValue::Boolean(boolean) => Some(boolean.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<(&'static str, Vec<String>)>, String> {
        parse(text, Path::new("volley.toml"))
            .map(|given| given.into_iter().map(|(name, given)| (name, given.values)).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn keys_take_dashes_or_underscores_and_values_their_own_types() {
        let text = "http-port = 9000\nlog_verbose = 0x2\naccess-log = true\ndrain-delay = 1.5\nid = \"a b\"\n\
                    model_repository = [\"a\", \"b\"]\nload-model = [\"x\"]\nbackend-config = \"k=v\"\n";
        let mut given = read_text(text).unwrap();
        given.sort();
        let expected: [(&str, &[&str]); 8] = [
            ("access-log", &["true"]),
            ("backend-config", &["k=v"]),
            ("drain-delay", &["1.5"]),
            ("http-port", &["9000"]),
            ("id", &["a b"]),
            ("load-model", &["x"]),
            ("log-verbose", &["2"]),
            ("model-repository", &["a", "b"]),
        ];
        let expected: Vec<_> = expected
            .map(|(name, values)| (name, values.iter().map(|value| (*value).to_owned()).collect()))
            .into();
        assert_eq!(given, expected);
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        assert_eq!(read_text(text).unwrap_err(), expected);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        check_refused(
            "id = \"a\"\n\nhtpp-port = 1\n",
            "volley.toml:3: there is no setting \"htpp-port\"; did you mean \"http-port\"?",
        );
        check_refused(
            "zzz = 1",
            "volley.toml:1: there is no setting \"zzz\"; docs/settings.md lists them all",
        );
        check_refused(
            "config = \"other.toml\"",
            "volley.toml:1: there is no setting \"config\"; docs/settings.md lists them all",
        );
        check_refused(
            "\n[http]\nport = 1\n",
            "volley.toml:2: there is no setting \"http\"; did you mean \"http-port\"?",
        );
        check_refused("http-port = [1]", "volley.toml:1: http-port must be a string, a number or a boolean");
        check_refused(
            "model-repository = [[1]]",
            "volley.toml:1: model-repository must be a value or an array of values",
        );
        check_refused("http-port = 1\nhttp_port = 2\n", "volley.toml:2: http-port is given twice");
        assert!(read_text("id = \"a\"\nid = ").unwrap_err().starts_with("volley.toml:2: "));
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big.toml");
        std::fs::File::create(&path).unwrap().set_len(MAX_BYTES + 10).unwrap();
        assert_eq!(read(&path).unwrap_err().to_string(), "it has more than 1048576 bytes");
    }
}
