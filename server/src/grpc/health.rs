//! `grpc.health.v1`: whether the server is ready, asked once or watched.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::call::Call;
use crate::app::App;
use crate::drain::Drain;

/// Answers for the server as a whole, whatever service is named (as Triton does).
#[derive(Debug)]
pub(super) struct ServerHealth {
    pub(super) app: Arc<App>,
    pub(super) drain: Drain,
}

fn health(app: &App) -> HealthCheckResponse {
    let status = if app.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for ServerHealth {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Call::about("Check", &request, "").answer(Ok(health(&self.app)))
    }

    /// Tells the health now and every time it changes.
    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let app = Arc::clone(&self.app);
        let changes = WatchStream::new(self.app.readiness.watch()).map(move |_| health(&app));
        let mut last = None;
        let changes = changes.filter(move |health| {
            let changed = last.replace(health.status) != Some(health.status);
            std::future::ready(changed)
        });
        // The last thing a watcher hears is that the server stops.
        let drain = self.drain.clone();
        let stopped = Box::pin(async move { drain.stopped().await });
        Ok(Response::new(Box::pin(changes.map(Ok).take_until(stopped))))
    }
}
