//! A model repository in object storage.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::TryStreamExt as _;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore};

use crate::error::{StorageError, distil};
use crate::location::{Location, Service};
use crate::options::{Limits, Options};
use crate::service;
use crate::transfers::Transfers;
use crate::tree::{Listing, Refused, RemoteFile, RemoteModel, Tree};

/// A model repository in object storage.
pub struct Remote {
    pub(crate) location: Location,
    /// The location's URL.
    pub(crate) url: String,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) limits: Limits,
    pub(crate) transfers: Arc<Transfers>,
}

impl Remote {
    /// The repository at `url`: `s3://BUCKET/PREFIX`, `s3://https://HOST:PORT/BUCKET/PREFIX`, `gs://BUCKET/PREFIX`,
    /// `as://ACCOUNT/CONTAINER/PREFIX`, `az://CONTAINER/PREFIX` or `file:///DIRECTORY`. Nothing is asked of the
    /// service yet.
    ///
    /// # Errors
    /// When the URL names no repository, or a setting of the environment cannot be used.
    pub fn open(url: &str, options: &Options, transfers: &Arc<Transfers>) -> Result<Remote, StorageError> {
        let location = Location::parse(url)?;
        let store = service::connect(&location, options)?;
        Ok(Remote {
            url: location.to_string(),
            location,
            store,
            limits: options.limits.clone(),
            transfers: Arc::clone(transfers),
        })
    }

    /// The repository's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the repository holds now. A prefix below which nothing is holds no models.
    ///
    /// # Errors
    /// When the service cannot be reached or refuses, the bucket is not there, it holds too many objects, or one has
    /// a name that no file may have.
    pub fn list(&self) -> Result<Tree, StorageError> {
        self.list_below("")
    }

    /// The model of that `name`, as [`Remote::list`] would tell it; nothing is looked at but its own objects.
    ///
    /// # Errors
    /// As [`Remote::list`].
    pub fn list_model(&self, name: &str) -> Result<Option<RemoteModel>, StorageError> {
        if name.contains('/') || manifest::refusal(name).is_some() {
            return Ok(None); // no object of it could be listed
        }
        Ok(self.list_below(name)?.models.remove(name))
    }

    fn list_below(&self, directory: &str) -> Result<Tree, StorageError> {
        if let Service::Directory(path) = &self.location.service
            && !path.is_dir()
        {
            return Err(StorageError::MissingBucket { url: self.url.clone() });
        }
        let within = self.limits.listing;
        let listed =
            self.transfers.block_on(async { tokio::time::timeout(within, self.listing(directory)).await });
        let listing = listed.unwrap_or_else(|_| {
            let reason = format!("a listing took more than {} seconds", within.as_secs());
            Err(StorageError::Unreachable { url: self.url.clone(), reason })
        })?;
        listing.finish().map_err(|refused| self.refused(refused))
    }

    async fn listing(&self, directory: &str) -> Result<Listing, StorageError> {
        let prefix = self.object(directory)?;
        let mut objects = self.store.list(Some(&prefix));
        let mut listing = Listing::default();
        let mut count = 0;
        let failed = |error| distil(&self.url, None, &error);
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            count += 1;
            if count > self.limits.objects {
                return Err(StorageError::TooManyObjects {
                    url: self.url.clone(),
                    limit: self.limits.objects,
                });
            }
            if let Some(file) = self.file(object) {
                listing.add(file).map_err(|refused| self.refused(refused))?;
            }
        }
        Ok(listing)
    }

    /// The file of `object`, its path relative to the repository; none for what marks the prefix itself.
    fn file(&self, object: ObjectMeta) -> Option<RemoteFile> {
        let name = object.location.as_ref();
        let path = match self.location.prefix.as_str() {
            "" => name,
            prefix => name.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        (!path.is_empty()).then(|| RemoteFile {
            path: path.to_owned(),
            size: object.size,
            etag: object.e_tag,
            modified: SystemTime::from(object.last_modified),
        })
    }

    /// The name of the object at `path` of the repository.
    pub(crate) fn object(&self, path: &str) -> Result<ObjectPath, StorageError> {
        let name = match (self.location.prefix.as_str(), path) {
            (prefix, "") => prefix.to_owned(),
            ("", path) => path.to_owned(),
            (prefix, path) => format!("{prefix}/{path}"),
        };
        ObjectPath::parse(name).map_err(|error| distil(&self.url, None, &error.into()))
    }

    fn refused(&self, refused: Refused) -> StorageError {
        let Refused { object, reason } = refused;
        StorageError::refused_name(self.url.clone(), &object, reason)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.url)
    }
}
