//! Load made by `wrk`, and what it measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::server::Server;

/// The same POST again and again.
#[derive(Debug)]
pub(super) struct Load<'a> {
    pub(super) path: &'a str,
    /// A script for wrk, written by [`write_script`].
    pub(super) script: &'a Path,
    pub(super) connections: u32,
    pub(super) seconds: u32,
}

/// What a load did to a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) per_second: f64,
    pub(super) p50_micros: f64,
    pub(super) p99_micros: f64,
    /// Processor time of the server for each request.
    pub(super) cpu_micros: f64,
}

/// Writes the script that makes wrk POST `body` and print its counts as one line of JSON.
pub(super) fn write_script(path: &Path, body: &str) -> Result<()> {
    let script = format!(
        r#"wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[{body}]==]

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{{"requests":%d,"micros":%d,"p50":%d,"p99":%d,"refused":%d,"broken":%d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"#
    );
    fs::write(path, script).with_context(|| format!("cannot write {}", path.display()))
}

/// Sends `load` to `server`.
///
/// # Errors
/// When an answer was not a 2xx or 3xx, or a connection broke: such a run measures nothing.
pub(super) fn drive(server: &Server, load: &Load<'_>) -> Result<Measured> {
    let url = format!("http://127.0.0.1:{}{}", server.port, load.path);
    let before = server.cpu_micros()?;
    let output = Command::new("wrk")
        .arg("-t1")
        .arg(format!("-c{}", load.connections))
        .arg(format!("-d{}", load.seconds))
        .arg("-s")
        .arg(load.script)
        .arg(&url)
        .output()
        .context("cannot run wrk; install it (Debian: apt-get install wrk)")?;
    let cpu = server.cpu_micros()? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    measured(&text, cpu).with_context(|| format!("{} connections to {url}", load.connections))
}

/// Reads the line that the script printed; `cpu` is the server's processor time over the run.
fn measured(text: &str, cpu: f64) -> Result<Measured> {
    let line = text.lines().find(|line| line.starts_with('{')).context("wrk printed no counts")?;
    let counts: Value = serde_json::from_str(line).context("wrk printed counts that are not JSON")?;
    let count = |key: &str| counts[key].as_f64().with_context(|| format!("wrk printed no {key:?}"));
    let (refused, broken, requests) = (count("refused")?, count("broken")?, count("requests")?);
    ensure!(
        refused + broken == 0.0,
        "of {requests} requests {refused} were refused, and {broken} times a connection broke or timed out"
    );
    ensure!(requests > 0.0, "no request was answered");
    Ok(Measured {
        per_second: requests * 1e6 / count("micros")?,
        p50_micros: count("p50")?,
        p99_micros: count("p99")?,
        cpu_micros: cpu / requests,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_read() {
        let text = "Running 2s test\n{\"requests\":1000,\"micros\":2000000,\"p50\":90,\"p99\":400,\"refused\":0,\"broken\":0}\n";
        let measured = measured(text, 10_000.0).unwrap();
        assert_eq!(measured.per_second, 500.0);
        assert_eq!(measured.cpu_micros, 10.0);
        assert_eq!((measured.p50_micros, measured.p99_micros), (90.0, 400.0));
    }

    #[test]
    fn refused_requests_are_no_measurement() {
        let text = "{\"requests\":9,\"micros\":1,\"p50\":1,\"p99\":1,\"refused\":2,\"broken\":1}";
        let error = measured(text, 0.0).unwrap_err().to_string();
        assert!(error.contains("of 9 requests 2 were refused, and 1 times"), "{error}");
        assert!(measured("no counts", 0.0).is_err());
    }
}
