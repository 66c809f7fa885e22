//! What becomes of a body that its handler refused to read, or to read to its end: the client should get the answer
//! all the same.

use std::time::Duration;

use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::{Request, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::answer::Answer;
use super::body::{self, BodyLimits};

/// How long the next 64 KiB of such a body may take: who sends it unasked sends it now.
const SOON: Duration = Duration::from_secs(1);

/// Takes what a client of HTTP/1 still sends of the `announced` bytes of its body, and forgets it: most clients read
/// no answer before all is sent, and none comes through when the connection is closed on what was sent. When it
/// cannot be taken, or the client was refused for being slow, the answer says that the connection ends. (HTTP/2 ends
/// one stream.)
pub(super) async fn settle(
    request: &mut Request<Incoming>,
    announced: u64,
    answer: &mut Answer,
    limits: BodyLimits,
) {
    if request.version() >= Version::HTTP_2 {
        return;
    }
    let Some(left @ 1..) = request.body().size_hint().exact() else { return };
    let takes_long = answer.status() == StatusCode::REQUEST_TIMEOUT || left > limits.size.bytes as u64;
    let waits_for_a_word = left == announced && request.headers().contains_key(EXPECT);
    if !takes_long && !waits_for_a_word {
        let limits = BodyLimits { time: limits.time.min(SOON), ..limits };
        if body::discard(request.body_mut(), limits).await {
            return;
        }
    }
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}
