//! `volley push`: puts a new version of a model into a repository, whole or not at all.
//!
//! The story is here: what is pushed (`source`), how it is got ready (`ready`, `staging`, `copy`), whether a server could
//! serve it (`trial`), how it comes into its place (`directory`, `remote`), and what a server makes of it (`served`).

mod copy;
mod directory;
mod ready;
mod remote;
mod served;
mod source;
mod staging;
mod trial;
mod version;

use std::cell::OnceCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use inference::backend::Backend;
use model::{ModelName, ModelVersion};
use proto::ModelConfig;

use super::connection::ConnectionArgs;
use super::table::printable;
use crate::config::RepositoryConfig;
use source::Source;

/// Put a new version of a model into a repository
///
/// The model is tried first, as a server would load it, and comes into its place in one rename, its external weights and
/// its checksums (SHA256SUMS) with it: a server that follows the repository never sees half of it. What was there stays.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  volley push digits digits.onnx                              # the next one in ./model_repository
  volley push digits digits.onnx --repository /models --load  # and have the server load it
  volley push digits digits.onnx --config config.pbtxt --version 7")]
pub struct PushArgs {
    /// Model that gets the version; it need not be there yet
    #[arg(value_name = "MODEL")]
    model: String,

    /// The ONNX file; external weights are taken from beside it
    #[arg(value_name = "FILE.onnx")]
    file: PathBuf,

    /// Model repository to put it into: a directory, or the s3://, gs://, as:// or az:// URL of one
    #[arg(long, value_name = "DIR|URL", default_value = "./model_repository")]
    repository: String,

    /// Number of the version, which must be free [default: the one after the highest that is there]
    #[arg(long, value_name = "N")]
    version: Option<ModelVersion>,

    /// Configuration of the model, in place of the one that is there
    #[arg(long, value_name = "config.pbtxt")]
    config: Option<PathBuf>,

    /// Write no SHA256SUMS beside the model
    #[arg(long)]
    no_sha256sums: bool,

    /// Have the server at --url load the model, and wait until the version serves
    #[arg(long)]
    load: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What is known of the format of models.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Loads what loads them.
    pub backend: fn() -> anyhow::Result<Arc<dyn Backend>>,
    /// Whether the backend acts on a key of `parameters`.
    pub acts_on_parameter: fn(&str) -> bool,
    /// The files that hold weights of a model's file, by their path relative to it.
    pub external_data: fn(&Path) -> Result<Vec<String>, String>,
}

/// What is to be done.
struct Push<'a> {
    model: ModelName,
    number: Option<ModelVersion>,
    file: &'a Path,
    config: Option<GivenConfig>,
    sums: bool,
    /// How a server would read it.
    settings: RepositoryConfig,
    format: Format,
    /// What loads it, once it has been needed: a process can have one.
    backend: OnceCell<Arc<dyn Backend>>,
}

/// A configuration that is given.
struct GivenConfig {
    /// Where it is.
    file: PathBuf,
    /// As it was written.
    text: String,
    read: ModelConfig,
}

/// Puts the version there and prints which it is.
///
/// # Errors
/// When the model cannot be served, or cannot be put there; then nothing has changed. When it is there and the server
/// does not load it.
pub fn run(
    args: &PushArgs,
    settings: RepositoryConfig,
    format: Format,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let push = Push {
        model: ModelName::parse(&args.model)?,
        number: args.version,
        file: &args.file,
        config: args.config.as_deref().map(GivenConfig::read).transpose()?,
        sums: !args.no_sha256sums,
        settings,
        format,
        backend: OnceCell::new(),
    };
    let server = args.load.then(|| served::Server::reach(&args.connection)).transpose()?;
    let version = match Destination::of(&args.repository)? {
        Destination::Directory(path) => push.push_to(&path)?,
        Destination::Remote(url) => push.upload_to(&url)?,
    };
    writeln!(out, "pushed    {} {version}", printable(&push.model))?;
    out.flush()?;
    if let Some(server) = server {
        let place = || format!("version {version} is in {}, but does not serve", printable(&args.repository));
        server.serve(&push.model, version).with_context(place)?;
        writeln!(out, "ready     {} {version}", printable(&push.model))?;
    }
    Ok(())
}

/// Where a repository is.
#[derive(Debug, PartialEq, Eq)]
enum Destination {
    /// On disk.
    Directory(PathBuf),
    /// In object storage, at a URL.
    Remote(String),
}

impl Destination {
    fn of(text: &str) -> anyhow::Result<Destination> {
        match text.split_once("://") {
            None => Ok(Destination::Directory(text.into())),
            // There it can be renamed into its place, whatever kind of repository servers take it for.
            Some(("file", path)) if path.starts_with('/') => Ok(Destination::Directory(path.into())),
            Some(("file", _)) => bail!("--repository={}: write it as file:///DIRECTORY", printable(text)),
            Some(_) => Ok(Destination::Remote(text.to_owned())),
        }
    }
}

impl GivenConfig {
    fn read(file: &Path) -> anyhow::Result<GivenConfig> {
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
        let read = proto::config_text::parse(&text, &shown).map_err(|error| anyhow!(error))?;
        Ok(GivenConfig { file: file.to_owned(), text, read })
    }
}

impl Push<'_> {
    fn backend(&self) -> anyhow::Result<Arc<dyn Backend>> {
        if let Some(backend) = self.backend.get() {
            return Ok(Arc::clone(backend));
        }
        let backend = (self.format.backend)()?;
        Ok(Arc::clone(self.backend.get_or_init(|| backend)))
    }

    /// What is pushed, when the model's configuration is `config`.
    fn source(&self, config: &ModelConfig) -> anyhow::Result<Source> {
        let name = match config.default_model_filename.as_str() {
            "" => "model.onnx",
            name => name,
        };
        Source::of(self.file, name, self.format.external_data)
            .with_context(|| format!("{} cannot be pushed", self.file.display()))
    }
}

/// One line on stderr for what is worth knowing and is no error.
fn note(text: &str) {
    // Without stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "volley: note: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_a_directory_or_somewhere_else() {
        let directory = |path: &str| Destination::Directory(path.into());
        assert_eq!(Destination::of("models").unwrap(), directory("models"));
        assert_eq!(Destination::of("file:///models").unwrap(), directory("/models"));
        assert!(Destination::of("file://models").unwrap_err().to_string().contains("write it as file:///"));
        assert_eq!(Destination::of("s3://b/p").unwrap(), Destination::Remote("s3://b/p".to_owned()));
    }
}
