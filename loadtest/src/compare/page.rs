//! A comparison as one HTML file: the table, and both latency curves over each other, load by load.

use maud::{Markup, html};

use super::comparison::{Comparison, LoadComparison};
use super::figure::{Figure, Verdict};
use super::terminal::{amount, interval};
use crate::measurement::Measurement;
use crate::report::chart::{self, HALF, Hue, Key};
use crate::report::html::{curves, document, draw_percentiles, facts};
use crate::report::units;

/// A measurement and what it is called on the page.
pub(super) struct Side<'a> {
    pub(super) name: String,
    pub(super) measurement: &'a Measurement,
}

/// The whole page, of measurements that have a load in common.
pub(super) fn render(comparison: &Comparison<'_>, [a, b]: [&Side<'_>; 2]) -> String {
    let title = format!("{} and {}", a.name, b.name);
    let body = html! {
        header { h1 { (title) } }
        main {
            div.pair {
                @for (letter, side) in [("A", a), ("B", b)] {
                    section { h2 { (letter) ": " (side.name) } (facts(side.measurement)) }
                }
            }
            (table(comparison))
            @for note in &comparison.notes { p.quiet { (note) } }
            (curve_figures(comparison, [a, b]))
        }
    };
    document(&title, &body)
}

fn table(comparison: &Comparison<'_>) -> Markup {
    html! {
        div.scroll { table {
            thead { tr {
                th { "load" } th style="text-align:left" { "figure" } th { "A" } th { "B" } th { "difference" }
                th { "95 % interval" } th style="text-align:left" { "verdict" }
            } }
            tbody {
                @for load in &comparison.loads {
                    @for (index, figure) in load.figures.iter().enumerate() {
                        tr {
                            td { @if index == 0 { (units::load(load.load)) } }
                            (cells(figure))
                        }
                    }
                }
            }
        } }
    }
}

fn cells(figure: &Figure) -> Markup {
    let value = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| figure.metric.show(value));
    let class = match figure.verdict() {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::WithinNoise | Verdict::Unknown => "noise",
    };
    html! {
        td.left { (figure.metric.name()) }
        td { (value(figure.before)) }
        td { (value(figure.after)) }
        @if let Some(change) = &figure.change {
            td class=(class) { (amount(figure.metric, change.amount)) }
            td.noise { (interval(figure.metric, change).unwrap_or_default()) }
            td class=(format!("left {class}")) { (figure.verdict().name()) }
        } @else {
            td.noise { "–" } td {} td {}
        }
    }
}

fn curve_figures(comparison: &Comparison<'_>, sides: [&Side<'_>; 2]) -> Markup {
    html! {
        div.pair { @for load in &comparison.loads { (curve_figure(load, sides)) } }
    }
}

fn curve_figure(load: &LoadComparison<'_>, [a, b]: [&Side<'_>; 2]) -> Markup {
    let hues = [Hue::of(0, 2), Hue::of(1, 2)];
    let name = |letter: &str, repeat: usize, runs: usize| {
        if runs == 1 { letter.to_owned() } else { format!("{letter}, repeat {}", repeat + 1) }
    };
    let before = load.before.iter().map(|run| (hues[0], name("A", run.repeat, load.before.len()), *run));
    let after = load.after.iter().map(|run| (hues[1], name("B", run.repeat, load.after.len()), *run));
    let lines = curves(before.chain(after));
    if lines.is_empty() {
        return html! {};
    }
    let key = |letter: &str, side: &Side<'_>, hue| Key { name: format!("{letter}: {}", side.name), hue };
    let keys = [key("A", a, hues[0]), key("B", b, hues[1])];
    chart::figure(
        &format!("Latency at {}", units::load(load.load)),
        "",
        &keys,
        &draw_percentiles(HALF, &lines),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::report::sample;

    fn page(before: &Measurement, after: &Measurement) -> String {
        let a = Side { name: "before<.json".to_owned(), measurement: before };
        let b = Side { name: "after.json".to_owned(), measurement: after };
        render(&Comparison::of(before, after), [&a, &b])
    }

    #[test]
    fn both_curves_of_each_load_are_drawn() {
        let before = sample::of(&[1, 8, 32].map(sample::closed), 3);
        let mut after = before.clone();
        for run in &mut after.runs {
            run.requests_per_second *= 1.2;
            run.latency.curve.iter_mut().for_each(|point| point.1 *= 0.7);
        }
        let page = page(&before, &after);
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches("<path").count(), 3 * 6);
        assert!(page.contains("before&lt;.json") && !page.contains("before<"));
        if let Some(folder) = std::env::var_os("VOLLEY_LOAD_PAGES") {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(Path::new(&folder).join("compare.html"), page).unwrap();
        }
    }
}
