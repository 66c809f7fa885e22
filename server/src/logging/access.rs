//! One line for each request, when asked for.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::Level;

/// The target of access lines, by which they are switched.
pub(super) const ACCESS_TARGET: &str = "access";

/// What an access line says about a request.
#[derive(Clone, Copy, Debug)]
pub struct AccessLog<'a> {
    /// `http` or `grpc`.
    pub protocol: &'static str,
    /// The HTTP method; `POST` for gRPC.
    pub method: &'a str,
    /// The pattern of the route, or the RPC.
    pub route: &'a str,
    /// The HTTP status, or the gRPC code.
    pub status: u16,
    /// The model that was asked for, if any.
    pub model: Option<&'a str>,
    /// The version that answered, if any.
    pub version: Option<u64>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    /// From the request's head to the end of the response.
    pub took: Duration,
    /// The request's id.
    pub request_id: &'a str,
    /// Who asked.
    pub peer: Option<SocketAddr>,
}

impl AccessLog<'_> {
    /// Whether access lines are written; when not, there is no need to gather what they say.
    pub fn wanted() -> bool {
        tracing::enabled!(target: ACCESS_TARGET, Level::INFO)
    }

    /// Writes the line, if access lines are written.
    pub fn write(&self) {
        tracing::info!(
            target: ACCESS_TARGET,
            protocol = self.protocol,
            method = self.method,
            route = self.route,
            status = self.status,
            model = self.model,
            version = self.version,
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            microseconds = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            peer = self.peer.map(tracing::field::display),
            request_id = self.request_id,
        );
    }
}
