//! What files hold as the contents of requests: V2 bodies, arrays, images.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use volley_client::input::{self, Array, Wanted};
use volley_client::{ClientError, EncodedResponse, ModelMetadata, Tensor, TensorMetadata};

use super::{Content, File, MAX_BYTES, Sources, rows, too_many_bytes};

/// How the names of images end.
pub(super) const IMAGES: [&str; 3] = ["png", "jpg", "jpeg"];

/// What the files say, in the order it is sent.
pub(super) fn contents(
    model: &str,
    metadata: Option<&ModelMetadata>,
    sources: &Sources,
) -> anyhow::Result<Vec<Content>> {
    if let [File { name: None, path }] = &sources.files[..]
        && let Some(bodies) = bodies(path)?
    {
        ensure!(
            sources.batch.is_none(),
            "{} holds whole requests, which are sent as they are: leave out --batch",
            path.display()
        );
        return Ok(bodies.into_iter().map(Content::Body).collect());
    }
    let of_another = |name: &str| is_of_another(name, metadata, sources);
    let mut columns: Vec<Column> = Vec::new();
    for file in sources.files.iter().filter(|file| !file.name.as_deref().is_some_and(of_another)) {
        for column in read(file, model, metadata, sources)? {
            if columns.iter().any(|other| other.name == column.name) {
                bail!("input {:?} is given twice; the second time by {}", column.name, file.path.display());
            }
            columns.push(column);
        }
    }
    if let Some(missing) = metadata.and_then(|metadata| missing(metadata, &columns)) {
        bail!("model {model:?} also takes input {missing:?}: give it with --input {missing}=FILE");
    }
    let requests = length(&columns)?;
    let tensors = |at: usize| columns.iter().map(|column| column.at(at)).collect();
    Ok((0..requests).map(|at| Content::Tensors(tensors(at))).collect())
}

/// Whether an input is not of the model of `metadata`, but of another that is asked.
fn is_of_another(name: &str, metadata: Option<&ModelMetadata>, sources: &Sources) -> bool {
    let has = |metadata: &ModelMetadata| metadata.inputs.iter().any(|input| input.name == name);
    !metadata.is_none_or(has) && sources.inputs.iter().any(|input| input == name)
}

/// The answers that `files` expect, each to be compared with that of the request in its place; or one for all.
///
/// # Errors
/// When a file holds no answers.
pub(crate) fn expected(files: &[File], batch: Option<i64>) -> anyhow::Result<Vec<Vec<Tensor>>> {
    if let [File { name: None, path }] = files
        && is(path, &["json", "jsonl"])
    {
        let text = text(path)?;
        let whole = is(path, &["json"]).then_some(&text[..]);
        let answers = whole.into_iter().chain(text.lines().filter(|_| whole.is_none())).enumerate();
        let answers = answers.filter(|(_, answer)| !answer.trim().is_empty());
        let decode = |(at, answer): (usize, &str)| match EncodedResponse::new(
            Bytes::copy_from_slice(answer.as_bytes()),
            None,
        )
        .decode()
        {
            Ok(answer) => Ok(answer.outputs),
            // Its own words ask about a server, and this is a file.
            Err(ClientError::Protocol { reason }) => {
                Err(anyhow!("{}: line {} is no V2 answer: {reason}", path.display(), at + 1))
            }
            Err(error) => Err(anyhow!("{}: line {}: {error}", path.display(), at + 1)),
        };
        let answers: Vec<_> = answers.map(decode).collect::<anyhow::Result<_>>()?;
        ensure!(!answers.is_empty(), "{} has no answer", path.display());
        return Ok(answers);
    }
    let mut columns = Vec::new();
    for file in files {
        let name = file.name.as_deref();
        let named = arrays(&file.path, name).with_context(|| file.path.display().to_string())?;
        for (name, array) in named {
            let tensors = rows::tensors(&array, &name, ("", None), batch)
                .with_context(|| file.path.display().to_string())?;
            columns.push(Column { name, tensors });
        }
    }
    let answers = length(&columns)?;
    Ok((0..answers).map(|at| columns.iter().map(|column| column.at(at)).collect()).collect())
}

/// One input over all requests: a tensor for each, or one for all.
struct Column {
    name: String,
    tensors: Vec<Tensor>,
}

impl Column {
    fn at(&self, request: usize) -> Tensor {
        self.tensors[request % self.tensors.len()].clone()
    }
}

/// How many requests the columns make.
fn length(columns: &[Column]) -> anyhow::Result<usize> {
    let longest = columns.iter().max_by_key(|column| column.tensors.len());
    let longest = longest.context("no file is given")?;
    let length = longest.tensors.len();
    let uneven = columns.iter().find(|column| column.tensors.len() != length && column.tensors.len() != 1);
    if let Some(column) = uneven {
        bail!(
            "{:?} has {length} rows, but {:?} has {}; give each as many, or one for all",
            longest.name,
            column.name,
            column.tensors.len()
        );
    }
    Ok(length)
}

fn missing<'a>(metadata: &'a ModelMetadata, columns: &[Column]) -> Option<&'a str> {
    let given = |input: &&TensorMetadata| columns.iter().any(|column| column.name == input.name);
    metadata.inputs.iter().find(|input| !given(input)).map(|input| input.name.as_str())
}

/// The V2 bodies in a file; `None` when it holds something else.
fn bodies(path: &Path) -> anyhow::Result<Option<Vec<Bytes>>> {
    let request = |text: &str| -> anyhow::Result<Option<Bytes>> {
        let value: serde_json::Value =
            serde_json::from_str(text).with_context(|| format!("{} is not JSON", path.display()))?;
        match value {
            serde_json::Value::Object(body) if body.contains_key("inputs") => {
                Ok(Some(Bytes::copy_from_slice(text.trim().as_bytes())))
            }
            serde_json::Value::Object(_) => bail!(
                "{} holds an object without \"inputs\"; write a V2 request, {{\"inputs\":[...]}}",
                path.display()
            ),
            _ => Ok(None),
        }
    };
    if is(path, &["json"]) {
        let named = path.display();
        let body = request(&text(path)?)?.with_context(|| {
            format!("{named} holds no V2 request; write {{\"inputs\":[...]}}, or NAME={named} for the elements of an input")
        })?;
        return Ok(Some(vec![body]));
    }
    if !is(path, &["jsonl"]) {
        return Ok(None);
    }
    let text = text(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let body = |(at, line)| -> anyhow::Result<Bytes> {
        let body = request(line).with_context(|| format!("line {}", at + 1))?;
        body.with_context(|| format!("{}: line {} is no V2 request", path.display(), at + 1))
    };
    let bodies: Vec<Bytes> = lines.map(body).collect::<anyhow::Result<_>>()?;
    ensure!(!bodies.is_empty(), "{} has no request", path.display());
    Ok(Some(bodies))
}

/// The inputs that a file is.
fn read(
    file: &File,
    model: &str,
    metadata: Option<&ModelMetadata>,
    sources: &Sources,
) -> anyhow::Result<Vec<Column>> {
    let path = &file.path;
    let named = || path.display().to_string();
    if is(path, &["npy", "npz"]) {
        return read_arrays(file, model, metadata, sources).with_context(named);
    }
    check_kind(path).with_context(named)?;
    let input = wanted(file, model, metadata).with_context(named)?;
    let items = if path.is_dir() { images(path).with_context(named)? } else { vec![path.clone()] };
    // Its errors name the file.
    let tensor = |path: &PathBuf| {
        let content = input::Content::read(path)?;
        content.tensor(path, Wanted { model, input }, sources.scale)
    };
    let items = items.iter().map(tensor).collect::<anyhow::Result<Vec<_>>>()?;
    let empty = items.iter().any(|item| item.shape.contains(&0));
    ensure!(!empty, "{}: it has no elements", named());
    let batch = usize::try_from(sources.batch.unwrap_or(1)).context("--batch is negative")?;
    ensure!(
        items.len().is_multiple_of(batch) || batch == 1,
        "{}: its {} items make no batches of {batch}",
        named(),
        items.len()
    );
    let tensors = items.chunks(batch).map(rows::stacked).collect::<anyhow::Result<_>>();
    Ok(vec![Column { name: input.name.clone(), tensors: tensors.with_context(named)? }])
}

/// Whether a file that is no array can be an input.
fn check_kind(path: &Path) -> anyhow::Result<()> {
    ensure!(
        !is(path, &["jsonl"]),
        "it holds whole requests, so it stands alone: without NAME=, and without another --input"
    );
    ensure!(
        is(path, &["json"]) || is(path, &IMAGES) || path.is_dir(),
        "it is of no kind that can be sent: its name must end in .json, .jsonl, .npy, .npz, .png, .jpg or .jpeg, or be \
         that of a folder of images"
    );
    Ok(())
}

/// The inputs that a .npy or .npz file is.
fn read_arrays(
    file: &File,
    model: &str,
    metadata: Option<&ModelMetadata>,
    sources: &Sources,
) -> anyhow::Result<Vec<Column>> {
    let path = &file.path;
    let name = match (&file.name, metadata) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(_)) if is(path, &["npy"]) => Some(wanted(file, model, metadata)?.name.clone()),
        (None, _) => None,
    };
    let column = |(name, array): (String, Array)| {
        let input = metadata.map(|_| {
            let named = File { name: Some(name.clone()), path: path.clone() };
            wanted(&named, model, metadata)
        });
        let tensors = rows::tensors(&array, &name, (model, input.transpose()?), sources.batch);
        Ok(Column { tensors: tensors.with_context(|| name.clone())?, name })
    };
    let arrays = arrays(path, name.as_deref())?.into_iter();
    arrays.filter(|(name, _)| !is_of_another(name, metadata, sources)).map(column).collect()
}

/// The input that `file` is for.
fn wanted<'a>(
    file: &File,
    model: &str,
    metadata: Option<&'a ModelMetadata>,
) -> anyhow::Result<&'a TensorMetadata> {
    let inputs = metadata.map(|metadata| &metadata.inputs[..]);
    let inputs = inputs.with_context(|| {
        format!("the server does not tell the inputs of model {model:?}, so only .npy with a name, .npz and whole requests can be sent")
    })?;
    let names = || inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ");
    match &file.name {
        Some(name) => inputs
            .iter()
            .find(|input| input.name == *name)
            .ok_or_else(|| anyhow!("model {model:?} has no input {name:?}; it has {}", names())),
        None => match inputs {
            [only] => Ok(only),
            _ => bail!(
                "model {model:?} has {} inputs ({}): say which of them it is for, as NAME={}",
                inputs.len(),
                names(),
                file.path.display()
            ),
        },
    }
}

/// The arrays of a .npy or .npz file, with their names.
fn arrays(path: &Path, name: Option<&str>) -> anyhow::Result<Vec<(String, Array)>> {
    let file = fs::read(path).context("cannot read it")?;
    if is(path, &["npy"]) {
        let name = name.context("say which tensor it is for, as NAME=FILE.npy")?;
        return Ok(vec![(name.to_owned(), input::read_npy(file)?)]);
    }
    ensure!(
        is(path, &["npz"]),
        "its name must end in .npy or .npz, or in .json or .jsonl where it has all and no NAME="
    );
    ensure!(name.is_none(), "its arrays have names of their own; leave out NAME=");
    members(file, MAX_BYTES)
}

/// The arrays of a .npz file, which may have `left` bytes together: a small file may be a large one compressed.
fn members(file: Vec<u8>, mut left: usize) -> anyhow::Result<Vec<(String, Array)>> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(file)).context("it is no .npz file")?;
    let mut arrays = Vec::new();
    for at in 0..archive.len() {
        let member = archive.by_index(at).context("it is no .npz file")?;
        let name = member.name().context("the name of an array cannot be read")?;
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        let mut bytes = Vec::new();
        let read = member.take(left as u64 + 1).read_to_end(&mut bytes);
        read.with_context(|| format!("array {name:?}"))?;
        left = left.checked_sub(bytes.len()).with_context(too_many_bytes)?;
        arrays.push((name.clone(), input::read_npy(bytes).with_context(|| format!("array {name:?}"))?));
    }
    ensure!(!arrays.is_empty(), "it holds no array");
    Ok(arrays)
}

/// The images in a folder, by name.
fn images(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).context("cannot read it")?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().context("cannot read it")?;
    paths.retain(|path| is(path, &IMAGES));
    ensure!(!paths.is_empty(), "it has no .png, .jpg or .jpeg in it");
    paths.sort();
    Ok(paths)
}

fn text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

pub(super) fn is(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    extensions.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests;
