//! Which gRPC code each kind of error has.

use model::{Code, InferError};

use crate::size_limit::SizeLimit;

/// The twin of [`crate::http::status::http_status`].
pub fn grpc_code(code: Code) -> tonic::Code {
    match code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::Unsupported => tonic::Code::Unimplemented,
        Code::Cancelled => tonic::Code::Cancelled,
        Code::Timeout => tonic::Code::DeadlineExceeded,
        Code::Internal => tonic::Code::Internal,
    }
}

pub(super) fn status(error: &InferError) -> tonic::Status {
    tonic::Status::new(grpc_code(error.code()), error.text())
}

/// What tonic says of a request that becomes larger than `size`, in the words of the table. Nothing else that
/// refuses a request has this code.
pub(super) fn too_large_once_decompressed(status: &tonic::Status, size: SizeLimit) -> Option<InferError> {
    (status.code() == tonic::Code::ResourceExhausted)
        .then(|| size.exceeded("the decompressed request message"))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::http::status::http_status;

    /// The one table of statuses, as Triton documents it: both protocols are held against it.
    #[test]
    fn both_protocols_agree_on_every_kind_of_error() {
        let table = [
            (Code::InvalidArgument, StatusCode::BAD_REQUEST, tonic::Code::InvalidArgument),
            (Code::NotFound, StatusCode::NOT_FOUND, tonic::Code::NotFound),
            (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, tonic::Code::Unavailable),
            (Code::Unsupported, StatusCode::NOT_IMPLEMENTED, tonic::Code::Unimplemented),
            (Code::Cancelled, StatusCode::BAD_REQUEST, tonic::Code::Cancelled),
            (Code::Timeout, StatusCode::REQUEST_TIMEOUT, tonic::Code::DeadlineExceeded),
            (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR, tonic::Code::Internal),
        ];
        assert_eq!(table.map(|(code, ..)| code), Code::ALL);
        for (code, http, grpc) in table {
            assert_eq!((http_status(code), grpc_code(code)), (http, grpc), "{code:?}");
        }
    }
}
