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
use crate::workspace::Workspace;
use crate::{ports, python};

/// Seconds of load before anything is measured: caches, lazy imports, pools of threads.
const WARM_UP: u32 = 3;
/// How long the last connections of a server that has ended may take to close.
const CLOSING: Duration = Duration::from_secs(10);

/// Measures `peer`. What keeps it from being measured is the row's outcome.
pub(super) fn measure(workspace: &Workspace, args: &Args, exchange: &Exchange, peer: &Peer) -> Row {
    let figures = figures(workspace, args, exchange, peer);
    let outcome = figures.map_or_else(|error| Outcome::Failed(format!("{error:#}")), Outcome::Measured);
    Row { name: peer.name, title: peer.title, protocol: peer.protocol.flag(), outcome }
}

fn figures(workspace: &Workspace, args: &Args, exchange: &Exchange, peer: &Peer) -> Result<Figures> {
    let directory = &directory(workspace);
    let cores = std::thread::available_parallelism()?.get();
    let place = Place { workspace, directory, ports: ports::free()?, cores };
    let served = match &peer.program {
        Program::Elsewhere(url) => Served { url: url.clone(), running: None, ready_after: None },
        _ => start(&place, exchange, peer)?,
    };
    if served.running.is_none() {
        exchange.ask(&served.url).with_context(|| format!("{} does not answer as it should", served.url))?;
    }
    let sending = Sending { workspace, exchange, peer, served: &served, directory, cores };
    sending.send(args.concurrency.iter().copied().max().map_or(1, Into::into), WARM_UP)?;
    let mut loads = Vec::new();
    for &concurrency in &args.concurrency {
        loads.push(loaded(&sending, args, concurrency.into())?);
    }
    let resident_bytes =
        served.running.as_ref().map(|running| process_tree::memory_bytes(&running.processes()));
    let ready_after_seconds = served.ready_after.map(|after| after.as_secs_f64());
    drop(served);
    // The next server has other ports, so what was measured stays true.
    let kept = place.ports.iter().take(peer.program.ports());
    let kept = kept.filter(|port| !running::becomes_free(**port, CLOSING));
    let remarks = kept.map(|port| format!("port {port} was still in use after the server on it was ended"));
    Ok(Figures { ready_after_seconds, resident_bytes, loads, remarks: remarks.collect() })
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
    cores: usize,
}

/// One load: what the generator says of it, and what the processor did meanwhile.
#[derive(Debug)]
struct Measured {
    sent: Sent,
    /// Of all processes of the server.
    cpu_micros: Option<f64>,
    /// What neither the server nor the generator used, of all that there was.
    others: Option<f64>,
}

impl Sending<'_> {
    fn send(&self, concurrency: usize, seconds: u32) -> Result<Measured> {
        let load = Load {
            url: &self.served.url,
            protocol: self.peer.protocol,
            exchange: self.exchange,
            verified: !matches!(self.peer.program, Program::Floor(_)),
            concurrency,
            seconds,
            cores: self.cores,
        };
        let out = self.directory.join(format!("{}-{concurrency}.json", self.peer.name));
        let (before, machine_before) = (self.cpu_micros(), process_tree::machine());
        let sent = generator::send(self.workspace, &load, &out)?;
        let (after, machine_after) = (self.cpu_micros(), process_tree::machine());
        let cpu_micros = after.zip(before).map(|(after, before)| float(after.saturating_sub(before)));
        // What a server that was started elsewhere uses is not known, so neither is what others do.
        let ours = cpu_micros.map(|server| server + sent.generator_cpu_micros * float(sent.requests));
        let others = ours.zip(machine_after.zip(machine_before)).map(|(ours, (after, before))| {
            let busy = float(after.busy_micros.saturating_sub(before.busy_micros));
            let all = float(after.all_micros.saturating_sub(before.all_micros));
            ((busy - ours) / all).max(0.0)
        });
        Ok(Measured { sent, cpu_micros, others })
    }

    fn cpu_micros(&self) -> Option<u64> {
        Some(process_tree::cpu_micros(&self.served.running.as_ref()?.processes()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "times below 285 years and counts below 2^53 are exact")]
fn float(whole: u64) -> f64 {
    whole as f64
}

/// The medians of the repeats of one load.
fn loaded(sending: &Sending<'_>, args: &Args, concurrency: usize) -> Result<Loaded> {
    let mut runs = Vec::new();
    for _ in 0..args.repeats.get() {
        runs.push(sending.send(concurrency, args.seconds.get())?);
    }
    let of = |figure: fn(&Sent) -> f64| median(runs.iter().map(|run| figure(&run.sent)));
    let cpu: Option<Vec<f64>> =
        runs.iter().map(|run| Some(run.cpu_micros? / float(run.sent.requests.max(1)))).collect();
    let busy: Option<Vec<f64>> = runs.iter().map(|run| run.sent.generator_busy).collect();
    let others: Option<Vec<f64>> = runs.iter().map(|run| run.others).collect();
    Ok(Loaded {
        concurrency,
        requests_per_second: of(|sent| sent.per_second),
        p50_micros: of(|sent| sent.p50_micros),
        p99_micros: of(|sent| sent.p99_micros),
        cpu_micros_per_request: cpu.map(median),
        generator_cpu_micros_per_request: of(|sent| sent.generator_cpu_micros),
        generator_busy: busy.map(median),
        others: others.map(median),
        requests: runs.iter().map(|run| run.sent.requests).sum(),
        failed: runs.iter().map(|run| run.sent.failed).sum(),
        error: runs.iter().find_map(|run| run.sent.error.clone()),
    })
}
