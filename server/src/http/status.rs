//! Which HTTP status each kind of error has.

use http::StatusCode;
use model::Code;

/// Parse errors are the caller's, so they are 400 where Triton says 500.
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::Cancelled => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Code::Timeout => StatusCode::REQUEST_TIMEOUT,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
