//! Accepts connections and keeps watch over them: how many, how long one may stall, how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::Builder;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use crate::activity::{Activity, Watched};
use crate::delivery::Delivering;
use crate::drain::Drain;
use crate::io_threads::{IoThreads, Seat};
use crate::room::Room;

/// A peer that is gone without a word, behind a NAT that forgot it, does not answer these: after two minutes its
/// connection ends.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(6);

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
        socket.set_tcp_keepalive(&KEEPALIVE)?; // which connections inherit
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
    /// The places of the listener's connections.
    pub room: Room,
    /// How long a client may stall while it sends a request or reads an answer.
    pub client_timeout: Duration,
    /// How long a connection may last before it is asked to end, and how much longer it may take.
    pub max_age: Option<(Duration, Duration)>,
    /// Who serves them; whoever accepts them where it is none.
    pub io_threads: Option<IoThreads>,
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
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = connections.drain.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
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
        let place = tokio::select! {
            () = connections.drain.stopped() => return,
            place = connections.room.place(&activity) => place,
        };
        let service = Delivering::new(make_service(peer, Arc::clone(&activity)), Arc::clone(&activity));
        let seat = connections.io_threads.as_ref().and_then(IoThreads::seat);
        let connections =
            Connections { drain: connections.drain.child(), io_threads: None, ..connections.clone() };
        let (drain, runtime) = (connections.drain.clone(), seat.as_ref().map(|seat| seat.runtime().clone()));
        let connection = async move {
            match take_over(stream, seat.as_ref()) {
                Ok(stream) => {
                    let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
                    let connection = connections.builder.serve_connection(io, service);
                    watch(connection, &activity, &connections, peer).await;
                }
                Err(error) => debug!(%peer, %error, "cannot serve a connection"),
            }
            drop((place, seat));
        };
        match runtime {
            Some(runtime) => drain.spawn_on(&runtime, connection),
            None => drain.spawn(connection),
        }
    }
}

/// `stream`, watched by the runtime of this thread instead of the one that accepted it.
fn take_over(stream: TcpStream, seat: Option<&Seat>) -> io::Result<TcpStream> {
    if seat.is_some() { TcpStream::from_std(stream.into_std()?) } else { Ok(stream) }
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
                if !activity.has_begun() {
                    return; // it never asked for anything
                }
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = old.as_mut() => {
                if aged {
                    debug!(%peer, "closing a connection that was asked to end and has not");
                    return;
                }
                aged = true;
                old.as_mut().reset(tokio::time::Instant::now() + grace);
                connection.as_mut().graceful_shutdown();
            }
            () = activity.asked_to_leave(), if !aged => {
                debug!(%peer, "closing an idle connection: others wait for its place");
                aged = true;
                old.as_mut().reset(tokio::time::Instant::now() + connections.client_timeout);
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

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn connections_are_probed_for_peers_that_are_gone() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, client) = tokio::join!(listener.accept(), client);
        let (accepted, _client) = (accepted.unwrap().0, client.unwrap());
        let socket = SockRef::from(&accepted);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 6);
    }
}
