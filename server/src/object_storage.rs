//! Model repositories in object storage, as the model repository asks for them: `storage` brings, a cache keeps.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use inference::remote::{LocalCopy, Progress, RemoteError, RemoteFile, RemoteModel, RemoteRepository};
use model::ModelName;
use parking_lot::Mutex;
use storage::{Cache, Options, Remote, Snapshot, StorageError, Transfers};

use crate::config::RepositoryConfig;

/// Requests for parts of files at one time, over all models: enough to fill a fast network with parts of 8 MiB.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(16).expect("it is not 0");

/// The repositories of `config` that are in object storage. Nothing is asked of a service yet.
///
/// # Errors
/// When the cache cannot be made, which they share.
pub fn repositories(config: &RepositoryConfig) -> anyhow::Result<Vec<Arc<dyn RemoteRepository>>> {
    if config.urls.is_empty() {
        return Ok(Vec::new());
    }
    let directory = config.repository_cache_directory.clone().unwrap_or_else(usual_directory);
    let cache = Cache::open(&directory, config.repository_cache_bytes.get())
        .context("models of object storage cannot be kept here (--repository-cache-dir)")?;
    let transfers = Transfers::start(AT_ONCE).context("models of object storage cannot be brought")?;
    let (cache, transfers) = (Arc::new(cache), Arc::new(transfers));
    tracing::debug!(directory = %directory.display(), "the cache of object storage");
    let repository = |url: &String| -> Arc<dyn RemoteRepository> {
        Arc::new(Repository {
            url: url.clone(),
            remote: Mutex::default(),
            cache: Arc::clone(&cache),
            transfers: Arc::clone(&transfers),
        })
    };
    Ok(config.urls.iter().map(repository).collect())
}

/// Why `url` names no repository, if it cannot.
pub(crate) fn refusal(url: &str) -> Option<String> {
    storage::check_url(url).err().map(|error| error.to_string())
}

/// Where caches are usually kept: that of the user, else among what is temporary.
fn usual_directory() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    user.unwrap_or_else(std::env::temp_dir).join("volley/models")
}

/// A repository. Its client is made when it is first asked, since what that takes, such as a file of credentials, may
/// come late.
struct Repository {
    url: String,
    remote: Mutex<Option<Arc<Remote>>>,
    cache: Arc<Cache>,
    transfers: Arc<Transfers>,
}

impl Repository {
    fn remote(&self) -> Result<Arc<Remote>, RemoteError> {
        let mut remote = self.remote.lock(); // nothing is asked of the service meanwhile
        if let Some(remote) = &*remote {
            return Ok(Arc::clone(remote));
        }
        let made = Remote::open(&self.url, &Options::from_environment(), &self.transfers);
        let made = Arc::new(made.map_err(refused)?);
        *remote = Some(Arc::clone(&made));
        Ok(made)
    }

    fn listed(&self, model: storage::RemoteModel, remote: &Arc<Remote>) -> Arc<dyn RemoteModel> {
        Arc::new(Model { model, remote: Arc::clone(remote), cache: Arc::clone(&self.cache) })
    }
}

impl RemoteRepository for Repository {
    fn url(&self) -> &str {
        &self.url
    }

    fn models(&self) -> Result<Vec<Arc<dyn RemoteModel>>, RemoteError> {
        let remote = self.remote()?;
        let tree = remote.list().map_err(refused)?;
        remote.remember(&tree, &self.cache);
        Ok(tree.models.into_values().map(|model| self.listed(model, &remote)).collect())
    }

    fn model(&self, name: &ModelName) -> Result<Option<Arc<dyn RemoteModel>>, RemoteError> {
        let remote = self.remote()?;
        let model = remote.list_model(name.as_str()).map_err(refused)?;
        remote.remember_model(name.as_str(), model.as_ref(), &self.cache);
        Ok(model.map(|model| self.listed(model, &remote)))
    }

    fn remembered(&self) -> Vec<Arc<dyn RemoteModel>> {
        let Ok(remote) = self.remote() else { return Vec::new() };
        let tree = remote.recall(&self.cache);
        tree.models.into_values().map(|model| self.listed(model, &remote)).collect()
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({})", self.url)
    }
}

/// A model, as it was listed.
#[derive(Debug)]
struct Model {
    model: storage::RemoteModel,
    remote: Arc<Remote>,
    cache: Arc<Cache>,
}

impl RemoteModel for Model {
    fn name(&self) -> &str {
        &self.model.name
    }

    fn repository(&self) -> &str {
        self.remote.url()
    }

    fn files(&self) -> Vec<RemoteFile<'_>> {
        let files = self.model.files.iter().map(|file| RemoteFile {
            path: &file.path,
            size: file.size,
            etag: file.etag.as_deref(),
            modified: file.modified,
        });
        files.collect()
    }

    fn empty_versions(&self) -> &[String] {
        &self.model.empty_versions
    }

    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, RemoteError> {
        self.remote.read(&self.model, path, most).map_err(refused)
    }

    fn bring(
        &self,
        wanted: &dyn Fn(&str) -> bool,
        tell: &(dyn Fn(Progress) + Sync),
    ) -> Result<Arc<dyn LocalCopy>, RemoteError> {
        let tell = |progress: storage::Progress| {
            let storage::Progress { done, moved, total } = progress;
            tell(Progress { done, moved, total });
        };
        let snapshot = self.remote.fetch(&self.model.only(wanted), &self.cache, &tell).map_err(refused)?;
        Ok(Arc::new(Copy(snapshot)))
    }
}

/// Files in the cache, which does not evict them while this is there.
#[derive(Debug)]
struct Copy(Snapshot);

impl LocalCopy for Copy {
    fn directory(&self) -> &Path {
        self.0.directory()
    }
}

fn refused(error: StorageError) -> RemoteError {
    let (is_away, may_pass) = (error.is_away(), !error.is_of_the_files());
    RemoteError { reason: error.to_string(), is_away, may_pass }
}
