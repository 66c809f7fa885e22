//! What was asked of whom and from where, and the figures of all runs.

use maud::{Markup, html};

use crate::measurement::{Measurement, Run};
use crate::report::server_total::ServerTotal;
use crate::report::{remarks, table, units};

/// Target, machine and command.
pub(crate) fn facts(measurement: &Measurement) -> Markup {
    let (target, machine) = (&measurement.target, &measurement.machine);
    let models = target.models.iter().map(|(name, share)| {
        if target.models.len() == 1 { name.clone() } else { format!("{name} ({})", units::percent(*share)) }
    });
    let models: Vec<String> = models.collect();
    html! {
        dl.facts {
            dt { "Server" }
            dd {
                (target.url) " over " (target.protocol)
                @if let Some(server) = &target.server { " (" (server) ")" }
            }
            dt { @if models.len() == 1 { "Model" } @else { "Models" } }
            dd { (models.join(", ")) ", " (units::bytes(target.request_bytes)) " a request" }
            dt { "Load from" }
            dd {
                (machine.cpu) ", " (machine.cores) @if machine.cores == 1 { " core, " } @else { " cores, " }
                (units::bytes(precise(machine.memory_bytes))) ", " (machine.system)
                ", volley-load " (machine.generator)
            }
            dt { "Started" } dd { (measurement.started) }
            // Each word by itself: a line is not broken after the dashes of an option.
            dt { "Command" } dd { code { @for word in command(&measurement.command) { span.word { (word) } " " } } }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn precise(bytes: u64) -> f64 {
    bytes as f64
}

/// The words of a command line, quoted where a shell needs it.
fn command(words: &[String]) -> impl Iterator<Item = String> {
    let safe = |char: char| char.is_alphanumeric() || "-_=./:,+@%".contains(char);
    words.iter().map(move |word| {
        if !word.is_empty() && word.chars().all(safe) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    })
}

/// One line a run.
pub(super) fn table(measurement: &Measurement) -> Markup {
    let runs = &measurement.runs;
    if runs.is_empty() {
        return html! { p.quiet { "No run was completed." } };
    }
    let items = runs.iter().any(|run| run.items != run.requests);
    let server = runs.iter().any(|run| run.server.is_some());
    html! {
        div.scroll { table {
            thead {
                tr {
                    th.group {} th.group colspan=(if items { "2" } else { "1" }) { "answered" }
                    th.group.start colspan="6" { "latency" } th.group.start {}
                    @if server { th.group.start colspan="5" { "server" } }
                    th.group.start { "generator" }
                }
                tr {
                    th { "load" } th { "req/s" } @if items { th { "items/s" } }
                    th.start { "p50" } th { "p90" } th { "p99" } th { "p99.9" } th { "max" } th { "mean" }
                    th.start { "errors" }
                    @if server {
                        th.start { "batch" } th { "queue" } th { "compute" }
                        th title="Processor time of the server for each request" { "CPU/req" } th { "memory" }
                    }
                    th.start title="Processor time of the generator for each request" { "CPU/req" }
                }
            }
            tbody { @for run in runs { (row(run, items, server)) } }
        } }
        @if server {
            p.quiet { "Batch, queue and compute are means that the server counted; CPU/req is processor time for each request." }
        }
    }
}

fn row(run: &Run, items: bool, server: bool) -> Markup {
    let latency = &run.latency;
    let answered = |micros| if latency.count == 0 { "–".to_owned() } else { units::duration(micros) };
    let failed = run.failed() + run.unanswered;
    html! {
        tr {
            td { (remarks::run_name(run)) }
            td { (units::number(run.requests_per_second)) }
            @if items { td { (units::number(run.items_per_second)) } }
            td.start { (answered(latency.p50)) }
            @for micros in [latency.p90, latency.p99, latency.p99_9, latency.max, latency.mean] {
                td { (answered(micros)) }
            }
            td.start.bad[failed > 0] {
                (units::count(failed))
                @if failed > 0 { " (" (units::percent(units::share(failed, run.requests + run.unanswered))) ")" }
            }
            @if server { (server_cells(run)) }
            td.start { (units::duration(run.generator_cpu_micros)) }
        }
    }
}

fn server_cells(run: &Run) -> Markup {
    let total = ServerTotal::of(run);
    let side = run.server.as_ref();
    let cells = [
        total.as_ref().and_then(ServerTotal::mean_batch).map(units::number),
        total.as_ref().map(|total| units::duration(total.queue_micros)),
        total.as_ref().map(|total| units::duration(total.compute_micros())),
        side.and_then(|side| side.cpu_micros_per_request).map(units::duration),
        side.and_then(|side| side.resident_bytes).map(|bytes| units::bytes(precise(bytes))),
    ];
    html! {
        @for (index, cell) in cells.into_iter().enumerate() {
            td.start[index == 0] { (cell.unwrap_or_else(|| "–".to_owned())) }
        }
    }
}

/// The kinds of errors of each run; nothing when there were none.
pub(super) fn errors(measurement: &Measurement) -> Markup {
    let kinds: Vec<_> = measurement
        .runs
        .iter()
        .flat_map(|run| table::kinds(run).into_iter().map(move |(kind, count)| (run, kind, count)))
        .collect();
    html! {
        @if !kinds.is_empty() {
            h2 { "Errors" }
            div.scroll { table {
                thead { tr { th { "load" } th { "requests" } th style="text-align:left" { "what happened" } } }
                tbody {
                    @for (run, kind, count) in kinds {
                        tr { td { (remarks::run_name(run)) } td { (units::count(count)) } td.text { (kind) } }
                    }
                }
            } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let words = ["volley-load", "--model", "my model", "it's", ""].map(str::to_owned);
        let quoted = ["volley-load", "--model", "'my model'", r"'it'\''s'", "''"];
        assert_eq!(command(&words).collect::<Vec<_>>(), quoted);
    }
}
