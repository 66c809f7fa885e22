//! Why a call failed, in words that say what to do.

use std::time::Duration;

use crate::TensorError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address cannot be used.
    #[error("{url:?} is not the address of a server: {reason}; write it as http://HOST:PORT")]
    InvalidUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing accepts connections there.
    #[error(
        "cannot connect to {address} ({reason}): is the server running? start it there, or give the address of one that runs"
    )]
    Connect {
        /// Where the client tried.
        address: String,
        /// What the operating system said.
        reason: String,
    },
    /// The answer was not complete in time.
    #[error(
        "{address} gave no complete answer within {after:?}: it may be overloaded or stuck; try again, or allow more time"
    )]
    Timeout {
        /// Who was asked.
        address: String,
        /// How long the client waited.
        after: Duration,
    },
    /// The connection was closed before the answer was complete.
    #[error(
        "the connection to {address} broke before the answer was complete ({reason}): the server may have stopped; see its log"
    )]
    Disconnected {
        /// Who was asked.
        address: String,
        /// What the connection said.
        reason: String,
    },
    /// The answer is larger than the client takes.
    #[error(
        "the answer of {address} has more than {limit} bytes; ask for fewer outputs or raise the client's `max_response_bytes`"
    )]
    TooLarge {
        /// Who was asked.
        address: String,
        /// The limit in force.
        limit: usize,
    },
    /// The server refused or failed the request, over HTTP.
    #[error("the server answered {status}: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The server's words: the `error` of its JSON body.
        message: String,
    },
    /// The server refused or failed the request, over gRPC.
    #[error("the server answered {code:?}: {message}")]
    Rpc {
        /// The gRPC status.
        code: tonic::Code,
        /// The server's words.
        message: String,
    },
    /// The server refused one request of a stream; the stream goes on.
    #[error("the server refused request {id:?} of the stream: {message}")]
    InStream {
        /// The id of that request; empty when it had none.
        id: String,
        /// The server's words.
        message: String,
    },
    /// What came back is not an answer of the V2 protocol.
    #[error("the answer is not one of the V2 protocol: {reason}; is a V2 inference server listening there?")]
    Protocol {
        /// What is wrong with it.
        reason: String,
    },
    /// The answer has no output of that name.
    #[error("the answer has no output {name:?}; it has {}", listed(.present))]
    NoSuchOutput {
        /// The name asked for.
        name: String,
        /// The outputs of the answer.
        present: Vec<String>,
    },
    /// The request cannot be sent as it is.
    #[error("the request cannot be sent: {reason}")]
    InvalidRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor does not hold what it says it holds.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl ClientError {
    pub(crate) fn protocol(reason: impl Into<String>) -> ClientError {
        ClientError::Protocol { reason: reason.into() }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The innermost cause of `error`, which says most: "connection refused" rather than "client error".
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
