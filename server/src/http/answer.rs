//! Responses: their bodies, and how answers and errors become them.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use model::InferError;
use prost_reflect::prost;
use smallvec::SmallVec;

use super::status::http_status;

/// A response, ready to be sent.
pub(crate) type Answer = Response<Chunks>;

/// A body in pieces that are sent as they are.
#[derive(Default)]
pub struct Chunks {
    chunks: SmallVec<[Bytes; 3]>,
    next: usize,
    /// Pieces that come one by one, after the others.
    coming: Option<Coming>,
}

/// Pieces that are not known yet.
pub(super) type Coming = Pin<Box<dyn Stream<Item = Result<Bytes, Infallible>> + Send>>;

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").field("chunks", &self.pieces()).finish_non_exhaustive()
    }
}

impl Chunks {
    pub(super) fn new(chunks: SmallVec<[Bytes; 3]>) -> Chunks {
        Chunks { chunks, next: 0, coming: None }
    }

    /// Bytes that are still to be sent.
    pub(super) fn len(&self) -> u64 {
        self.chunks[self.next..].iter().map(|chunk| chunk.len() as u64).sum()
    }

    pub(super) fn pieces(&self) -> &[Bytes] {
        &self.chunks[self.next..]
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            let next = self.next;
            let Some(chunk) = self.chunks.get_mut(next).map(std::mem::take) else {
                let Some(coming) = &mut self.coming else { return Poll::Ready(None) };
                return coming.as_mut().poll_next(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)));
            };
            self.next += 1;
            if !chunk.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.coming.is_none() && self.pieces().iter().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        if self.coming.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.len()) }
    }
}

/// 200 without a body.
pub(super) fn empty() -> Answer {
    Response::new(Chunks::default())
}

/// `status` without a body.
pub(super) fn status(status: StatusCode) -> Answer {
    let mut answer = empty();
    *answer.status_mut() = status;
    answer
}

/// 200 with `chunks` of `content_type`.
pub(super) fn chunks(chunks: SmallVec<[Bytes; 3]>, content_type: &'static str) -> Answer {
    let mut answer = Response::new(Chunks::new(chunks));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// 200 with what is `coming`, of `content_type`.
pub(super) fn stream(coming: Coming, content_type: &'static str) -> Answer {
    let mut answer = chunks(SmallVec::new(), content_type);
    answer.body_mut().coming = Some(coming);
    answer
}

/// 200 with `json`.
pub(super) fn json(json: &serde_json::Value) -> Answer {
    chunks(SmallVec::from_iter([Bytes::from(json.to_string())]), "application/json")
}

/// 200 with a protocol message as JSON: names as in the .proto file, every default printed.
pub(super) fn message<M: prost::Message>(name: &str, message: &M) -> Answer {
    json(&proto::message_json::to_json(name, message))
}

/// The answer to a request that was refused or failed.
pub(super) fn error(error: &InferError) -> Answer {
    let mut answer = refusal(http_status(error.code()), &error.text());
    if let Some(wait) = error.retry_after() {
        // Whole seconds, as RFC 9110 §10.2.3 has it; 0 would invite a client to come back at once.
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    }
    answer
}

/// The answer to a method that its route does not have; `allow` lists those it has.
pub(super) fn method_not_allowed(allow: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// `{"error": text}` with `status`.
pub(super) fn refusal(status: StatusCode, text: &str) -> Answer {
    let mut answer = json(&serde_json::json!({ "error": text }));
    *answer.status_mut() = status;
    answer
}
