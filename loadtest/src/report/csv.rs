//! A measurement as CSV: one row a run, for spreadsheets and data frames.
//!
//! Columns are stable: new ones are added at the end. Names end in their unit (`_us` is microseconds). What is
//! unknown is empty. `models` lists `name=share`, joined by `;`. Columns from `server_requests` on are sums, or
//! means weighted by requests, over all models of the run.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;

use super::server_total::ServerTotal;
use super::units;
use crate::measurement::{Latency, Load, Measurement, Run};

/// Writes a header and a row for each run.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn write(measurement: &Measurement, out: &mut impl Write) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    for run in &measurement.runs {
        writer.serialize(Row::of(measurement, run)).context("cannot write a row of CSV")?;
    }
    writer.flush().context("cannot write the CSV")
}

/// The columns, in order. The csv crate names them after the fields.
#[derive(Serialize)]
struct Row<'a> {
    started: &'a str,
    url: &'a str,
    protocol: &'a str,
    models: String,
    /// `closed` or `open`.
    mode: &'static str,
    concurrency: Option<usize>,
    rate: Option<f64>,
    /// `constant`, `poisson`, `ramp` or `trace`.
    arrivals: Option<&'static str>,
    repeat: usize,
    seconds: f64,
    requests: u64,
    items: u64,
    failed: u64,
    wrong_answers: u64,
    unanswered: u64,
    requests_per_second: f64,
    items_per_second: f64,
    latency_mean_us: Option<f64>,
    latency_stdev_us: Option<f64>,
    latency_min_us: Option<f64>,
    latency_p50_us: Option<f64>,
    latency_p75_us: Option<f64>,
    latency_p90_us: Option<f64>,
    latency_p95_us: Option<f64>,
    latency_p99_us: Option<f64>,
    latency_p99_9_us: Option<f64>,
    latency_p99_99_us: Option<f64>,
    latency_max_us: Option<f64>,
    send_lag_p99_us: f64,
    send_lag_max_us: f64,
    generator_cpu_us: f64,
    server_cpu_us: Option<f64>,
    server_resident_bytes: Option<u64>,
    server_requests: Option<u64>,
    server_failures: Option<u64>,
    server_inferences: Option<u64>,
    server_executions: Option<u64>,
    mean_batch: Option<f64>,
    server_request_us: Option<f64>,
    queue_us: Option<f64>,
    compute_input_us: Option<f64>,
    compute_infer_us: Option<f64>,
    compute_output_us: Option<f64>,
    generator_busy: Option<f64>,
    generator_waiting: Option<f64>,
}

impl<'a> Row<'a> {
    fn of(measurement: &'a Measurement, run: &Run) -> Row<'a> {
        let target = &measurement.target;
        let models: Vec<_> =
            target.models.iter().map(|(name, share)| format!("{name}={}", units::short(*share))).collect();
        let (mode, concurrency, rate, arrivals) = match &run.load {
            Load::Closed { concurrency } => ("closed", Some(*concurrency), None, None),
            Load::Open { rate, arrivals } => {
                ("open", None, Some(*rate), Some(units::arrivals_name(arrivals)))
            }
        };
        let at = |value: fn(&Latency) -> f64| (run.latency.count > 0).then(|| value(&run.latency));
        let total = ServerTotal::of(run);
        let total = total.as_ref();
        Row {
            started: &measurement.started,
            url: &target.url,
            protocol: &target.protocol,
            models: models.join(";"),
            mode,
            concurrency,
            rate,
            arrivals,
            repeat: run.repeat,
            seconds: run.seconds,
            requests: run.requests,
            items: run.items,
            failed: run.failed(),
            wrong_answers: run.wrong_answers,
            unanswered: run.unanswered,
            requests_per_second: run.requests_per_second,
            items_per_second: run.items_per_second,
            latency_mean_us: at(|latency| latency.mean),
            latency_stdev_us: at(|latency| latency.stdev),
            latency_min_us: at(|latency| latency.min),
            latency_p50_us: at(|latency| latency.p50),
            latency_p75_us: at(|latency| latency.p75),
            latency_p90_us: at(|latency| latency.p90),
            latency_p95_us: at(|latency| latency.p95),
            latency_p99_us: at(|latency| latency.p99),
            latency_p99_9_us: at(|latency| latency.p99_9),
            latency_p99_99_us: at(|latency| latency.p99_99),
            latency_max_us: at(|latency| latency.max),
            send_lag_p99_us: run.send_lag.p99,
            send_lag_max_us: run.send_lag.max,
            generator_cpu_us: run.generator_cpu_micros,
            server_cpu_us: run.server.as_ref().and_then(|server| server.cpu_micros_per_request),
            server_resident_bytes: run.server.as_ref().and_then(|server| server.resident_bytes),
            server_requests: total.map(|total| total.requests),
            server_failures: total.map(|total| total.failures),
            server_inferences: total.map(|total| total.inferences),
            server_executions: total.map(|total| total.executions),
            mean_batch: total.and_then(ServerTotal::mean_batch),
            server_request_us: total.map(|total| total.request_micros),
            queue_us: total.map(|total| total.queue_micros),
            compute_input_us: total.map(|total| total.compute_input_micros),
            compute_infer_us: total.map(|total| total.compute_infer_micros),
            compute_output_us: total.map(|total| total.compute_output_micros),
            generator_busy: run.generator_busy,
            generator_waiting: run.generator_waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn csv(measurement: &Measurement) -> String {
        let mut text = Vec::new();
        write(measurement, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// The header is a promise: programs read columns by these names.
    #[test]
    fn columns_are_stable() {
        insta::assert_snapshot!(csv(&sample::sweep(&[1, 8])));
    }

    #[test]
    fn names_with_separators_stay_in_their_cell() {
        let mut measurement = sample::sweep(&[1]);
        measurement.target.models = [("a,\"b\"\nc".to_owned(), 1.0)].into();
        let text = csv(&measurement);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let row = reader.records().next().unwrap().unwrap();
        assert_eq!(&row[3], "a,\"b\"\nc=1");
    }

    #[test]
    fn what_is_unknown_is_empty() {
        let text = csv(&sample::errors_only());
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let headers = reader.headers().unwrap().clone();
        let row = reader.records().next().unwrap().unwrap();
        let at = |name| &row[headers.iter().position(|header| header == name).unwrap()];
        assert_eq!((at("latency_p99_us"), at("queue_us"), at("rate")), ("", "", ""));
        assert_ne!(at("failed"), "0");
    }
}
