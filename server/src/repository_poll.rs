//! Follows the model repositories: looks through them when the file system tells of a change, and every so often in
//! case it does not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::app::App;
use crate::config::RepositoryConfig;
use crate::drain::Drain;

/// A change seldom comes alone.
const TOGETHER: Duration = Duration::from_millis(20);

/// Follows the repositories of `config` until the server stops.
pub(crate) async fn follow(app: Arc<App>, config: RepositoryConfig, drain: Drain) {
    let changed = Arc::new(Notify::new());
    let mut watcher = Watcher::new(&changed);
    let mut again = None;
    loop {
        // Each time: a directory that was away has lost its watch.
        watcher.watch(config.paths.iter().map(AsRef::as_ref));
        let wait = again.map_or(config.poll_interval, |again: Duration| again.min(config.poll_interval));
        tokio::select! {
            () = drain.stopped() => return,
            () = changed.notified() => sleep(TOGETHER).await,
            () = sleep(wait) => {}
        }
        let (app, settle_time) = (Arc::clone(&app), config.settle_time);
        let looked = tokio::task::spawn_blocking(move || app.repository.poll(settle_time));
        again = tokio::select! {
            () = drain.stopped() => return, // what it loads is not waited for
            looked = looked => looked.unwrap_or_else(|error| {
                warn!(%error, "looking through the repositories failed");
                None
            }),
        };
    }
}

/// What tells of changes, where the file system can.
struct Watcher {
    watcher: Option<RecommendedWatcher>,
    /// It was said that changes are only seen every so often.
    told: bool,
}

impl Watcher {
    fn new(changed: &Arc<Notify>) -> Watcher {
        let changed = Arc::clone(changed);
        let tell = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                changed.notify_one();
            }
        };
        let mut watcher = Watcher { watcher: None, told: false };
        match notify::recommended_watcher(tell) {
            Ok(made) => watcher.watcher = Some(made),
            Err(error) => watcher.tell(&error),
        }
        watcher
    }

    fn watch<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) {
        for path in paths {
            let Some(watcher) = &mut self.watcher else { return };
            match watcher.watch(path, RecursiveMode::Recursive) {
                Ok(()) => {}
                Err(error) if path.is_dir() => self.tell(&error),
                Err(error) => debug!(path = %path.display(), %error, "cannot be watched now"),
            }
        }
    }

    fn tell(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.told, true) {
            warn!(
                %error,
                "the file system does not tell of changes: they are seen every --repository-poll-secs"
            );
        }
    }
}
