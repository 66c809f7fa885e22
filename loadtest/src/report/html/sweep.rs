//! Latency against throughput: where a server is full.

use maud::{Markup, html};

use super::percentiles::latency_axis;
use crate::measurement::{Latency, Run};
use crate::report::chart::lines::{Line, Mark, draw};
use crate::report::chart::scale::Scale;
use crate::report::chart::{self, Axis, Hue, Key, WIDE};
use crate::report::loads::LoadRuns;
use crate::report::units;

/// Nothing when there are not two loads to compare.
pub(super) fn figure(loads: &[LoadRuns<'_>]) -> Markup {
    let hues = [Hue::of(0, 2), Hue::of(1, 2)];
    let p50 = line(loads, hues[0], "p50", |latency| latency.p50);
    let p99 = line(loads, hues[1], "p99", |latency| latency.p99);
    if p99.points.len() < 2 {
        return html! {};
    }
    let lines = [p50, p99];
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x = Axis {
        name: "requests answered each second".to_owned(),
        scale: Scale::from_zero(points().map(|(rate, _)| rate)),
        write: units::short,
    };
    let drawing =
        draw(WIDE, "latency against throughput", [&x, &latency_axis(points().map(|(_, p)| p))], &lines);
    let key = |name: &str, hue| Key { name: name.to_owned(), hue };
    let keys = [key("p50", hues[0]), key("p99", hues[1])];
    chart::figure("Latency against throughput", "each point is a load; repeats are averaged", &keys, &drawing)
}

fn line(loads: &[LoadRuns<'_>], hue: Hue, word: &str, figure: fn(&Latency) -> f64) -> Line {
    let answered = |run: &Run| (run.latency.count > 0).then(|| figure(&run.latency));
    let points = loads.iter().filter_map(|load| {
        Some((load, (load.mean(|run| Some(run.requests_per_second))?, load.mean(answered)?)))
    });
    let marks: Vec<Mark> = points
        .map(|(load, (rate, micros))| Mark {
            at: (rate, micros),
            title: format!(
                "{}: {} {} at {}/s",
                units::load(load.load),
                word,
                units::duration(micros),
                units::number(rate)
            ),
            label: Some(if word == "p99" { units::load_number(load.load) } else { String::new() }),
        })
        .collect();
    let points = marks.iter().map(|mark| mark.at).collect();
    Line { title: word.to_owned(), hue, dashed: false, points, marks }
}
