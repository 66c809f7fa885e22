//! The metrics listener: `/metrics` in Prometheus text.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::metrics;
use crate::app::App;

/// Answers the scrapes of one connection.
#[derive(Clone, Debug)]
pub struct MetricsService {
    /// What to measure.
    pub app: Arc<App>,
}

impl hyper::service::Service<Request<Incoming>> for MetricsService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    /// As in Triton, other paths have an empty answer, and other methods are refused.
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut response = Response::new(Full::default());
        if request.method() != Method::GET {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        } else if matches!(request.uri().path(), "/metrics" | "/metrics/") {
            *response.body_mut() = Full::from(metrics::text(&self.app));
            let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, text);
        }
        ready(Ok(response))
    }
}
