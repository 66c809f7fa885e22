//! The life of an inference request.

use std::sync::Arc;

use inference::ServedVersion;
use model::{Code, InferError, InferRequest, InferResponse, ModelName, ModelVersion};
use tracing::error;
use traffic::Route;

use crate::app::App;
use crate::asked::Asked;
use crate::logging::request_span;

impl App {
    /// Routes `request` to a version, and waits for its answer. Knows no protocol and no model format. The task that
    /// polls this must do nothing else: see [`ServedVersion::infer`].
    ///
    /// # Errors
    /// When the model is not there or not ready, the request contradicts it, its queue is full, or it fails.
    pub async fn infer(
        self: &Arc<Self>,
        request: &InferRequest,
        asked: Asked<'_>,
    ) -> Result<InferResponse, InferError> {
        let result = self.answer(request, asked).await;
        if let Err(failure) = &result
            && failure.code() == Code::Internal
        {
            let model = &request.model;
            request_span(asked.request_id).in_scope(|| error!(%model, error = %failure, "inference failed"));
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
        match self.standing(model, version) {
            Err(_) if self.is_cold(model.as_str()) => self.expect_warm(model.as_str()),
            standing => standing.map(drop),
        }
    }

    async fn answer(
        self: &Arc<Self>,
        request: &InferRequest,
        asked: Asked<'_>,
    ) -> Result<InferResponse, InferError> {
        let route = self.traffic.load().route(&request.model, request.version, &asked.by(request));
        let version = self.served(&request.model, route).await?; // keeps this version alive
        version.infer(request, asked.request_id, asked.arrived).await // checked, queued, executed, recorded
    }

    /// The version at the end of `route`. Where traffic is divided and the version is not ready that a request should go
    /// to, the stable one answers instead, and without it whichever is ready.
    pub(crate) fn at(&self, model: &str, route: Route) -> Result<Arc<ServedVersion>, InferError> {
        match route {
            Route::Explicit(version) => self.repository.ready(model, Some(version)),
            Route::Divided(choice) => {
                self.repository.ready(model, Some(choice.version)).or_else(|_| self.standing(model, None))
            }
            Route::Latest => self.repository.ready(model, None),
        }
    }

    /// The version that stands for `model` where nobody in particular asks: the one named, else the stable one where
    /// traffic is divided, else the latest.
    ///
    /// # Errors
    /// When the model or version is not there or not ready.
    pub fn standing(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<Arc<ServedVersion>, InferError> {
        let stable = || self.traffic.load().split(model).map(|split| split.parts().stable);
        match version.or_else(stable) {
            Some(standing) if version.is_none() => {
                self.repository.ready(model, Some(standing)).or_else(|_| self.repository.ready(model, None))
            }
            version => self.repository.ready(model, version),
        }
    }
}
