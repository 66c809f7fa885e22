//! Accepts connections and keeps watch over them: how many, how long one may stall, how they end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::Builder;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use crate::drain::Drain;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

/// Opens a listening socket; port 0 takes a free one.
///
/// # Errors
/// The operating system's, with the address.
pub fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// What the connections of a listener have in common.
#[derive(Clone, Debug)]
pub struct Connections {
    /// hyper's settings.
    pub builder: Builder<hyper_util::rt::TokioExecutor>,
    /// One permit for each open connection of the listener.
    pub permits: Arc<Semaphore>,
    /// How long a client may stall while it sends a request or reads an answer.
    pub client_timeout: Duration,
    /// How long a connection may last before it is asked to end, and how much longer it may take.
    pub max_age: Option<(Duration, Duration)>,
    /// Tells when to stop.
    pub drain: Drain,
}

/// Serves every connection of `listener` with what `service` makes for it, until the drain begins. Then
/// connections end after the request they are at.
pub async fn serve<M, S, B>(listener: TcpListener, connections: Connections, make_service: M)
where
    M: Fn(SocketAddr, Arc<Activity>) -> S,
    S: hyper::service::Service<http::Request<hyper::body::Incoming>, Response = http::Response<B>>
        + Send
        + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut failing = false;
    loop {
        let permit = Arc::clone(&connections.permits).acquire_owned();
        let accepted = tokio::select! {
            () = connections.drain.stopped() => return,
            accepted = async { (permit.await, listener.accept().await) } => accepted,
        };
        let (permit, (stream, peer)) = match accepted {
            (permit, Ok(accepted)) => (permit, accepted),
            (_, Err(error)) => {
                // Out of descriptors, or the client has left already. Neither is cured by hurrying, nor by
                // saying it again and again.
                if !failing {
                    warn!(%error, "cannot accept connections");
                }
                failing = true;
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        failing = false;
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "cannot switch off delayed sending");
        }
        let activity = Arc::new(Activity::default());
        let service = make_service(peer, Arc::clone(&activity));
        let io = TokioIo::new(Watched { stream, activity: Arc::clone(&activity) });
        let connections = Connections { drain: connections.drain.child(), ..connections.clone() };
        connections.drain.clone().spawn(async move {
            let connection = connections.builder.serve_connection(io, service);
            watch(connection, &activity, &connections, peer).await;
            drop(permit);
        });
    }
}

/// As long as any clock goes on here: thirty years.
pub const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Drives one connection to its end, and ends it when its client stalls.
async fn watch<C, E>(connection: C, activity: &Activity, connections: &Connections, peer: SocketAddr)
where
    C: Future<Output = Result<(), E>> + hyper_util::server::graceful::GracefulConnection<Error = E>,
    E: std::fmt::Debug,
{
    let mut connection = std::pin::pin!(connection);
    let mut ticks = tokio::time::interval(connections.client_timeout);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first is immediate
    let (age, grace) = connections.max_age.unwrap_or((FOREVER, FOREVER));
    let mut old = std::pin::pin!(tokio::time::sleep(age));
    let mut stopping = false;
    let mut aged = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, ?error, "a connection broke");
                }
                return;
            }
            () = connections.drain.stopped(), if !stopping => {
                if !activity.began.load(Ordering::Relaxed) {
                    return; // it never asked for anything
                }
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = old.as_mut() => {
                if aged {
                    debug!(%peer, "closing a connection that is too old");
                    return;
                }
                aged = true;
                old.as_mut().reset(tokio::time::Instant::now() + grace);
                connection.as_mut().graceful_shutdown();
            }
            _ = ticks.tick() => {
                if activity.stalled() {
                    debug!(%peer, "closing a connection whose client has stalled");
                    return;
                }
            }
        }
    }
}

/// What moves on a connection; read by its watch at every tick.
#[derive(Debug, Default)]
pub struct Activity {
    /// Bytes went in or out since the last tick.
    moved: AtomicBool,
    /// Bytes came at all.
    began: AtomicBool,
    /// Bytes came that no handler has taken up yet: the head of a request, perhaps half of it.
    unhandled: AtomicBool,
    /// Answers wait for the client to read.
    blocked: AtomicBool,
    /// The client speaks HTTP/2, whose frames are not requests.
    http2: AtomicBool,
    /// Requests that handlers are at; the handlers watch their bodies themselves.
    handling: AtomicUsize,
}

impl Activity {
    /// Says that a handler is at a request until the guard is dropped.
    pub fn handling(self: &Arc<Self>) -> Handling {
        self.unhandled.store(false, Ordering::Relaxed);
        self.handling.fetch_add(1, Ordering::Relaxed);
        Handling(Arc::clone(self))
    }

    /// True when nothing moved for a whole tick although the client should have sent or read.
    fn stalled(&self) -> bool {
        let moved = self.moved.swap(false, Ordering::Relaxed);
        let head_is_late = self.unhandled.load(Ordering::Relaxed)
            && self.handling.load(Ordering::Relaxed) == 0
            && !self.http2.load(Ordering::Relaxed);
        let never_began = !self.began.load(Ordering::Relaxed);
        !moved && (never_began || head_is_late || self.blocked.load(Ordering::Relaxed))
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

/// The first bytes of an HTTP/2 connection (RFC 9113 §3.4), which come in one piece.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that notes what moves.
struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Watched {
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
}
