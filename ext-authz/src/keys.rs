//! The keys in force: loaded from the keys file, swapped whole, kept when a newer file is bad.
//!
//! ```text
//! file      good A │ bad      │ gone     │ good B
//! in force  A      │ A        │ A        │ B
//! stale     0      │ counting │ counting │ 0
//! ```
//!
//! Before the first good file nothing is in force, the service is not ready, and checks are
//! answered with "come again". After that it stays ready: the last good keys are served.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use chassis::config::ConfigError;
use chassis::readiness::{Condition, Readiness};
use chassis::reload::{self, ReloadStatus, Source};
use tokio::sync::watch;

use crate::check::digest::Peppers;
use crate::check::snapshot::Snapshot;
use crate::key_file::{KeyFile, Rules};

/// Where keys come from and what they are checked against.
#[derive(Clone, Debug)]
pub struct KeySource {
    /// The keys file.
    pub path: PathBuf,
    /// The peppers digests may name.
    pub peppers: Arc<Peppers>,
    /// The priority classes there are.
    pub priority_classes: Vec<String>,
}

/// The keys that requests are checked against right now.
pub struct Keys {
    in_force: ArcSwapOption<Snapshot>,
    state: Mutex<State>,
    loaded: Condition,
    source: KeySource,
}

#[derive(Default)]
struct State {
    status: ReloadStatus,
    loads: u64,
    refusals: u64,
    loaded_at: Option<Instant>,
    stale_since: Option<Instant>,
}

/// What operators are told about the keys in force.
#[derive(Clone, Debug)]
pub struct KeysStatus {
    /// Version, hash, load time and last error.
    pub reload: ReloadStatus,
    /// How many keys are in force.
    pub keys: usize,
    /// How many times a file came into force.
    pub loads: u64,
    /// How many times a file was refused.
    pub refusals: u64,
    /// Since when the keys are in force.
    pub age: Option<Duration>,
    /// Since when the file is not what is in force; zero while it is.
    pub stale: Duration,
}

impl Keys {
    /// Keys of which none are loaded yet, which holds readiness back.
    pub fn new(source: KeySource, readiness: &Readiness) -> Self {
        Self {
            in_force: ArcSwapOption::empty(),
            state: Mutex::default(),
            loaded: readiness.condition("keys", "none loaded yet"),
            source,
        }
    }

    /// The snapshot to decide with, if there ever was a good one.
    pub fn in_force(&self) -> arc_swap::Guard<Option<Arc<Snapshot>>> {
        self.in_force.load()
    }

    /// What `/config` and metrics tell.
    pub fn status(&self) -> KeysStatus {
        let state = self.state();
        KeysStatus {
            reload: state.status.clone(),
            keys: self.in_force.load().as_ref().map_or(0, |snapshot| snapshot.len()),
            loads: state.loads,
            refusals: state.refusals,
            age: state.loaded_at.map(|at| at.elapsed()),
            stale: state.stale_since.map_or(Duration::ZERO, |at| at.elapsed()),
        }
    }

    /// Loads the file and then follows it. Never ends.
    pub async fn follow(self: Arc<Self>) {
        let source = Source::File(self.source.path.clone());
        let (sender, receiver) = watch::channel(());
        let changes = reload::follow(source.clone(), reload::PERIOD, move |_| {
            // The loader lives as long as this future: both end together.
            let _ = sender.send(());
            std::future::ready(())
        });
        // The follower looks first, so that no change falls between it and the first load.
        tokio::select! {
            biased;
            () = changes => {}
            () = self.load_on(receiver, &source) => {}
        }
    }

    async fn load_on(&self, mut changes: watch::Receiver<()>, source: &Source) {
        loop {
            changes.mark_unchanged();
            let (source, rules) = (source.clone(), self.source.clone());
            // A large file takes a moment to parse, and requests must not wait for it.
            match tokio::task::spawn_blocking(move || load(&source, &rules)).await {
                Ok((hash, Ok(snapshot))) => self.put_in_force(hash, snapshot),
                Ok((_, Err(error))) => self.refuse(&error.to_string()),
                Err(panic) => self.refuse(&panic.to_string()),
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn put_in_force(&self, hash: u64, snapshot: Snapshot) {
        let keys = snapshot.len();
        {
            let mut state = self.state();
            let fresh = state.status.hash != format!("{hash:016x}");
            state.stale_since = None;
            if !fresh && state.status.last_error.is_none() {
                return;
            }
            self.in_force.store(Some(Arc::new(snapshot)));
            state.status.loaded(hash);
            state.loads += 1;
            state.loaded_at = Some(Instant::now());
        }
        self.loaded.met();
        tracing::info!(keys, "keys in force");
    }

    fn refuse(&self, error: &str) {
        let none = self.in_force.load().is_none();
        {
            let mut state = self.state();
            state.status.refused(error);
            state.refusals += 1;
            state.stale_since.get_or_insert_with(Instant::now);
        }
        if none {
            self.loaded.lost(error);
            tracing::error!(error, "no keys in force: the keys file is not usable");
        } else {
            tracing::error!(error, "the keys file was refused, the keys before it stay in force");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(source: &Source, keys: &KeySource) -> (u64, Result<Snapshot, ConfigError>) {
    let files = source.read();
    let hash = reload::hash(&files);
    let Some((path, contents)) = files.into_iter().next() else {
        return (hash, Err(ConfigError::file(&keys.path, "cannot be read")));
    };
    let rules = Rules { peppers: &keys.peppers, priority_classes: &keys.priority_classes };
    let parsed = contents
        .map_err(|error| ConfigError::file(&path, error))
        .and_then(|bytes| KeyFile::records(&path, &bytes, rules));
    let peppers = Arc::clone(&keys.peppers);
    (hash, parsed.map(|records| Snapshot::new(records, peppers)))
}
