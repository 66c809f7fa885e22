//! What a repository held when it last told, kept in the cache: a server that starts while its service is away goes by it.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use crate::cache::Cache;
use crate::remote::Remote;
use crate::tree::{RemoteFile, RemoteModel, Tree, is_version};

impl Remote {
    /// Keeps in `cache` what this repository holds now.
    pub fn remember(&self, tree: &Tree, cache: &Cache) {
        self.keep(&serde_json::to_vec(tree), cache);
    }

    /// Keeps in `cache` that this repository holds `model` under that `name` now, or no model.
    pub fn remember_model(&self, name: &str, model: Option<&RemoteModel>, cache: &Cache) {
        let mut tree = self.kept(cache).unwrap_or_default();
        match model {
            Some(model) => tree.models.insert(name.to_owned(), model.clone()),
            None => tree.models.remove(name),
        };
        self.remember(&tree, cache);
    }

    /// What this repository held when it last told, to whichever process, as far as `cache` has it. Of a model of which
    /// a version is there, the versions that are not are left out: nobody can bring them.
    pub fn recall(&self, cache: &Cache) -> Tree {
        let mut tree = self.kept(cache).unwrap_or_default();
        tree.models.values_mut().for_each(|model| self.leave_out_what_is_not_in(cache, model));
        tree
    }

    fn leave_out_what_is_not_in(&self, cache: &Cache, model: &mut RemoteModel) {
        let mut here: BTreeMap<&str, bool> = BTreeMap::new();
        for file in &model.files {
            if let Some(version) = version(file) {
                let is_here = cache.has(&self.key(&model.name, file), file.size);
                here.entry(version).and_modify(|all| *all &= is_here).or_insert(is_here);
            }
        }
        let missing: BTreeSet<String> =
            here.iter().filter(|(_, all)| !**all).map(|(version, _)| (*version).to_owned()).collect();
        if missing.len() < here.len() {
            model.files.retain(|file| version(file).is_none_or(|version| !missing.contains(version)));
        }
    }

    fn keep(&self, listing: &Result<Vec<u8>, serde_json::Error>, cache: &Cache) {
        let kept = match listing {
            Ok(listing) => cache.keep_listing(&self.url, listing).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = kept {
            warn!(
                url = self.url,
                error, "what a model repository holds cannot be kept for a start without its service"
            );
        }
    }

    fn kept(&self, cache: &Cache) -> Option<Tree> {
        let listing = cache.listing(&self.url)?;
        match serde_json::from_slice(&listing) {
            Ok(tree) => Some(tree),
            Err(error) => {
                warn!(url = self.url, %error, "what was kept of a model repository cannot be read");
                None
            }
        }
    }
}

/// The version that a file is of, if it is of one.
fn version(file: &RemoteFile) -> Option<&str> {
    file.path.split_once('/').map(|(first, _)| first).filter(|first| is_version(first))
}
