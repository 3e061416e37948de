//! The keys in force: loaded from their files, swapped whole, kept when newer files are bad or look
//! as if they were cut.
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
use chassis::reload::{self, ReloadStatus};
use tokio::sync::watch;

use crate::check::digest::Peppers;
use crate::check::keyring::Keyring;
use crate::peppers::PepperSource;
use crate::source::file;

/// How long a keyring that is no longer in force may wait for requests that still look at it.
/// They take microseconds.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Where keys come from and what they are checked against.
#[derive(Clone, Debug)]
pub struct KeySource {
    /// The keys file, or the directory of the keys files.
    pub path: PathBuf,
    /// Where the peppers are.
    pub pepper_source: PepperSource,
    /// The peppers as they were at the start, for commands.
    pub peppers: Arc<Peppers>,
    /// The priority classes there are.
    pub priority_classes: Vec<String>,
}

/// The keys that requests are checked against right now.
pub struct Keys {
    in_force: ArcSwapOption<Keyring>,
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

    /// The keyring to decide with, if there ever was a good one.
    pub fn in_force(&self) -> arc_swap::Guard<Option<Arc<Keyring>>> {
        self.in_force.load()
    }

    /// The numbers of the peppers in force.
    pub fn pepper_versions(&self) -> Vec<u32> {
        match self.in_force.load().as_deref() {
            Some(keyring) => keyring.pepper_versions().collect(),
            None => self.source.peppers.versions().collect(),
        }
    }

    /// What `/config` and metrics tell.
    pub fn status(&self) -> KeysStatus {
        let state = self.state();
        KeysStatus {
            reload: state.status.clone(),
            keys: self.in_force.load().as_ref().map_or(0, |keyring| keyring.len()),
            loads: state.loads,
            refusals: state.refusals,
            age: state.loaded_at.map(|at| at.elapsed()),
            stale: state.stale_since.map_or(Duration::ZERO, |at| at.elapsed()),
        }
    }

    /// Loads the keys and then follows their files and the peppers'. Never ends.
    pub async fn follow(self: Arc<Self>) {
        let mut watches = [
            reload::Watch::new(file::source(&self.source.path)),
            reload::Watch::new(self.source.pepper_source.files()),
        ];
        let (sender, receiver) = watch::channel(());
        let changes = async move {
            loop {
                tokio::time::sleep(reload::PERIOD).await;
                // Both are asked each time.
                let changed = watches.each_mut().map(reload::Watch::has_changed);
                if changed.contains(&true) {
                    // The loader lives as long as this future: both end together.
                    let _ = sender.send(());
                }
            }
        };
        // The watches have looked already, so that no change falls between them and the first load.
        tokio::select! {
            () = changes => {}
            () = self.load_on(receiver) => {}
        }
    }

    async fn load_on(&self, mut changes: watch::Receiver<()>) {
        loop {
            changes.mark_unchanged();
            let (source, present) = (self.source.clone(), self.in_force.load_full());
            // A large file takes a moment to parse, and requests must not wait for it.
            let loaded = tokio::task::spawn_blocking(move || load(&source, present.as_deref()));
            match loaded.await {
                Ok(Ok((hash, keyring))) => self.put_in_force(hash, keyring),
                Ok(Err(error)) => self.refuse(&error.to_string()),
                Err(panic) => self.refuse(&panic.to_string()),
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn put_in_force(&self, hash: u64, keyring: Keyring) {
        let keys = keyring.len();
        let old;
        {
            let mut state = self.state();
            let fresh = state.status.hash != format!("{hash:016x}");
            state.stale_since = None;
            if !fresh && state.status.last_error.is_none() {
                return;
            }
            old = self.in_force.swap(Some(Arc::new(keyring)));
            state.status.loaded(hash);
            state.loads += 1;
            state.loaded_at = Some(Instant::now());
        }
        if let Some(old) = old {
            tokio::task::spawn_blocking(|| release(old));
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

/// Frees a value here, once nobody else has it: freeing a million records takes longer than a
/// request may wait.
fn release<T>(old: Arc<T>) {
    let began = Instant::now();
    while Arc::strong_count(&old) > 1 && began.elapsed() < RELEASE_WAIT_MAX {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The keyring of the files as they are now, and a hash of all that it was made of.
fn load(source: &KeySource, present: Option<&Keyring>) -> Result<(u64, Keyring), ConfigError> {
    let (pepper_hash, peppers) = source.pepper_source.read()?;
    let read = file::read(&source.path, &peppers, &source.priority_classes)?;
    let keyring = read.keys.build(Arc::new(peppers));
    if let Some(present) = present
        && !read.is_counted
        && present.is_cut_by(&keyring)
    {
        let missing = present.missing_from(&keyring);
        let message = format!(
            "has {} keys and lacks {missing} of the {} in force, as a file that was cut does; if that \
             is meant, state 'count: {}' in it",
            keyring.len(),
            present.len(),
            keyring.len()
        );
        return Err(ConfigError::file(&source.path, message));
    }
    Ok((read.hash ^ pepper_hash, keyring))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use super::*;

    struct Probe(mpsc::Sender<ThreadId>);

    impl Drop for Probe {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[test]
    fn a_request_that_lets_go_last_does_not_free() {
        let (sender, freed) = mpsc::channel();
        let old = Arc::new(Probe(sender));
        let held_by_request = Arc::clone(&old);
        let releasing = thread::spawn(|| release(old));
        let releaser = releasing.thread().id();
        drop(held_by_request);
        releasing.join().expect("no panic");
        assert_eq!(freed.recv(), Ok(releaser));
    }
}
