//! `volley-load compare`: what changed between two measurements, and whether it is more than noise.

mod comparison;
mod figure;
mod page;
mod statistics;
mod terminal;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use self::comparison::Comparison;
use self::figure::Verdict;
use self::page::Side;
use crate::report::{json, units};

/// Which measurements to compare.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// The measurement to compare with, as JSON: what was before.
    #[arg(value_name = "A.json")]
    pub(crate) before: PathBuf,
    /// The measurement that is judged.
    #[arg(value_name = "B.json")]
    pub(crate) after: PathBuf,
    /// Also write a page with the table and both latency curves.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// End with status 3 when a figure is worse, for a pipeline that shall stop then.
    #[arg(long)]
    pub(crate) fail_on_worse: bool,
}

/// The exit status when a figure is worse, and that was asked for.
const WORSE: u8 = 3;

/// Prints what differs at each load that both measurements have.
///
/// # Errors
/// When a file cannot be read or written, or the measurements have no load in common.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let (before, after) = (json::read(&args.before)?, json::read(&args.after)?);
    let comparison = Comparison::of(&before, &after);
    if comparison.loads.is_empty() {
        bail!(
            "{} and {} have no load in common, so nothing can be compared. {}",
            args.before.display(),
            args.after.display(),
            comparison.notes.join(" ")
        );
    }
    terminal::write(&comparison, &mut io::stdout().lock()).context("cannot write the comparison")?;
    if let Some(path) = &args.html {
        let a = Side { name: name(&args.before), measurement: &before };
        let b = Side { name: name(&args.after), measurement: &after };
        fs::write(path, page::render(&comparison, [&a, &b]))
            .with_context(|| format!("cannot write the page to {}", path.display()))?;
    }
    let worse = comparison.loads.iter().flat_map(|load| &load.figures);
    let worse = worse.filter(|figure| figure.verdict() == Verdict::Worse).count() > 0;
    Ok(if worse && args.fail_on_worse { ExitCode::from(WORSE) } else { ExitCode::SUCCESS })
}

/// The file's name without its folders and ending.
fn name(path: &Path) -> String {
    units::plain(&path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy(), 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_pipeline_can_stop_at_what_is_worse() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let before = sample::of(&[sample::closed(2)], 3);
        let mut after = before.clone();
        after.runs.iter_mut().for_each(|run| run.latency.p99 *= 2.0);
        for (name, measurement) in [("a.json", &before), ("b.json", &after)] {
            json::write(measurement, &mut fs::File::create(path(name)).unwrap()).unwrap();
        }
        let status = |fail_on_worse| {
            let args =
                CompareArgs { before: path("a.json"), after: path("b.json"), html: None, fail_on_worse };
            run(&args).unwrap()
        };
        assert_eq!((status(false), status(true)), (ExitCode::SUCCESS, ExitCode::from(WORSE)));
    }

    #[test]
    fn files_are_compared_and_a_page_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        json::write(&sample::sweep(&[1, 2]), &mut fs::File::create(path("a.json")).unwrap()).unwrap();
        json::write(&sample::sweep(&[2, 4]), &mut fs::File::create(path("b.json")).unwrap()).unwrap();
        let mut args = CompareArgs {
            before: path("a.json"),
            after: path("b.json"),
            html: Some(path("c.html")),
            fail_on_worse: true,
        };
        assert_eq!(run(&args).unwrap(), ExitCode::SUCCESS);
        assert!(fs::read_to_string(path("c.html")).unwrap().contains("<h1>a and b</h1>"));
        json::write(&sample::sweep(&[64]), &mut fs::File::create(path("b.json")).unwrap()).unwrap();
        args.html = None;
        let error = run(&args).unwrap_err().to_string();
        assert!(
            error.contains("have no load in common") && error.contains("Only B has: 64 in flight"),
            "{error}"
        );
    }
}
