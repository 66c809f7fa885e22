//! The files that results go to: opened before the load, so that what cannot be written is known before and not after
//! an hour of measuring.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::{Context, anyhow};

use crate::args::OutputArgs;
use crate::measurement::Measurement;
use crate::report;

/// The files that were asked for.
#[derive(Debug)]
pub(crate) struct Outputs {
    files: Vec<Output>,
}

#[derive(Debug)]
struct Output {
    form: Form,
    path: PathBuf,
    file: File,
    /// It was not there before, and nothing was written to it.
    empty: bool,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Json,
    Csv,
    Html,
}

impl Outputs {
    /// Opens every file; what is in it stays until [`Outputs::write`].
    ///
    /// # Errors
    /// When one cannot be written.
    pub(crate) fn open(args: &OutputArgs) -> anyhow::Result<Outputs> {
        let asked = [(Form::Json, &args.json), (Form::Csv, &args.csv), (Form::Html, &args.html)];
        let mut files = Vec::new();
        for (form, path) in asked {
            let Some(path) = path else { continue };
            let empty = !path.exists();
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
            let file = file.with_context(|| format!("cannot write {}", path.display()))?;
            files.push(Output { form, path: path.clone(), file, empty });
        }
        Ok(Outputs { files })
    }

    /// Writes every file, then the table to `out`; what fails does not keep the others from being written.
    ///
    /// # Errors
    /// When one cannot be written; all that failed are named.
    pub(crate) fn write(&mut self, measurement: &Measurement, out: &mut impl Write) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        for file in &mut self.files {
            let written = file.write(measurement);
            failed.extend(
                written.err().map(|error| format!("cannot write {}: {error:#}", file.path.display())),
            );
        }
        failed
            .extend(table(measurement, out).err().map(|error| format!("cannot write the table: {error:#}")));
        if failed.is_empty() { Ok(()) } else { Err(anyhow!(failed.join("; "))) }
    }
}

impl Output {
    fn write(&mut self, measurement: &Measurement) -> anyhow::Result<()> {
        self.empty = false;
        // What is no file, such as a pipe, has no end to cut.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
        }
        let mut out = BufWriter::new(&self.file);
        match self.form {
            Form::Json => report::json::write(measurement, &mut out)?,
            Form::Csv => report::csv::write(measurement, &mut out)?,
            Form::Html => out.write_all(report::html::render(measurement).as_bytes())?,
        }
        Ok(out.flush()?)
    }
}

impl Drop for Output {
    /// A file that was made for a measurement that did not come to be is not left behind.
    fn drop(&mut self) {
        if self.empty {
            // It is empty; whoever removed it already is right, too.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// As a whole, so that a table is not torn by what else is written.
fn table(measurement: &Measurement, out: &mut impl Write) -> anyhow::Result<()> {
    let mut table = Vec::new();
    report::table::write(measurement, &mut table)?;
    out.write_all(&table)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::report::sample;

    fn asked(json: &Path, csv: &Path) -> OutputArgs {
        OutputArgs { json: Some(json.to_owned()), csv: Some(csv.to_owned()), html: None, quiet: true }
    }

    /// An output that takes nothing.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_that_fails_does_not_take_the_others_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let csv = folder.path().join("a.csv");
        let mut outputs = Outputs::open(&asked(Path::new("/dev/full"), &csv)).unwrap();
        let error = outputs.write(&sample::sweep(&[1]), &mut Full).unwrap_err().to_string();
        assert!(error.contains("cannot write /dev/full: ") && error.contains("; cannot write the table: "));
        assert_eq!(fs::read_to_string(csv).unwrap().lines().count(), 2);
    }

    #[test]
    fn what_cannot_be_written_is_known_before_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (json, nowhere) = (folder.path().join("a.json"), folder.path().join("no/such/a.csv"));
        let error = Outputs::open(&asked(&json, &nowhere)).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("no/such/a.csv"), "{error}");
        assert!(!json.exists());
    }

    #[test]
    fn older_results_stay_until_there_are_newer_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (json, csv) = (folder.path().join("a.json"), folder.path().join("a.csv"));
        fs::write(&json, "x".repeat(1 << 20)).unwrap();
        drop(Outputs::open(&asked(&json, &csv)).unwrap());
        assert_eq!(fs::metadata(&json).unwrap().len(), 1 << 20);
        let mut outputs = Outputs::open(&asked(&json, &csv)).unwrap();
        outputs.write(&sample::sweep(&[1]), &mut io::sink()).unwrap();
        assert!(report::json::read(&json).is_ok(), "nothing of the older is left");
    }
}
