//! The states of versions, as metrics.

use std::time::SystemTime;

use inference::repository::IndexEntry;
use prometheus::proto::{Metric, MetricFamily};

use super::metrics::{counter_value, gauge_value, label, message};
use crate::app::App;

/// Name, kind, labels and meaning of each family.
pub(super) const FAMILIES: [(&str, &str, &str, &str); 7] = [
    (
        "volley_model_version_state",
        "gauge",
        "model, version, state",
        "1 for the state that the version is in, as the repository index has it",
    ),
    (
        "volley_model_version_state_since_seconds",
        "gauge",
        "model, version",
        "When it came into that state, in seconds since 1970",
    ),
    ("volley_repository_events_total", "counter", "", "Changes of the state of a version"),
    (
        "volley_model_memory_bytes",
        "gauge",
        "model, version",
        "Memory that the version takes, as far as is known; all that are loaded, those kept to be rolled back to too",
    ),
    (
        "volley_models_memory_bytes",
        "gauge",
        "",
        "Memory of all models: those that leave, and what loads under way are expected to take, too",
    ),
    (
        "volley_models_memory_limit_bytes",
        "gauge",
        "",
        "Memory that all models may take (`--model-memory-limit`)",
    ),
    (
        "volley_repositories_away",
        "gauge",
        "",
        "Model repositories that could not be looked through when that was last tried: at the start, and in mode `poll`",
    ),
];

/// The metrics of the repository.
pub(super) fn families(app: &App) -> Vec<MetricFamily> {
    let index = app.repository.index();
    let mut events = Metric::default();
    events.set_counter(counter_value(app.repository.events().count()));
    let memory = app.repository.memory_by_version().into_iter().map(|(model, version, bytes)| {
        let mut metric = gauge(bytes);
        metric.set_label(vec![label("model", model.as_str()), label("version", &version.to_string())]);
        metric
    });
    let away = app.repository.scan_errors().iter().filter(|error| error.is_of_repository()).count();
    let metrics = [
        index.iter().filter_map(state).collect(),
        index.iter().filter_map(since).collect(),
        vec![events],
        memory.collect(),
        vec![gauge(app.repository.memory_taken())],
        app.repository.memory_limit().map(gauge).into_iter().collect(),
        vec![gauge(away as u64)],
    ];
    let families = FAMILIES.into_iter().zip(metrics);
    families.map(|((name, kind, _, help), metrics)| message(name, help, kind, metrics)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "what a gauge holds is an FP64")]
fn gauge(value: u64) -> Metric {
    let mut metric = Metric::default();
    metric.set_gauge(gauge_value(value as f64));
    metric
}

fn state(entry: &IndexEntry) -> Option<Metric> {
    let mut labels = vec![label("model", entry.name.as_str()), label("version", &entry.version?.to_string())];
    labels.push(label("state", entry.state?.name()));
    let mut metric = Metric::default();
    metric.set_label(labels);
    metric.set_gauge(gauge_value(1.0));
    Some(metric)
}

fn since(entry: &IndexEntry) -> Option<Metric> {
    let since = entry.since?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let mut metric = Metric::default();
    metric
        .set_label(vec![label("model", entry.name.as_str()), label("version", &entry.version?.to_string())]);
    metric.set_gauge(gauge_value(since.as_secs_f64()));
    Some(metric)
}
