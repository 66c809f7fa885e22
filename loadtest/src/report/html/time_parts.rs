//! Where a request's time goes: what the server counted, and the rest.

use maud::{Markup, html};

use crate::report::chart::bars::{Bar, Part, draw};
use crate::report::chart::{self, WIDE};
use crate::report::loads::LoadRuns;
use crate::report::server_total::ServerTotal;
use crate::report::units;

/// In the order of the bars' parts.
const NAMES: [&str; 5] =
    ["queue", "compute input", "compute infer", "compute output", "network, front end, generator"];

/// Nothing when the server counts nothing.
pub(super) fn figure(loads: &[LoadRuns<'_>]) -> Markup {
    let bars: Vec<Bar> = loads.iter().filter_map(bar).collect();
    if bars.is_empty() {
        return html! {};
    }
    let drawing = html! {
        ul.legend {
            @for (index, name) in NAMES.iter().enumerate() {
                li { span class=(format!("key part{index}")) {} (name) }
            }
        }
        (draw(WIDE.width, "where the time goes", &bars))
    };
    chart::figure("Where the time goes", "mean latency and its parts", &[], &drawing)
}

fn bar(load: &LoadRuns<'_>) -> Option<Bar> {
    let latency = load.mean(|run| (run.latency.count > 0).then_some(run.latency.mean))?;
    let mean = |value: fn(&ServerTotal) -> f64| load.mean(|run| ServerTotal::of(run).as_ref().map(value));
    let counted = [
        mean(|total| total.queue_micros)?,
        mean(|total| total.compute_input_micros)?,
        mean(|total| total.compute_infer_micros)?,
        mean(|total| total.compute_output_micros)?,
    ];
    let values = with_rest(counted, latency);
    let sum: f64 = values.iter().sum();
    let part = |(name, value): (&str, f64)| Part {
        value,
        title: format!("{name}: {} ({:.1} %)", units::duration(value), 100.0 * value / sum),
    };
    Some(Bar {
        name: units::load(load.load),
        parts: NAMES.into_iter().zip(values).map(part).collect(),
        whole: units::duration(latency),
    })
}

/// The rest is never negative: the server's clock may count a little more than the generator's, whose figures
/// are of answers that were right.
fn with_rest(counted: [f64; 4], latency: f64) -> [f64; 5] {
    let [queue, input, infer, output] = counted;
    [queue, input, infer, output, (latency - counted.iter().sum::<f64>()).max(0.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_what_the_server_did_not_count() {
        assert_eq!(with_rest([10.0, 1.0, 80.0, 1.0], 100.0)[4], 8.0);
        assert_eq!(with_rest([10.0, 1.0, 80.0, 10.0], 100.0)[4], 0.0);
    }
}
