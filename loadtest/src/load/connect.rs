//! The connections that a thread opens before its run begins.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::{Mode, Setting, part};
use crate::arrivals::Share;
use crate::transport::{Connection, Opener};

/// Connections that an open loop has from the start.
const OPEN_FROM_START: usize = 8;
/// Attempts to connect at once, of each thread.
const CONNECTING: usize = 64;

/// The connections of one thread that are open before the run begins.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) opener: Opener,
    pub(super) connections: Vec<Connection>,
}

/// Opens the connections that a thread begins with, and counts them in `connected`. One that fails is tried again by its first request.
pub(super) async fn connect(setting: &Setting, share: Share, connected: &AtomicUsize) -> Ready {
    let count = match setting.spec.mode {
        Mode::Closed { concurrency } => part(concurrency, share),
        Mode::Open { max_connections, .. } => part(max_connections, share).min(OPEN_FROM_START),
    };
    let opener = Opener::new(setting.endpoint.clone());
    let mut connections = Vec::with_capacity(count);
    let connecting = connect_all(&opener, count, (&mut connections, connected));
    let connecting = tokio::time::timeout(setting.spec.timeout, connecting);
    // Whether all are there or not: what is not is opened by its first request, which tells of it.
    let _ = setting.stop.unless(connecting).await;
    connections.resize_with(count, || opener.open());
    Ready { opener, connections }
}

/// Connects some at a time, until all are there or one fails.
async fn connect_all(
    opener: &Opener,
    count: usize,
    (connections, connected): (&mut Vec<Connection>, &AtomicUsize),
) {
    let (mut attempts, mut begun) = (JoinSet::new(), 0);
    loop {
        while begun < count && attempts.len() < CONNECTING {
            let mut connection = opener.open();
            attempts.spawn_local(async move { connection.connect().await.map(|()| connection) });
            begun += 1;
        }
        match attempts.join_next().await {
            Some(Ok(Ok(connection))) => {
                connections.push(connection);
                connected.fetch_add(1, Ordering::Relaxed);
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::load::Spec;
    use crate::stop::Stop;
    use crate::transport::{Endpoint, Protocol};
    use crate::workload::Workload;

    /// Nobody takes the connections that wait, and no more may wait: an attempt to connect has no end.
    #[tokio::test]
    async fn connecting_before_a_run_ends_in_time_and_when_it_is_to_stop() {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let setting = |timeout| Setting {
            spec: Spec {
                mode: Mode::Closed { concurrency: 100 },
                warmup: Duration::ZERO,
                duration: None,
                requests: None,
                timeout,
                threads: 1,
                seed: 1,
            },
            endpoint: Endpoint {
                protocol: Protocol::HttpJson,
                authority: address.to_string(),
                addresses: vec![address],
                connections: 1,
            },
            workload: Arc::new(Workload { models: Vec::new() }),
            stop: Stop::default(),
        };
        let (share, connected) = (Share { lane: 0, lanes: 1 }, AtomicUsize::new(0));
        let began = Instant::now();
        let local = tokio::task::LocalSet::new();
        let ready = local.run_until(connect(&setting(Duration::from_millis(200)), share, &connected)).await;
        assert_eq!(ready.connections.len(), 100);
        // The kernel takes one or two for a listener that takes none.
        assert!((1..100).contains(&connected.load(Ordering::Relaxed)));
        let stopped = setting(Duration::from_secs(3600));
        stopped.stop.set("a signal");
        assert_eq!(local.run_until(connect(&stopped, share, &connected)).await.connections.len(), 100);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}
