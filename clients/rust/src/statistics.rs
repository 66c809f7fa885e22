//! What a server counted of each model version.

use serde::{Deserialize, Serialize};

/// The statistics of one model version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelStatistics {
    /// The model.
    pub name: String,
    /// The version.
    pub version: String,
    /// When it last ran, in milliseconds since 1970.
    pub last_inference: u64,
    /// Inferences done; a batch of eight counts eight.
    pub inference_count: u64,
    /// Executions done; a batch of eight counts one.
    pub execution_count: u64,
    /// Where the time of the requests went.
    pub inference_stats: InferStatistics,
    /// Where the time of the executions went, by batch size.
    pub batch_stats: Vec<BatchStatistics>,
}

/// Where the time of a model's requests went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InferStatistics {
    /// Requests answered.
    pub success: StatisticDuration,
    /// Requests that failed.
    pub fail: StatisticDuration,
    /// Waiting to be executed.
    pub queue: StatisticDuration,
    /// Preparing the inputs.
    pub compute_input: StatisticDuration,
    /// Running the model.
    pub compute_infer: StatisticDuration,
    /// Collecting the outputs.
    pub compute_output: StatisticDuration,
    /// Answered from the response cache.
    pub cache_hit: StatisticDuration,
    /// Looked for in the response cache in vain.
    pub cache_miss: StatisticDuration,
}

/// Where the time of the executions of one batch size went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchStatistics {
    /// The batch size.
    pub batch_size: u64,
    /// Preparing the inputs.
    pub compute_input: StatisticDuration,
    /// Running the model.
    pub compute_infer: StatisticDuration,
    /// Collecting the outputs.
    pub compute_output: StatisticDuration,
}

/// How often something was done and how long that took in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatisticDuration {
    /// How often.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}
