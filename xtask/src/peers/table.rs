//! The report as Markdown tables.

use std::fmt::Write as _;

use super::report::{Figures, Loaded, Outcome, Report, Row};

/// Requests each second, latency, and what they cost; then where the figures come from.
pub(super) fn markdown(report: &Report) -> String {
    let concurrencies = concurrencies(report);
    let throughput = |load: &Loaded| {
        let mark = if load.is_generator_busy() { " †" } else { "" };
        format!("{}{mark}", grouped(load.requests_per_second))
    };
    let latency = |load: &Loaded| format!("{} / {}", millis(load.p50_micros), millis(load.p99_micros));
    let cpu = |load: &Loaded| load.cpu_micros_per_request.map_or_else(dash, grouped);
    let others = |row: &Figures| row.others().map_or_else(dash, |share| format!("{:.0} %", share * 100.0));
    let failed = |row: &Figures| grouped_count(row.failed());
    let memory = |row: &Figures| row.resident_bytes.map_or_else(dash, mebibytes);
    let ready = |row: &Figures| row.ready_after_seconds.map_or_else(dash, |after| format!("{after:.2}"));
    let mut text = String::new();
    let mut table = |title: &str, cell: &dyn Fn(&Loaded) -> String, more: &[Column<'_>]| {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &one_table(report, &concurrencies, title, cell, more);
    };
    table("Requests per second", &throughput, &[("failed requests", &failed), ("used by others", &others)]);
    table("Latency, p50 / p99, ms", &latency, &[]);
    table(
        "CPU time per request, all processes, µs",
        &cpu,
        &[("memory, MiB", &memory), ("first right answer after, s", &ready)],
    );
    text + &origin(report)
}

/// A column that has one cell for each server, whatever the load: its heading and the cell.
type Column<'a> = (&'a str, &'a dyn Fn(&Figures) -> String);

fn one_table(
    report: &Report,
    concurrencies: &[usize],
    title: &str,
    cell: &dyn Fn(&Loaded) -> String,
    more: &[Column<'_>],
) -> String {
    let headings: Vec<String> = concurrencies
        .iter()
        .map(|concurrency| format!("{concurrency} in flight"))
        .chain(more.iter().map(|(heading, _)| (*heading).to_owned()))
        .collect();
    let mut text =
        format!("| {title} | {} |\n|---|{}\n", headings.join(" | "), "--:|".repeat(headings.len()));
    for row in &report.rows {
        let Some(figures) = row.figures() else { continue };
        let of = |concurrency: &usize| figures.loads.iter().find(|load| load.concurrency == *concurrency);
        let cells: Vec<String> = concurrencies
            .iter()
            .map(|concurrency| of(concurrency).map_or_else(dash, cell))
            .chain(more.iter().map(|(_, cell)| cell(figures)))
            .collect();
        let _ = writeln!(text, "| {} | {} |", name(row), cells.join(" | "));
    }
    text
}

/// Which machine, when, with what; and which servers are missing and why.
fn origin(report: &Report) -> String {
    let mut text = format!(
        "\n{}{}, {} cores, {} GiB, {}; generator of {}; load average {:.1} before the run. Commit {}, {}. {}.\n\n    {}\n",
        busy_note(report),
        report.machine,
        report.cores,
        report.memory_gib,
        report.system,
        if report.generator_threads == 1 {
            "one thread".to_owned()
        } else {
            format!("{} threads", report.generator_threads)
        },
        report.load_before,
        report.commit,
        report.date,
        report.versions.join(", "),
        report.command
    );
    for row in &report.rows {
        match &row.outcome {
            Outcome::Failed(why) => {
                let _ = write!(text, "\n**{}** was not measured: {}\n", row.title, escaped(why));
            }
            Outcome::Measured(figures) => {
                for remark in &figures.remarks {
                    let _ = write!(text, "\n**{}**: {remark}\n", row.title);
                }
                let error = figures.loads.iter().find_map(|load| load.error.as_ref());
                if let (failed @ 1.., Some(error)) = (figures.failed(), error) {
                    let _ = write!(
                        text,
                        "\n**{}** failed {} requests, most often: {}\n",
                        row.title,
                        grouped_count(failed),
                        escaped(error)
                    );
                }
            }
        }
    }
    text
}

/// What the mark at a number says; nothing when none has it.
fn busy_note(report: &Report) -> &'static str {
    let mut loads = report.rows.iter().filter_map(Row::figures).flat_map(|figures| &figures.loads);
    if loads.any(Loaded::is_generator_busy) {
        "† A thread of the generator was busy more than 80 % of the time: the server may do more.\n\n"
    } else {
        ""
    }
}

/// The product stands out from its peers.
fn name(row: &Row) -> String {
    if row.name.starts_with("volley") { format!("**{}**", row.title) } else { row.title.to_owned() }
}

/// All that any row has, in rising order.
fn concurrencies(report: &Report) -> Vec<usize> {
    let figures = report.rows.iter().filter_map(Row::figures);
    let mut all: Vec<usize> =
        figures.flat_map(|figures| figures.loads.iter().map(|load| load.concurrency)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A whole number in groups of three digits.
fn grouped(number: f64) -> String {
    group(&format!("{number:.0}"))
}

fn grouped_count(number: u64) -> String {
    group(&number.to_string())
}

fn group(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds with three digits that say something.
fn millis(micros: f64) -> String {
    let millis = micros / 1e3;
    let decimals = match millis {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{millis:.decimals$}")
}

fn mebibytes(bytes: u64) -> String {
    grouped_count(bytes.div_ceil(1 << 20))
}

fn dash() -> String {
    "–".to_owned()
}

/// A message of another program, on one line, with nothing that Markdown acts on.
fn escaped(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("`{}`", line.replace('`', "'"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn load(concurrency: usize, requests_per_second: f64) -> Loaded {
        Loaded {
            concurrency,
            requests_per_second,
            p50_micros: 61.4,
            p99_micros: 12_345.0,
            cpu_micros_per_request: Some(41.6),
            generator_cpu_micros_per_request: 10.0,
            generator_busy: Some(if concurrency == 8 { 0.81 } else { 0.8 }),
            others: Some(0.125),
            requests: 100,
            failed: 0,
            error: None,
        }
    }

    fn row(name: &'static str, title: &'static str, outcome: Outcome) -> Row {
        Row { name, title, protocol: "http-json", outcome }
    }

    pub(in crate::peers) fn report() -> Report {
        let figures = |loads| Figures {
            ready_after_seconds: Some(0.0512),
            resident_bytes: Some(60 << 20),
            loads,
            remarks: vec!["port 20000 was still in use".to_owned()],
        };
        let failing = Loaded { failed: 1200, error: Some("status `503`:\n busy".to_owned()), ..load(8, 9.0) };
        Report {
            model: "mlp",
            machine: "A CPU".to_owned(),
            cores: 2,
            generator_threads: 1,
            memory_gib: 24,
            system: "Linux 6.1".to_owned(),
            load_before: 0.25,
            commit: "abc".to_owned(),
            date: "2026-01-02".to_owned(),
            command: "cargo xtask peers".to_owned(),
            versions: vec!["Python 3.11".to_owned(), "mosec 1".to_owned()],
            rows: vec![
                row("volley", "Volley", Outcome::Measured(figures(vec![load(1, 15_234.4), load(8, 999.6)]))),
                row("mosec", "mosec", Outcome::Measured(figures(vec![failing]))),
                row("ray_serve", "Ray Serve", Outcome::Failed("cannot install".to_owned())),
            ],
        }
    }

    #[test]
    fn each_server_is_a_row_and_each_concurrency_a_column() {
        let text = markdown(&report());
        let table = "\
| Requests per second | 1 in flight | 8 in flight | failed requests | used by others |
|---|--:|--:|--:|--:|
| **Volley** | 15,234 | 1,000 † | 0 | 12 % |
| mosec | – | 9 † | 1,200 | 12 % |

| Latency, p50 / p99, ms | 1 in flight | 8 in flight |
|---|--:|--:|
| **Volley** | 0.06 / 12.3 | 0.06 / 12.3 |
| mosec | – | 0.06 / 12.3 |

| CPU time per request, all processes, µs | 1 in flight | 8 in flight | memory, MiB | first right answer after, s |
|---|--:|--:|--:|--:|
| **Volley** | 42 | 42 | 60 | 0.05 |
| mosec | – | 42 | 60 | 0.05 |
";
        assert!(text.starts_with(table), "{text}");
    }

    #[test]
    fn what_failed_is_told_below() {
        let text = markdown(&report());
        assert!(
            text.contains("the server may do more.\n\nA CPU, 2 cores, 24 GiB, Linux 6.1; generator of one thread; load average 0.2 before the run."),
            "{text}"
        );
        assert!(text.contains("\n    cargo xtask peers\n"), "{text}");
        assert!(
            text.contains("**mosec** failed 1,200 requests, most often: `status '503': busy`\n"),
            "{text}"
        );
        assert!(text.contains("**mosec**: port 20000 was still in use\n"), "{text}");
        assert!(text.ends_with("**Ray Serve** was not measured: `cannot install`\n"), "{text}");
    }
}
