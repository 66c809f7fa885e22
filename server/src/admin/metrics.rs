//! The metrics of the server in Prometheus text: Triton's names and labels, and what Triton lacks.
//!
//! Nothing is counted here: a scrape reads the statistics that answer the statistics endpoint, too. The
//! families are documented in `docs/metrics.md`, which a test holds against [`FAMILIES`].

use inference::rate_limiter::{RateLimiter, ResourceUse};
use inference::statistics::{Failure, Histogram, Totals};
use inference::{ResponseCache, ServedVersion};
use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::{host, repository};
use crate::app::App;

/// A family of metrics that has a value for each model version.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    kind: Kind,
}

/// Where a family's values come from.
enum Kind {
    Counter(fn(&Totals) -> u64),
    /// Of versions that keep answers.
    CacheCounter(fn(&Totals) -> u64),
    /// Of versions whose requests are padded.
    PaddingCounter(fn(&Totals) -> u64),
    /// By the label `reason`.
    Failures,
    Gauge(fn(&ServedVersion) -> f64),
    /// Of versions that have it.
    GaugeOfSome(fn(&ServedVersion) -> Option<usize>),
    /// In seconds.
    Durations(fn(&Totals) -> &Histogram),
    /// Executions by batch size.
    BatchSizes,
}

impl Family {
    pub(super) fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Counter(_) | Kind::CacheCounter(_) | Kind::PaddingCounter(_) | Kind::Failures => "counter",
            Kind::Gauge(_) | Kind::GaugeOfSome(_) => "gauge",
            Kind::Durations(_) | Kind::BatchSizes => "histogram",
        }
    }

    #[cfg(test)]
    pub(super) fn labels(&self) -> &'static str {
        match self.kind {
            Kind::Failures => "model, version, reason",
            _ => "model, version",
        }
    }
}

/// Lines of the log that nobody has seen: a counter of the server, without labels.
const DROPPED_LINES: (&str, &str) =
    ("volley_log_lines_dropped_total", "Log lines that were dropped because their reader was too slow");

/// A gauge of the response cache, without labels; there when the server has one.
struct CacheGauge {
    name: &'static str,
    help: &'static str,
    value: fn(&ResponseCache) -> u64,
}

const CACHE: [CacheGauge; 3] = [
    CacheGauge {
        name: "volley_cache_bytes",
        help: "RAM that the entries of the response cache take, of all models together",
        value: ResponseCache::bytes,
    },
    CacheGauge {
        name: "volley_cache_entries",
        help: "Answers in the response cache",
        value: |cache| cache.entries() as u64,
    },
    CacheGauge {
        name: "volley_cache_limit_bytes",
        help: "The most bytes that the response cache takes (`--cache-config`)",
        value: ResponseCache::limit,
    },
];

/// A gauge of a resource that instances wait for, with the labels `resource` and `device`; there when the server has a
/// rate limiter and a loaded model takes some.
struct ResourceGauge {
    name: &'static str,
    help: &'static str,
    value: fn(&ResourceUse) -> u64,
}

const RESOURCES: [ResourceGauge; 2] = [
    ResourceGauge {
        name: "volley_rate_limiter_resource_limit",
        help: "How much there is of a resource that instances wait for (`--rate-limit-resource`)",
        value: |resource| resource.total,
    },
    ResourceGauge {
        name: "volley_rate_limiter_resource_used",
        help: "How much of a resource the instances that run hold",
        value: |resource| resource.used,
    },
];

/// A gauge of the server, without labels.
const REQUEST_MEMORY: (&str, &str) = (
    "volley_request_memory_bytes",
    "RAM that the bodies of requests take, as `--max-request-memory` bounds it",
);

/// Every family, Triton's first.
pub(super) const FAMILIES: &[Family] = &[
    counter(
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        |totals| totals.success.count,
    ),
    Family {
        name: "nv_inference_request_failure",
        help: "Number of failed inference requests, all batch sizes, by reason",
        kind: Kind::Failures,
    },
    counter("nv_inference_count", "Number of inferences performed (a batch of n counts n)", |totals| {
        totals.inference_count
    }),
    counter("nv_inference_exec_count", "Number of model executions performed", |totals| {
        totals.execution_count
    }),
    counter(
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds",
        |totals| totals.success.ns / 1000,
    ),
    counter(
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds",
        |totals| totals.queue.ns / 1000,
    ),
    counter(
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds",
        |totals| totals.compute_input.ns / 1000,
    ),
    counter(
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds",
        |totals| totals.compute_infer.ns / 1000,
    ),
    counter(
        "nv_inference_compute_output_duration_us",
        "Cumulative compute output duration in microseconds",
        |totals| totals.compute_output.ns / 1000,
    ),
    cache_counter(
        "nv_cache_num_hits_per_model",
        "Number of requests answered from the response cache",
        |totals| totals.cache_hit.count,
    ),
    cache_counter(
        "nv_cache_num_misses_per_model",
        "Number of requests whose answer was not in the response cache",
        |totals| totals.cache_miss.count,
    ),
    cache_counter(
        "nv_cache_hit_duration_per_model",
        "Cumulative time to find answers in the response cache in microseconds",
        |totals| totals.cache_hit.ns / 1000,
    ),
    cache_counter(
        "nv_cache_miss_duration_per_model",
        "Cumulative time to look for answers that were not in the response cache and to insert them in microseconds",
        |totals| totals.cache_miss.ns / 1000,
    ),
    gauge("nv_inference_pending_request_count", "Requests that wait for an instance", |served| {
        count(served.waiting() as u64)
    }),
    gauge("nv_model_load_duration_secs", "Seconds that the version took to load", |served| {
        served.loaded_in().as_secs_f64()
    }),
    gauge(
        "volley_inference_requests_in_flight",
        "Requests that were admitted and are not yet answered",
        |served| count(served.statistics().in_flight()),
    ),
    durations(
        "volley_inference_request_duration_seconds",
        "Time from arrival to answer of successful requests",
        |totals| &totals.request_duration,
    ),
    durations(
        "volley_inference_queue_duration_seconds",
        "Time that successful requests waited for an instance",
        |totals| &totals.queue_duration,
    ),
    durations("volley_inference_compute_duration_seconds", "Time of model executions", |totals| {
        &totals.compute_duration
    }),
    gauge(
        "volley_inference_expected_duration_seconds",
        "Time that an execution of one item is expected to take, as learned from executions; 0 while they are too few",
        |served| served.learned_cost().one_row,
    ),
    gauge(
        "volley_inference_expected_duration_error_ratio",
        "How far executions were from what was expected of late, as a mean share of their time",
        |served| served.learned_cost().error,
    ),
    Family {
        name: "volley_inference_padded_input_elements_total",
        help: "Elements of the inputs that `pad_batch` names, as executions ran them, padding included",
        kind: Kind::PaddingCounter(|totals| totals.padded_inputs),
    },
    Family {
        name: "volley_inference_padding_elements_total",
        help: "Elements of padding among them",
        kind: Kind::PaddingCounter(|totals| totals.padding),
    },
    Family {
        name: "volley_inference_batch_size",
        help: "Items in each model execution",
        kind: Kind::BatchSizes,
    },
    Family {
        name: "volley_rate_limiter_waiting_instances",
        help: "Instances that have requests to run and wait for what their `rate_limiter` says they take",
        kind: Kind::GaugeOfSome(ServedVersion::instances_waiting),
    },
];

const fn counter(name: &'static str, help: &'static str, value: fn(&Totals) -> u64) -> Family {
    Family { name, help, kind: Kind::Counter(value) }
}

const fn cache_counter(name: &'static str, help: &'static str, value: fn(&Totals) -> u64) -> Family {
    Family { name, help, kind: Kind::CacheCounter(value) }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&ServedVersion) -> f64) -> Family {
    Family { name, help, kind: Kind::Gauge(value) }
}

const fn durations(name: &'static str, help: &'static str, value: fn(&Totals) -> &Histogram) -> Family {
    Family { name, help, kind: Kind::Durations(value) }
}

/// Upper bounds of [`Kind::BatchSizes`].
const BATCH_BOUNDS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// All metrics as they are now.
pub(super) fn text(app: &App) -> Vec<u8> {
    let versions = app.repository.all_ready();
    let snapshots: Vec<_> = versions.iter().map(|served| (served, served.statistics().snapshot())).collect();
    let mut families: Vec<MetricFamily> = Vec::with_capacity(FAMILIES.len() + host::GAUGES.len() + 1);
    for family in FAMILIES {
        let metrics =
            snapshots.iter().flat_map(|(served, totals)| metrics(&family.kind, served, totals)).collect();
        families.push(message(family.name, family.help, family.type_name(), metrics));
    }
    for (gauge, value) in host::gauges() {
        let mut metric = Metric::default();
        metric.set_gauge(gauge_value(value));
        families.push(message(gauge.name, gauge.help, "gauge", vec![metric]));
    }
    for CacheGauge { name, help, value } in CACHE {
        let gauge = |cache| {
            let mut metric = Metric::default();
            metric.set_gauge(gauge_value(count(value(cache))));
            metric
        };
        families.push(message(name, help, "gauge", app.repository.cache().map(gauge).into_iter().collect()));
    }
    let resources = app.repository.rate_limiter().map(RateLimiter::resources).unwrap_or_default();
    for ResourceGauge { name, help, value } in RESOURCES {
        let metrics = resources.iter().map(|resource| resource_metric(resource, value(resource))).collect();
        families.push(message(name, help, "gauge", metrics));
    }
    families.extend(repository::families(app));
    let mut memory = Metric::default();
    memory.set_gauge(gauge_value(count(app.request_memory.used() as u64)));
    families.push(message(REQUEST_MEMORY.0, REQUEST_MEMORY.1, "gauge", vec![memory]));
    let mut dropped = Metric::default();
    dropped.set_counter(counter_value(app.log.dropped_lines() as u64));
    families.push(message(DROPPED_LINES.0, DROPPED_LINES.1, "counter", vec![dropped]));
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).expect("families have names, types and values");
    text
}

fn metrics(kind: &Kind, served: &ServedVersion, totals: &Totals) -> Vec<Metric> {
    let mut metric = Metric::default();
    metric.set_label(labels(served));
    match kind {
        Kind::CacheCounter(_) if !served.keeps_answers() => return Vec::new(),
        Kind::PaddingCounter(_) if !served.pads() => return Vec::new(),
        Kind::Counter(value) | Kind::CacheCounter(value) | Kind::PaddingCounter(value) => {
            metric.set_counter(counter_value(value(totals)));
        }
        Kind::Gauge(value) => metric.set_gauge(gauge_value(value(served))),
        Kind::GaugeOfSome(value) => match value(served) {
            Some(value) => metric.set_gauge(gauge_value(count(value as u64))),
            None => return Vec::new(),
        },
        Kind::Durations(histogram) => metric.set_histogram(duration_histogram(histogram(totals))),
        Kind::BatchSizes => metric.set_histogram(batch_histogram(totals)),
        Kind::Failures => {
            let failures = Failure::ALL.into_iter().zip(totals.failures);
            return failures.map(|(failure, count)| failure_metric(served, failure, count)).collect();
        }
    }
    vec![metric]
}

fn failure_metric(served: &ServedVersion, failure: Failure, count: u64) -> Metric {
    let mut labels = labels(served);
    labels.push(label("reason", failure.label()));
    let mut metric = Metric::default();
    metric.set_label(labels);
    metric.set_counter(counter_value(count));
    metric
}

fn resource_metric(of: &ResourceUse, value: u64) -> Metric {
    let device = of.resource.device.map_or_else(|| "global".to_owned(), |device| device.to_string());
    let mut metric = Metric::default();
    metric.set_label(vec![label("resource", &of.resource.name), label("device", &device)]);
    metric.set_gauge(gauge_value(count(value)));
    metric
}

/// The model, its version, and the tags of its configuration, each with an underscore in front.
fn labels(served: &ServedVersion) -> Vec<LabelPair> {
    let version = served.version().to_string();
    let mut labels = vec![label("model", served.name()), label("version", &version)];
    let mut tags: Vec<_> = served.config().metric_tags.iter().collect();
    tags.sort();
    for (name, value) in tags {
        let name = tag_name(name);
        // Two tags may come to the same name; a label occurs once.
        if labels.iter().all(|label| label.name() != name) {
            labels.push(label(&name, value));
        }
    }
    labels
}

/// A label's name has letters, digits and underscores only.
fn tag_name(tag: &str) -> String {
    let safe = tag.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' });
    std::iter::once('_').chain(safe).collect()
}

pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

pub(super) fn counter_value(value: u64) -> Counter {
    let mut counter = Counter::default();
    counter.set_value(count(value));
    counter
}

pub(super) fn gauge_value(value: f64) -> Gauge {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    gauge
}

/// Prometheus counts in doubles, which are exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
fn count(value: u64) -> f64 {
    value as f64
}

fn seconds(ns: u64) -> f64 {
    count(ns) / 1e9
}

fn duration_histogram(histogram: &Histogram) -> prometheus::proto::Histogram {
    let bounds = Histogram::BOUNDS_NS.map(seconds);
    histogram_message(&bounds, &histogram.counts, seconds(histogram.sum_ns))
}

fn batch_histogram(totals: &Totals) -> prometheus::proto::Histogram {
    let mut counts = [0; BATCH_BOUNDS.len() + 1];
    let mut sum = 0;
    for (size, tally) in &totals.batches {
        let executions = tally.compute_infer.count;
        counts[BATCH_BOUNDS.partition_point(|bound| bound < size)] += executions;
        sum += size * executions;
    }
    histogram_message(&BATCH_BOUNDS.map(count), &counts, count(sum))
}

/// `counts` has one more element than `bounds`: what lies above all of them.
fn histogram_message(bounds: &[f64], counts: &[u64], sum: f64) -> prometheus::proto::Histogram {
    let mut cumulated = 0;
    let buckets = bounds.iter().zip(counts).map(|(bound, count)| {
        cumulated += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulated);
        bucket
    });
    let mut histogram = prometheus::proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    histogram
}

pub(super) fn message(name: &str, help: &str, kind: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(match kind {
        "counter" => MetricType::COUNTER,
        "histogram" => MetricType::HISTOGRAM,
        _ => MetricType::GAUGE,
    });
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// What `docs/metrics.md` says of the families, made from them.
    fn reference() -> String {
        let mut table = String::from("| name | type | labels | meaning |\n|---|---|---|---|\n");
        for family in FAMILIES {
            let (name, kind, labels, help) = (family.name, family.type_name(), family.labels(), family.help);
            writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
        }
        for gauge in host::GAUGES {
            writeln!(table, "| `{}` | gauge | | {} |", gauge.name, gauge.help).unwrap();
        }
        for CacheGauge { name, help, .. } in CACHE {
            writeln!(table, "| `{name}` | gauge | | {help} |").unwrap();
        }
        for ResourceGauge { name, help, .. } in RESOURCES {
            writeln!(table, "| `{name}` | gauge | resource, device | {help} |").unwrap();
        }
        for (name, kind, labels, help) in repository::FAMILIES {
            writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
        }
        let (name, help) = REQUEST_MEMORY;
        writeln!(table, "| `{name}` | gauge | | {help} |").unwrap();
        let (name, help) = DROPPED_LINES;
        writeln!(table, "| `{name}` | counter | | {help} |").unwrap();
        table
    }

    #[test]
    fn the_documentation_lists_exactly_the_families_there_are() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let document = std::fs::read_to_string(path).unwrap_or_default();
        assert!(document.contains(&reference()), "docs/metrics.md should hold this table:\n{}", reference());
    }

    #[test]
    fn a_histogram_cumulates_its_buckets() {
        let histogram = histogram_message(&[1.0, 2.0], &[3, 0, 4], 25.0);
        let cumulated: Vec<_> =
            histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count()).collect();
        assert_eq!((cumulated, histogram.get_sample_count()), (vec![3, 3], 7));
    }

    #[test]
    fn tags_become_labels_that_prometheus_takes() {
        assert_eq!(tag_name("team"), "_team");
        assert_eq!(tag_name("cost-centre.eu"), "_cost_centre_eu");
    }
}
