//! What a client proves itself with: files on disk, and what a Workload API sends in their place.
//!
//! ```text
//! files ────────────────► read, or followed ──┐
//! Workload API ─ a thread ─► the last it sent ─┴─► one snapshot, as of files
//! ```
//!
//! A thread, as clients read when they connect, on whatever runtime they have. All clients of a process
//! that name the same address share it; it ends with the last of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::workload::{self, News};
use crate::reload::{self, Snapshot, Source};

/// Why there is no certificate before the first.
const NOTHING_YET: &str = "the Workload API has given no certificate yet";

/// Why nothing new comes from an API that nobody listens to.
const NO_THREAD: &str = "the thread that listens to the Workload API has ended";

/// How often a command looks whether something was sent.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// The threads that there are, by address.
static FEEDS: Mutex<BTreeMap<String, Weak<Feed>>> = Mutex::new(BTreeMap::new());

/// The files of a client. Clones share what the Workload API sends.
#[derive(Clone)]
pub struct Material {
    source: Source,
    feed: Option<Arc<Feed>>,
}

impl std::fmt::Debug for Material {
    /// Says nothing of what they hold.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Material({})", self.source)
    }
}

/// What one Workload API sends.
struct Feed {
    sent: watch::Receiver<Sent>,
    /// Dropped with the last client, which ends the thread.
    _wanted: oneshot::Sender<()>,
}

/// The state of a Workload API.
#[derive(Clone)]
struct Sent {
    files: Snapshot,
    /// Why there is nothing new.
    away: Option<String>,
}

impl Material {
    /// What stands on disk, and what the Workload API at `address` sends.
    pub fn open(source: Source, address: Option<&str>) -> Self {
        Self { source, feed: address.map(Feed::of) }
    }

    /// What there is now.
    pub fn read(&self) -> Snapshot {
        self.with(self.source.read())
    }

    /// Whether a Workload API is named that has sent nothing yet.
    pub fn awaits_the_first(&self) -> bool {
        let has_none = |sent: &Sent| sent.files.values().any(Result::is_err);
        self.feed.as_ref().is_some_and(|feed| has_none(&feed.sent.borrow()))
    }

    /// Keeps the thread until a Workload API has sent something, and no longer than that: for commands, which
    /// have no other work.
    pub fn wait_for_the_first(&self, most: Duration) {
        let end = Instant::now() + most;
        while self.awaits_the_first() && Instant::now() < end {
            std::thread::sleep(LOOK_PERIOD);
        }
    }

    /// Whether nothing can change.
    pub fn is_nothing(&self) -> bool {
        self.feed.is_none() && self.source.paths().is_empty()
    }

    /// Why the Workload API sends nothing new.
    pub fn away(&self) -> Option<String> {
        self.feed.as_ref().and_then(|feed| match feed.sent.has_changed() {
            Ok(_) => feed.sent.borrow().away.clone(),
            Err(_) => Some(NO_THREAD.to_owned()),
        })
    }

    /// Calls `apply` with what there is now, and with every change of it. Never ends.
    pub async fn follow(&self, period: Duration, mut apply: impl FnMut(Snapshot)) {
        let files = watch::Sender::new(self.source.read());
        let following = reload::follow(self.source.clone(), period, |snapshot| {
            files.send_replace(snapshot);
            std::future::ready(())
        });
        let applying = async {
            let mut changed = files.subscribe();
            let mut feed = self.feed.as_ref().map(|feed| feed.sent.clone());
            loop {
                if let Some(feed) = &mut feed {
                    feed.mark_unchanged();
                }
                let now = changed.borrow_and_update().clone();
                apply(self.with(now));
                let sent = async {
                    match &mut feed {
                        Some(feed) => feed.changed().await.is_ok(),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    // Without a thread that sends there are only files to wait for.
                    true = sent => {}
                    // The sender is ours.
                    _ = changed.changed() => {}
                }
            }
        };
        tokio::join!(following, applying);
    }

    fn with(&self, mut files: Snapshot) -> Snapshot {
        if let Some(feed) = &self.feed {
            files.extend(feed.sent.borrow().files.clone());
        }
        files
    }
}

impl Feed {
    /// The one of this address, begun if there is none.
    fn of(address: &str) -> Arc<Self> {
        let mut feeds = FEEDS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(address).and_then(Weak::upgrade) {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let feed = Self::begin(address.to_owned()).unwrap_or_else(|error| {
            let reason = format!("no thread for the Workload API: {error}");
            let (_, sent) = watch::channel(Sent::nothing(address, &reason));
            Self { sent, _wanted: oneshot::channel().0 }
        });
        let feed = Arc::new(feed);
        feeds.insert(address.to_owned(), Arc::downgrade(&feed));
        feed
    }

    fn begin(address: String) -> io::Result<Self> {
        let (sender, sent) = watch::channel(Sent::nothing(&address, NOTHING_YET));
        let (wanted, unwanted) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let follow = async move {
            let follow = workload::follow(&address, |news| hear(&address, &sender, news));
            tokio::select! {
                never = follow => match never {},
                _ = unwanted => {}
            }
        };
        let thread = std::thread::Builder::new().name("workload-api".to_owned());
        thread.spawn(move || runtime.block_on(follow))?;
        Ok(Self { sent, _wanted: wanted })
    }
}

/// Keeps what the API sends; that it is away is said once.
fn hear(address: &str, sender: &watch::Sender<Sent>, news: News) {
    match news {
        News::Svid(files) => {
            sender.send_replace(Sent { files, away: None });
            tracing::info!(address, "the Workload API has sent a certificate for clients");
        }
        News::Away(reason) => {
            let is_new = sender.borrow().away.is_none();
            if is_new {
                tracing::error!(address, reason, "the Workload API is away for clients");
                sender.send_modify(|sent| sent.away = Some(reason));
            }
        }
    }
}

impl Sent {
    /// What there is before the first certificate: the reason why it cannot be read.
    fn nothing(address: &str, reason: &str) -> Self {
        let workload::Names { certificate, key, authorities, .. } = workload::names(address);
        let files = [certificate, key, authorities].map(|name| (name, Err(reason.to_owned())));
        Self { files: Snapshot::from(files), away: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_workload_api_whose_thread_is_gone_is_not_asked_again_and_again() {
        let (_, sent) = watch::channel(Sent::nothing("unix:///a", "no thread"));
        let feed = Arc::new(Feed { sent, _wanted: oneshot::channel().0 });
        let material = Material { source: Source::Files(Vec::new()), feed: Some(feed) };
        let mut applied = 0;
        let following = material.follow(Duration::from_secs(1), |files| {
            assert!(files.values().all(Result::is_err) && !files.is_empty());
            applied += 1;
            assert_eq!(applied, 1, "nothing has changed");
        });
        let ended = tokio::time::timeout(Duration::from_secs(60), following).await;
        ended.expect_err("it follows on");
        assert_eq!(applied, 1);
        assert_eq!(material.away().as_deref(), Some(NO_THREAD), "and it is told");
    }
}
