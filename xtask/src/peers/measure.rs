//! One server from its installation to its end.

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::exchange::Exchange;
use super::generator::{self, Load, Sent};
use super::peer::{Peer, Place, Program, Protocol};
use super::process_tree;
use super::report::{Figures, Loaded, Outcome, Row};
use super::running::{self, Running};
use super::{Args, directory};
use crate::bench::median;
use crate::python;
use crate::workspace::Workspace;

/// Seconds of load before anything is measured: caches, lazy imports, pools of threads.
const WARM_UP: u32 = 3;

/// Measures `peer`. What keeps it from being measured is the row's outcome.
pub(super) fn measure(workspace: &Workspace, args: &Args, exchange: &Exchange, peer: &Peer) -> Row {
    let figures = figures(workspace, args, exchange, peer);
    let outcome = figures.map_or_else(|error| Outcome::Failed(format!("{error:#}")), Outcome::Measured);
    Row { name: peer.name, title: peer.title, protocol: peer.protocol.flag(), outcome }
}

fn figures(workspace: &Workspace, args: &Args, exchange: &Exchange, peer: &Peer) -> Result<Figures> {
    let directory = &directory(workspace);
    let cores = std::thread::available_parallelism()?.get();
    let place = Place { workspace, directory, ports: running::free_ports()?, cores };
    let served = match &peer.program {
        Program::Elsewhere(url) => Served { url: url.clone(), running: None, ready_after: None },
        _ => start(&place, exchange, peer)?,
    };
    if served.running.is_none() {
        exchange.ask(&served.url).with_context(|| format!("{} does not answer as it should", served.url))?;
    }
    let sending = Sending { workspace, exchange, peer, served: &served, directory };
    sending.send(args.concurrency.iter().copied().max().map_or(1, Into::into), WARM_UP)?;
    let mut loads = Vec::new();
    for &concurrency in &args.concurrency {
        loads.push(loaded(&sending, args, concurrency.into())?);
    }
    let resident_bytes =
        served.running.as_ref().map(|running| process_tree::memory_bytes(&running.processes()));
    let ready_after_seconds = served.ready_after.map(|after| after.as_secs_f64());
    drop(served);
    for port in place.ports {
        running::ensure_free(port)?;
    }
    Ok(Figures { ready_after_seconds, resident_bytes, loads })
}

/// A server that answers.
#[derive(Debug)]
struct Served {
    url: String,
    /// The processes, where they were started here.
    running: Option<Running>,
    ready_after: Option<Duration>,
}

/// Starts `peer` and waits for its first right answer.
fn start(place: &Place<'_>, exchange: &Exchange, peer: &Peer) -> Result<Served> {
    let [port, grpc, _] = place.ports;
    let http = format!("http://127.0.0.1:{port}");
    let mut command = match &peer.program {
        Program::Floor(program) => place.floor(program),
        Program::Volley => place.volley(),
        Program::Python(python) => {
            let requirements = Path::new("benches/peers").join(python.directory).join("requirements.txt");
            place.python(python, &python::programs(place.workspace, &requirements)?)
        }
        Program::Elsewhere(url) => anyhow::bail!("{url} runs already"),
    };
    let mut running = Running::start(&mut command, place.directory.join(format!("{}.log", peer.name)))?;
    let ready_after = running.wait_until(|| match (&peer.program, peer.protocol) {
        (Program::Floor(_), Protocol::HttpJson) => exchange.echo(&http),
        (Program::Floor(_), Protocol::Grpc) => Ok(TcpStream::connect(("127.0.0.1", port)).map(drop)?),
        _ => exchange.ask(&http),
    })?;
    let url = match (&peer.program, peer.protocol) {
        (Program::Volley, Protocol::Grpc) => format!("http://127.0.0.1:{grpc}"),
        _ => http,
    };
    Ok(Served { url, running: Some(running), ready_after: Some(ready_after) })
}

/// Where load goes.
#[derive(Debug)]
struct Sending<'a> {
    workspace: &'a Workspace,
    exchange: &'a Exchange,
    peer: &'a Peer,
    served: &'a Served,
    directory: &'a Path,
}

impl Sending<'_> {
    /// Sends load, and tells the processor time that the server used meanwhile, in microseconds.
    fn send(&self, concurrency: usize, seconds: u32) -> Result<(Sent, Option<f64>)> {
        let load = Load {
            url: &self.served.url,
            protocol: self.peer.protocol,
            exchange: self.exchange,
            verified: !matches!(self.peer.program, Program::Floor(_)),
            concurrency,
            seconds,
        };
        let out = self.directory.join(format!("{}-{concurrency}.json", self.peer.name));
        let before = self.cpu_micros();
        let sent = generator::send(self.workspace, &load, &out)?;
        Ok((sent, self.cpu_micros().zip(before).map(|(after, before)| after - before)))
    }

    #[expect(clippy::cast_precision_loss, reason = "a processor time below 285 years is exact")]
    fn cpu_micros(&self) -> Option<f64> {
        let running = self.served.running.as_ref()?;
        Some(process_tree::cpu_micros(&running.processes()) as f64)
    }
}

/// The medians of the repeats of one load.
#[expect(clippy::cast_precision_loss, reason = "a count of requests below 2^53 is exact")]
fn loaded(sending: &Sending<'_>, args: &Args, concurrency: usize) -> Result<Loaded> {
    let mut runs = Vec::new();
    for _ in 0..args.repeats.get() {
        runs.push(sending.send(concurrency, args.seconds.get())?);
    }
    let of = |figure: fn(&Sent) -> f64| median(runs.iter().map(|(sent, _)| figure(sent)));
    let cpu: Option<Vec<f64>> =
        runs.iter().map(|(sent, cpu)| Some(cpu.as_ref()? / sent.requests.max(1) as f64)).collect();
    Ok(Loaded {
        concurrency,
        requests_per_second: of(|sent| sent.per_second),
        p50_micros: of(|sent| sent.p50_micros),
        p99_micros: of(|sent| sent.p99_micros),
        cpu_micros_per_request: cpu.map(median),
        generator_cpu_micros_per_request: of(|sent| sent.generator_cpu_micros),
        requests: runs.iter().map(|(sent, _)| sent.requests).sum(),
        failed: runs.iter().map(|(sent, _)| sent.failed).sum(),
        error: runs.iter().find_map(|(sent, _)| sent.error.clone()),
    })
}
