//! What a running server makes of a version that was pushed.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use model::{ModelName, ModelVersion};
use tokio::runtime::Runtime;
use volley_client::{HttpClient, LoadParameters, ModelState};

use crate::cli::connection::ConnectionArgs;
use crate::cli::control::{self, Mode};
use crate::cli::table::printable;

/// Between two questions to a server that loads by itself.
const PAUSE: Duration = Duration::from_millis(200);

/// The server that shall load it.
pub(super) struct Server {
    runtime: Runtime,
    client: HttpClient,
    within: Duration,
}

impl Server {
    /// Makes sure that it is there, before anything is done.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn reach(connection: &ConnectionArgs) -> anyhow::Result<Server> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = connection.loading_client()?;
        runtime.block_on(connection.client()?.live()).context("nothing was pushed")?;
        Ok(Server { runtime, client, within: connection.load_time() })
    }

    /// Has it load `model`, and waits until `version` serves.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn serve(&self, model: &ModelName, version: ModelVersion) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            match self.client.load_model(model, &LoadParameters::default()).await {
                Err(error) if Mode::of_refusal(&error) == Some(Mode::Poll) => {
                    self.await_it(model, version).await
                }
                answer => {
                    control::outcome(&self.client, model, answer).await?;
                    let states = control::states(&self.client, model).await?;
                    match Seen::in_index(&states, version) {
                        Seen::Ready => Ok(()),
                        seen => bail!("{}", seen.words(model, version)),
                    }
                }
            }
        })
    }

    /// Waits for one that follows its repository by itself.
    async fn await_it(&self, model: &ModelName, version: ModelVersion) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let seen = Seen::in_index(&control::states(&self.client, model).await?, version);
            match seen {
                Seen::Ready => return Ok(()),
                Seen::Failed(_) => bail!("{}", seen.words(model, version)),
                _ if began.elapsed() > self.within => {
                    bail!("after {:?}, {}", self.within, seen.words(model, version))
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// What the index of a server says of a version.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Ready,
    /// It comes or goes.
    Changing(String),
    /// And why.
    Failed(String),
    /// Which versions it has instead.
    Absent(Vec<String>),
}

impl Seen {
    fn in_index(states: &[ModelState], version: ModelVersion) -> Seen {
        let number = version.to_string();
        let Some(state) = states.iter().find(|state| state.version == number) else {
            let ready = states.iter().filter(|state| state.state == "READY");
            return Seen::Absent(ready.map(|state| state.version.clone()).collect());
        };
        match state.state.as_str() {
            "READY" => Seen::Ready,
            "UNAVAILABLE" => Seen::Failed(state.reason.clone()),
            other => Seen::Changing(other.to_owned()),
        }
    }

    fn words(&self, model: &ModelName, version: ModelVersion) -> String {
        match self {
            Seen::Ready => format!("version {version} serves"),
            Seen::Changing(state) => format!("version {version} is {}", printable(state)),
            Seen::Failed(reason) => format!("version {version} is UNAVAILABLE: {}", printable(reason)),
            Seen::Absent(others) => {
                let others = match others.as_slice() {
                    [] => "no version".to_owned(),
                    others => printable(&others.join(", ")),
                };
                format!(
                    "the server has {others} of {model} ready, and does not know of version {version}: is this the \
                     repository that it serves, and does version_policy choose it?"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_seen_as_the_index_has_it() {
        let state = |version: &str, state: &str, reason: &str| ModelState {
            name: "m".to_owned(),
            version: version.to_owned(),
            state: state.to_owned(),
            reason: reason.to_owned(),
        };
        let states =
            [state("1", "READY", ""), state("2", "UNAVAILABLE", "no graph"), state("3", "LOADING", "")];
        let seen = |number| Seen::in_index(&states, ModelVersion::new(number).unwrap());
        assert_eq!(seen(1), Seen::Ready);
        assert_eq!(seen(2), Seen::Failed("no graph".to_owned()));
        assert_eq!(seen(3), Seen::Changing("LOADING".to_owned()));
        assert_eq!(seen(4), Seen::Absent(vec!["1".to_owned()]));
        let words = seen(4).words(&ModelName::parse("m").unwrap(), ModelVersion::new(4).unwrap());
        assert!(words.starts_with("the server has 1 of m ready, and does not know of version 4"), "{words}");
    }
}
