//! What Prometheus metrics tell of a server: Triton's counters of the models, and the process' gauges.

use super::prometheus::Sample;
use crate::measurement::ModelSide;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    samples: Vec<Sample>,
}

/// Resident memory, by the name that most Prometheus clients give it, and by Volley's.
const RESIDENT: [&str; 2] = ["process_resident_memory_bytes", "volley_process_resident_memory_bytes"];
/// Processor time, by the name that most Prometheus clients give it.
const CPU: &str = "process_cpu_seconds_total";
const SUCCESS: &str = "nv_inference_request_success";

impl Metrics {
    /// Keeps the samples that are used here.
    pub(super) fn of(samples: &[Sample]) -> Metrics {
        let used = |sample: &&Sample| {
            sample.name.starts_with("nv_inference_")
                || sample.name == CPU
                || RESIDENT.contains(&sample.name.as_str())
        };
        Metrics { samples: samples.iter().filter(used).cloned().collect() }
    }

    /// Whether `model` is counted.
    pub(super) fn knows(&self, model: &str) -> bool {
        self.of_model(SUCCESS, model).is_some()
    }

    /// What was counted of `model` since `before`; `None` when it is not counted, or counters began anew. Batch
    /// sizes are not told: metrics have classes of them.
    pub(super) fn since(&self, before: &Metrics, model: &str) -> Option<ModelSide> {
        let grown = |name| {
            let grown = self.of_model(name, model)? - before.of_model(name, model).unwrap_or(0.0);
            (grown >= 0.0).then_some(grown)
        };
        let requests = grown(SUCCESS)?;
        let mean = |name| match grown(name) {
            Some(micros) if requests > 0.0 => micros / requests,
            _ => 0.0,
        };
        Some(ModelSide {
            requests: count(requests),
            failures: grown("nv_inference_request_failure").map_or(0, count),
            inferences: grown("nv_inference_count").map_or(0, count),
            executions: grown("nv_inference_exec_count").map_or(0, count),
            request_micros: mean("nv_inference_request_duration_us"),
            queue_micros: mean("nv_inference_queue_duration_us"),
            compute_input_micros: mean("nv_inference_compute_input_duration_us"),
            compute_infer_micros: mean("nv_inference_compute_infer_duration_us"),
            compute_output_micros: mean("nv_inference_compute_output_duration_us"),
            ..ModelSide::default()
        })
    }

    /// Processor time since `before`.
    pub(super) fn cpu_seconds_since(&self, before: &Metrics) -> Option<f64> {
        let grown = self.plain(CPU)? - before.plain(CPU)?;
        (grown >= 0.0).then_some(grown)
    }

    pub(super) fn resident_bytes(&self) -> Option<u64> {
        RESIDENT.iter().find_map(|name| self.plain(name)).map(count)
    }

    /// The sum over the versions of a model, and over reasons of failures.
    fn of_model(&self, name: &str, model: &str) -> Option<f64> {
        let mut values = self
            .samples
            .iter()
            .filter(|sample| sample.name == name && sample.label("model") == Some(model))
            .map(|sample| sample.value)
            .peekable();
        values.peek()?;
        Some(values.sum())
    }

    fn plain(&self, name: &str) -> Option<f64> {
        self.samples.iter().find(|sample| sample.name == name).map(|sample| sample.value)
    }
}

/// A counter's value: what is no count (negative, or none at all) is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn count(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_side::prometheus::parse;

    /// What Volley's `/metrics` answered before and after 40 requests to `digits`, of which 30 succeeded.
    const BEFORE: &str = include_str!("captured/before.prom");
    const AFTER: &str = include_str!("captured/after.prom");

    #[test]
    fn the_metrics_of_our_own_server_are_read() {
        let (before, after) = (Metrics::of(&parse(BEFORE)), Metrics::of(&parse(AFTER)));
        let side = after.since(&before, "digits").unwrap();
        assert_eq!((side.requests, side.failures, side.inferences), (30, 10, 30));
        assert!((1..=30).contains(&side.executions), "{side:?}");
        let parts = side.queue_micros + side.compute_infer_micros;
        assert!(side.compute_infer_micros > 0.0 && parts <= side.request_micros, "{side:?}");
        assert!(after.resident_bytes() > Some(1 << 20));
        assert!(after.knows("digits") && !after.knows("nothing"));
    }

    #[test]
    fn counters_that_began_anew_tell_nothing() {
        let (before, after) = (Metrics::of(&parse(BEFORE)), Metrics::of(&parse(AFTER)));
        assert!(before.since(&after, "digits").is_none());
        let cpu = |seconds| Metrics::of(&parse(&format!("process_cpu_seconds_total {seconds}\n")));
        assert_eq!(cpu(3).cpu_seconds_since(&cpu(1)), Some(2.0));
        assert_eq!(cpu(1).cpu_seconds_since(&cpu(3)), None);
    }
}
