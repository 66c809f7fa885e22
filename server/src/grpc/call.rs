//! A call as the log tells of it: its id, and its access line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use model::InferError;
use prost_reflect::prost::Message;
use proto::v2::{ModelInferRequest, ModelInferResponse};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use super::deadline::deadline;
use super::status::{grpc_code, status, too_large_once_decompressed};
use crate::app::App;
use crate::asked::Asked;
use crate::logging::AccessLog;
use crate::request_id::{self, RequestId};
use crate::size_limit::SizeLimit;

/// A call, or one message of a stream, while it is answered.
pub(super) struct Call {
    rpc: &'static str,
    pub(super) arrived: Instant,
    pub(super) request_id: RequestId,
    /// Gathered only when access lines are written.
    access: Option<Access>,
}

/// What an access line needs of a request.
struct Access {
    model: Option<String>,
    bytes_in: u64,
    peer: Option<SocketAddr>,
}

/// Who calls, by whose headers; the same for every message of a stream.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    peer: Option<SocketAddr>,
    request_id: Option<String>,
    pub(super) headers: Arc<HeaderMap>,
    /// When it stops waiting for the whole stream.
    pub(super) deadline: Option<Instant>,
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>) -> Caller {
        Caller {
            peer: peer(request),
            request_id: header_id(request.metadata()).map(str::to_owned),
            headers: Arc::new(request.metadata().clone().into_headers()),
            deadline: deadline(request.metadata(), Instant::now()),
        }
    }

    /// `status`, by which the stream ends, as the caller sees it.
    pub(super) fn refused(&self, status: Status, app: &App) -> Status {
        let size = SizeLimit::of_inference(app.max_input_size);
        let error = too_large_once_decompressed(&status, size);
        let mut status = error.map_or(status, |error| super::status::status(&error));
        name(&mut status, &RequestId::choose("", self.request_id.as_deref()));
        status
    }
}

impl Call {
    /// How it was asked, with these `headers`.
    pub(super) fn asked<'a>(&'a self, headers: &'a HeaderMap) -> Asked<'a> {
        Asked { request_id: self.request_id.as_str(), arrived: self.arrived, headers }
    }

    /// A call about the server, or about `model` when it is not empty.
    pub(super) fn about(rpc: &'static str, request: &Request<impl Message>, model: &str) -> Call {
        let request_id = RequestId::choose("", header_id(request.metadata()));
        Call::new(rpc, request_id, request.get_ref(), model, || peer(request))
    }

    /// A request for an inference.
    pub(super) fn infer(request: &Request<ModelInferRequest>) -> Call {
        let message = request.get_ref();
        let request_id = RequestId::choose(&message.id, header_id(request.metadata()));
        Call::new("ModelInfer", request_id, message, &message.model_name, || peer(request))
    }

    /// A request for an inference, in a stream.
    pub(super) fn streamed(message: &ModelInferRequest, caller: &Caller) -> Call {
        let request_id = RequestId::choose(&message.id, caller.request_id.as_deref());
        Call::new("ModelStreamInfer", request_id, message, &message.model_name, || caller.peer)
    }

    fn new(
        rpc: &'static str,
        request_id: RequestId,
        message: &impl Message,
        model: &str,
        peer: impl Fn() -> Option<SocketAddr>,
    ) -> Call {
        let access = || Access {
            model: Some(model.to_owned()).filter(|model| !model.is_empty()),
            bytes_in: message.encoded_len() as u64,
            peer: peer(),
        };
        Call { rpc, arrived: Instant::now(), request_id, access: AccessLog::wanted().then(access) }
    }

    /// Writes the access line of an inference.
    pub(super) fn log_inference(&self, result: &Result<ModelInferResponse, InferError>) {
        let version = result.as_ref().ok().and_then(|answer| answer.model_version.parse().ok());
        self.log(result, version);
    }

    /// Writes the access line of a call that is no inference, and answers it.
    pub(super) fn answer<A: Message>(self, result: Result<A, InferError>) -> Result<Response<A>, Status> {
        self.log(&result, None);
        result.map(Response::new).map_err(|error| self.status(&error))
    }

    /// `error` as the caller sees it, with the id by which it can ask about this in the log.
    pub(super) fn status(&self, error: &InferError) -> Status {
        let mut status = status(error);
        name(&mut status, &self.request_id);
        status
    }

    fn log(&self, result: &Result<impl Message, InferError>, version: Option<u64>) {
        let Some(Access { model, bytes_in, peer }) = &self.access else { return };
        let code = result.as_ref().map_or_else(|error| grpc_code(error.code()), |_| Code::Ok);
        AccessLog {
            protocol: "grpc",
            method: "POST",
            route: self.rpc,
            status: u16::try_from(code as i32).unwrap_or_default(),
            model: model.as_deref(),
            version,
            bytes_in: *bytes_in,
            bytes_out: result.as_ref().map_or(0, |answer| answer.encoded_len() as u64),
            took: self.arrived.elapsed(),
            request_id: self.request_id.as_str(),
            peer: *peer,
        }
        .write();
    }
}

/// Tells the id by which the log speaks of the request.
fn name(status: &mut Status, request_id: &RequestId) {
    if let Ok(id) = request_id.as_str().parse() {
        status.metadata_mut().insert(request_id::HEADER, id);
    }
}

fn header_id(metadata: &MetadataMap) -> Option<&str> {
    metadata.get(request_id::HEADER)?.to_str().ok()
}

fn peer<T>(request: &Request<T>) -> Option<SocketAddr> {
    request.extensions().get().copied()
}
