//! A measurement as a JSON file, which `compare` reads again.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::measurement::{Measurement, SCHEMA};

/// Bytes of a file that are read: measurements are far smaller, and some files have no end.
const MAX_BYTES: u64 = 256 << 20;

/// Writes `measurement` to `out`.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn write(measurement: &Measurement, out: &mut impl Write) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, measurement)?;
    Ok(out.write_all(b"\n")?)
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// When the file cannot be read, is not a measurement, or has another schema than this program writes.
pub(crate) fn read(path: &Path) -> anyhow::Result<Measurement> {
    /// Read first: a file of another schema may have other fields.
    #[derive(Deserialize)]
    struct Header {
        schema: String,
    }
    let name = path.display();
    let mut text = String::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
    file.take(MAX_BYTES).read_to_string(&mut text).with_context(|| format!("cannot read {name}"))?;
    let no_measurement =
        || format!("{name} is not a measurement of volley-load; make one with its option that writes JSON");
    let Header { schema } = serde_json::from_str(&text).with_context(no_measurement)?;
    if schema != SCHEMA {
        bail!(
            "{name} has the schema {schema:?}, but this version of volley-load reads {SCHEMA:?}; \
             measure again, or read it with the version that wrote it"
        );
    }
    serde_json::from_str(&text).with_context(no_measurement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn what_is_written_is_read_again() {
        let measurement = sample::sweep(&[1, 8]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        write(&measurement, &mut fs::File::create(&path).unwrap()).unwrap();
        let again = read(&path).unwrap();
        let value = |measurement| serde_json::to_value(measurement).unwrap();
        assert_eq!(value(&again), value(&measurement));
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        fs::write(&path, text).unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn other_files_are_refused_with_what_is_wrong() {
        check_refused("{}", "missing field `schema`");
        check_refused("load,p99\n", "is not a measurement of volley-load");
        check_refused(r#"{"schema": "volley-load/0"}"#, r#"has the schema "volley-load/0""#);
        check_refused(&format!(r#"{{"schema": "{SCHEMA}"}}"#), "missing field `command`");
        let error = format!("{:#}", read(Path::new("/nowhere/m.json")).unwrap_err());
        assert!(error.contains("cannot read /nowhere/m.json"), "{error}");
    }
}
