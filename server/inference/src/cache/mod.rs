//! The response cache: a request that was answered before is answered again without the model.
//!
//! A request looks for its [`Key`] before it is queued ([`VersionCache::look_up`]): it finds an answer, or it is
//! the one that runs, and leaves its answer here ([`Miss::keep`]). Those that ask the same in the meantime wait
//! for it. When it fails or its client leaves, the next of them runs.
//!
//! Invariants:
//! - a hash only finds an entry; what is asked is compared, byte by byte;
//! - an entry owns its bytes: what it counts for is what it keeps in memory;
//! - a version finds only what it has answered itself, since it was loaded;
//! - who waits is counted against the bound of the model's queue.

mod answer;
mod key;

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use proto::ModelConfig;
use proto::v2::model_config::SchedulingChoice;
use quick_cache::sync::{Cache, DefaultLifecycle, PlaceholderGuard};
use quick_cache::{OptionsBuilder, Weighter};
use tokio::time::timeout_at;

use crate::statistics::{Failure, Statistics};
pub(crate) use answer::Tensors;
use answer::{Answer, kept_bytes};
pub(crate) use key::Asked;
use key::Key;

/// What one answer takes as a rule. It only sets how many keys are remembered after their answers have gone,
/// 64 bytes each: at most 1 % of the cache.
const USUAL_ENTRY: u64 = 4096;

/// Whether a model with `config` asks for its answers to be kept. One whose answers depend on more than the
/// request has none that could be.
pub(crate) fn asked_for(config: &ModelConfig) -> bool {
    let enabled = config.response_cache.as_ref().is_some_and(|cache| cache.enable);
    let sequences = matches!(config.scheduling_choice, Some(SchedulingChoice::SequenceBatching(_)));
    let decoupled = config.model_transaction_policy.as_ref().is_some_and(|policy| policy.decoupled);
    enabled && !sequences && !decoupled
}

/// The answers of all models that share it, in so many bytes.
pub struct ResponseCache {
    /// One shard: an entry may take all of the room, not a part of it.
    entries: Entries,
    /// Makes hashes that no client can foresee.
    hasher: RandomState,
    next_version: AtomicU64,
}

type Entries = Cache<Key, Arc<Answer>, Bytes, RandomState>;

/// Weighs entries in bytes.
#[derive(Clone, Copy)]
struct Bytes;

impl Weighter<Key, Arc<Answer>> for Bytes {
    fn weight(&self, _: &Key, answer: &Arc<Answer>) -> u64 {
        answer.entry_bytes
    }
}

impl ResponseCache {
    /// An empty cache of at most `limit` bytes.
    pub fn new(limit: u64) -> ResponseCache {
        let hasher = RandomState::default();
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(usize::try_from(limit / USUAL_ENTRY).unwrap_or(usize::MAX))
            .weight_capacity(limit)
            .build()
            .expect("the capacities are set");
        let entries = Cache::with_options(options, Bytes, hasher.clone(), DefaultLifecycle::default());
        ResponseCache { entries, hasher, next_version: AtomicU64::new(0) }
    }

    /// Bytes that its entries take, keys and bookkeeping included.
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    /// How many answers it holds.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// The most bytes that its entries take.
    pub fn limit(&self) -> u64 {
        self.entries.capacity()
    }
}

impl fmt::Debug for ResponseCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseCache").field("limit", &self.limit()).finish_non_exhaustive()
    }
}

/// What one loaded version sees of the cache: its own answers. When it goes, they go.
pub(crate) struct VersionCache {
    cache: Arc<ResponseCache>,
    /// Sets this version apart from all others, from what was loaded before under its number, too.
    version: u64,
    /// Whether requests wait for one that asks the same.
    shares: bool,
    /// Requests that wait so.
    waiting: AtomicUsize,
    /// How many may.
    capacity: usize,
}

/// What a request found.
pub(crate) enum Found<'a> {
    /// Its answer.
    Hit(Tensors),
    /// Nothing: it has to run.
    Miss(Miss<'a>),
}

/// Why a request got neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many as may wait do.
    Full { capacity: usize },
    /// It has waited for as long as it may.
    Expired,
}

/// A request that runs, and whose answer is waited for. When it is dropped without one, the next runs.
pub(crate) struct Miss<'a> {
    cache: &'a ResponseCache,
    key: Key,
    /// Nobody waits for a request that shares nothing.
    place: Option<PlaceholderGuard<'a, Key, Arc<Answer>, Bytes, RandomState, Lifecycle>>,
    statistics: &'a Statistics,
    looked_up: Duration,
}

type Lifecycle = DefaultLifecycle<Key, Arc<Answer>>;

impl VersionCache {
    /// The part of a version that has just been loaded. `shares` when its requests may wait for each other, at
    /// most `capacity` of them.
    pub(crate) fn new(cache: &Arc<ResponseCache>, shares: bool, capacity: usize) -> VersionCache {
        let version = cache.next_version.fetch_add(1, Ordering::Relaxed);
        VersionCache { cache: Arc::clone(cache), version, shares, waiting: AtomicUsize::new(0), capacity }
    }

    /// Requests that wait for one that asks the same.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Looks for the answer to `asked`, of a request that arrived at `arrived`; until `expires`, waits for one
    /// that is under way. What comes of it is recorded.
    ///
    /// # Errors
    /// When too many wait already, or it has waited for too long.
    pub(crate) async fn look_up<'a>(
        &'a self,
        asked: Asked<'_>,
        statistics: &'a Statistics,
        arrived: Instant,
        expires: Option<Instant>,
    ) -> Result<Found<'a>, Refused> {
        let started = Instant::now();
        let key = Key::new(self.version, asked, &self.cache.hasher);
        let entries = &self.cache.entries;
        let found = match entries.get(&key) {
            Some(answer) => Ok(answer),
            None if self.shares => {
                let leaves = Leaves { statistics, arrived };
                let found = self.wait(&key, expires).await;
                mem::forget(leaves);
                match found {
                    Ok(found) => found.map_err(Some),
                    Err(refused) => {
                        statistics.record_failure(Failure::Rejected, arrived.elapsed());
                        return Err(refused);
                    }
                }
            }
            None => Err(None),
        };
        let looked_up = started.elapsed();
        Ok(match found {
            Ok(answer) => {
                statistics.record_cache_hit(looked_up, arrived.elapsed());
                Found::Hit(answer.outputs.clone())
            }
            Err(place) => Found::Miss(Miss { cache: &self.cache, key, place, statistics, looked_up }),
        })
    }

    /// Waits while another request makes the answer to `key`.
    async fn wait(&self, key: &Key, expires: Option<Instant>) -> Result<Waited<'_>, Refused> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        if before >= self.capacity {
            return Err(Refused::Full { capacity: self.capacity });
        }
        let waited = self.cache.entries.get_value_or_guard_async(key);
        match expires {
            None => Ok(waited.await),
            Some(expires) => timeout_at(expires.into(), waited).await.map_err(|_| Refused::Expired),
        }
    }
}

type Waited<'a> = Result<Arc<Answer>, PlaceholderGuard<'a, Key, Arc<Answer>, Bytes, RandomState, Lifecycle>>;

impl Miss<'_> {
    /// Keeps `outputs` for those that ask the same, if there is room for them, and gives them to those that
    /// wait.
    pub(crate) fn keep(mut self, outputs: &Tensors) {
        let started = Instant::now();
        let entries = &self.cache.entries;
        let entry_bytes = kept_bytes(&self.key, outputs);
        let answer = if entry_bytes <= self.cache.limit() {
            let answer = Arc::new(Answer::copy_of(outputs, entry_bytes));
            // The key in the placeholder shares the request's bytes, which may be a part of much more.
            entries.insert(self.key.copied(), Arc::clone(&answer));
            answer
        } else {
            Arc::new(Answer { outputs: outputs.clone(), entry_bytes })
        };
        if let Some(place) = self.place.take() {
            // An error says that the entry is there already, or that there is no room; who waits has the answer.
            let _ = place.insert(answer);
        }
        self.looked_up += started.elapsed();
    }
}

impl Drop for Miss<'_> {
    fn drop(&mut self) {
        self.statistics.record_cache_miss(self.looked_up);
    }
}

impl Drop for VersionCache {
    fn drop(&mut self) {
        self.cache.entries.retain(|key, _| key.version() != self.version);
    }
}

/// Counts a request as one that waits.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that waits; dropped when its client leaves.
struct Leaves<'a> {
    statistics: &'a Statistics,
    arrived: Instant,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.statistics.record_failure(Failure::Canceled, self.arrived.elapsed());
    }
}

#[cfg(test)]
mod tests;
