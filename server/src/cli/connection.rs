//! Which server a subcommand asks, and how long it waits.

use std::time::Duration;

use anyhow::{Context, anyhow};
use volley_client::{HttpClient, HttpOptions};

/// The options of every subcommand that asks a server.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConnectionArgs {
    /// Address of the server's HTTP port
    #[arg(long, value_name = "URL", default_value = "http://localhost:8000")]
    pub(super) url: String,

    /// Seconds to wait for an answer [default: 60, and 600 for a model to be loaded]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) timeout: Option<Duration>,
}

/// Until a question is answered.
const ANSWER: Duration = Duration::from_secs(60);

/// Until a model is loaded and warmed up.
const LOAD: Duration = Duration::from_secs(600);

impl ConnectionArgs {
    /// A client of that server; connects when first used.
    pub(super) fn client(&self) -> anyhow::Result<HttpClient> {
        self.client_within(self.timeout.unwrap_or(ANSWER))
    }

    /// One that waits for a model to be loaded.
    pub(super) fn loading_client(&self) -> anyhow::Result<HttpClient> {
        self.client_within(self.load_time())
    }

    /// How long a model may take to be loaded.
    pub(super) fn load_time(&self) -> Duration {
        self.timeout.unwrap_or(LOAD)
    }

    fn client_within(&self, timeout: Duration) -> anyhow::Result<HttpClient> {
        let options = HttpOptions { timeout, ..HttpOptions::default() };
        HttpClient::with_options(&self.url, options).context("--url")
    }
}

fn seconds(text: &str) -> anyhow::Result<Duration> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| anyhow!("give a positive number of seconds, such as 5 or 0.5"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_positive() {
        assert_eq!(seconds("0.5").unwrap(), Duration::from_millis(500));
        for bad in ["0", "-1", "inf", "NaN", "1e300", "5s", ""] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
