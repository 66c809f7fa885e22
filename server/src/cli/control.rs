//! `volley load`, `volley unload` and `volley rollback`: what a running server does to a model, in words.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use volley_client::{ClientError, HttpClient, LoadParameters, ModelState};

use super::connection::ConnectionArgs;
use super::model_file::{self, ModelFile};
use super::table::printable;

/// Load a model into a running server, or load it again
///
/// What the model's files say is loaded beside what serves and takes its place when it is ready; prints the versions that
/// serve then. With --config, that is taken in place of the configuration file, and with --file, these in place of all the
/// files of the model.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  volley load digits
  volley load digits --config digits-small.pbtxt
  volley load trial --config trial.json --file 1/model.onnx=trial.onnx --url http://gpu-7:8000")]
pub struct LoadArgs {
    /// Model to load
    #[arg(value_name = "MODEL")]
    model: String,

    /// Configuration to load it with: JSON, or text as in config.pbtxt
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// A file of the model; may be repeated
    #[arg(long, value_name = "1/model.onnx=FILE", requires = "config")]
    file: Vec<ModelFile>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Take a model of a running server out of service
///
/// Requests for it are refused from then on; those that it took are still answered.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  volley unload digits")]
pub struct UnloadArgs {
    /// Model to unload
    #[arg(value_name = "MODEL")]
    model: String,

    /// Also unload the models that it is made of; without effect on Volley, where no model is made of others
    #[arg(long)]
    unload_dependents: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Put the versions of a model that served before in the place of those that serve
///
/// A server keeps them loaded when it is started with --keep-previous.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  volley rollback digits")]
pub struct RollbackArgs {
    /// Model to roll back
    #[arg(value_name = "MODEL")]
    model: String,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Loads the model and prints what serves.
///
/// # Errors
/// When a file cannot be read, the server cannot be asked or refuses, or the model cannot be loaded.
pub async fn load(args: LoadArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let client = args.connection.loading_client()?;
    let config = args.config.as_deref().map(model_file::configuration).transpose()?;
    let files = args.file.iter().map(ModelFile::read).collect::<anyhow::Result<_>>()?;
    let given = LoadParameters { config, files };
    outcome(&client, &args.model, client.load_model(&args.model, &given).await).await?;
    let ready = ready(&states(&client, &args.model).await?);
    if ready.is_empty() {
        bail!("{} was loaded, and something else has unloaded it since", printable(&args.model));
    }
    tell(out, "ready", &args.model, &ready)
}

/// Unloads the model and prints what served until then.
///
/// # Errors
/// When the server cannot be asked, refuses, or has no such model.
pub async fn unload(args: UnloadArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let before = states(&client, &args.model).await?;
    if before.is_empty() {
        // A server answers that it is done; who mistyped a name should know.
        bail!("the server has no model {:?}; `volley models` lists what it has", args.model);
    }
    client.unload_model(&args.model, args.unload_dependents).await.map_err(in_words)?;
    let after = states(&client, &args.model).await?;
    let still = ready(&after);
    if !still.is_empty() {
        bail!("{} was unloaded, and something else has loaded it again", printable(&args.model));
    }
    match ready(&before) {
        served if served.is_empty() => {
            writeln!(out, "unloaded  {}: it was not loaded", printable(&args.model))?;
            Ok(())
        }
        served => tell(out, "unloaded", &args.model, &served),
    }
}

/// Rolls the model back and prints what serves.
///
/// # Errors
/// When the server cannot be asked, or keeps nothing that it could go back to.
pub async fn roll_back(args: RollbackArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let versions = args.connection.client()?.roll_back(&args.model).await.map_err(in_words)?;
    tell(out, "ready", &args.model, &versions)
}

/// What came of a load of `model`; why it failed is told with what goes on serving.
pub(super) async fn outcome(
    client: &HttpClient,
    model: &str,
    answer: Result<(), ClientError>,
) -> anyhow::Result<()> {
    let Err(error) = answer else { return Ok(()) };
    if let ClientError::Timeout { .. } = error {
        let model = printable(model);
        return Err(anyhow!(error).context(format!(
            "the load may still go on, and `volley events --model {model} --after 0` tells of it"
        )));
    }
    let refused = matches!(error, ClientError::Status { .. });
    let error = in_words(error);
    if !refused {
        return Err(error);
    }
    // It is told for those who wonder whether requests fail now; without it the error is an error still.
    let serving = states(client, model).await.map(|states| ready(&states)).unwrap_or_default();
    match serving.as_slice() {
        [] => Err(error),
        [version] => Err(anyhow!("{error:#} (version {} serves as before)", printable(version))),
        versions => Err(anyhow!("{error:#} (versions {} serve as before)", printable(&versions.join(", ")))),
    }
}

/// What the server says of each version of `model`.
pub(super) async fn states(client: &HttpClient, model: &str) -> anyhow::Result<Vec<ModelState>> {
    let mut index = client.repository_index().await.context("cannot list the models")?;
    index.retain(|state| state.name == model);
    Ok(index)
}

/// The versions among `states` that serve.
fn ready(states: &[ModelState]) -> Vec<String> {
    let ready = states.iter().filter(|state| state.state == "READY");
    ready.map(|state| state.version.clone()).collect()
}

/// One line for each version.
fn tell(out: &mut impl Write, what: &str, model: &str, versions: &[String]) -> anyhow::Result<()> {
    for version in versions {
        writeln!(out, "{what:<8}  {} {}", printable(model), printable(version))?;
    }
    Ok(())
}

/// When models are loaded by a server that refused to do it by request, as `refusal` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// As their files change.
    Poll,
    /// At the server's start.
    AtStart,
}

impl Mode {
    /// The mode of a server that answered a load or unload with `error`; none when it allows them.
    pub(super) fn of_refusal(error: &ClientError) -> Option<Mode> {
        let ClientError::Status { message, .. } = error else { return None };
        let refuses = message.contains("explicit model load / unload is not allowed");
        let mode = if message.contains("polling is enabled") { Mode::Poll } else { Mode::AtStart };
        refuses.then_some(mode)
    }

    fn words(self) -> &'static str {
        match self {
            Mode::Poll => {
                "the server runs with --model-control-mode=poll and does what its files say, not what is asked of it: \
                 change those (`volley push` adds a version), or start it with --model-control-mode=explicit"
            }
            Mode::AtStart => {
                "the server runs with --model-control-mode=none, in which it loads models when it starts and never \
                 later: start it again, with --model-control-mode=explicit if it shall do what is asked of it"
            }
        }
    }
}

/// `error`, with what to do where that is known here.
fn in_words(error: ClientError) -> anyhow::Error {
    match (Mode::of_refusal(&error), &error) {
        (Some(mode), _) => anyhow!(mode.words()),
        (None, ClientError::Status { status: 400, message }) => anyhow!(printable(message)),
        (None, ClientError::Status { status, message }) => {
            anyhow!("the server answered {status}: {}", printable(message))
        }
        (None, _) => anyhow!(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &str) -> ClientError {
        ClientError::Status { status: 400, message: message.to_owned() }
    }

    #[test]
    fn a_refusal_tells_the_mode_of_the_server() {
        for (message, mode, words) in [
            (
                "explicit model load / unload is not allowed if polling is enabled",
                Some(Mode::Poll),
                "with --model-control-mode=poll and",
            ),
            (
                "explicit model load / unload is not allowed unless the server is started with --model-control-mode=explicit",
                Some(Mode::AtStart),
                "with --model-control-mode=none, in which",
            ),
            (
                "explicit model load / unload is not allowed",
                Some(Mode::AtStart),
                "with --model-control-mode=none",
            ),
            ("load failed for model 'm': no\ngraph", None, "load failed for model 'm': no\\ngraph"),
        ] {
            let error = refused(message);
            assert_eq!(Mode::of_refusal(&error), mode, "{message}");
            let said = in_words(error).to_string();
            assert!(said.contains(words), "{said}");
        }
        let other = ClientError::Status { status: 404, message: "no such route".to_owned() };
        assert_eq!(in_words(other).to_string(), "the server answered 404: no such route");
    }

    #[test]
    fn versions_are_told_line_by_line() {
        let mut out = Vec::new();
        tell(&mut out, "ready", "my\nmodel", &["1".to_owned(), "10".to_owned()]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ready     my\\nmodel 1\nready     my\\nmodel 10\n");
    }
}
