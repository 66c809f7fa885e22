//! What becomes of a body that its handler refused to read, or to read to its end: the client should get the answer
//! all the same.

use std::time::Duration;

use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::{Request, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::sleep;

use super::answer::Answer;
use super::body::{self, BodyLimits};
use crate::readiness::{Readiness, Stage};

/// How long the next 64 KiB of such a body may take, since who sends it unasked sends it now; and all of it once the
/// server stops.
const SOON: Duration = Duration::from_secs(1);

/// Takes what a client of HTTP/1 still sends of its body, which a handler has `begun` to read or not, and forgets it:
/// most clients read no answer before all is sent, and none comes through when the connection is closed on what was
/// sent. When it cannot be taken, or the client was refused for being slow, the answer says that the connection ends.
/// (HTTP/2 ends one stream.)
pub(super) async fn settle(
    request: &mut Request<Incoming>,
    begun: bool,
    answer: &mut Answer,
    limits: BodyLimits,
    readiness: &Readiness,
) {
    if request.version() >= Version::HTTP_2 || request.body().is_end_stream() {
        return;
    }
    // Of a body in chunks nobody knows how much is left.
    let left = request.body().size_hint().exact();
    let takes_long = answer.status() == StatusCode::REQUEST_TIMEOUT
        || left.is_some_and(|left| left > limits.size.bytes as u64);
    let waits_for_a_word = !begun && request.headers().contains_key(EXPECT);
    // In a box, so that other requests do not carry what it takes.
    if takes_long || waits_for_a_word || !Box::pin(forget(request.body_mut(), limits, readiness)).await {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Whether `body` came to its end within the limits, and while the server does not stop.
async fn forget(body: &mut Incoming, limits: BodyLimits, readiness: &Readiness) -> bool {
    let piecewise = BodyLimits { time: limits.time.min(SOON), ..limits };
    let stopping = async {
        // It can only fail when nobody is left to stop the server.
        let _ = readiness.watch().wait_for(|stage| *stage == Stage::Stopping).await;
        sleep(SOON).await;
    };
    tokio::select! {
        biased;
        ended = body::discard(body, piecewise) => ended,
        () = sleep(limits.time) => false,
        () = stopping => false,
    }
}
