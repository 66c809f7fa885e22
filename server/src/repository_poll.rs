//! Follows the model repositories: looks through them when the file system tells of a change, and every so often in
//! case it does not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use inference::repository::LookAgain;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use crate::app::App;
use crate::config::RepositoryConfig;
use crate::drain::Drain;

/// A change seldom comes alone.
const TOGETHER: Duration = Duration::from_millis(20);

/// A look that takes longer loads something, which the next does not wait for.
const LOADS_AFTER: Duration = Duration::from_millis(500);

/// Looks that may load something at one time.
const MOST_LOOKS: usize = 8;

/// Follows the repositories of `config` until the server stops. Those that are elsewhere are asked on the side: one that
/// does not answer holds nothing up, and neither does a model that takes long to load.
pub(crate) async fn follow(app: Arc<App>, config: RepositoryConfig, drain: Drain) {
    let changed = Arc::new(Notify::new());
    let mut watcher = Watcher::new(&changed);
    let mut remotes = Remotes::new(&app, &config);
    let mut looks = Looks::default();
    loop {
        // Each time: a directory that was away has lost its watch.
        watcher.watch(config.paths.iter().map(AsRef::as_ref));
        let (has_room, next) = (looks.have_room(), looks.next(config.poll_interval));
        tokio::select! {
            () = drain.stopped() => return, // what is loaded is not waited for
            look_again = looks.end() => {
                remotes.ask_within(look_again.remotes);
                continue;
            }
            () = changed.notified(), if has_room => sleep(TOGETHER).await,
            () = remotes.answered(), if has_room => {}
            () = sleep_until(next), if has_room => {}
        }
        looks.begin(&app, config.settle_time);
        tokio::select! {
            () = drain.stopped() => return,
            look_again = looks.end() => remotes.ask_within(look_again.remotes),
            () = sleep(LOADS_AFTER) => {}
        }
    }
}

/// Looks through the repositories, as many as are not over yet.
#[derive(Default)]
struct Looks {
    under_way: JoinSet<LookAgain>,
    /// When the last one began or was over.
    last: Option<Instant>,
    /// When one that is over wants the next to be.
    again: Option<Instant>,
}

impl Looks {
    fn have_room(&self) -> bool {
        self.under_way.len() < MOST_LOOKS
    }

    fn begin(&mut self, app: &Arc<App>, settle_time: Duration) {
        (self.last, self.again) = (Some(Instant::now()), None);
        let app = Arc::clone(app);
        self.under_way.spawn_blocking(move || app.repository.poll(settle_time));
    }

    /// Returns when one is over, with when it wants the next to be; never while there is none.
    async fn end(&mut self) -> LookAgain {
        let Some(looked) = self.under_way.join_next().await else { return std::future::pending().await };
        let look_again = looked.unwrap_or_else(|error| {
            warn!(%error, "looking through the repositories failed");
            LookAgain::default()
        });
        let now = Instant::now();
        self.last = Some(now);
        let again = look_again.directories.map(|again| now + again);
        self.again = [self.again, again].into_iter().flatten().min();
        look_again
    }

    /// When the next is due, if nobody tells of a change.
    fn next(&self, every: Duration) -> Instant {
        let regular = self.last.unwrap_or_else(Instant::now) + every;
        self.again.map_or(regular, |again| again.min(regular))
    }
}

/// The repositories that are elsewhere, and when they are asked what they have.
struct Remotes {
    app: Arc<App>,
    every: Duration,
    /// When they are asked next; never, where there are none.
    next: Option<Instant>,
    /// They are being asked.
    asked: Option<JoinHandle<()>>,
}

impl Remotes {
    fn new(app: &Arc<App>, config: &RepositoryConfig) -> Remotes {
        let every = config.poll_interval;
        let next = (!config.urls.is_empty()).then(|| Instant::now() + every);
        Remotes { app: Arc::clone(app), every, next, asked: None }
    }

    /// Asks them when it is time, and returns when they have answered. It can be dropped and called again.
    async fn answered(&mut self) {
        let Some(next) = self.next else { return std::future::pending().await };
        if self.asked.is_none() {
            sleep_until(next).await;
        }
        let app = &self.app;
        let asked = self.asked.get_or_insert_with(|| {
            let app = Arc::clone(app);
            tokio::task::spawn_blocking(move || app.repository.look_at_remotes())
        });
        if let Err(error) = asked.await {
            warn!(%error, "asking the repositories in object storage failed");
        }
        self.asked = None;
        self.next = Some(Instant::now() + self.every);
    }

    /// Asks them earlier than it would be time, if that is `wanted`.
    fn ask_within(&mut self, wanted: Option<Duration>) {
        if let (Some(next), Some(wanted)) = (&mut self.next, wanted) {
            *next = (*next).min(Instant::now() + wanted);
        }
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
