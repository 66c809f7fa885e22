//! What the server says about itself, its models, and what they have done: one set of messages for both
//! protocols, so that they cannot disagree.

use inference::repository::State;
use inference::statistics::{BatchTally, Tally, Totals};
use inference::{ServedVersion, TensorMetadata};
use std::time::SystemTime;

use model::{InferError, ModelVersion};
use proto::v2::{
    InferBatchStatistics, InferStatistics, LearnedCost, ModelConfigResponse, ModelMetadataResponse,
    ModelStatistics, ModelStatisticsResponse, RepositoryIndexResponse, ServerMetadataResponse,
    StatisticDuration, model_metadata_response::TensorMetadata as TensorMetadataMessage,
    repository_index_response::ModelIndex,
};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::app::App;

/// Extensions of the V2 protocol that work here.
const EXTENSIONS: [&str; 9] = [
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
    "raw_binary_request",
];

/// What later work serves answers with these sentences, over either protocol.
pub const GENERATE: &str = "the generate extension is not served yet; use /infer";
/// See [`GENERATE`].
pub const TRACE: &str = "trace settings are not served yet";
/// See [`GENERATE`].
pub const SHARED_MEMORY: &str = "shared memory regions are not served yet; send tensors as binary data";

impl App {
    /// The server's name, version and extensions.
    pub fn server_metadata(&self) -> ServerMetadataResponse {
        ServerMetadataResponse {
            name: self.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }
    }

    /// The inputs and outputs of a model, and its ready versions.
    ///
    /// # Errors
    /// When the model or version is unknown or not ready.
    pub fn model_metadata(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<ModelMetadataResponse, InferError> {
        let served = self.standing(model, version)?;
        let tensors = |tensors: Vec<TensorMetadata>| tensors.into_iter().map(tensor_metadata).collect();
        let versions = match version {
            Some(version) => vec![version.to_string()],
            None => {
                let ready = self.repository.ready_versions(model)?;
                ready.iter().map(|served| served.version().to_string()).collect()
            }
        };
        Ok(ModelMetadataResponse {
            name: served.name().to_string(),
            versions,
            platform: served.config().platform.clone(),
            inputs: tensors(served.inputs()),
            outputs: tensors(served.outputs()),
        })
    }

    /// The configuration in force: as written, completed from the graph.
    ///
    /// # Errors
    /// When the model or version is unknown or not ready.
    pub fn model_config(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<ModelConfigResponse, InferError> {
        let served = self.standing(model, version)?;
        Ok(ModelConfigResponse { config: Some(served.config().clone()) })
    }

    /// Whether the version that would answer is ready.
    ///
    /// # Errors
    /// When the model or version is unknown.
    pub fn model_ready(&self, model: &str, version: Option<ModelVersion>) -> Result<bool, InferError> {
        match self.standing(model, version) {
            Ok(_) => Ok(true),
            Err(_) if self.waits_for(model) => Ok(true), // a request for it would be answered
            Err(
                InferError::NoReadyVersion { .. }
                | InferError::VersionNotReady { .. }
                | InferError::ModelLoading { .. }
                | InferError::VersionFailed { .. },
            ) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the ready versions have done: of every model when `model` is empty, else of that one.
    ///
    /// # Errors
    /// When the model or version is not there, in Triton's words for this question.
    pub fn statistics(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<ModelStatisticsResponse, InferError> {
        let mut versions = match model {
            "" => self.repository.all_ready(),
            model => self.repository.ready_versions(model).map_err(|_| unavailable(model))?,
        };
        if !model.is_empty()
            && let Some(version) = version
        {
            versions.retain(|served| served.version() == version);
            if versions.is_empty() {
                return Err(InferError::invalid(format!(
                    "requested model version is not available for model '{model}'"
                )));
            }
        }
        Ok(ModelStatisticsResponse {
            model_stats: versions.iter().map(|served| statistics(served)).collect(),
        })
    }

    /// Every model and version with its state; with `ready`, only those that answer.
    pub fn repository_index(&self, ready: bool) -> RepositoryIndexResponse {
        let entries = self.repository.index().into_iter();
        let models =
            entries.filter(|entry| !ready || entry.state == Some(State::Ready)).map(|entry| ModelIndex {
                name: entry.name.to_string(),
                version: entry.version.map(|version| version.to_string()).unwrap_or_default(),
                state: entry.state.map(State::name).unwrap_or_default().to_owned(),
                reason: entry.reason,
                since: entry.since.map(rfc_3339).unwrap_or_default(),
            });
        RepositoryIndexResponse { models: models.collect() }
    }
}

/// `time` as RFC 3339 has it.
pub fn rfc_3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

/// Naming a repository is in the protocol, but in no server.
///
/// # Errors
/// When `name` is not empty.
pub fn refuse_repository_name(name: &str) -> Result<(), InferError> {
    if name.is_empty() {
        return Ok(());
    }
    Err(InferError::unsupported(format!(
        "naming a repository ('{name}') is not supported; leave it out to mean all repositories"
    )))
}

fn unavailable(model: &str) -> InferError {
    let model: String = model.chars().take(model::ModelName::MAX_LEN).collect();
    InferError::invalid(format!("requested model '{model}' is not available"))
}

fn tensor_metadata(tensor: TensorMetadata) -> TensorMetadataMessage {
    TensorMetadataMessage {
        name: tensor.name.to_string(),
        datatype: tensor.datatype.name().to_owned(),
        shape: tensor.shape.to_vec(),
    }
}

fn statistics(served: &ServedVersion) -> ModelStatistics {
    let totals: Totals = served.statistics().snapshot();
    ModelStatistics {
        name: served.name().to_string(),
        version: served.version().to_string(),
        last_inference: totals.last_inference_ms,
        inference_count: totals.inference_count,
        execution_count: totals.execution_count,
        inference_stats: Some(InferStatistics {
            success: duration(totals.success),
            fail: duration(totals.fail),
            queue: duration(totals.queue),
            compute_input: duration(totals.compute_input),
            compute_infer: duration(totals.compute_infer),
            compute_output: duration(totals.compute_output),
            cache_hit: duration(totals.cache_hit),
            cache_miss: duration(totals.cache_miss),
        }),
        batch_stats: totals.batches.into_iter().map(batch).collect(),
        memory_usage: Vec::new(),
        response_stats: Default::default(),
        learned_cost: Some(learned_cost(served.learned_cost())),
    }
}

fn learned_cost(cost: inference::LearnedCost) -> LearnedCost {
    // A negative cost, which noise can make of a small one, is none.
    let nanos = |seconds: f64| {
        let nanos = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    };
    LearnedCost {
        executions: cost.runs,
        one_item_ns: nanos(cost.one_row),
        item_more_ns: nanos(cost.per_row),
        relative_error: cost.error,
    }
}

fn batch((batch_size, tally): (u64, BatchTally)) -> InferBatchStatistics {
    InferBatchStatistics {
        batch_size,
        compute_input: duration(tally.compute_input),
        compute_infer: duration(tally.compute_infer),
        compute_output: duration(tally.compute_output),
    }
}

#[allow(clippy::unnecessary_wraps)] // message fields are optional in proto3
fn duration(tally: Tally) -> Option<StatisticDuration> {
    Some(StatisticDuration { count: tally.count, ns: tally.ns })
}
