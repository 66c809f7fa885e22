//! How a request was asked, beside what it says itself.

use std::time::Instant;

use http::HeaderMap;
use model::{InferRequest, Parameter};
use traffic::Caller;

/// How a request was asked, beside what it says itself.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The id by which the log speaks of it.
    pub request_id: &'a str,
    /// When it came.
    pub arrived: Instant,
    /// The headers of HTTP, or the metadata of gRPC.
    pub headers: &'a HeaderMap,
}

/// Who asks, for the table of traffic.
#[derive(Debug)]
pub(crate) struct Asker<'a> {
    request: &'a InferRequest,
    headers: &'a HeaderMap,
}

impl<'a> Asked<'a> {
    /// Who asked for `request`.
    pub(crate) fn by(&self, request: &'a InferRequest) -> Asker<'a> {
        Asker { request, headers: self.headers }
    }
}

impl Caller for Asker<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.request.parameters.get(name)
    }

    fn id(&self) -> &str {
        &self.request.id
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }
}
