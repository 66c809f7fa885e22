//! A measurement for the terminal: one line a run, then what went wrong and what to know about the figures.

use std::io::{self, Write};

use super::server_total::ServerTotal;
use super::text_grid::TextGrid;
use super::{remarks, units};
use crate::measurement::{Arrivals, Load, Measurement, Run};

/// Writes the table of all runs, at most 100 columns wide unless figures are unusually long.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn write(measurement: &Measurement, out: &mut impl Write) -> io::Result<()> {
    let runs = &measurement.runs;
    if runs.is_empty() {
        writeln!(out, "nothing was measured yet")?;
    } else {
        let unit = Unit::of(runs);
        let mut grid = TextGrid::new(headings(runs, &unit));
        for run in runs {
            grid.push(row(run, runs, &unit));
        }
        grid.drop_empty_columns();
        grid.write(out)?;
        legend(runs, &unit, out)?;
    }
    errors(runs, out)?;
    objectives(runs, out)?;
    for remark in remarks::of(measurement) {
        writeln!(out, "\n{}", wrapped(&remark))?;
    }
    if let Some(found) = &measurement.found {
        writeln!(out, "\n{}", wrapped(&remarks::found(found)))?;
    }
    Ok(())
}

/// The unit of all durations of a table: figures below each other compare at a glance only in the same one.
struct Unit {
    name: &'static str,
    micros: f64,
}

impl Unit {
    fn of(runs: &[Run]) -> Unit {
        let typical = runs.iter().map(|run| run.latency.p50).fold(0.0, f64::max);
        if typical < 1e3 { Unit { name: "µs", micros: 1.0 } } else { Unit { name: "ms", micros: 1e3 } }
    }

    fn show(&self, micros: f64) -> String {
        units::number(micros / self.micros)
    }
}

fn headings(runs: &[Run], unit: &Unit) -> Vec<String> {
    let p50 = format!("p50 {}", unit.name);
    let load = one_kind(runs).unwrap_or("load");
    [
        load, "req/s", "items/s", &p50, "p90", "p99", "p99.9", "max", "errors", "batch", "queue", "compute",
        "CPU", "gen",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The heading above the numbers of loads that differ in nothing else.
fn one_kind(runs: &[Run]) -> Option<&'static str> {
    let kind = |run: &Run| match run.load {
        Load::Closed { .. } => Some("in flight"),
        Load::Open { arrivals: Arrivals::Constant, .. } => Some("constant/s"),
        Load::Open { arrivals: Arrivals::Poisson, .. } => Some("poisson/s"),
        Load::Open { .. } => None,
    };
    let first = runs.first().and_then(kind);
    first.filter(|_| runs.iter().all(|run| kind(run) == first))
}

fn row(run: &Run, runs: &[Run], unit: &Unit) -> Vec<String> {
    let load = if one_kind(runs).is_some() { units::load_number(&run.load) } else { units::load(&run.load) };
    let latency = &run.latency;
    let answered = |micros| if latency.count == 0 { "–".to_owned() } else { unit.show(micros) };
    let same = (run.items_per_second - run.requests_per_second).abs() < 1e-6 * run.requests_per_second;
    let total = ServerTotal::of(run);
    let server =
        |value: fn(&ServerTotal) -> f64| total.as_ref().map_or_else(String::new, |t| unit.show(value(t)));
    let cpu = run.server.as_ref().and_then(|server| server.cpu_micros_per_request);
    vec![
        load,
        units::number(run.requests_per_second),
        if same || run.items == run.requests { String::new() } else { units::number(run.items_per_second) },
        answered(latency.p50),
        answered(latency.p90),
        answered(latency.p99),
        answered(latency.p99_9),
        answered(latency.max),
        units::count(run.failed() + run.unanswered),
        total.as_ref().and_then(ServerTotal::mean_batch).map_or_else(String::new, units::number),
        server(|total| total.queue_micros),
        server(ServerTotal::compute_micros),
        cpu.map_or_else(String::new, units::number),
        if run.generator_cpu_micros > 0.0 { units::number(run.generator_cpu_micros) } else { String::new() },
    ]
}

/// What the headings mean, of those that are there.
fn legend(runs: &[Run], unit: &Unit, out: &mut impl Write) -> io::Result<()> {
    let mut text = format!("latency in {}, counted from when a request was due", unit.name);
    if runs.iter().all(|run| matches!(run.load, Load::Closed { .. })) {
        text = format!("latency in {}", unit.name);
    }
    if runs.iter().any(|run| ServerTotal::of(run).is_some()) {
        text.push_str(
            "; batch, queue, compute: mean items an execution and mean times a request, as the server counted them",
        );
    }
    let measured =
        |run: &Run| run.server.as_ref().is_some_and(|server| server.cpu_micros_per_request.is_some());
    text.push_str(if runs.iter().any(measured) {
        "; CPU, gen: processor time a request in µs, of the server and of this generator"
    } else {
        "; gen: processor time a request of this generator in µs"
    });
    writeln!(out, "\n{}", wrapped(&text))
}

fn errors(runs: &[Run], out: &mut impl Write) -> io::Result<()> {
    if runs.iter().all(|run| run.errors.is_empty() && run.unanswered == 0) {
        return Ok(());
    }
    writeln!(out, "\nErrors")?;
    for run in runs {
        let name = remarks::run_name(run);
        for (kind, count) in kinds(run) {
            writeln!(out, "  {name}: {} × {}", units::count(count), units::plain(&kind, 120))?;
        }
        if let Some(example) = &run.wrong_example {
            writeln!(out, "  {name}: the first wrong answer: {}", units::plain(example, 300))?;
        }
    }
    Ok(())
}

/// Which objectives each run met.
fn objectives(runs: &[Run], out: &mut impl Write) -> io::Result<()> {
    if runs.iter().all(|run| run.objectives.is_empty()) {
        return Ok(());
    }
    writeln!(out, "\nObjectives")?;
    for run in runs {
        for judged in &run.objectives {
            let (name, verdict) = (remarks::run_name(run), if judged.met { "met" } else { "missed" });
            writeln!(out, "  {name}: {verdict}  {} ({})", judged.objective, judged.found)?;
        }
    }
    Ok(())
}

/// The kinds of errors, the most frequent first.
pub(crate) fn kinds(run: &Run) -> Vec<(String, u64)> {
    let mut kinds: Vec<_> = run.errors.iter().map(|(kind, count)| (kind.clone(), *count)).collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if run.unanswered > 0 {
        kinds.push(("unanswered when the run was given up".to_owned(), run.unanswered));
    }
    kinds
}

/// `text` in lines of at most 100 columns.
pub(crate) fn wrapped(text: &str) -> String {
    let (mut lines, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > 100 {
            lines.push('\n');
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += length;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::FoundRate;
    use crate::report::sample;

    fn table(measurement: &Measurement) -> String {
        let mut text = Vec::new();
        write(measurement, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{widest:?} columns:\n{text}");
        text
    }

    #[test]
    fn a_sweep_is_a_line_a_load() {
        insta::assert_snapshot!(table(&sample::sweep(&[1, 2, 4, 8, 16, 32, 64])));
    }

    #[test]
    fn errors_lateness_and_what_was_found_follow_the_table() {
        let rates = [500.0, 1000.0, 1500.0];
        let loads = rates.map(|rate| Load::Open { rate, arrivals: Arrivals::Poisson });
        let mut measurement = sample::of(&loads, 1);
        let last = &mut measurement.runs[2];
        last.errors.insert("status 503: Exceeds maximum\nqueue size".to_owned(), 1200);
        last.errors.insert("timeout".to_owned(), 3);
        last.unanswered = 12;
        last.items = 8 * last.requests;
        last.items_per_second = 8.0 * last.requests_per_second;
        last.send_lag.p99 = last.latency.p99 / 2.0;
        measurement.interrupted = Some("Ctrl-C".to_owned());
        measurement.found = Some(FoundRate {
            objective: "p99 < 10ms".to_owned(),
            rate: Some(1000.0),
            missed_at: Some(1500.0),
            repeats: 1,
            cut_off: false,
        });
        insta::assert_snapshot!(table(&measurement));
    }

    #[test]
    fn a_server_that_tells_nothing_has_no_columns() {
        let mut measurement = sample::sweep(&[4]);
        measurement.runs[0].server = None;
        insta::assert_snapshot!(table(&measurement));
    }

    #[test]
    fn a_run_with_errors_only_has_no_latency() {
        insta::assert_snapshot!(table(&sample::errors_only()));
    }
}
