//! The load on each server: `volley-load`, and what it measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::exchange::{Exchange, MODEL, TOLERANCE};
use super::peer::Protocol;
use crate::workspace::Workspace;

/// How the JSON of `volley-load` begins that this reads.
const SCHEMA: &str = "volley-load/1";

/// As many requests in flight as `concurrency`, for a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load<'a> {
    pub(super) url: &'a str,
    pub(super) protocol: Protocol,
    pub(super) exchange: &'a Exchange,
    /// Whether answers are compared with the expected one; an echo's are not.
    pub(super) verified: bool,
    pub(super) concurrency: usize,
    pub(super) seconds: u32,
    /// Of this machine.
    pub(super) cores: usize,
}

/// Threads of the generator on a machine of so many cores; most are left to the server.
pub(super) fn threads(cores: usize) -> usize {
    (cores / 4).max(1)
}

/// What a load did, as the one that sent it saw it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sent {
    /// Answered rightly, each second.
    pub(super) per_second: f64,
    pub(super) p50_micros: f64,
    pub(super) p99_micros: f64,
    /// Answered, well or badly.
    pub(super) requests: u64,
    /// Answered badly or wrongly, or not at all.
    pub(super) failed: u64,
    /// What went wrong most often.
    pub(super) error: Option<String>,
    /// Processor time of the generator for each request.
    pub(super) generator_cpu_micros: f64,
    /// The share of the time, from 0 to 1, that the busiest thread of the generator ran.
    pub(super) generator_busy: Option<f64>,
}

/// The fields of a measurement that the comparison needs.
#[derive(Debug, Deserialize)]
struct Measurement {
    schema: String,
    runs: Vec<Run>,
    interrupted: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Run {
    requests: u64,
    unanswered: u64,
    errors: BTreeMap<String, u64>,
    requests_per_second: f64,
    latency: Latency,
    generator_cpu_micros: f64,
    generator_busy: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
}

/// Sends `load` and reads what came of it; the file `out` keeps all of it.
///
/// # Errors
/// When the generator measured nothing. Requests that fail are a measurement.
pub(super) fn send(workspace: &Workspace, load: &Load<'_>, out: &Path) -> Result<Sent> {
    let _ = fs::remove_file(out);
    let output = command(workspace, load, out).output().context("cannot run volley-load")?;
    let text = fs::read_to_string(out).with_context(|| {
        format!("volley-load measured nothing: {}", String::from_utf8_lossy(&output.stderr).trim())
    })?;
    sent(&text)
}

fn command(workspace: &Workspace, load: &Load<'_>, out: &Path) -> Command {
    let mut command = workspace.command(workspace.release("volley-load"));
    // A thread without a request would only wait.
    let threads = threads(load.cores).min(load.concurrency);
    command
        .args(["--url", load.url, "--model", MODEL])
        .args(["--protocol", load.protocol.flag()])
        .arg("--input")
        .arg(&load.exchange.request)
        .args(["--concurrency", &load.concurrency.to_string()])
        .args(["--threads", &threads.to_string()])
        .args(["--duration", &load.seconds.to_string(), "--warmup", "0", "--repeats", "1", "--quiet"])
        .arg("--json")
        .arg(out);
    if load.protocol == Protocol::Grpc {
        // One connection is one task of a server: a server on one of many cores is no measurement of it.
        command.args(["--connections", &load.cores.div_ceil(threads).to_string()]);
    }
    if load.verified {
        command.arg("--expect").arg(&load.exchange.answer).args(["--tolerance", &TOLERANCE.to_string()]);
    }
    command
}

/// Reads the JSON of a measurement of one run.
fn sent(text: &str) -> Result<Sent> {
    let measurement: Measurement =
        serde_json::from_str(text).context("volley-load's JSON is not as expected")?;
    ensure!(measurement.schema == SCHEMA, "volley-load wrote {}, not {SCHEMA}", measurement.schema);
    if let Some(why) = measurement.interrupted {
        anyhow::bail!("volley-load was interrupted: {why}");
    }
    let [run] = <[Run; 1]>::try_from(measurement.runs)
        .map_err(|runs| anyhow::anyhow!("volley-load made {} runs instead of one", runs.len()))?;
    let error = run.errors.iter().max_by_key(|(_, count)| **count).map(|(error, _)| error.clone());
    Ok(Sent {
        per_second: run.requests_per_second,
        p50_micros: run.latency.p50,
        p99_micros: run.latency.p99,
        requests: run.requests,
        failed: run.errors.values().sum::<u64>() + run.unanswered,
        error: error.or_else(|| (run.unanswered > 0).then(|| "no answer".to_owned())),
        generator_cpu_micros: run.generator_cpu_micros,
        generator_busy: run.generator_busy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A measurement as `volley-load` writes it, with fields that this does not read.
    const MEASUREMENT: &str = r#"{
        "schema": "volley-load/1", "command": [], "machine": {"cores": 2},
        "runs": [{
            "load": {"mode": "closed", "concurrency": 8}, "repeat": 0, "seconds": 5.0,
            "requests": 100, "items": 100, "unanswered": 2,
            "errors": {"status 503: busy": 4, "timeout": 9}, "wrong_answers": 0,
            "requests_per_second": 17.4, "items_per_second": 17.4,
            "latency": {"count": 87, "p50": 250.5, "p99": 900.0, "curve": []},
            "send_lag": {}, "generator_cpu_micros": 12.5, "generator_busy": 0.25, "timeline": []
        }]
    }"#;

    #[test]
    fn a_measurement_is_read() {
        let expected = Sent {
            per_second: 17.4,
            p50_micros: 250.5,
            p99_micros: 900.0,
            requests: 100,
            failed: 15,
            error: Some("timeout".to_owned()),
            generator_cpu_micros: 12.5,
            generator_busy: Some(0.25),
        };
        assert_eq!(sent(MEASUREMENT).unwrap(), expected);
    }

    #[test]
    fn the_generator_grows_with_the_machine() {
        assert_eq!([1, 2, 7, 8, 64].map(threads), [1, 1, 1, 2, 16]);
        let exchange = Exchange::at(Path::new("/target/peers"));
        let workspace = Workspace { root: "/".into(), target: "/target".into() };
        let told = |protocol, concurrency| {
            let load = Load {
                url: "http://127.0.0.1:1",
                protocol,
                exchange: &exchange,
                verified: false,
                concurrency,
                seconds: 1,
                cores: 16,
            };
            let command = command(&workspace, &load, Path::new("out"));
            let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            let after = |option| {
                let at = words.iter().position(|word| word == option)?;
                words.get(at + 1).cloned()
            };
            (after("--threads"), after("--connections"))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(told(Protocol::HttpJson, 128), (some("4"), None));
        assert_eq!(told(Protocol::Grpc, 128), (some("4"), some("4")));
        assert_eq!(told(Protocol::Grpc, 1), (some("1"), some("16")));
    }

    #[test]
    fn another_schema_or_number_of_runs_is_refused() {
        let refused = |text: &str| sent(text).unwrap_err().to_string();
        assert!(refused(&MEASUREMENT.replace("volley-load/1", "volley-load/2")).contains("volley-load/2"));
        let interrupted = MEASUREMENT.replacen("\"command\"", "\"interrupted\": \"SIGINT\", \"command\"", 1);
        assert!(refused(&interrupted).contains("SIGINT"));
        assert!(refused(r#"{"schema": "volley-load/1", "runs": []}"#).contains("0 runs"));
        assert!(refused("{}").contains("not as expected"));
    }
}
