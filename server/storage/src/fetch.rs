//! Brings the files of a model into the cache: only those that changed, in parts, many at a time.
//!
//! A part is asked for with the ETag that was listed, and its answer must have it too, so a file is of one writing or
//! it is an error.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;
use std::time::SystemTime;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use manifest::{MANIFEST, MAX_MANIFEST, Sha256, sum};
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, ObjectMeta};
use ring::digest::{Context, SHA256};

use crate::cache::{Cache, Member, Snapshot, Staging, finish};
use crate::error::{StorageError, distil};
use crate::location::Service;
use crate::progress::{Meter, Progress};
use crate::remote::Remote;
use crate::tree::{RemoteFile, RemoteModel};

/// Bytes that a request must have brought for its part to be gone on with where it ended early: a slow network, or one
/// that breaks off, ends after some requests and not never.
const WORTH_GOING_ON: u64 = 1 << 20;

impl Remote {
    /// The files of `model`, as they were listed, in a directory of `cache`. What the cache has is not fetched again.
    /// `tell` is told how far it has come, on this thread, first and last and in between.
    ///
    /// Where a directory holds a [`MANIFEST`], what it names must be there and have its sums.
    ///
    /// # Errors
    /// When the service cannot be reached or refuses, a file is no longer the one that was listed, a manifest is not
    /// kept, or the cache has no room. What is whole by then stays in the cache for the next attempt.
    pub fn fetch(
        &self,
        model: &RemoteModel,
        cache: &Cache,
        tell: &(dyn Fn(Progress) + Sync),
    ) -> Result<Snapshot, StorageError> {
        let keys: Vec<String> = model.files.iter().map(|file| self.key(&model.name, file)).collect();
        let members: Vec<Member<'_>> = keys
            .iter()
            .zip(&model.files)
            .map(|(key, file)| Member { key, path: &file.path, size: file.size })
            .collect();
        let id = id(&model.name, &keys, &model.empty_versions);
        let contents = members.iter().map(|member| (member.path, member.size)).collect();
        let meter = Meter::start(model.size(), tell);
        if let Some(snapshot) = cache.hold(&id, &model.name, &contents)? {
            meter.add_what_is_here(model.size());
            return Ok(snapshot);
        }
        let staging = cache.stage(&members)?;
        self.transfers.block_on(self.bring(model, &keys, &staging, &meter))?;
        self.verify(model, &keys, &staging)?;
        staging.publish(&id, &model.name, &members, &model.empty_versions)
    }

    /// The bytes of the file at `path` of `model`, as it was listed; the cache has no part in it. For small files.
    ///
    /// # Errors
    /// As [`Remote::fetch`], or when there is no such file or it has more than `most` bytes.
    pub fn read(&self, model: &RemoteModel, path: &str, most: u64) -> Result<Vec<u8>, StorageError> {
        let object = format!("{}/{path}", model.name);
        let changed = || StorageError::Changed { url: self.url.clone(), object: object.clone() };
        let file = model.files.iter().find(|file| file.path == path).ok_or_else(changed)?;
        if file.size > most {
            let reason = format!("{object:?} has {} bytes, and at most {most} are read of it", file.size);
            return Err(StorageError::Service { url: self.url.clone(), reason });
        }
        let options = GetOptions {
            if_match: file.etag.as_deref().map(|etag| self.condition(etag)),
            ..GetOptions::default()
        };
        let name = self.object(&object)?;
        let failed = |error| distil(&self.url, Some(&object), &error);
        self.transfers.block_on(async {
            let _permit = self.transfers.permit().await;
            let answer = self.store.get_opts(&name, options).await.map_err(failed)?;
            if answer.meta.size != file.size {
                return Err(changed());
            }
            // What it says of its size is not how much comes.
            let mut content = Vec::new();
            let mut bytes = answer.into_stream();
            while let Some(chunk) = bytes.try_next().await.map_err(failed)? {
                if (content.len() + chunk.len()) as u64 > file.size {
                    return Err(changed());
                }
                content.extend_from_slice(&chunk);
            }
            if content.len() as u64 == file.size { Ok(content) } else { Err(changed()) }
        })
    }

    /// Brings the files that `staging` does not have.
    async fn bring(
        &self,
        model: &RemoteModel,
        keys: &[String],
        staging: &Staging<'_>,
        meter: &Meter<'_>,
    ) -> Result<(), StorageError> {
        let (here, missing): (Vec<_>, Vec<_>) =
            model.files.iter().zip(keys).partition(|(_, key)| staging.has(key));
        here.iter().for_each(|(file, _)| meter.add_what_is_here(file.size));
        // As many files are open as requests may run; each has its parts ready, and the permits bound all of them.
        let files = stream::iter(missing)
            .map(|(file, key)| self.bring_file(&model.name, file, key, staging, meter))
            .buffer_unordered(self.transfers.at_once());
        files.try_collect().await
    }

    async fn bring_file(
        &self,
        model: &str,
        file: &RemoteFile,
        key: &str,
        staging: &Staging<'_>,
        meter: &Meter<'_>,
    ) -> Result<(), StorageError> {
        let path = format!("{model}/{}", file.path);
        let asked = Asked { object: self.object(&path)?, path, file, writing: OnceLock::new() };
        let copy = staging.open(key)?;
        let parts = stream::iter(parts(file.size, self.limits.part_size))
            .map(|range| self.bring_part(&asked, range, &copy, meter))
            .buffer_unordered(self.transfers.at_once());
        parts.try_collect::<()>().await?;
        // A disk may take longer for that than a connection of another file may be left alone.
        let finished = tokio::task::spawn_blocking(move || finish(&copy)).await;
        finished.unwrap_or_else(|error| Err(error.into())).map_err(|error| asked.unwritten(&error))?;
        staging.complete(key)
    }

    /// Brings one part of a file into `copy`. What came of it before a request ended early is not brought again.
    async fn bring_part(
        &self,
        asked: &Asked<'_>,
        range: Range<u64>,
        copy: &File,
        meter: &Meter<'_>,
    ) -> Result<(), StorageError> {
        let _permit = self.transfers.permit().await;
        let mut left = range;
        while !left.is_empty() {
            let begin = left.start;
            match self.bring_some(asked, &mut left, copy, meter).await {
                Ok(()) => {}
                Err(error @ StorageError::Unreachable { .. }) if left.start - begin >= WORTH_GOING_ON => {
                    tracing::debug!(object = asked.path, %error, "going on with what has come");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what one request brings of `left` into `copy`, and takes it from `left`. The disk makes this thread wait, and
    /// it does nothing else.
    async fn bring_some(
        &self,
        asked: &Asked<'_>,
        left: &mut Range<u64>,
        copy: &File,
        meter: &Meter<'_>,
    ) -> Result<(), StorageError> {
        let failed = |error| distil(&self.url, Some(&asked.path), &error);
        let options = GetOptions {
            if_match: asked.file.etag.as_deref().map(|etag| self.condition(etag)),
            range: Some(GetRange::Bounded(left.clone())),
            ..GetOptions::default()
        };
        let answer = self.store.get_opts(&asked.object, options).await.map_err(failed)?;
        if answer.range != *left || !asked.is_the_listed(&answer.meta) {
            return Err(self.changed(asked));
        }
        let mut bytes = answer.into_stream();
        while let Some(chunk) = bytes.try_next().await.map_err(failed)? {
            let length = chunk.len() as u64;
            if length > left.end - left.start {
                return Err(self.changed(asked));
            }
            copy.write_all_at(&chunk, left.start).map_err(|error| asked.unwritten(&error))?;
            left.start += length;
            meter.add(length);
        }
        if left.is_empty() { Ok(()) } else { Err(self.changed(asked)) }
    }

    /// Holds each manifest against the files that it names.
    fn verify(
        &self,
        model: &RemoteModel,
        keys: &[String],
        staging: &Staging<'_>,
    ) -> Result<(), StorageError> {
        let is_manifest = |path: &str| path.rsplit('/').next() == Some(MANIFEST);
        for (file, key) in model.files.iter().zip(keys).filter(|(file, _)| is_manifest(&file.path)) {
            let broken = |reason: String| StorageError::Manifest {
                url: self.url.clone(),
                manifest: format!("{}/{}", model.name, file.path),
                reason,
            };
            if file.size > MAX_MANIFEST {
                return Err(broken("it is larger than 16 MiB".to_owned()));
            }
            let path = staging.file(key);
            let text = fs::read(&path).map_err(|error| StorageError::disk("read", &path, &error))?;
            let text = String::from_utf8(text).map_err(|_| broken("it is not UTF-8".to_owned()))?;
            let directory = file.path.strip_suffix(MANIFEST).unwrap_or_default();
            for (name, expected) in manifest::parse(&text).map_err(broken)? {
                let path = format!("{directory}{name}");
                let found = model.files.binary_search_by(|file| file.path.as_str().cmp(&path));
                let at = found.map_err(|_| broken(format!("{name:?}, which it names, is not there")))?;
                self.verify_file(&format!("{}/{path}", model.name), &keys[at], expected, staging)?;
            }
        }
        Ok(())
    }

    fn verify_file(
        &self,
        object: &str,
        key: &str,
        expected: Sha256,
        staging: &Staging<'_>,
    ) -> Result<(), StorageError> {
        let path = staging.file(key);
        let found = sum(&path).map_err(|error| StorageError::disk("read", &path, &error))?;
        if found == expected {
            return Ok(());
        }
        // It may have been damaged on the way or on the disk: the next attempt fetches it.
        staging.discard(key)?;
        Err(StorageError::Mismatch {
            url: self.url.clone(),
            object: object.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        })
    }

    fn changed(&self, asked: &Asked<'_>) -> StorageError {
        StorageError::Changed { url: self.url.clone(), object: asked.path.clone() }
    }

    /// `etag` as a condition of a request. Azure lists it without its quotes.
    fn condition(&self, etag: &str) -> String {
        match self.location.service {
            Service::Azure { .. } if !etag.contains('"') => format!("\"{etag}\""),
            _ => etag.to_owned(),
        }
    }

    /// Tells one writing of a file from any other, of any repository. A file without an ETag is told by its time.
    pub(crate) fn key(&self, model: &str, file: &RemoteFile) -> String {
        let writing = match &file.etag {
            Some(etag) => format!("etag {}", bare(etag)),
            None => format!("modified {:?}", file.modified),
        };
        hash(&[&self.url, model, &file.path, &writing, &file.size.to_string()])
    }
}

/// A file that is being brought.
struct Asked<'a> {
    object: ObjectPath,
    /// Relative to the repository.
    path: String,
    file: &'a RemoteFile,
    /// Which writing of it the first answer was of.
    writing: OnceLock<Writing>,
}

/// What tells one writing of a file from the next where answers come: the ETag, or the time where there is none.
#[derive(Debug, PartialEq, Eq)]
enum Writing {
    Etag(String),
    Modified(SystemTime),
}

impl Asked<'_> {
    fn unwritten(&self, error: &std::io::Error) -> StorageError {
        StorageError::Disk { action: "write a copy of", path: self.path.clone(), reason: error.to_string() }
    }

    /// Whether an answer is of the file that was listed, and of the same writing as those before.
    fn is_the_listed(&self, answer: &ObjectMeta) -> bool {
        let etag = answer.e_tag.as_deref().map(bare);
        let is_known = match (&self.file.etag, etag) {
            (Some(listed), Some(etag)) => bare(listed) == etag,
            _ => true, // a listing need not name it, and an answer to a condition need not either
        };
        let writing = || match etag {
            Some(etag) => Writing::Etag(etag.to_owned()),
            None => Writing::Modified(answer.last_modified.into()),
        };
        answer.size == self.file.size && is_known && *self.writing.get_or_init(writing) == writing()
    }
}

/// The ranges of a file of `size` bytes; none of an empty one.
fn parts(size: u64, part_size: u64) -> impl Iterator<Item = Range<u64>> {
    let part_size = part_size.max(1);
    (0..size.div_ceil(part_size)).map(move |part| {
        let start = part * part_size;
        start..size.min(start.saturating_add(part_size))
    })
}

/// Tells one state of a model from any other.
fn id(model: &str, keys: &[String], empty_versions: &[String]) -> String {
    let keys = keys.iter().map(String::as_str);
    let parts: Vec<&str> =
        [model].into_iter().chain(keys).chain(empty_versions.iter().map(String::as_str)).collect();
    hash(&parts)
}

/// The SHA-256 of `parts`, none of which can run into the next, in hexadecimal.
pub(crate) fn hash(parts: &[&str]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    hexadecimal(context.finish().as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all text");
        text
    })
}

/// An ETag without its quotes.
fn bare(etag: &str) -> &str {
    etag.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_file_once() {
        let parts = |size, part_size| parts(size, part_size).collect::<Vec<_>>();
        assert_eq!(parts(0, 4), []);
        assert_eq!(parts(8, 4), [0..4, 4..8]);
        assert_eq!(parts(9, 4), [0..4, 4..8, 8..9]);
        assert_eq!(parts(u64::MAX, u64::MAX - 1), [0..u64::MAX - 1, u64::MAX - 1..u64::MAX]);
    }

    #[test]
    fn no_two_lists_have_one_hash() {
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["a"]), hash(&["a", ""]));
        assert_eq!(hash(&[]).len(), 64);
    }
}
