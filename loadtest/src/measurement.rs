//! What a measurement found: the one value that the terminal, JSON, CSV, the HTML report and `compare` show.
//!
//! Durations are in seconds or microseconds, as the field's name says. Fields that a server cannot or will not
//! tell are `None`, and left out of the JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Changes when a reader of older files would misunderstand newer ones.
pub(crate) const SCHEMA: &str = "volley-load/1";

/// Everything that one call of the program measured; the JSON file is this.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    /// The command line that made it.
    pub(crate) command: Vec<String>,
    /// When it began, RFC 3339.
    pub(crate) started: String,
    /// The machine that sent the load.
    pub(crate) machine: Machine,
    /// What was asked.
    pub(crate) target: Target,
    /// One entry for each load that was applied (each concurrency or rate of a sweep, each step of a search,
    /// each repeat), in the order they ran.
    pub(crate) runs: Vec<Run>,
    /// What `--find-rate` found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) found: Option<FoundRate>,
    /// Why the measurement ended early, when it did; the runs before are complete, the last may be partial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interrupted: Option<String>,
}

/// The machine that sent the load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) system: String,
    /// Version of `volley-load`.
    pub(crate) generator: String,
    /// Its threads that send; older files do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) threads: Option<usize>,
}

/// The server and the models that were asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) url: String,
    /// `http-json`, `http-binary`, `grpc` or `grpc-stream`.
    pub(crate) protocol: String,
    /// Name and version as the server's metadata says them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    /// Models and how often each is asked, as shares that add up to 1.
    pub(crate) models: BTreeMap<String, f64>,
    /// Bytes of one request's body, the mean over those sent.
    pub(crate) request_bytes: f64,
}

/// How requests were sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub(crate) enum Load {
    /// As many in flight as `concurrency`: the next is sent when one is answered.
    Closed { concurrency: usize },
    /// Sent when they are due, whatever the server does. Latency counts from when a request was due.
    Open { rate: f64, arrivals: Arrivals },
}

/// When requests of an open loop are due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Arrivals {
    /// At equal distances.
    Constant,
    /// At random, as independent users come.
    Poisson,
    /// The rate rises from `from` to the run's rate over the run.
    Ramp { from: f64 },
    /// At the times of a file.
    Trace,
}

/// One load, applied for a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) load: Load,
    /// Which repeat of the same load, from 0.
    pub(crate) repeat: usize,
    /// Time measured, without the warm-up.
    pub(crate) seconds: f64,
    /// Requests answered in that time, well or badly.
    pub(crate) requests: u64,
    /// Items inferred: a request with a batch of 8 has 8.
    pub(crate) items: u64,
    /// Requests that were due before the end and had no answer when it was given up.
    pub(crate) unanswered: u64,
    /// Requests that failed, by what happened (`status 503: Exceeds maximum queue size`, `timeout`, `wrong
    /// answer: …`); at most 20 kinds, and texts that differ all the time under the status that they have in common.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Answers that differ from what was expected; they are in `errors`, too.
    pub(crate) wrong_answers: u64,
    /// The first of them: which request, and how it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wrong_example: Option<String>,
    /// Answered well, each second.
    pub(crate) requests_per_second: f64,
    pub(crate) items_per_second: f64,
    /// Of answers that were right.
    pub(crate) latency: Latency,
    /// How late requests left, after they were due and could be sent: what the generator itself adds.
    pub(crate) send_lag: Latency,
    /// Processor time of the generator for each request.
    pub(crate) generator_cpu_micros: f64,
    /// The share of the time that the busiest of its threads ran, from 0 to 1, and the largest share that one of them
    /// waited for a processor; where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generator_busy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generator_waiting: Option<f64>,
    /// Second by second.
    pub(crate) timeline: Vec<Second>,
    /// What the server says of the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<ServerSide>,
    /// Models of a mix of which no request was answered well, each with what happened to the first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) silent_models: BTreeMap<String, String>,
    /// The objectives of `--slo`, and whether this run met them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) objectives: Vec<Judged>,
}

/// What came of one objective.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// As it was written: `p99<20ms`.
    pub(crate) objective: String,
    /// What the run had, with its unit.
    pub(crate) found: String,
    pub(crate) met: bool,
}

impl Run {
    /// Requests that failed or gave a wrong answer.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// A distribution of durations, in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) stdev: f64,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p75: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) p99_99: f64,
    pub(crate) max: f64,
    /// The curve: (percentile from 0 to 100, microseconds), as many points as the distribution needs.
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Latency {
    /// Summarises a histogram of nanoseconds.
    pub(crate) fn of(nanos: &Histogram<u64>) -> Latency {
        if nanos.is_empty() {
            return Latency::default();
        }
        let at = |percentile| micros(nanos.value_at_percentile(percentile));
        let curve =
            nanos.iter_quantiles(4).map(|point| (point.percentile(), micros(point.value_iterated_to())));
        Latency {
            count: nanos.len(),
            mean: nanos.mean() / 1e3,
            stdev: nanos.stdev() / 1e3,
            min: micros(nanos.min()),
            p50: at(50.0),
            p75: at(75.0),
            p90: at(90.0),
            p95: at(95.0),
            p99: at(99.0),
            p99_9: at(99.9),
            p99_99: at(99.99),
            max: micros(nanos.max()),
            curve: curve.collect(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "durations below 104 days are exact")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// What was answered in one second of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Seconds since the run's start.
    pub(crate) at: f64,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
}

/// What the server counted between the start and the end of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ServerSide {
    /// By model.
    pub(crate) models: BTreeMap<String, ModelSide>,
    /// Processor time of the server's process for each request; only of a server on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_micros_per_request: Option<f64>,
    /// Resident memory of the server's process at the end of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resident_bytes: Option<u64>,
}

/// What the server counted of one model: the difference of its statistics.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ModelSide {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) inferences: u64,
    pub(crate) executions: u64,
    /// Means over the requests answered, in microseconds: the whole, then its parts.
    pub(crate) request_micros: f64,
    pub(crate) queue_micros: f64,
    pub(crate) compute_input_micros: f64,
    pub(crate) compute_infer_micros: f64,
    pub(crate) compute_output_micros: f64,
    /// Executions by batch size.
    pub(crate) batches: BTreeMap<u64, u64>,
}

/// The highest rate that met an objective.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FoundRate {
    /// The objective, as it was written.
    pub(crate) objective: String,
    /// Requests each second; `None` when even the lowest rate tried missed it.
    pub(crate) rate: Option<f64>,
    /// The lowest rate that missed it; `None` when none did.
    pub(crate) missed_at: Option<f64>,
    /// Runs at each rate, by majority.
    pub(crate) repeats: usize,
    /// The search ended before it knew: the rates are those so far.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cut_off: bool,
}
