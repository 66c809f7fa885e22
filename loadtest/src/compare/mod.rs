//! `volley-load compare`: what changed between two measurements, and whether it is more than noise.

mod comparison;
mod figure;
mod no_common_load;
mod page;
mod statistics;
mod terminal;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use self::comparison::Comparison;
use self::figure::Verdict;
use self::page::Side;
use crate::distinct::distinct;
use crate::report::{json, units};
use crate::usage;

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
    let page = args.html.iter().map(|path| ("--html", path.as_path())).collect::<Vec<_>>();
    distinct(&page, &[("A.json", &args.before), ("B.json", &args.after)]).map_err(usage::bad)?;
    let read = |path| json::read(path).map_err(usage::bad);
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let comparison = Comparison::of(&before, &after);
    let [a, b] = [(&args.before, &before), (&args.after, &after)]
        .map(|(path, measurement)| Side { name: name(path), measurement });
    if comparison.loads.is_empty() {
        return Err(usage::bad(no_common_load::error([&a, &b])));
    }
    let page = args.html.as_deref().map(opened).transpose().map_err(usage::bad)?;
    terminal::write(&comparison, &mut io::stdout().lock()).context("cannot write the comparison")?;
    if let Some(mut page) = page {
        page.write_all(page::render(&comparison, [&a, &b]).as_bytes()).context("cannot write the page")?;
    }
    let worse = comparison.loads.iter().flat_map(|load| &load.figures);
    let worse = worse.filter(|figure| figure.verdict() == Verdict::Worse).count() > 0;
    Ok(if worse && args.fail_on_worse { ExitCode::from(WORSE) } else { ExitCode::SUCCESS })
}

/// Opened before anything is printed: one that cannot be written is an error in what was typed.
fn opened(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("--html: cannot write {}", path.display()))
}

/// The file's name without its folders and ending.
fn name(path: &Path) -> String {
    units::plain(&path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy(), 60)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        args.html = Some(path("b.json"));
        let error = run(&args).unwrap_err();
        assert!(usage::is_bad(&error) && error.to_string().starts_with("--html and B.json are"), "{error}");
        args.html = Some(path("no/such/c.html"));
        let error = run(&args).unwrap_err();
        assert!(usage::is_bad(&error) && error.to_string().starts_with("--html: cannot write "), "{error}");
        json::write(&sample::sweep(&[64]), &mut fs::File::create(path("b.json")).unwrap()).unwrap();
        args.html = None;
        let error = run(&args).unwrap_err();
        assert!(usage::is_bad(&error) && error.to_string().contains("no load in common"), "{error}");
    }
}
