//! Throughput and latency second by second: whether a run was steady.

use maud::{Markup, html};

use super::percentiles::latency_axis;
use crate::measurement::{Run, Second};
use crate::report::chart::lines::{Line, draw};
use crate::report::chart::scale::Scale;
use crate::report::chart::{self, Axis, HALF, Hue, Key};
use crate::report::loads::{LoadRuns, coloured, keys};
use crate::report::{remarks, units};

/// More points than this are not told apart on paper; long runs are shown in parts of several seconds.
const MAX_POINTS: usize = 240;

pub(super) fn figures(loads: &[LoadRuns<'_>]) -> Markup {
    let runs: Vec<(Hue, &Run)> = coloured(loads).filter(|(_, run)| whole_seconds(run).len() > 1).collect();
    if runs.is_empty() {
        return html! {};
    }
    let failures = runs.iter().any(|(_, run)| run.timeline.iter().any(|second| second.errors > 0));
    let note = if failures { "answered well; dashed: errors" } else { "answered well" };
    let keys = if loads.len() > 1 { keys(loads) } else { Vec::new() };
    html! {
        div.pair {
            (chart::figure("Throughput over time", note, &keys, &throughput(&runs)))
            @if runs.iter().any(|(_, run)| run.latency.count > 0) { (latency_figure(&runs, &keys)) }
        }
    }
}

fn latency_figure(runs: &[(Hue, &Run)], keys: &[Key]) -> Markup {
    let line = |(hue, run): &(Hue, &Run), dashed, word: &str, value: fn(&Second) -> f64| {
        let points = thinned(whole_seconds(run), |seconds| seconds.iter().map(value).fold(0.0, f64::max));
        let (title, hue) = (format!("{}: {word}", remarks::run_name(run)), *hue);
        let part = move |points: &[(f64, f64)]| Line {
            title: title.clone(),
            hue,
            dashed,
            points: points.to_vec(),
            marks: Vec::new(),
        };
        unbroken(&points).into_iter().map(part).collect::<Vec<_>>()
    };
    let p99 = runs.iter().flat_map(|run| line(run, false, "p99 of each second", |second| second.p99_micros));
    let p50 = runs.iter().flat_map(|run| line(run, true, "p50 of each second", |second| second.p50_micros));
    let lines: Vec<Line> = p99.chain(p50).collect();
    let micros = lines.iter().flat_map(|line| line.points.iter().map(|(_, micros)| *micros));
    let drawing = draw(HALF, "latency over time", [&time_axis(runs), &latency_axis(micros)], &lines);
    chart::figure("Latency over time", "p99; dashed: p50", keys, &drawing)
}

fn throughput(runs: &[(Hue, &Run)]) -> Markup {
    let line = |(hue, run): &(Hue, &Run), dashed, word: &str, value: fn(&Second) -> u64| Line {
        title: format!("{}: {word}", remarks::run_name(run)),
        hue: *hue,
        dashed,
        points: thinned(whole_seconds(run), |seconds| mean(seconds.iter().map(value))),
        marks: Vec::new(),
    };
    let well = |second: &Second| second.requests.saturating_sub(second.errors);
    let mut lines: Vec<Line> = runs.iter().map(|run| line(run, false, "answered well", well)).collect();
    let failed = runs.iter().filter(|(_, run)| run.timeline.iter().any(|second| second.errors > 0));
    lines.extend(failed.map(|run| line(run, true, "errors", |second| second.errors)));
    let y = Axis {
        name: "requests/s".to_owned(),
        scale: Scale::from_zero(lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value))),
        write: units::short,
    };
    draw(HALF, "throughput over time", [&time_axis(runs), &y], &lines)
}

/// The stretches with answers: a second without any has no latency, and a line over it would show one.
fn unbroken(points: &[(f64, f64)]) -> Vec<&[(f64, f64)]> {
    points.split(|(_, micros)| *micros == 0.0).filter(|part| !part.is_empty()).collect()
}

/// The seconds that were measured in full: half a second has half the requests.
fn whole_seconds(run: &Run) -> &[Second] {
    match run.timeline.split_last() {
        Some((last, rest)) if last.at + 0.99 > run.seconds => rest,
        _ => &run.timeline,
    }
}

fn time_axis(runs: &[(Hue, &Run)]) -> Axis {
    // Answers that are waited for come after the measured time.
    let last = |run: &Run| whole_seconds(run).last().map_or(0.0, |second| second.at);
    let end = runs.iter().map(|(_, run)| run.seconds.max(last(run)));
    Axis {
        name: "seconds since the run's start".to_owned(),
        scale: Scale::from_zero(end),
        write: units::short,
    }
}

/// At most [`MAX_POINTS`] points, each made of as many seconds.
fn thinned(seconds: &[Second], value: impl Fn(&[Second]) -> f64) -> Vec<(f64, f64)> {
    let size = seconds.len().div_ceil(MAX_POINTS).max(1);
    seconds.chunks(size).map(|part| (part[0].at, value(part))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of one second are small")]
fn mean(values: impl ExactSizeIterator<Item = u64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<u64>() as f64 / count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_long_run_is_shown_in_parts() {
        let second = |at: u32| Second { at: f64::from(at), requests: u64::from(at % 5), ..Second::default() };
        let seconds: Vec<Second> = (0..1200).map(second).collect();
        let points = thinned(&seconds, |part| mean(part.iter().map(|second| second.requests)));
        assert_eq!(points.len(), MAX_POINTS);
        assert!(points.iter().all(|(_, mean)| *mean == 2.0));
    }

    #[test]
    fn a_stall_breaks_the_line_of_latency() {
        let points = [(0.0, 0.0), (1.0, 5.0), (2.0, 6.0), (3.0, 0.0), (4.0, 0.0), (5.0, 7.0)];
        assert_eq!(unbroken(&points), [&points[1..3], &points[5..]]);
        assert!(unbroken(&points[3..5]).is_empty());
    }

    #[test]
    fn answers_that_are_waited_for_have_room_on_the_axis() {
        let mut run = sample::run(&sample::closed(1), 1);
        run.seconds = 10.0;
        let scale = time_axis(&[(Hue::of(0, 1), &run)]).scale;
        assert!(scale.part(18.0) < scale.part(19.0), "{scale:?}");
    }

    #[test]
    fn a_second_cut_short_is_not_shown_as_a_drop() {
        let mut run = sample::run(&sample::closed(1), 1);
        assert_eq!(whole_seconds(&run).len(), 20);
        run.seconds = 19.4;
        assert_eq!(whole_seconds(&run).len(), 19);
    }
}
