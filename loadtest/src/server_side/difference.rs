//! From two readings to what happened between them. Pure.

use std::collections::BTreeMap;

use super::Reading;
use super::metrics::Metrics;
use super::{process::ProcessReading, statistics};
use crate::measurement::{ModelSide, ServerSide};

/// What a server counted in a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// `None` when it told nothing at all.
    pub(crate) server: Option<ServerSide>,
    /// What had to be left out, a sentence each.
    pub(crate) remarks: Vec<String>,
}

/// Which counts of requests may differ though nothing is wrong: those in flight at either reading.
const TOLERATED: f64 = 0.1;

pub(super) fn between(before: &Reading, after: &Reading, models: &[String], requests: u64) -> Observed {
    let mut remarks = Vec::new();
    let mut told = from_statistics(before, after, models, &mut remarks);
    let metrics = before.metrics.as_ref().zip(after.metrics.as_ref());
    let mut from_metrics = BTreeMap::new();
    if let Some((before, after)) = metrics {
        from_metrics =
            models.iter().filter_map(|model| Some((model.clone(), after.since(before, model)?))).collect();
    }
    let contradicted = contradiction(&told, &from_metrics);
    if let (Some(remark), true) = (&contradicted, after.metrics_named) {
        remarks.push(remark.clone());
    }
    if told.is_empty() {
        told = from_metrics;
    }
    // Metrics that nobody named and that count otherwise are those of another server.
    let metrics = metrics.filter(|_| contradicted.is_none());
    let cpu_seconds = cpu_seconds(before, after, metrics, &mut remarks);
    let resident = after.processes.as_ref().map(ProcessReading::resident_bytes);
    let server = ServerSide {
        models: told,
        cpu_micros_per_request: cpu_seconds.and_then(|seconds| per_request(seconds, requests)),
        resident_bytes: resident.or_else(|| metrics.and_then(|(_, after)| after.resident_bytes())),
    };
    let nothing = server.models.is_empty()
        && server.cpu_micros_per_request.is_none()
        && server.resident_bytes.is_none();
    Observed { server: (!nothing).then_some(server), remarks }
}

fn from_statistics(
    before: &Reading,
    after: &Reading,
    models: &[String],
    remarks: &mut Vec<String>,
) -> BTreeMap<String, ModelSide> {
    let mut told = BTreeMap::new();
    let (Some(before), Some(after)) = (&before.statistics, &after.statistics) else {
        if before.statistics.is_some() != after.statistics.is_some() {
            remarks.push("The server's statistics could be read before or after the run only.".to_owned());
        }
        return told;
    };
    for model in models {
        match statistics::since(before, after, model) {
            Some(side) => {
                told.insert(model.clone(), side);
            }
            None => remarks.push(format!(
                "The statistics of {model:?} began anew during the run, so they are left out: was the server or the \
                 model loaded again?"
            )),
        }
    }
    told
}

/// Where statistics and metrics count different numbers of requests.
fn contradiction(
    statistics: &BTreeMap<String, ModelSide>,
    metrics: &BTreeMap<String, ModelSide>,
) -> Option<String> {
    statistics.iter().find_map(|(model, told)| {
        let other = metrics.get(model)?;
        let (a, b) = (precise(told.requests), precise(other.requests));
        let far = (a - b).abs() > 10.0 + TOLERATED * a.max(b);
        far.then(|| {
            format!(
                "The metrics count {} requests of {model:?} in the run and the statistics {}: the metrics may be those \
                 of another server.",
                other.requests, told.requests
            )
        })
    })
}

fn cpu_seconds(
    before: &Reading,
    after: &Reading,
    metrics: Option<(&Metrics, &Metrics)>,
    remarks: &mut Vec<String>,
) -> Option<f64> {
    if let (Some(before), Some(after)) = (&before.processes, &after.processes) {
        let seconds = after.cpu_seconds_since(before);
        if seconds.is_none() {
            remarks.push(
                "The server's process was replaced during the run, so its processor time is left out."
                    .to_owned(),
            );
        }
        return seconds;
    }
    metrics.and_then(|(before, after)| after.cpu_seconds_since(before))
}

fn per_request(seconds: f64, requests: u64) -> Option<f64> {
    (requests > 0).then(|| seconds * 1e6 / precise(requests))
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
fn precise(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use volley_client::{InferStatistics, ModelStatistics, StatisticDuration};

    use super::*;
    use crate::server_side::prometheus;

    fn reading(requests: u64, scraped: Option<u64>) -> Reading {
        let success = StatisticDuration { count: requests, ns: requests * 1_000 };
        let statistics = ModelStatistics {
            name: "m".to_owned(),
            version: "1".to_owned(),
            inference_stats: InferStatistics { success, ..InferStatistics::default() },
            ..ModelStatistics::default()
        };
        let text = |count| {
            format!(
                "nv_inference_request_success{{model=\"m\",version=\"1\"}} {count}\n\
                 process_cpu_seconds_total {}\nprocess_resident_memory_bytes 5e6\n",
                count as f64 / 1e3
            )
        };
        Reading {
            statistics: Some(vec![statistics]),
            metrics: scraped.map(|count| Metrics::of(&prometheus::parse(&text(count)))),
            metrics_named: true,
            processes: None,
        }
    }

    fn observed(before: &Reading, after: &Reading) -> Observed {
        between(before, after, &["m".to_owned()], 1_000)
    }

    #[test]
    fn metrics_tell_what_statistics_and_proc_do_not() {
        let found = observed(&reading(5, Some(0)), &reading(1_005, Some(1_000)));
        let server = found.server.unwrap();
        assert_eq!(server.models["m"].requests, 1_000);
        assert_eq!(server.cpu_micros_per_request, Some(1_000.0));
        assert_eq!(server.resident_bytes, Some(5_000_000));
        assert_eq!(found.remarks, [] as [String; 0]);
    }

    #[test]
    fn metrics_of_another_server_are_not_believed() {
        let found = observed(&reading(0, Some(0)), &reading(1_000, Some(3)));
        let server = found.server.unwrap();
        assert_eq!((server.models["m"].requests, server.cpu_micros_per_request), (1_000, None));
        assert!(found.remarks[0].contains("count 3 requests"), "{:?}", found.remarks);
        let (before, mut after) = (reading(0, Some(0)), reading(1_000, Some(3)));
        after.metrics_named = false;
        assert_eq!(observed(&before, &after).remarks, [] as [String; 0], "nobody asked for them");
    }

    #[test]
    fn counters_that_began_anew_are_left_out() {
        let found = observed(&reading(1_000, None), &reading(7, None));
        assert!(found.server.is_none());
        assert!(found.remarks[0].contains("began anew"), "{:?}", found.remarks);
    }

    #[test]
    fn a_reading_that_failed_is_said() {
        let mut after = reading(7, None);
        after.statistics = None;
        let found = observed(&reading(1, None), &after);
        assert!(found.server.is_none());
        assert_eq!(found.remarks, ["The server's statistics could be read before or after the run only."]);
    }
}
