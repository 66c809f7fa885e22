//! What the server itself counts: read before and after a run, told as the difference.
//!
//! What a server does not tell, or what cannot be read, is left out with a remark. Only what the user named must be there.

mod difference;
mod metrics;
mod process;
mod process_tree;
mod prometheus;
mod statistics;
mod window;

use std::time::Duration;

use tokio::time::timeout;
use volley_client::{ClientError, GrpcClient, GrpcOptions, HttpClient, HttpOptions, ModelStatistics};

pub(crate) use self::difference::Observed;
use self::metrics::Metrics;
use self::process::{Found, ProcessReading};
use self::prometheus::Sample;
pub(crate) use self::window::Readings;

/// Where to look beside the server's own address.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ProbeArgs {
    /// Prometheus metrics of the server, http://HOST:PORT/metrics [default: port 8002 of the server's host, if it
    /// has metrics of the models that are asked]
    #[arg(long, value_name = "URL")]
    pub(crate) metrics_url: Option<String>,
    /// Process whose processor time and memory are the server's, with its children [default: the process on this
    /// machine that listens at the server's address]
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
}

/// The server that gets the load.
#[derive(Clone, Debug)]
pub(crate) struct ProbeTarget {
    /// As the clients take it.
    pub(crate) url: String,
    /// Whether `url` speaks gRPC.
    pub(crate) grpc: bool,
    /// Models that are asked; no others are told of.
    pub(crate) models: Vec<String>,
}

/// Reads a server's counters.
#[derive(Debug)]
pub(crate) struct Probe {
    models: Vec<String>,
    statistics: Option<Client>,
    metrics: Option<Endpoint>,
    processes: Option<Found>,
    remarks: Vec<String>,
}

/// All counters at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    statistics: Option<Vec<ModelStatistics>>,
    metrics: Option<Metrics>,
    /// Whether the metrics were named by the user, and not merely found where Triton has them.
    metrics_named: bool,
    processes: Option<ProcessReading>,
}

#[derive(Debug)]
enum Client {
    Http(Box<HttpClient>),
    Grpc(GrpcClient),
}

#[derive(Debug)]
struct Endpoint {
    client: HttpClient,
    path: &'static str,
    named: bool,
}

/// A server under full load may be slow to answer even this.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Statistics of a server are smaller.
const MAX_STATISTICS_BYTES: usize = 16 << 20;
/// Metrics of a server with thousands of models have a few megabytes.
const MAX_METRICS_BYTES: usize = 64 << 20;
/// Triton's port, and ours.
const METRICS_PORT: u16 = 8002;

impl Probe {
    /// Finds out what the server tells. Asks it a few times; must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// When the metrics or the process that the user named cannot be read, in a sentence.
    pub(crate) async fn find(target: &ProbeTarget, args: &ProbeArgs) -> Result<Probe, String> {
        let mut remarks = Vec::new();
        let models = target.models.clone();
        let statistics = match find_statistics(target).await {
            Ok(client) => Some(client),
            Err(error) => {
                remarks.push(format!("The server tells no statistics of its models: {error}."));
                None
            }
        };
        let host = statistics.as_ref().map_or_else(|| target.url.clone(), Client::address);
        let (host, port) = host_and_port(&host, if target.grpc { 8001 } else { 8000 });
        let metrics = match &args.metrics_url {
            Some(url) => Some(Endpoint::named(url).await?),
            None => Endpoint::at_default(&host, &models).await,
        };
        let processes = match args.server_pid {
            Some(pid) => Some(process::of_pid(pid)?),
            None => process::listening(&host, port).await.unwrap_or_else(|remark| {
                remarks.push(remark);
                None
            }),
        };
        Ok(Probe { models, statistics, metrics, processes, remarks })
    }

    /// What cannot be read, a sentence each.
    pub(crate) fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// What the server counted from `before` to `after`, while the generator had `requests` answered.
    pub(crate) fn between(&self, before: &Reading, after: &Reading, requests: u64) -> Observed {
        difference::between(before, after, &self.models, requests)
    }

    /// Reads all counters; those that cannot be read this time, or not in time, are left out.
    pub(crate) async fn read(&self) -> Reading {
        let statistics = async {
            let reading = self.statistics.as_ref()?.statistics(&self.models);
            timeout(TIMEOUT, reading).await.ok()?.ok()
        };
        let metrics = async { self.metrics.as_ref()?.read().await.ok() };
        let (statistics, metrics) = tokio::join!(statistics, metrics);
        let processes = self.processes.as_ref().and_then(Found::read);
        let metrics_named = self.metrics.as_ref().is_some_and(|endpoint| endpoint.named);
        Reading { statistics, metrics, metrics_named, processes }
    }
}

async fn find_statistics(target: &ProbeTarget) -> Result<Client, ClientError> {
    let client = if target.grpc {
        let options = GrpcOptions { timeout: TIMEOUT, max_response_bytes: MAX_STATISTICS_BYTES };
        Client::Grpc(GrpcClient::with_options(&target.url, options)?)
    } else {
        let (timeout, max_response_bytes) = (TIMEOUT, MAX_STATISTICS_BYTES);
        let options = HttpOptions { timeout, max_response_bytes, max_idle_connections: 1 };
        Client::Http(Box::new(HttpClient::with_options(&target.url, options)?))
    };
    match timeout(TIMEOUT, client.statistics(&target.models)).await {
        Ok(answer) => answer.map(|_| client),
        Err(_) => Err(ClientError::Timeout { address: client.address(), after: TIMEOUT }),
    }
}

impl Client {
    fn address(&self) -> String {
        match self {
            Client::Http(client) => client.address(),
            Client::Grpc(client) => client.address(),
        }
    }

    /// Of each model; of all when the server does not tell them one by one.
    async fn statistics(&self, models: &[String]) -> Result<Vec<ModelStatistics>, ClientError> {
        let mut all = Vec::new();
        for model in models {
            let answer = match self {
                Client::Http(client) => client.model_statistics(model, None).await,
                Client::Grpc(client) => client.model_statistics(model, None).await,
            };
            match answer {
                Ok(statistics) => all.extend(statistics),
                Err(first) => return self.all_statistics().await.map_err(|_| first),
            }
        }
        Ok(all)
    }

    async fn all_statistics(&self) -> Result<Vec<ModelStatistics>, ClientError> {
        match self {
            Client::Http(client) => client.statistics().await,
            Client::Grpc(client) => client.statistics().await,
        }
    }
}

impl Endpoint {
    /// What the user named, or why it cannot be read.
    async fn named(url: &str) -> Result<Endpoint, String> {
        let endpoint = Endpoint::at(url, true).map_err(|error| error.to_string());
        let remark = |error| format!("--metrics-url: {url} cannot be read: {error}");
        let endpoint = endpoint.map_err(remark)?;
        let metrics = endpoint.samples().await.map_err(remark)?;
        if metrics.is_empty() {
            return Err(remark("what is there is no text of Prometheus".to_owned()));
        }
        Ok(endpoint)
    }

    /// What answers at Triton's port, if it knows the models.
    async fn at_default(host: &str, models: &[String]) -> Option<Endpoint> {
        let endpoint = Endpoint::at(&format!("http://{host}:{METRICS_PORT}"), false).ok()?;
        let metrics = endpoint.read().await.ok()?;
        models.iter().all(|model| metrics.knows(model)).then_some(endpoint)
    }

    fn at(url: &str, named: bool) -> Result<Endpoint, ClientError> {
        let options =
            HttpOptions { timeout: TIMEOUT, max_response_bytes: MAX_METRICS_BYTES, max_idle_connections: 1 };
        let client = HttpClient::with_options(url, options)?;
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        // An address with a path has it in front of every route, so nothing is added then.
        let path = if rest.trim_end_matches('/').contains('/') { "" } else { "/metrics" };
        Ok(Endpoint { client, path, named })
    }

    async fn read(&self) -> Result<Metrics, String> {
        self.samples().await.map(|samples| Metrics::of(&samples))
    }

    async fn samples(&self) -> Result<Vec<Sample>, String> {
        let answer = self.client.get(self.path).await.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("the answer is {}", answer.status()));
        }
        Ok(prometheus::parse(&String::from_utf8_lossy(answer.body())))
    }
}

/// Of `http://HOST:PORT/PREFIX`; brackets of IPv6 stay.
fn host_and_port(url: &str, default: u16) -> (String, u16) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host.to_owned(), port.parse().unwrap_or(default)),
        _ => (authority.to_owned(), default),
    }
}

#[cfg(test)]
mod tests;
