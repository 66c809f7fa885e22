//! Why a request was not answered, and whose fault it was.

use std::time::Duration;

use crate::{DataType, Dims, ModelName, ModelVersion};

/// The protocol-independent kind of an error. HTTP and gRPC each map these codes to their own statuses
/// (`server/src/http/status.rs`, `server/src/grpc/status.rs`); a test checks that the two agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request contradicts the protocol or the model.
    InvalidArgument,
    /// No such model, version, route or region.
    NotFound,
    /// Not now: not loaded, not ready, full, or shutting down. May be retried.
    Unavailable,
    /// Known to the protocol, but not done by this server.
    Unsupported,
    /// The client went away or cancelled.
    Cancelled,
    /// The client was too slow to send its request, or waits for the answer no longer.
    Timeout,
    /// The server or the model failed.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 7] = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::Unavailable,
        Code::Unsupported,
        Code::Cancelled,
        Code::Timeout,
        Code::Internal,
    ];
}

/// Why a request was not answered. `Display` is what the caller sees: it names the thing and both values,
/// and holds no path, address or backtrace.
///
/// Texts that Triton's clients match on begin as Triton's do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The body is not the JSON it should be.
    #[error("failed to parse the request JSON buffer: {reason} at offset {offset}")]
    MalformedJson {
        /// What is wrong there.
        reason: String,
        /// Bytes from the start of the JSON.
        offset: usize,
    },
    /// The request as a whole contradicts the protocol or the model.
    #[error("{reason}")]
    InvalidRequest {
        /// The whole sentence, with the values that do not fit.
        reason: String,
    },
    /// A tensor's data is not as long as its shape says.
    #[error(
        "input '{input}' has {got} bytes of data, but {datatype} of shape {shape} takes {expected} bytes"
    )]
    WrongByteSize {
        /// The input's name.
        input: String,
        /// Its type.
        datatype: DataType,
        /// Its shape.
        shape: Dims,
        /// Bytes given.
        got: usize,
        /// Bytes that the shape takes.
        expected: usize,
    },
    /// A tensor's data has not as many elements as its shape says.
    #[error(
        "input '{input}' has {got} elements of data, but {datatype} of shape {shape} takes {expected} elements"
    )]
    WrongElementCount {
        /// The input's name.
        input: String,
        /// Its type.
        datatype: DataType,
        /// Its shape.
        shape: Dims,
        /// Elements given (counting may stop early: "more than N").
        got: String,
        /// Elements that the shape takes.
        expected: usize,
    },
    /// A body or tensor is larger than the server takes.
    #[error("{what} exceeds the maximum allowed input size of {limit} bytes; raise {option} to allow more")]
    TooLarge {
        /// What is too large, with its size when that is known.
        what: String,
        /// The limit in force.
        limit: usize,
        /// The option that sets it.
        option: &'static str,
    },
    /// All requests together take as much memory as they may.
    #[error(
        "the requests that the server is at take the {limit} bytes they may have together; retry later, or raise \
         --max-request-memory"
    )]
    RequestMemorySpent {
        /// The limit in force.
        limit: usize,
    },
    /// The client stopped sending before its request was whole, or sent too slowly.
    #[error("the request was not whole in time: {received} bytes came, and each 64 KiB may take {waited:?}")]
    BodyTimeout {
        /// How long the server waits for the whole, or for 64 KiB more.
        waited: Duration,
        /// What had come until then.
        received: usize,
    },
    /// No model of that name.
    #[error("Request for unknown model: '{model}' is not found")]
    UnknownModel {
        /// The name asked for.
        model: String,
    },
    /// The model has no such version.
    #[error("Request for unknown model: '{model}' version {version} is not found")]
    UnknownVersion {
        /// The model.
        model: ModelName,
        /// The version asked for.
        version: ModelVersion,
    },
    /// The model is known, but none of its versions is ready.
    #[error("Request for unknown model: '{model}' has no available versions")]
    NoReadyVersion {
        /// The model.
        model: ModelName,
    },
    /// The named version is not ready.
    #[error("Request for unknown model: '{model}' version {version} is not at ready state")]
    VersionNotReady {
        /// The model.
        model: ModelName,
        /// The version.
        version: ModelVersion,
    },
    /// The model is still being loaded, or the server does not know its models yet.
    #[error("Request for model '{model}', which is not at ready state: models are being loaded; retry later")]
    ModelLoading {
        /// The name asked for.
        model: String,
    },
    /// The model is loaded on demand, and this is its first request for a while.
    #[error(
        "Request for model '{model}', which is not at ready state: it is being loaded on demand, which is expected to \
         take {expected:.1?}; retry then"
    )]
    ModelCold {
        /// The name asked for.
        model: String,
        /// How long until it serves, as far as is known.
        expected: Duration,
    },
    /// The version was ready, but none of its instances is left.
    #[error(
        "Request for model '{model}' version {version}, which is not at ready state: its instances failed; see \
         the server's log"
    )]
    VersionFailed {
        /// The model.
        model: ModelName,
        /// The version.
        version: ModelVersion,
    },
    /// The model's queue is full.
    #[error("Exceeds maximum queue size: {capacity} requests wait for model '{model}'; retry later")]
    QueueFull {
        /// The model.
        model: ModelName,
        /// How many may wait.
        capacity: usize,
    },
    /// The request waited for as long as its queue policy lets it.
    #[error(
        "Request timeout expired: it waited {waited:.1?} for model '{model}', whose queue policy allows no more"
    )]
    QueueTimeout {
        /// The model.
        model: ModelName,
        /// How long it waited.
        waited: Duration,
    },
    /// The request would be answered after its deadline, so it is not begun.
    #[error(
        "model '{model}' is expected to take {expected:.1?} to answer, since others wait, but the request's deadline \
         is in {left:.1?}; retry later"
    )]
    TooLate {
        /// The model.
        model: ModelName,
        /// How long the answer is expected to take.
        expected: Duration,
        /// How long the request could wait.
        left: Duration,
    },
    /// The deadline of the client passed before the answer.
    #[error("Deadline Exceeded: model '{model}' did not answer within {waited:.1?}")]
    DeadlineExceeded {
        /// The model.
        model: ModelName,
        /// How long it had.
        waited: Duration,
    },
    /// The server is shutting down and takes no new request.
    #[error("the server is shutting down; send the request to another one")]
    ShuttingDown,
    /// Not as the server is started, or not while it is at so much.
    #[error("{what}")]
    NotAllowed {
        /// The whole sentence.
        what: String,
    },
    /// What a request for something other than an inference is about is not there.
    #[error("{what}")]
    NotThere {
        /// The whole sentence.
        what: String,
    },
    /// Part of the protocol, but not done here.
    #[error("{what}")]
    Unsupported {
        /// The whole sentence.
        what: String,
    },
    /// The client went away before the answer.
    #[error("the request was cancelled by the client")]
    Cancelled,
    /// The backend refused or failed this execution.
    #[error("model '{model}' version {version} failed to execute: {reason}")]
    Execution {
        /// The model.
        model: ModelName,
        /// The version.
        version: ModelVersion,
        /// The backend's words.
        reason: String,
    },
    /// The server failed at its own part of the work.
    #[error("the server failed while {what}; see its log")]
    ServerFault {
        /// What it was doing.
        what: &'static str,
    },
    /// The thread that ran the request is gone.
    #[error(
        "the instance of model '{model}' version {version} that ran this request failed; see the server's log"
    )]
    InstanceFailed {
        /// The model.
        model: ModelName,
        /// The version.
        version: ModelVersion,
    },
}

impl InferError {
    /// An [`InferError::InvalidRequest`] that says `reason`.
    pub fn invalid(reason: impl Into<String>) -> InferError {
        InferError::InvalidRequest { reason: reason.into() }
    }

    /// An [`InferError::Unsupported`] that says `what`.
    pub fn unsupported(what: impl Into<String>) -> InferError {
        InferError::Unsupported { what: what.into() }
    }

    /// What the caller is told: as `Display`, but cut where it repeats too much of what the caller sent. A
    /// gRPC client takes about 8 KiB of it, in which a byte may need three.
    pub fn text(&self) -> String {
        const LONGEST: usize = 2048;
        let mut text = self.to_string();
        if text.len() > LONGEST {
            text.truncate(text.floor_char_boundary(LONGEST));
            text.push('…');
        }
        text
    }

    /// How long a client does well to wait before it tries again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            InferError::TooLate { expected, .. } | InferError::ModelCold { expected, .. } => Some(*expected),
            _ => None,
        }
    }

    /// The kind of this error, from which every protocol derives its status.
    pub fn code(&self) -> Code {
        match self {
            InferError::MalformedJson { .. }
            | InferError::InvalidRequest { .. }
            | InferError::WrongByteSize { .. }
            | InferError::WrongElementCount { .. }
            | InferError::TooLarge { .. } => Code::InvalidArgument,
            InferError::BodyTimeout { .. } | InferError::DeadlineExceeded { .. } => Code::Timeout,
            InferError::UnknownModel { .. }
            | InferError::UnknownVersion { .. }
            | InferError::NotThere { .. }
            | InferError::NoReadyVersion { .. } => Code::NotFound,
            InferError::VersionNotReady { .. }
            | InferError::ModelLoading { .. }
            | InferError::ModelCold { .. }
            | InferError::VersionFailed { .. }
            | InferError::QueueFull { .. }
            | InferError::QueueTimeout { .. }
            | InferError::TooLate { .. }
            | InferError::RequestMemorySpent { .. }
            | InferError::NotAllowed { .. }
            | InferError::ShuttingDown => Code::Unavailable,
            InferError::Unsupported { .. } => Code::Unsupported,
            InferError::Cancelled => Code::Cancelled,
            InferError::Execution { .. }
            | InferError::InstanceFailed { .. }
            | InferError::ServerFault { .. } => Code::Internal,
        }
    }
}
