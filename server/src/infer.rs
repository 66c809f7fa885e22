//! The life of an inference request.

use std::sync::Arc;
use std::time::Instant;

use inference::ServedVersion;
use model::{Code, InferError, InferRequest, InferResponse, ModelName, ModelVersion};
use tracing::error;
use traffic::Route;

use crate::app::App;
use crate::logging::request_span;

impl App {
    /// Routes `request`, which arrived at `arrived`, to a version, and waits for its answer. Knows no
    /// protocol and no model format. `request_id` is for the log. The task that polls this must do nothing else: see
    /// [`ServedVersion::infer`].
    ///
    /// # Errors
    /// When the model is not there or not ready, the request contradicts it, its queue is full, or it fails.
    pub async fn infer(
        self: &Arc<Self>,
        request: &InferRequest,
        request_id: &str,
        arrived: Instant,
    ) -> Result<InferResponse, InferError> {
        let result = self.answer(request, request_id, arrived).await;
        if let Err(failure) = &result
            && failure.code() == Code::Internal
        {
            let model = &request.model;
            request_span(request_id).in_scope(|| error!(%model, error = %failure, "inference failed"));
        }
        result
    }

    /// Whether a request for `version` of `model` would be taken now, before anything is done for it.
    ///
    /// # Errors
    /// When the model or version is not there or not ready.
    pub fn expect_ready(
        self: &Arc<Self>,
        model: &ModelName,
        version: Option<ModelVersion>,
    ) -> Result<(), InferError> {
        match self.route(model, version) {
            Err(_) if self.is_cold(model.as_str()) => self.expect_warm(model.as_str()),
            routed => routed.map(drop),
        }
    }

    async fn answer(
        self: &Arc<Self>,
        request: &InferRequest,
        request_id: &str,
        arrived: Instant,
    ) -> Result<InferResponse, InferError> {
        let version = self.served(&request.model, request.version).await?; // keeps this version alive
        version.infer(request, request_id, arrived).await // checked, queued, executed, recorded
    }

    pub(crate) fn route(
        &self,
        model: &ModelName,
        version: Option<ModelVersion>,
    ) -> Result<Arc<ServedVersion>, InferError> {
        match self.traffic.load().route(model, version) {
            Route::Explicit(version) => self.repository.ready(model, Some(version)),
            Route::Latest => self.repository.ready(model, None),
        }
    }
}
