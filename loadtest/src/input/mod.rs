//! What requests hold: random tensors by the model's metadata, or what files hold.

mod files;
mod random;
mod rows;
mod shapes;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use bytes::Bytes;
use volley_client::input::Scale;
use volley_client::{InferRequest, ModelMetadata, Tensor};

pub(crate) use self::files::expected;
pub(crate) use self::random::{Range, StringLength, check_names, random_text};
pub(crate) use self::shapes::{Shape, check_open};

/// Bytes of all requests that are prepared: a server's metadata may ask for any size.
pub(crate) const MAX_BYTES: usize = 1 << 30;

/// What to say when the requests have more.
pub(crate) fn too_many_bytes() -> String {
    format!(
        "the requests have more than {} GiB together: have fewer that differ with --distinct, or smaller ones with \
         --shape, --batch or --string-length",
        MAX_BYTES >> 30
    )
}

/// One `--input` or `--expect`: `FILE` or `NAME=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// The tensor it is for.
    pub(crate) name: Option<String>,
    pub(crate) path: PathBuf,
}

impl File {
    /// Whether it is no file, but the word for random contents.
    pub(crate) fn is_random(&self) -> bool {
        self.name.is_none() && self.path.as_os_str() == "random"
    }

    /// Whether it is an image, or a folder, which holds nothing else.
    pub(crate) fn is_images(&self) -> bool {
        files::is(&self.path, &files::IMAGES) || self.path.is_dir()
    }
}

impl FromStr for File {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<File> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (Some(name.to_owned()), path),
            None => (None, text),
        };
        if path.is_empty() || name.as_deref() == Some("") {
            bail!("write it as FILE or NAME=FILE");
        }
        Ok(File { name, path: path.into() })
    }
}

/// Where the contents of requests come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// None for random contents.
    pub(crate) files: Vec<File>,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) ranges: Vec<Range>,
    pub(crate) string_lengths: Vec<StringLength>,
    /// Items in one request; as the files or the model have it when not given.
    pub(crate) batch: Option<i64>,
    /// Inputs of all models that are asked: what is for one of them is not missing at another.
    pub(crate) inputs: Vec<String>,
    /// Random requests that are different.
    pub(crate) distinct: usize,
    /// Whether tensors are sent as JSON, which is longer.
    pub(crate) as_text: bool,
    pub(crate) scale: Scale,
    pub(crate) seed: u64,
}

/// The content of one request.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A V2 body as it is in a file.
    Body(Bytes),
    Tensors(Vec<Tensor>),
}

/// The contents of the requests to `model`, in the order they are sent; at least one.
///
/// # Errors
/// When the model's metadata are needed and not there, or a file does not fit them.
pub(crate) fn contents(
    model: &str,
    metadata: Option<&ModelMetadata>,
    sources: &Sources,
) -> anyhow::Result<Vec<Content>> {
    if !sources.files.is_empty() {
        return files::contents(model, metadata, sources);
    }
    let metadata = metadata.with_context(|| {
        format!("the server does not tell the inputs of model {model:?}: give its requests with --input")
    })?;
    random::contents(model, metadata, sources)
}

impl Content {
    /// Items in it, as `metadata` let it be known: the batch dimension of its first tensor.
    pub(crate) fn items(&self, metadata: Option<&ModelMetadata>, batch: Option<i64>) -> u64 {
        let tensors = match self {
            Content::Tensors(tensors) => tensors.iter().map(|tensor| (&tensor.name, &tensor.shape)).collect(),
            Content::Body(_) => Vec::new(),
        };
        let body = match self {
            Content::Body(body) => InferRequest::from_json("", body).ok(),
            Content::Tensors(_) => None,
        };
        let in_body = body.iter().flat_map(|request| &request.inputs);
        let in_body = in_body.map(|input| (&input.tensor.name, &input.tensor.shape));
        let first = tensors.into_iter().chain(in_body).next();
        let batched = |name: &String| {
            let known = metadata.map(|metadata| metadata.inputs.iter().find(|input| input.name == *name));
            match known {
                Some(input) => input.is_some_and(|input| input.shape.first() == Some(&-1)),
                None => batch.is_some(),
            }
        };
        let items = first.filter(|(name, _)| batched(name)).and_then(|(_, shape)| shape.first().copied());
        items.and_then(|items| u64::try_from(items).ok()).unwrap_or(1)
    }
}
