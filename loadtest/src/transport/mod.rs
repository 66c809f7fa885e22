//! How requests reach a server: one [`Connection`] carries one request at a time.
//!
//! Nothing here reads a clock or sets a timer; who waits for an exchange drops it when it takes too long, and the
//! next exchange then begins anew.

mod grpc;
mod grpc_messages;
mod grpc_stream;
mod http1;

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use volley_client::{ClientError, InferResponse};

use self::grpc::Grpc;
use self::grpc_stream::GrpcStream;
use self::http1::Http1;
use crate::workload::Prepared;

/// Bytes of an answer that is kept to be looked at; the others may have any size.
const MAX_ANSWER: usize = 64 << 20;

/// How the V2 protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// HTTP, tensors as JSON
    HttpJson,
    /// HTTP, tensors as binary
    HttpBinary,
    /// gRPC, a call for each request
    Grpc,
    /// gRPC, a stream for each request in flight
    GrpcStream,
}

impl Protocol {
    /// Whether requests travel by HTTP/1.1.
    pub(crate) fn is_http(self) -> bool {
        matches!(self, Protocol::HttpJson | Protocol::HttpBinary)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::HttpJson => "http-json",
            Protocol::HttpBinary => "http-binary",
            Protocol::Grpc => "grpc",
            Protocol::GrpcStream => "grpc-stream",
        })
    }
}

/// Why a request has no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing accepts connections.
    Unreachable(String),
    /// The connection broke, or what came is not the protocol.
    Broken(String),
    /// The server refused the request, and would refuse it again.
    Refused(String),
    /// The server failed the request.
    Failed(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable(text)
            | Failure::Broken(text)
            | Failure::Refused(text)
            | Failure::Failed(text) => f.write_str(text),
        }
    }
}

/// Where requests go and how.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) protocol: Protocol,
    /// `HOST:PORT`, as the server is called.
    pub(crate) authority: String,
    /// What the name resolves to; the first that answers is used.
    pub(crate) addresses: Vec<SocketAddr>,
    /// TCP connections that the streams of gRPC spread over, for each thread.
    pub(crate) connections: usize,
}

/// Opens the connections of one thread.
#[derive(Debug)]
pub(crate) struct Opener {
    endpoint: Rc<Endpoint>,
    channels: Vec<Rc<grpc::Channel>>,
    opened: std::cell::Cell<usize>,
}

/// Carries one request at a time.
#[derive(Debug)]
pub(crate) enum Connection {
    Http1(Http1),
    Grpc(Grpc),
    Stream(GrpcStream),
}

impl Opener {
    pub(crate) fn new(endpoint: Endpoint) -> Opener {
        let endpoint = Rc::new(endpoint);
        let channel = |_| Rc::new(grpc::Channel::new(Rc::clone(&endpoint)));
        let count = if endpoint.protocol.is_http() { 0 } else { endpoint.connections };
        let channels = (0..count).map(channel).collect();
        Opener { endpoint, channels, opened: std::cell::Cell::new(0) }
    }

    /// Another connection, which connects when first used.
    pub(crate) fn open(&self) -> Connection {
        let place = self.opened.replace(self.opened.get() + 1);
        let channel = || Rc::clone(&self.channels[place % self.channels.len()]);
        match self.endpoint.protocol {
            Protocol::HttpJson | Protocol::HttpBinary => {
                Connection::Http1(Http1::new(Rc::clone(&self.endpoint)))
            }
            Protocol::Grpc => Connection::Grpc(Grpc::new(channel())),
            Protocol::GrpcStream => Connection::Stream(GrpcStream::new(channel())),
        }
    }
}

impl Connection {
    /// Connects now instead of at the first request.
    pub(crate) async fn connect(&mut self) -> Result<(), Failure> {
        match self {
            Connection::Http1(http) => http.connect().await,
            Connection::Grpc(grpc) => grpc.connect().await,
            Connection::Stream(stream) => stream.connect().await,
        }
    }

    /// Sends `request` and takes its answer, which is kept for [`Connection::answer`] when the request has an
    /// expected one. An exchange that is dropped halfway leaves a connection that the next one replaces.
    pub(crate) async fn exchange(&mut self, request: &Prepared) -> Result<(), Failure> {
        let keep = request.expected.is_some();
        match self {
            Connection::Http1(http) => http.exchange(&request.bytes, keep).await,
            Connection::Grpc(grpc) => grpc.exchange(&request.bytes, keep).await,
            Connection::Stream(stream) => stream.exchange(&request.bytes, keep).await,
        }
    }

    /// The answer to the last exchange, if it was kept.
    ///
    /// # Errors
    /// When it is not one of the V2 protocol.
    pub(crate) fn answer(&self) -> Result<InferResponse, ClientError> {
        match self {
            Connection::Http1(http) => http.answer(),
            Connection::Grpc(grpc) => grpc.answer(),
            Connection::Stream(stream) => stream.answer(),
        }
    }
}
