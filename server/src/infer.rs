//! The life of an inference request.

use std::time::Instant;

use model::{Code, InferError, InferRequest, InferResponse};
use tracing::error;
use traffic::Route;

use crate::app::App;
use crate::logging::request_span;

impl App {
    /// Routes `request`, which arrived at `arrived`, to a version, and waits for its answer. Knows no
    /// protocol and no model format. `request_id` is for the log.
    ///
    /// # Errors
    /// When the model is not there or not ready, the request contradicts it, its queue is full, or it fails.
    pub async fn infer(
        &self,
        request: InferRequest,
        request_id: &str,
        arrived: Instant,
    ) -> Result<InferResponse, InferError> {
        let model = request.model.clone();
        let result = self.answer(request, request_id, arrived).await;
        if let Err(failure) = &result
            && failure.code() == Code::Internal
        {
            request_span(request_id).in_scope(|| error!(%model, error = %failure, "inference failed"));
        }
        result
    }

    async fn answer(
        &self,
        request: InferRequest,
        request_id: &str,
        arrived: Instant,
    ) -> Result<InferResponse, InferError> {
        let route = self.traffic.load().route(&request.model, request.version); // explicit, or the latest
        let version = match route {
            Route::Explicit(version) => self.repository.ready(&request.model, Some(version))?,
            Route::Latest => self.repository.ready(&request.model, None)?,
        }; // keeps this version alive
        version.infer(request, request_id, arrived).await // checked, queued, executed, recorded
    }
}
