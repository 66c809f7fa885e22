//! A comparison for the terminal.

use std::io::{self, Write};

use super::comparison::Comparison;
use super::figure::{Change, Figure, Metric};
use crate::report::text_grid::TextGrid;
use crate::report::{table, units};

/// Writes a line for each load and figure, then the notes.
///
/// # Errors
/// When `out` cannot be written.
pub(super) fn write(comparison: &Comparison<'_>, out: &mut impl Write) -> io::Result<()> {
    let mut grid =
        TextGrid::new(["load", "figure", "A", "B", "difference", "95 % interval", "verdict"]).words(&[1, 6]);
    for load in &comparison.loads {
        for (index, figure) in load.figures.iter().enumerate() {
            let name = if index == 0 { units::load(load.load) } else { String::new() };
            grid.push(row(name, figure));
        }
    }
    grid.write(out)?;
    for note in &comparison.notes {
        writeln!(out, "\n{}", table::wrapped(note))?;
    }
    Ok(())
}

fn row(load: String, figure: &Figure) -> Vec<String> {
    let value = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| figure.metric.show(value));
    let change = figure.change.as_ref();
    vec![
        load,
        figure.metric.name().to_owned(),
        value(figure.before),
        value(figure.after),
        change.map_or_else(|| "–".to_owned(), |change| amount(figure.metric, change.amount)),
        change.and_then(|change| interval(figure.metric, change)).unwrap_or_default(),
        if change.is_some() { figure.verdict().name().to_owned() } else { String::new() },
    ]
}

/// A change with its sign: `+12.5 %`; of shares, in points: `+1.20 points`.
pub(super) fn amount(metric: Metric, amount: f64) -> String {
    let unit = if metric.is_share() { "points" } else { "%" };
    format!("{} {unit}", signed(amount))
}

/// The interval around a change: `+9.8 to +15.2 %`.
pub(super) fn interval(metric: Metric, change: &Change) -> Option<String> {
    let (low, high) = change.interval?;
    Some(format!("{} to {}", signed(low), amount(metric, high)))
}

fn signed(share: f64) -> String {
    let percent = 100.0 * share;
    // Two repeats that differ much leave nearly everything possible.
    if percent > 999.0 {
        return "over +999".to_owned();
    }
    let text = if percent.abs() < 99.95 { format!("{percent:+.1}") } else { format!("{percent:+.0}") };
    if text == "-0.0" { "+0.0".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::Measurement;
    use crate::report::sample;

    fn text(before: &Measurement, after: &Measurement) -> String {
        let mut text = Vec::new();
        write(&Comparison::of(before, after), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// `measurement`, a quarter faster but in its tail.
    fn faster(mut measurement: Measurement) -> Measurement {
        for run in &mut measurement.runs {
            run.requests_per_second *= 1.25;
            run.requests = run.requests * 5 / 4;
            for model in run.server.iter_mut().flat_map(|server| server.models.values_mut()) {
                model.requests = model.requests * 5 / 4;
            }
            run.latency.p50 *= 0.8;
            run.latency.p99_9 *= 3.0;
            for second in &mut run.timeline {
                second.requests = second.requests * 5 / 4;
                second.p50_micros *= 0.8;
            }
        }
        measurement
    }

    #[test]
    fn repeats_are_compared_with_their_noise() {
        let before = sample::of(&[1, 8].map(sample::closed), 4);
        insta::assert_snapshot!(text(&before, &faster(before.clone())));
    }

    #[test]
    fn changes_have_a_sign_and_few_digits() {
        let shares = [0.0, -0.000_1, 0.123, -0.99, 1.5, 9.99, 1e9];
        assert_eq!(shares.map(signed), ["+0.0", "+0.0", "+12.3", "-99.0", "+150", "+999", "over +999"]);
    }

    #[test]
    fn single_runs_are_compared_and_said_to_be_single() {
        let before = sample::sweep(&[1, 8]);
        let mut after = faster(before.clone());
        after.runs[1].server = None;
        insta::assert_snapshot!(text(&before, &after));
    }
}
