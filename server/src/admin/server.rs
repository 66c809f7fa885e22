//! The metrics listener: `/metrics` in Prometheus text.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::metrics;
use crate::app::App;
use crate::blocking;

/// Answers the scrapes of one connection.
#[derive(Clone, Debug)]
pub struct MetricsService {
    /// What to measure.
    pub app: Arc<App>,
}

impl hyper::service::Service<Request<Incoming>> for MetricsService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    /// As in Triton, other paths have an empty answer, and other methods are refused.
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let app = Arc::clone(&self.app);
        Box::pin(async move {
            let mut response = Response::new(Full::default());
            if request.method() != Method::GET {
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            } else if matches!(request.uri().path(), "/metrics" | "/metrics/") {
                // This thread also accepts connections, and many models have much to tell.
                match blocking::run("gathering metrics", move || metrics::text(&app)).await {
                    Ok(text) => *response.body_mut() = Full::from(text),
                    Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
                }
                let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, text);
            }
            Ok(response)
        })
    }
}
