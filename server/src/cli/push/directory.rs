//! A version comes into a repository on disk: got ready beside its place, and there in one rename.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use model::ModelVersion;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::ready::{Files, Ready};
use super::staging::{self, Staging};
use super::version::taken;
use super::{Push, copy};
use crate::beside::CONFIG;

/// Where the model is, or will be.
struct Place<'a> {
    repository: &'a Path,
    /// The model's directory.
    model: PathBuf,
    is_there: bool,
}

impl Push<'_> {
    /// Puts the version into the repository in `directory`; returns its number.
    ///
    /// # Errors
    /// When it cannot be served or put there.
    pub(super) fn push_to(&self, directory: &Path) -> anyhow::Result<ModelVersion> {
        loop {
            let place = Place::of(directory, &self.model)?;
            let taken = place.taken()?;
            let number = self.number(&taken)?;
            let beside = place.is_there.then_some(&*place.model);
            let ready = self.made_ready(number, &taken, beside, place.stage()?, Files::Copied)?;
            copy::sync_all_below(&ready.model)?;
            if let Some(number) = self.put(&place, &ready)? {
                return Ok(number);
            }
            // Another has made the model meanwhile: with its configuration this one may be another matter.
        }
    }

    /// Puts what is `ready` into its place; none when the model was not there and now is.
    fn put(&self, place: &Place<'_>, ready: &Ready) -> anyhow::Result<Option<ModelVersion>> {
        let failed = |to: &Path| format!("cannot put it at {}", to.display());
        if !place.is_there {
            return match rename_to_new(&ready.model, &place.model) {
                Ok(()) => copy::sync(place.repository).map(|()| Some(ready.number)),
                Err(error) if is_taken(&error) => Ok(None),
                Err(error) => Err(error).with_context(|| failed(&place.model)),
            };
        }
        let version = ready.version();
        if ready.config {
            // First, so that no server reads the version without it; it waits for files that were just written.
            let config = place.model.join(CONFIG);
            fs::rename(ready.model.join(CONFIG), &config).with_context(|| failed(&config))?;
        }
        let mut number = ready.number;
        loop {
            let to = place.model.join(number.to_string());
            match rename_to_new(&version, &to) {
                Ok(()) => return copy::sync(&place.model).map(|()| Some(number)),
                // Another push was faster.
                Err(error) if is_taken(&error) => number = self.number(&place.taken()?)?,
                Err(error) => return Err(error).with_context(|| failed(&to)),
            }
        }
    }
}

impl<'a> Place<'a> {
    fn of(repository: &'a Path, model: &str) -> anyhow::Result<Place<'a>> {
        let shown = repository.display();
        let metadata = fs::metadata(repository).with_context(|| {
            format!("cannot read the model repository {shown}; make it, or name another with --repository")
        })?;
        ensure!(metadata.is_dir(), "the model repository {shown} is not a directory");
        let model = repository.join(model);
        let is_there = match fs::metadata(&model) {
            Ok(metadata) => {
                ensure!(metadata.is_dir(), "{} is not a directory, so it is no model", model.display());
                true
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                ensure!(
                    fs::symlink_metadata(&model).is_err(),
                    "{} is a link that leads nowhere",
                    model.display()
                );
                false
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", model.display())),
        };
        Ok(Place { repository, model, is_there })
    }

    fn taken(&self) -> anyhow::Result<Vec<ModelVersion>> {
        if !self.is_there {
            return Ok(Vec::new());
        }
        taken(&self.model).with_context(|| format!("cannot read {}", self.model.display()))
    }

    /// A directory to get the version ready in, on the file system where it will be. What pushes have left behind that were
    /// killed is removed.
    fn stage(&self) -> anyhow::Result<Staging> {
        let parent = if self.is_there { &self.model } else { self.repository };
        staging::tidy(self.repository);
        if self.is_there {
            staging::tidy(&self.model);
        }
        Staging::make(parent).with_context(|| format!("cannot write to {}", parent.display()))
    }
}

/// Renames the directory `from` to `to`, unless something is there.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can promise that. A rename of a directory then replaces nothing but an empty one, which
        // this looks for.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if fs::symlink_metadata(to).is_ok() => {
            Err(ErrorKind::AlreadyExists.into())
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(from, to),
        renamed => renamed.map_err(Into::into),
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_that_is_there_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for (name, make) in [
            ("empty", (|path: &Path| fs::create_dir(path)) as fn(&Path) -> io::Result<()>),
            ("full", |path| fs::create_dir_all(path.join("x"))),
            ("file", |path| fs::write(path, "")),
            ("dangling", |path| symlink("nowhere", path)),
        ] {
            make(&at(name)).unwrap();
            fs::create_dir(at("new")).unwrap();
            let error = rename_to_new(&at("new"), &at(name)).unwrap_err();
            assert!(is_taken(&error), "{name}: {error}");
            fs::remove_dir(at("new")).unwrap();
        }
        fs::create_dir(at("new")).unwrap();
        rename_to_new(&at("new"), &at("1")).unwrap();
        assert!(at("1").is_dir() && !at("new").exists());
        assert!(!is_taken(&rename_to_new(&at("new"), &at("2")).unwrap_err()));
    }

    #[test]
    fn a_place_that_is_none_is_told() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        symlink("nowhere", root.path().join("dangling")).unwrap();
        fs::create_dir(root.path().join("model")).unwrap();
        let of = |repository: &Path, model: &str| {
            Place::of(repository, model).map(|place| place.is_there).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(of(root.path(), "model"), Ok(true));
        assert_eq!(of(root.path(), "other"), Ok(false));
        for (repository, model, words) in [
            (root.path().join("none"), "m", "make it, or name another with --repository"),
            (root.path().join("file"), "m", "is not a directory"),
            (root.path().to_owned(), "file", "so it is no model"),
            (root.path().to_owned(), "dangling", "is a link that leads nowhere"),
        ] {
            assert!(of(&repository, model).unwrap_err().contains(words));
        }
    }
}
