//! The latency at every percentile, one line a run: the tail takes as much room as the rest.

use maud::{Markup, html};

use crate::measurement::{Latency, Run};
use crate::report::chart::lines::{Line, Mark, draw as draw_lines};
use crate::report::chart::scale::Scale;
use crate::report::chart::{self, Axis, Hue, Size, WIDE};
use crate::report::loads::{LoadRuns, coloured, keys};
use crate::report::{remarks, units};

pub(super) fn figure(loads: &[LoadRuns<'_>]) -> Markup {
    if loads.is_empty() {
        return html! {};
    }
    let lines = curves(coloured(loads).map(|(hue, run)| (hue, remarks::run_name(run), run)));
    let title = "Latency by percentile";
    if lines.is_empty() {
        return chart::figure(
            title,
            "No request was answered well, so there is no latency to show.",
            &[],
            &html! {},
        );
    }
    chart::figure(
        title,
        "how long the slowest requests take: each step to the right is ten times rarer",
        &keys(loads),
        &draw(WIDE, &lines),
    )
}

/// The curve of each run, under a name of its own; runs without answers have none.
pub(crate) fn curves<'a>(runs: impl Iterator<Item = (Hue, String, &'a Run)>) -> Vec<Line> {
    runs.filter(|(_, _, run)| !run.latency.curve.is_empty())
        .map(|(hue, name, run)| curve(hue, &name, &run.latency))
        .collect()
}

fn curve(hue: Hue, name: &str, latency: &Latency) -> Line {
    let named = [
        (50.0, "p50", latency.p50),
        (90.0, "p90", latency.p90),
        (99.0, "p99", latency.p99),
        (99.9, "p99.9", latency.p99_9),
        (99.99, "p99.99", latency.p99_99),
    ];
    let last = last_percentile(latency.count);
    let mark = |(percentile, word, micros)| Mark {
        at: (percentile, micros),
        title: format!("{name}: {word} {}", units::duration(micros)),
        label: None,
    };
    let marks = named.into_iter().filter(|(percentile, _, _)| *percentile <= last).map(mark).collect();
    // Points beyond the slowest request's percentile would stand above each other.
    let inside = latency.curve.iter().copied().filter(|(percentile, _)| *percentile < last);
    let points = inside.chain([(last, latency.max)]).collect();
    let title = format!(
        "{name}: p50 {}, p99 {}, max {}",
        units::duration(latency.p50),
        units::duration(latency.p99),
        units::duration(latency.max)
    );
    Line { title, hue, dashed: false, points, marks }
}

/// The percentile of the slowest of `count` requests: beyond it a curve says nothing.
fn last_percentile(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
    let count = count.max(2) as f64;
    100.0 * (1.0 - 1.0 / count)
}

/// Draws the curves of [`curves`].
pub(crate) fn draw(size: Size, lines: &[Line]) -> Markup {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let last = points().map(|(percentile, _)| percentile).fold(0.0, f64::max);
    let nines = -(1.0 - last / 100.0).max(1e-7).log10();
    let x = Axis {
        name: "percentile of requests".to_owned(),
        scale: Scale::Percentile { nines: nines.clamp(2.0, 6.0) },
        write: |percentile| format!("{percentile}"),
    };
    draw_lines(size, "latency by percentile", [&x, &latency_axis(points().map(|(_, micros)| micros))], lines)
}

/// An axis of latencies given in microseconds.
pub(super) fn latency_axis(micros: impl Iterator<Item = f64>) -> Axis {
    let scale = Scale::fitting(micros);
    let name = scale.name("latency");
    Axis {
        name,
        scale,
        write: |micros| match micros {
            0.0 => "0".to_owned(),
            micros if micros < 1e3 => format!("{} µs", units::short(micros)),
            micros if micros < 1e6 => format!("{} ms", units::short(micros / 1e3)),
            micros => format!("{} s", units::short(micros / 1e6)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_curve_ends_where_its_requests_end() {
        let mut run = sample::run(&sample::closed(1), 1);
        run.latency.count = 1_000;
        let line = &curves([(Hue::of(0, 1), "n".to_owned(), &run)].into_iter())[0];
        let last = line.points.iter().map(|point| point.0).fold(0.0, f64::max);
        assert!((last - 99.9).abs() < 1e-9, "{last}");
        assert_eq!(line.marks.len(), 4, "p99.99 of a thousand requests is not known");
    }
}
