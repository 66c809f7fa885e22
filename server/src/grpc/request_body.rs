//! The body of a call: messages with their lengths in front, each within a size and a time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use model::InferError;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use super::status::status;
use crate::size_limit::{PROGRESS, SizeLimit};

/// What the messages of a call may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of one message, as it is sent.
    pub(super) size: SizeLimit,
    /// How long a message may take; every [`PROGRESS`] bytes earn as much again.
    pub(super) time: Duration,
    /// Whether the client may be quiet between two messages, as on a stream.
    pub(super) may_be_quiet: bool,
}

/// A request's body that ends with an error when a message is too large or its client stops sending.
#[derive(Debug)]
pub(super) struct RequestBody {
    body: Incoming,
    limits: Limits,
    framing: Framing,
    /// Bytes of the message at hand.
    received: usize,
    /// Set when a part of it was awaited for the first time.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Follows what came before the message that is refused.
    refusal: Option<Status>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, limits: Limits) -> RequestBody {
        let framing = Framing::default();
        RequestBody { body, limits, framing, received: 0, sleep: None, refusal: None }
    }

    /// What may be passed on of `data`.
    fn came(&mut self, data: Bytes) -> Bytes {
        match self.framing.advance(&data, self.limits.size.bytes) {
            Ok(end) => {
                if end > 0 {
                    (self.received, self.sleep) = (0, None);
                }
                let before = self.received / PROGRESS;
                self.received += data.len() - end;
                if self.received / PROGRESS > before
                    && let Some(sleep) = &mut self.sleep
                {
                    sleep.as_mut().reset(Instant::now() + self.limits.time);
                }
                data
            }
            Err(TooLong { length, at }) => {
                let what = format!("a request message of {length} bytes");
                self.refusal = Some(status(&self.limits.size.exceeded(what)));
                data.slice(..at)
            }
        }
    }

    /// Waits no longer than the message that is awaited may take.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if self.limits.may_be_quiet && !self.framing.is_within_message() {
            return Poll::Pending;
        }
        let time = self.limits.time;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        sleep
            .as_mut()
            .poll(cx)
            .map(|()| status(&InferError::BodyTimeout { waited: time, received: self.received }))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(refusal) = self.refusal.take() {
            return Poll::Ready(Some(Err(refusal)));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => self.wait(cx).map(|late| Some(Err(late))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Status::from_error(error.into())))),
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(match frame.into_data() {
                Ok(data) => Frame::data(self.came(data)),
                Err(trailers) => trailers,
            }))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.refusal.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes in front of each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Follows where one message ends and the next begins.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that have come.
    begun: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

/// A message whose length is beyond the limit.
#[derive(Debug, PartialEq)]
struct TooLong {
    length: usize,
    /// Where its prefix begins in the bytes that were looked at.
    at: usize,
}

impl Framing {
    /// Takes note of `data`; tells where the last message that ends in it does, 0 when none does.
    fn advance(&mut self, data: &[u8], limit: usize) -> Result<usize, TooLong> {
        let (mut at, mut end) = (0, 0);
        while at < data.len() {
            if self.left > 0 {
                let passed = self.left.min(data.len() - at);
                (self.left, at) = (self.left - passed, at + passed);
            } else {
                let start = at;
                let more = (PREFIX - self.begun).min(data.len() - at);
                self.prefix[self.begun..self.begun + more].copy_from_slice(&data[at..at + more]);
                (self.begun, at) = (self.begun + more, at + more);
                if self.begun < PREFIX {
                    break;
                }
                let [_, length @ ..] = self.prefix;
                (self.begun, self.left) =
                    (0, usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX));
                if self.left > limit {
                    return Err(TooLong { length: self.left, at: start });
                }
            }
            if self.left == 0 {
                end = at;
            }
        }
        Ok(end)
    }

    /// Whether the last message that began is not whole yet.
    fn is_within_message(&self) -> bool {
        self.begun > 0 || self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(lengths: &[u8]) -> Vec<u8> {
        let message = |length: &u8| [&[0, 0, 0, 0, *length][..], &vec![1; usize::from(*length)]].concat();
        lengths.iter().flat_map(message).collect()
    }

    #[test]
    fn a_long_message_is_found_by_its_prefix_wherever_it_stands() {
        let mut framing = Framing::default();
        assert_eq!(framing.advance(&framed(&[3, 9])[..12], 8), Ok(8));
        assert!(framing.is_within_message());
        assert_eq!(framing.advance(&[9], 8), Err(TooLong { length: 9, at: 0 }));
        assert_eq!(Framing::default().advance(&framed(&[3, 0, 9]), 8), Err(TooLong { length: 9, at: 13 }));
        assert_eq!(Framing::default().advance(&[0, 255, 255, 255, 255], 8).unwrap_err().length, 0xffff_ffff);
    }

    proptest! {
        #[test]
        fn messages_end_where_their_lengths_say_however_they_are_cut(
            lengths in prop::collection::vec(0_u8..20, 1..10),
            cut in 1_usize..30,
        ) {
            let ends: Vec<usize> =
                (1..=lengths.len()).map(|count| framed(&lengths[..count]).len()).collect();
            let (mut framing, mut at) = (Framing::default(), 0);
            for piece in framed(&lengths).chunks(cut) {
                let end = framing.advance(piece, 20).unwrap();
                let last = ends.iter().rfind(|end| (at + 1..=at + piece.len()).contains(end));
                prop_assert_eq!(end, last.map_or(0, |end| end - at));
                at += piece.len();
                prop_assert_eq!(framing.is_within_message(), !ends.contains(&at));
            }
        }
    }
}
