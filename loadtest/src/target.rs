//! The server before the load: where it is, what its models take, the requests for them, and whether it answers.

mod client;
mod requests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tokio::net::TcpStream;
use tokio::time::timeout;
use volley_client::ClientError;

use self::client::Client;
use crate::args::LoadArgs;
use crate::transport::{Connection, Endpoint, Failure, Opener};
use crate::usage;
use crate::workload::{ModelRequests, Workload};

/// How long the server may take for what is asked before the load.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that is ready to be loaded.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) workload: Arc<Workload>,
    /// Name and version of the server, when it tells.
    pub(crate) server: Option<String>,
}

impl Target {
    /// Finds the server, asks what its models take, and prepares the requests.
    ///
    /// # Errors
    /// When nothing listens there, a model is not there, or the inputs do not fit it.
    pub(crate) async fn find(args: &LoadArgs) -> anyhow::Result<Target> {
        let protocol = args.target.protocol;
        let patience = PATIENCE.min(args.extent.timeout);
        let client = Client::new(protocol, args.target.url.as_deref(), patience).map_err(usage::bad)?;
        let addresses = reachable(client.authority(), &client.address(), patience).await?;
        let endpoint = Endpoint {
            protocol,
            authority: client.authority().to_owned(),
            addresses,
            connections: args.extent.connections.into(),
        };
        let server = match client.server_metadata().await {
            // Whatever else is asked would have no answer, either.
            Err(error @ ClientError::Timeout { .. }) => return Err(error.into()),
            server => server.ok(),
        };
        let server = server.map(|server| format!("{} {}", server.name, server.version).trim().to_owned());
        let workload = Arc::new(requests::workload(&client, args).await?);
        let url = client.address();
        Ok(Target { url, endpoint, workload, server: server.filter(|server| !server.is_empty()) })
    }

    /// Sends the first requests to each model. What would fail every time fails here, in one line.
    ///
    /// # Errors
    /// When the server refuses one of the first `each` requests and would refuse it again, breaks off, or does not answer within `patience`.
    pub(crate) async fn try_out(&self, patience: Duration, each: usize) -> anyhow::Result<()> {
        let opener = Opener::new(self.endpoint.clone());
        for model in &self.workload.models {
            let mut connection = opener.open();
            self.try_requests(&mut connection, model, (patience, each)).await?;
        }
        Ok(())
    }

    async fn try_requests(
        &self,
        connection: &mut Connection,
        model: &ModelRequests,
        (patience, each): (Duration, usize),
    ) -> anyhow::Result<()> {
        for (at, request) in model.requests.iter().enumerate().take(each) {
            let number = at + 1;
            match timeout(patience, connection.exchange(request)).await {
                // Overload passes, and is what a measurement is about.
                Ok(Ok(()) | Err(Failure::Failed(_))) => {}
                Ok(Err(Failure::Refused(reason))) => {
                    bail!(
                        "model {:?} refuses {}: {reason}{}",
                        model.model,
                        which(number),
                        model.hint(&reason)
                    )
                }
                Ok(Err(Failure::Broken(reason) | Failure::Unreachable(reason))) => {
                    bail!("model {:?} does not answer {}: {reason}", model.model, which(number))
                }
                Err(_) => bail!(
                    "model {:?} does not answer {} within {patience:?}: does the server hang? if it only needs longer, \
                     give it more --timeout",
                    model.model,
                    which(number)
                ),
            }
        }
        Ok(())
    }
}

impl Target {
    /// How long the server takes to answer one request over a new connection; `None` when it does not within
    /// `patience`.
    pub(crate) async fn answer_time(&self, patience: Duration) -> Option<Duration> {
        let request = self.workload.models.first()?.requests.first()?;
        let mut connection = Opener::new(self.endpoint.clone()).open();
        let exchange = async {
            connection.connect().await?;
            let began = Instant::now();
            connection.exchange(request).await.map(|()| began.elapsed())
        };
        timeout(patience, exchange).await.ok()?.ok()
    }
}

/// What the request with a number is called.
fn which(number: usize) -> String {
    if number == 1 { "the first request".to_owned() } else { format!("request {number}") }
}

/// The address that takes connections, of those that the name has.
async fn reachable(authority: &str, url: &str, patience: Duration) -> anyhow::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host(authority).await;
    let addresses: Vec<_> = found.with_context(|| format!("{url}: its host has no address"))?.collect();
    let mut last = anyhow!("its host has no address");
    for address in addresses {
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(vec![address]),
            Ok(Err(error)) => last = error.into(),
            Err(_) => last = anyhow!("no answer within {patience:?}"),
        }
    }
    bail!("cannot connect to {url} ({last}): is the server running there?")
}
