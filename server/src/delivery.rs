//! Follows the pieces of an answer until the client has taken them.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::service::Service;
use pin_project_lite::pin_project;

use crate::activity::{self, Activity};

/// A service whose answers are followed.
#[derive(Clone, Debug)]
pub(crate) struct Delivering<S> {
    service: S,
    activity: Arc<Activity>,
}

impl<S> Delivering<S> {
    pub(crate) fn new(service: S, activity: Arc<Activity>) -> Delivering<S> {
        Delivering { service, activity }
    }
}

impl<S, R, B> Service<Request<R>> for Delivering<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    type Response = Response<Followed<B>>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        let answering = Some(self.activity.answering());
        Answering { answer: self.service.call(request), answering }
    }
}

pin_project! {
    /// The future of an answer that will be followed.
    pub(crate) struct Answering<F> {
        #[pin]
        answer: F,
        answering: Option<activity::Answering>,
    }
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Followed<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(cx))?;
        let answering = this.answering.take().expect("a future is not polled after it is ready");
        Poll::Ready(Ok(answer.map(|body| Followed { body, answering })))
    }
}

pin_project! {
    /// A body whose pieces are followed.
    pub(crate) struct Followed<B> {
        #[pin]
        body: B,
        answering: activity::Answering,
    }
}

impl<B: Body<Data = Bytes>> Body for Followed<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let this = self.project();
        let activity = this.answering.activity();
        this.body
            .poll_frame(cx)
            .map_ok(|frame| frame.map_data(|bytes| Piece::new(bytes, Arc::clone(activity))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of an answer. hyper holds it until it was written, which for HTTP/2 may be long after the body it
/// came from has ended: the client says how much it wants to have.
pub(crate) struct Piece {
    bytes: Bytes,
    activity: Arc<Activity>,
}

impl Piece {
    fn new(bytes: Bytes, activity: Arc<Activity>) -> Piece {
        activity.delivery_begins();
        Piece { bytes, activity }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.activity.delivery_goes_on();
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.activity.delivery_goes_on();
        self.bytes.copy_to_bytes(length)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.activity.delivery_ends();
    }
}
