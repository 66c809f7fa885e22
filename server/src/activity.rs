//! What moves on a connection, and whether its client has stalled.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What moves on a connection; read by its watch at every tick.
#[derive(Debug, Default)]
pub struct Activity {
    /// Bytes went in or out since the last tick.
    moved: AtomicBool,
    /// Bytes came at all.
    began: AtomicBool,
    /// Bytes came that no handler has taken up yet: the head of a request, perhaps half of it.
    unhandled: AtomicBool,
    /// The socket takes no more: the client does not read.
    blocked: AtomicBool,
    /// Pieces of answers that wait for the client to want them; HTTP/2 holds them while the socket is free.
    undelivered: AtomicUsize,
    /// A part of one of them left since the last tick.
    delivered: AtomicBool,
    /// The client speaks HTTP/2, whose frames are not requests.
    http2: AtomicBool,
    /// Requests that handlers are at; the handlers watch their bodies themselves.
    handling: AtomicUsize,
    /// Requests that have no answer yet, or whose answer is not all made.
    answering: AtomicUsize,
    /// When the latest of them ended, as milliseconds since `opened`.
    answered: AtomicU64,
    opened: Opened,
    /// Asks the connection to end, since others wait for its place.
    leave: Notify,
}

/// When a connection was accepted.
#[derive(Debug)]
struct Opened(Instant);

impl Default for Opened {
    fn default() -> Opened {
        Opened(Instant::now())
    }
}

impl Activity {
    /// Says that a handler is at a request until the guard is dropped.
    pub fn handling(self: &Arc<Self>) -> Handling {
        self.unhandled.store(false, Ordering::Relaxed);
        self.handling.fetch_add(1, Ordering::Relaxed);
        Handling(Arc::clone(self))
    }

    /// True when anything was ever asked.
    pub(crate) fn has_begun(&self) -> bool {
        self.began.load(Ordering::Relaxed)
    }

    /// A piece of an answer waits for the client from now on.
    pub(crate) fn delivery_begins(&self) {
        self.undelivered.fetch_add(1, Ordering::Relaxed);
    }

    /// A part of such a piece has left.
    pub(crate) fn delivery_goes_on(&self) {
        self.delivered.store(true, Ordering::Relaxed);
    }

    /// Such a piece has left, or nobody wants it any more.
    pub(crate) fn delivery_ends(&self) {
        self.undelivered.fetch_sub(1, Ordering::Relaxed);
        self.delivered.store(true, Ordering::Relaxed);
    }

    /// A request came, which is answered when the guard is dropped.
    pub(crate) fn answering(self: &Arc<Self>) -> Answering {
        self.unhandled.store(false, Ordering::Relaxed);
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    /// How long the connection has had nothing to do, at `now`; `None` while it has.
    pub(crate) fn idle_for(&self, now: Instant) -> Option<Duration> {
        let head_is_coming = self.unhandled.load(Ordering::Relaxed) && !self.http2.load(Ordering::Relaxed);
        let busy = head_is_coming
            || self.answering.load(Ordering::Relaxed) > 0
            || self.undelivered.load(Ordering::Relaxed) > 0;
        let since = self.opened.0 + Duration::from_millis(self.answered.load(Ordering::Relaxed));
        (!busy).then(|| now.saturating_duration_since(since))
    }

    /// Asks the connection to end once nothing is in work on it.
    pub(crate) fn ask_to_leave(&self) {
        self.leave.notify_one();
    }

    /// Returns when the connection is asked to end.
    pub(crate) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }

    /// True when nothing moved for a whole tick although the client should have sent or read. What an HTTP/2
    /// client sends beside (pings, other requests) does not stand for reading.
    pub(crate) fn stalled(&self) -> bool {
        let moved = self.moved.swap(false, Ordering::Relaxed);
        let head_is_late = self.unhandled.load(Ordering::Relaxed)
            && self.handling.load(Ordering::Relaxed) == 0
            && !self.http2.load(Ordering::Relaxed);
        let never_began = !self.began.load(Ordering::Relaxed);
        let delivered = self.delivered.swap(false, Ordering::Relaxed);
        let unread = self.undelivered.load(Ordering::Relaxed) > 0 && !delivered;
        unread || !moved && (never_began || head_is_late || self.blocked.load(Ordering::Relaxed))
    }
}

/// See [`Activity::handling`].
#[derive(Debug)]
pub struct Handling(Arc<Activity>);

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.handling.fetch_sub(1, Ordering::Relaxed);
        self.0.unhandled.store(false, Ordering::Relaxed);
    }
}

/// See [`Activity::answering`].
#[derive(Debug)]
pub(crate) struct Answering(Arc<Activity>);

impl Answering {
    /// Of which connection.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let open_for = self.0.opened.0.elapsed().as_millis();
        self.0.answered.store(u64::try_from(open_for).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The first bytes of an HTTP/2 connection (RFC 9113 §3.4), which come in one piece.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that notes what moves.
pub(crate) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Watched {
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>) -> Watched {
        Watched { stream, activity }
    }

    fn wrote<T>(&self, written: Poll<T>) -> Poll<T> {
        let pending = written.is_pending();
        self.activity.blocked.store(pending, Ordering::Relaxed);
        if !pending {
            self.activity.moved.store(true, Ordering::Relaxed);
        }
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.activity.moved.store(true, Ordering::Relaxed);
            self.activity.unhandled.store(true, Ordering::Relaxed);
            self.activity.began.store(true, Ordering::Relaxed);
            if read.starts_with(HTTP2_PREFACE) {
                self.activity.http2.store(true, Ordering::Relaxed);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity(set: impl Fn(&Activity)) -> Arc<Activity> {
        let activity = Arc::new(Activity::default());
        set(&activity);
        activity
    }

    #[test]
    fn an_idle_connection_may_stay() {
        assert!(!activity(|activity| activity.began.store(true, Ordering::Relaxed)).stalled());
        assert!(activity(|_| {}).stalled(), "nothing was ever asked on it");
        let after_a_request = activity(|activity| {
            activity.began.store(true, Ordering::Relaxed);
            activity.unhandled.store(true, Ordering::Relaxed);
        });
        drop(after_a_request.handling());
        assert!(!after_a_request.stalled());
    }

    #[test]
    fn a_connection_is_idle_from_its_last_answer_on() {
        let idle = activity(|_| {});
        let later = idle.opened.0 + Duration::from_secs(5);
        assert_eq!(idle.idle_for(later), Some(Duration::from_secs(5)), "nothing was ever asked on it");
        let answering = idle.answering();
        assert_eq!(idle.idle_for(later), None);
        idle.delivery_begins();
        drop(answering);
        assert_eq!(idle.idle_for(later), None, "the answer has not left");
        idle.delivery_ends();
        idle.answered.store(3_000, Ordering::Relaxed);
        assert_eq!(idle.idle_for(later), Some(Duration::from_secs(2)));
        idle.unhandled.store(true, Ordering::Relaxed);
        assert_eq!(idle.idle_for(later), None, "a request is coming");
    }

    #[test]
    fn half_a_head_may_wait_for_one_tick() {
        let activity = activity(|activity| {
            activity.moved.store(true, Ordering::Relaxed);
            activity.unhandled.store(true, Ordering::Relaxed);
        });
        assert!(!activity.stalled(), "it moved since the last tick");
        assert!(activity.stalled());
    }

    #[test]
    fn a_request_in_a_handlers_hands_is_not_stalled() {
        let activity = activity(|activity| {
            activity.began.store(true, Ordering::Relaxed);
            activity.unhandled.store(true, Ordering::Relaxed);
        });
        let _handling = activity.handling();
        activity.unhandled.store(true, Ordering::Relaxed); // its body
        assert!(!activity.stalled());
    }

    #[test]
    fn an_answer_that_nobody_reads_is_stalled() {
        let activity = activity(|activity| activity.blocked.store(true, Ordering::Relaxed));
        let _handling = activity.handling();
        assert!(activity.stalled());
    }

    #[test]
    fn an_answer_held_back_by_flow_control_is_stalled_whatever_else_moves() {
        let activity = activity(|activity| activity.began.store(true, Ordering::Relaxed));
        activity.delivery_begins();
        activity.delivery_goes_on();
        assert!(!activity.stalled(), "a part has left since the last tick");
        activity.moved.store(true, Ordering::Relaxed); // a ping
        assert!(activity.stalled());
        activity.delivery_ends();
        assert!(!activity.stalled());
        assert!(!activity.stalled(), "nothing waits any more");
    }
}
