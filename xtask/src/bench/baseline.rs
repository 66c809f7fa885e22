//! Figures of an earlier run, kept in a file under the target directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::figure::{Figure, Unit, Verdict};

/// The figures that were saved last, by name.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Baseline(BTreeMap<String, Saved>);

#[derive(Debug, PartialEq)]
struct Saved {
    figure: Figure,
    /// What was checked out.
    commit: String,
}

/// A baseline's name, which is part of a file's.
pub(super) fn name(raw: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if raw.is_empty() || raw.starts_with('.') || !raw.chars().all(plain) {
        return Err("a baseline's name is made of letters, digits, '-', '_' and '.'".to_owned());
    }
    Ok(raw.to_owned())
}

impl Baseline {
    /// What `path` holds; nothing when there is no such file.
    pub(super) fn read(path: &Path) -> Result<Baseline> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Baseline::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Baseline::parse(&text)
            .with_context(|| format!("{} is not a baseline; save it again with --save", path.display()))
    }

    /// Writes it to `path`.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path.parent().context("a baseline has a directory")?)?;
        fs::write(path, self.to_text()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Puts `figures`, measured at `commit`, in the place of those with the same names.
    pub(super) fn replace(&mut self, figures: Vec<Figure>, commit: &str) {
        for figure in figures {
            self.0.insert(figure.name.clone(), Saved { figure, commit: commit.to_owned() });
        }
    }

    /// `figures` beside those saved, with a mark where they differ.
    pub(super) fn table(&self, figures: &[Figure]) -> String {
        let mut table = format!("{:<40} {:>21} {:>12} {:>7}\n", "", "now", "baseline", "ratio");
        for figure in figures {
            let Figure { name, value, unit, .. } = figure;
            let _ = write!(table, "{name:<40} {:>12} {:<8}", number(*value), unit.name());
            let _ = match self.0.get(name).filter(|saved| saved.figure.unit == *unit) {
                None => writeln!(table, " {:>12}", "-"),
                Some(Saved { figure: before, commit }) => {
                    let mark = match figure.compare(before) {
                        Verdict::Same => String::new(),
                        Verdict::Better => format!("  better than at {commit}"),
                        Verdict::Worse => format!("  WORSE than at {commit}"),
                    };
                    writeln!(table, " {:>12} {:>7.3}{mark}", number(before.value), figure.ratio(before))
                }
            };
        }
        table
    }

    fn parse(text: &str) -> Option<Baseline> {
        let saved: Map<String, Value> = serde_json::from_str(text).ok()?;
        let saved = saved.into_iter().map(|(name, saved)| {
            let figure = Figure {
                name: name.clone(),
                value: saved["value"].as_f64()?,
                unit: Unit::parse(saved["unit"].as_str()?)?,
                noise: saved["noise"].as_f64()?,
            };
            Some((name, Saved { figure, commit: saved["commit"].as_str()?.to_owned() }))
        });
        saved.collect::<Option<_>>().map(Baseline)
    }

    fn to_text(&self) -> String {
        let saved = self.0.iter().map(|(name, Saved { figure, commit })| {
            let Figure { value, unit, noise, .. } = figure;
            let saved = json!({ "value": value, "unit": unit.name(), "noise": noise, "commit": commit });
            (name.clone(), saved)
        });
        format!("{:#}\n", Value::Object(saved.collect()))
    }
}

/// Three digits behind the point for small numbers, none for large ones.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, value: f64) -> Figure {
        Figure { name: name.to_owned(), value, unit: Unit::Instructions, noise: 0.02 }
    }

    #[test]
    fn what_is_saved_is_read_again() {
        let mut baseline = Baseline::default();
        baseline.replace(vec![figure("a", 10.0), figure("b", 2.5)], "abc");
        baseline.replace(vec![figure("b", 3.0)], "def");
        let read = Baseline::parse(&baseline.to_text()).unwrap();
        assert_eq!(read, baseline);
        assert_eq!((read.0["a"].figure.value, read.0["b"].figure.value), (10.0, 3.0));
        assert_eq!((&*read.0["a"].commit, &*read.0["b"].commit), ("abc", "def"));
        assert_eq!(Baseline::parse("{\"a\": {\"value\": 1}}"), None);
    }

    #[test]
    fn a_table_marks_what_differs() {
        let mut baseline = Baseline::default();
        baseline.replace(vec![figure("same", 1000.0), figure("more", 1000.0), figure("less", 1000.0)], "abc");
        let now = [figure("same", 1010.0), figure("more", 1100.0), figure("less", 900.0), figure("new", 1.0)];
        let table = baseline.table(&now);
        let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().trim_end();
        assert!(line("same").ends_with("1.010"), "{table}");
        assert!(line("more").ends_with("1.100  WORSE than at abc"), "{table}");
        assert!(line("less").ends_with("0.900  better than at abc"), "{table}");
        assert!(line("new").ends_with('-'), "{table}");
    }

    #[test]
    fn a_name_leaves_its_directory_in_no_way() {
        assert_eq!(name("v1.2_a-b").as_deref(), Ok("v1.2_a-b"));
        for bad in ["", "..", "a/b", ".hidden", "a b"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
