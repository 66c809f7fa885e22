//! Publishes a version: puts its files into a repository so that nobody takes half of it for the whole.
//!
//! Object storage has no rename. So the manifest comes first: it says which files there will be, and who reads
//! repositories as this crate does waits for them. It is also how two who publish the same version at the same time are
//! told apart, since it is made only where there is none. A call that was cut off goes on where it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use manifest::{MANIFEST, MAX_MANIFEST, Sha256, sum};
use object_store::{MultipartUpload, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use crate::error::{StorageError, distil_write};
use crate::progress::{Meter, Progress};
use crate::remote::Remote;
use crate::tree::RemoteModel;

/// More files are no version of a model; a link that leads back to its own directory has as many.
const MOST_FILES: usize = 10_000;

/// Directories within each other.
const DEEPEST: usize = 16;

/// Parts of one object; S3 takes 10,000.
const MOST_PARTS: u64 = 5_000;

/// A version that is to be published.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The version's number, from 1.
    pub version: u64,
    /// Where the version's files are on this machine. A [`MANIFEST`] among them must be kept, and one of all files
    /// takes its place in the repository.
    pub directory: &'a Path,
    /// What belongs beside the versions, such as `config.pbtxt`: its path in the model's directory, and where it is on
    /// this machine. It is put before the version is whole, in place of what is there.
    pub beside: &'a [(String, PathBuf)],
    /// Whether a version that is there already, with other files, is replaced. What it has and the new one has not is
    /// removed last.
    pub replace: bool,
}

/// What was done to publish a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Files that were sent, without the manifest.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A file on this machine, as it was when its sum was taken.
#[derive(Debug)]
struct LocalFile {
    /// Relative to the model's directory in the repository.
    to: String,
    from: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
}

impl Remote {
    /// Publishes a version. `tell` is told how far it has come, on this thread, first and last and in between.
    ///
    /// # Errors
    /// When a file cannot be read, changes meanwhile or has a name that no object may have, when the version is there
    /// already with other files, or when the service cannot be reached or refuses. The same call can be made again.
    pub fn upload(
        &self,
        upload: &Upload<'_>,
        tell: &(dyn Fn(Progress) + Sync),
    ) -> Result<Uploaded, StorageError> {
        expect_model(upload.model)?;
        if upload.version == 0 {
            return Err(refused(Path::new("0"), "versions are numbered from 1"));
        }
        let (files, manifest) = version_files(upload)?;
        let beside = upload.beside.iter().map(|(to, from)| local_file(to.clone(), from.clone()));
        let beside = beside.collect::<Result<Vec<_>, _>>()?;
        let there = self.list_model(upload.model)?.map(|model| of_version(&model, upload.version));
        let there = there.unwrap_or_default();
        let resumes = self.claim(upload, &there, &manifest)?;
        let is_there = |file: &LocalFile| resumes && there.get(&file.to) == Some(&file.size);
        let missing: Vec<&LocalFile> = files.iter().filter(|file| !is_there(file)).collect();
        let sent = beside.iter().chain(missing.iter().copied());
        let done = Uploaded { files: sent.clone().count(), bytes: sent.map(|file| file.size).sum() };
        let meter = Meter::start(done.bytes, tell);
        self.transfers.block_on(async {
            self.send_all(upload.model, beside.iter().collect(), &meter).await?;
            self.send_all(upload.model, missing, &meter).await?;
            let left = |to: &&String| !files.iter().any(|file| file.to == **to) && !to.ends_with(MANIFEST);
            for to in there.keys().filter(left) {
                let object = self.object(&format!("{}/{to}", upload.model))?;
                self.store.delete(&object).await.map_err(|error| distil_write(&self.url, &error))?;
            }
            Ok(done)
        })
    }

    /// Puts the manifest where there is none. True when it is there already, as of a call that was cut off.
    fn claim(
        &self,
        upload: &Upload<'_>,
        there: &BTreeMap<String, u64>,
        manifest: &str,
    ) -> Result<bool, StorageError> {
        let path = format!("{}/{}/{MANIFEST}", upload.model, upload.version);
        let object = self.object(&path)?;
        let exists = || StorageError::Exists {
            url: self.url.clone(),
            version: format!("{}/{}", upload.model, upload.version),
        };
        let has_files = !there.is_empty();
        let has_manifest = there.contains_key(&format!("{}/{MANIFEST}", upload.version));
        if has_files && !has_manifest && !upload.replace {
            return Err(exists());
        }
        let failed = |error: &object_store::Error| distil_write(&self.url, error);
        self.transfers.block_on(async {
            let put = |mode: PutMode| {
                let options = PutOptions { mode, ..PutOptions::default() };
                self.store.put_opts(&object, PutPayload::from(manifest.to_owned()), options)
            };
            if upload.replace {
                return put(PutMode::Overwrite).await.map(|_| false).map_err(|error| failed(&error));
            }
            match put(PutMode::Create).await {
                Ok(_) => Ok(false),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    let known = self.store.get(&object).await.map_err(|error| failed(&error))?;
                    if known.meta.size > MAX_MANIFEST {
                        return Err(exists());
                    }
                    let known = known.bytes().await.map_err(|error| failed(&error))?;
                    if known == manifest.as_bytes() { Ok(true) } else { Err(exists()) }
                }
                Err(error) => Err(failed(&error)),
            }
        })
    }

    async fn send_all(
        &self,
        model: &str,
        files: Vec<&LocalFile>,
        meter: &Meter<'_>,
    ) -> Result<(), StorageError> {
        let (small, large): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.size <= self.limits.part_size);
        let small = stream::iter(small)
            .map(|file| self.send_whole(model, file, meter))
            .buffer_unordered(self.transfers.at_once());
        small.try_collect::<()>().await?;
        // One after the other: each has as many parts under way as there may be.
        for file in large {
            self.send_in_parts(model, file, meter).await?;
        }
        Ok(())
    }

    async fn send_whole(
        &self,
        model: &str,
        local: &LocalFile,
        meter: &Meter<'_>,
    ) -> Result<(), StorageError> {
        let object = self.object(&format!("{model}/{}", local.to))?;
        let _permit = self.transfers.permit().await;
        let file = File::open(&local.from).map_err(|error| unreadable(&local.from, &error))?;
        let bytes = read(&file, local, 0, local.size)?;
        unchanged(local)?;
        self.store.put(&object, bytes).await.map_err(|error| distil_write(&self.url, &error))?;
        meter.add(local.size);
        Ok(())
    }

    async fn send_in_parts(
        &self,
        model: &str,
        local: &LocalFile,
        meter: &Meter<'_>,
    ) -> Result<(), StorageError> {
        let object = self.object(&format!("{model}/{}", local.to))?;
        let file = File::open(&local.from).map_err(|error| unreadable(&local.from, &error))?;
        let failed = |error| distil_write(&self.url, &error);
        let mut parts = self.store.put_multipart(&object).await.map_err(failed)?;
        let sent = match self.send_parts(&file, local, &mut *parts, meter).await {
            Ok(()) => unchanged(local),
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => parts.complete().await.map(|_| ()).map_err(failed),
            Err(error) => {
                _ = parts.abort().await; // what the service keeps of it otherwise is paid for
                Err(error)
            }
        }
    }

    async fn send_parts(
        &self,
        file: &File,
        local: &LocalFile,
        upload: &mut dyn MultipartUpload,
        meter: &Meter<'_>,
    ) -> Result<(), StorageError> {
        // All parts but the last have one size, which some services ask for.
        let part_size = self.limits.part_size.max(local.size.div_ceil(MOST_PARTS));
        let starts = (0..).map(|number| number * part_size).take_while(|start| *start < local.size);
        // A part gets its number when it is put, so that happens in order. As many are in memory as may be under way.
        let mut under_way = stream::FuturesUnordered::new();
        for start in starts {
            let size = part_size.min(local.size - start);
            while under_way.len() >= self.transfers.at_once() {
                finish_one(&mut under_way, &self.url, meter).await?;
            }
            let part = upload.put_part(read(file, local, start, size)?);
            under_way.push(async move {
                let _permit = self.transfers.permit().await;
                part.await.map(|()| size)
            });
        }
        while !under_way.is_empty() {
            finish_one(&mut under_way, &self.url, meter).await?;
        }
        Ok(())
    }
}

async fn finish_one(
    parts: &mut (impl stream::Stream<Item = object_store::Result<u64>> + Unpin),
    url: &str,
    meter: &Meter<'_>,
) -> Result<(), StorageError> {
    if let Some(sent) = parts.try_next().await.map_err(|error| distil_write(url, &error))? {
        meter.add(sent);
    }
    Ok(())
}

/// The version's files, and the manifest of all of them.
fn version_files(upload: &Upload<'_>) -> Result<(Vec<LocalFile>, String), StorageError> {
    let mut names = Vec::new();
    walk(upload.directory, "", 0, &mut names)?;
    names.sort_unstable();
    let given = names.iter().any(|name| name == MANIFEST);
    names.retain(|name| name != MANIFEST);
    if names.is_empty() {
        return Err(refused(upload.directory, "it holds no file of a version"));
    }
    let (mut files, mut sums) = (Vec::new(), BTreeMap::new());
    for name in names {
        let path = upload.directory.join(&name);
        files.push(local_file(format!("{}/{name}", upload.version), path.clone())?);
        sums.insert(name, sum(&path).map_err(|error| unreadable(&path, &error))?);
    }
    if given {
        expect_kept(&upload.directory.join(MANIFEST), &sums)?;
    }
    let text = sums.iter().fold(String::new(), |mut text, (name, sum)| {
        writeln!(text, "{sum}  {name}").expect("a String takes all text");
        text
    });
    Ok((files, text))
}

/// Holds the manifest that is among the files against them.
fn expect_kept(path: &Path, sums: &BTreeMap<String, Sha256>) -> Result<(), StorageError> {
    let broken = |reason: &str| refused(path, reason);
    let size = fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    if size > MAX_MANIFEST {
        return Err(broken("it is larger than 16 MiB"));
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    for (name, expected) in manifest::parse(&text).map_err(|reason| broken(&reason))? {
        match sums.get(&name) {
            None => return Err(broken(&format!("{name:?}, which it names, is not there"))),
            Some(found) if *found != expected => {
                return Err(broken(&format!("{name:?} has the SHA-256 {found}, and not {expected}")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The files below `directory`. Links are followed.
fn walk(directory: &Path, below: &str, depth: usize, names: &mut Vec<String>) -> Result<(), StorageError> {
    let here = directory.join(below);
    for entry in fs::read_dir(&here).map_err(|error| unreadable(&here, &error))? {
        let name = entry.map_err(|error| unreadable(&here, &error))?.file_name();
        let path = here.join(&name);
        let name = name.to_str().ok_or_else(|| refused(&path, "its name is not UTF-8"))?;
        let name = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        if let Some(reason) = manifest::refusal(&name) {
            return Err(refused(&path, reason));
        }
        let metadata = fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
        if metadata.is_dir() && depth < DEEPEST {
            walk(directory, &name, depth + 1, names)?;
        } else if metadata.is_file() && names.len() < MOST_FILES {
            names.push(name);
        } else if metadata.is_file() || metadata.is_dir() {
            return Err(refused(directory, "it has more than 10000 files, or directories more than 16 deep"));
        } else {
            return Err(refused(&path, "it is neither a file nor a directory"));
        }
    }
    Ok(())
}

fn local_file(to: String, from: PathBuf) -> Result<LocalFile, StorageError> {
    if let Some(reason) = manifest::refusal(&to) {
        return Err(refused(Path::new(&to), reason));
    }
    let metadata = fs::metadata(&from).map_err(|error| unreadable(&from, &error))?;
    if !metadata.is_file() {
        return Err(refused(&from, "it is not a file"));
    }
    Ok(LocalFile { to, from, size: metadata.len(), modified: metadata.modified().ok() })
}

/// What is read of a file while it is written is neither what it was nor what it becomes.
fn unchanged(local: &LocalFile) -> Result<(), StorageError> {
    let now = fs::metadata(&local.from).map_err(|error| unreadable(&local.from, &error))?;
    if (now.len(), now.modified().ok()) == (local.size, local.modified) {
        return Ok(());
    }
    Err(refused(&local.from, "it changed while it was read"))
}

fn read(file: &File, local: &LocalFile, start: u64, size: u64) -> Result<PutPayload, StorageError> {
    let length = usize::try_from(size).map_err(|_| refused(&local.from, "a part of it is too large"))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, start).map_err(|error| unreadable(&local.from, &error))?;
    Ok(bytes.into())
}

/// Sizes of the files of `version`, by their path in the model's directory.
fn of_version(model: &RemoteModel, version: u64) -> BTreeMap<String, u64> {
    let directory = format!("{version}/");
    let files = model.files.iter().filter(|file| file.path.starts_with(&directory));
    files.map(|file| (file.path.clone(), file.size)).collect()
}

fn expect_model(name: &str) -> Result<(), StorageError> {
    let reason = match manifest::refusal(name) {
        Some(reason) => reason,
        None if name.contains('/') => "the name of a model has no slash",
        None if name.starts_with('.') => "the name of a model does not begin with a dot",
        None => return Ok(()),
    };
    Err(refused(Path::new(name), reason))
}

fn unreadable(path: &Path, error: &io::Error) -> StorageError {
    StorageError::disk("read", path, error)
}

fn refused(path: &Path, reason: &str) -> StorageError {
    StorageError::Unpublishable { path: path.display().to_string(), reason: reason.to_owned() }
}
