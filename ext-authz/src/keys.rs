//! The keys in force: the newest good keys of every source, swapped whole, kept when newer ones are
//! bad or look as if they were cut.
//!
//! ```text
//! file      good A │ bad      │ gone     │ good B
//! in force  A      │ A        │ A        │ B
//! stale     0      │ counting │ counting │ 0
//! ```
//!
//! Before every source was read once the service is not ready, and keys that nobody knows yet are
//! answered with "come again". After that files never take readiness away: the last good keys are
//! served. Redis does, when it could not be asked for too long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use chassis::readiness::{Condition, Readiness};
use chassis::reload::ReloadStatus;

use crate::check::digest::Peppers;
use crate::check::key_set::{Clash, KeySet};
use crate::check::keyring::{Keyring, Part};
use crate::source::KeySource;

/// How long a keyring that is no longer in force may wait for requests that still look at it.
/// They take microseconds.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(10);

/// One of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The keys files.
    Files,
    /// Redis.
    Redis,
}

/// Why keys cannot come into force.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// They cannot be in force beside those of the other source.
    #[error("{clash}, by the {other}")]
    Clash {
        /// What is the matter.
        clash: Clash,
        /// Which source has it already.
        other: &'static str,
    },
    /// A pepper is gone that keys were made with.
    #[error("pepper {pepper} is missing, which keys of the {origin} were made with")]
    Pepper {
        /// Its number.
        pepper: u32,
        /// Whose keys.
        origin: &'static str,
    },
}

/// The keys that requests are checked against right now.
pub struct Keys {
    in_force: ArcSwapOption<Keyring>,
    state: Mutex<State>,
    bypass_classes: Arc<[String]>,
}

struct State {
    peppers: Arc<Peppers>,
    files: Option<Source>,
    redis: Option<Source>,
}

/// What is known of one source.
struct Source {
    keys: Option<Arc<KeySet>>,
    status: ReloadStatus,
    loads: u64,
    refusals: u64,
    loaded_at: Option<Instant>,
    /// Since when it is not what is in force.
    stale_since: Option<Instant>,
    /// Whether it could not be asked for too long.
    is_stale: bool,
    condition: Condition,
}

/// What operators are told about the keys of one source.
#[derive(Clone, Debug, Default)]
pub struct SourceStatus {
    /// Version, hash, load time and last error.
    pub reload: ReloadStatus,
    /// How many keys are in force.
    pub keys: usize,
    /// How many times the whole source came into force.
    pub loads: u64,
    /// How many times it was refused.
    pub refusals: u64,
    /// Since when the keys are in force.
    pub age: Option<Duration>,
    /// Since when the source is not what is in force; zero while it is.
    pub stale: Duration,
    /// Whether it could not be asked for longer than is allowed.
    pub is_stale: bool,
}

impl Origin {
    /// Its name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Files => "keys files",
            Self::Redis => "Redis",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Files => Self::Redis,
            Self::Redis => Self::Files,
        }
    }
}

impl Keys {
    /// Keys of which none are loaded yet, which holds readiness back.
    pub fn new(source: &KeySource, readiness: &Readiness) -> Self {
        let known = |is_configured: bool, name| {
            is_configured.then(|| Source {
                keys: None,
                status: ReloadStatus::default(),
                loads: 0,
                refusals: 0,
                loaded_at: None,
                stale_since: None,
                is_stale: false,
                condition: readiness.condition(name, "none loaded yet"),
            })
        };
        let state = State {
            peppers: Arc::clone(&source.peppers),
            files: known(source.path.is_some(), "keys"),
            redis: known(source.redis.is_some(), "keys in Redis"),
        };
        Self {
            in_force: ArcSwapOption::empty(),
            state: Mutex::new(state),
            bypass_classes: Arc::clone(&source.bypass_classes),
        }
    }

    /// The keyring to decide with, if there ever was a good source.
    pub fn in_force(&self) -> arc_swap::Guard<Option<Arc<Keyring>>> {
        self.in_force.load()
    }

    /// The keys of one source, as they are in force.
    pub fn of(&self, origin: Origin) -> Option<Arc<KeySet>> {
        self.state().source(origin).and_then(|source| source.keys.clone())
    }

    /// The peppers in force.
    pub fn peppers(&self) -> Arc<Peppers> {
        Arc::clone(&self.state().peppers)
    }

    /// What `/config` and metrics tell of a source, if there is that one.
    pub fn status(&self, origin: Origin) -> Option<SourceStatus> {
        self.state().source(origin).map(|source| SourceStatus {
            reload: source.status.clone(),
            keys: source.keys.as_ref().map_or(0, |keys| keys.len()),
            loads: source.loads,
            refusals: source.refusals,
            age: source.loaded_at.map(|at| at.elapsed()),
            stale: source.stale_since.map_or(Duration::ZERO, |at| at.elapsed()),
            is_stale: source.is_stale,
        })
    }

    /// Puts the whole of a source in force, and the peppers that were read with it; then the same
    /// hash again changes nothing.
    ///
    /// # Errors
    /// When it cannot be beside the other source. Then all stays as it is.
    pub fn load(
        &self,
        origin: Origin,
        hash: u64,
        keys: KeySet,
        peppers: Option<Arc<Peppers>>,
    ) -> Result<(), Refused> {
        let count = keys.len();
        let old;
        {
            let mut state = self.state();
            if let Some(source) = state.source_mut(origin) {
                source.stale_since = None;
                let is_known = source.status.hash == format!("{hash:016x}");
                if is_known && source.status.last_error.is_none() && peppers.is_some() {
                    return Ok(());
                }
            }
            let peppers = peppers.unwrap_or_else(|| Arc::clone(&state.peppers));
            state.check_beside(origin, &keys, &peppers)?;
            state.peppers = peppers;
            if let Some(source) = state.source_mut(origin) {
                source.keys = Some(Arc::new(keys));
                source.status.loaded(hash);
                source.loads += 1;
                source.loaded_at = Some(Instant::now());
                source.is_stale = false;
                source.condition.met();
            }
            old = self.swap(&state);
        }
        release_aside(old);
        tracing::info!(keys = count, source = origin.as_str(), "keys in force");
        Ok(())
    }

    /// Puts changed keys of a source in force, under the peppers as they are.
    pub fn change(&self, origin: Origin, keys: KeySet) {
        let old;
        {
            let mut state = self.state();
            if let Some(source) = state.source_mut(origin) {
                source.keys = Some(Arc::new(keys));
                source.loaded_at = Some(Instant::now());
            }
            old = self.swap(&state);
        }
        release_aside(old);
    }

    /// Takes other peppers, where no keys file names any.
    ///
    /// # Errors
    /// When keys in force need one that is not among them.
    pub fn renew_peppers(&self, peppers: Arc<Peppers>) -> Result<(), Refused> {
        let old;
        {
            let mut state = self.state();
            for origin in [Origin::Files, Origin::Redis] {
                state.check_peppers(origin, &peppers)?;
            }
            state.peppers = peppers;
            old = self.swap(&state);
        }
        release_aside(old);
        Ok(())
    }

    /// Something is wrong with a source, whose keys stay in force. It is logged once.
    pub fn refuse(&self, origin: Origin, error: &str) {
        let mut state = self.state();
        let Some(source) = state.source_mut(origin) else { return };
        source.stale_since.get_or_insert_with(Instant::now);
        source.refusals += 1;
        if source.keys.is_none() {
            source.condition.lost(error);
        }
        source.report(origin, error);
    }

    /// A source was asked, and what is in force is what it has, but for a problem that it may have
    /// all the same.
    pub fn confirm(&self, origin: Origin, problem: Option<&str>) {
        let mut state = self.state();
        let Some(source) = state.source_mut(origin) else { return };
        source.stale_since = None;
        match problem {
            Some(problem) => source.report(origin, problem),
            None => {
                source.status.last_error = None;
                source.status.last_error_at_seconds = None;
                source.condition.all_well();
            }
        }
        if std::mem::replace(&mut source.is_stale, false) {
            source.condition.met();
            release_aside(self.swap(&state));
            tracing::info!(source = origin.as_str(), "the source of keys is back");
        }
    }

    /// A source could not be asked for too long.
    pub fn expire(&self, origin: Origin) {
        let mut state = self.state();
        let Some(source) = state.source_mut(origin) else { return };
        if source.keys.is_some() && !std::mem::replace(&mut source.is_stale, true) {
            source.condition.lost("not heard of for too long");
            release_aside(self.swap(&state));
            tracing::error!(
                source = origin.as_str(),
                "the source of keys was not heard of for too long: only classes that bypass pass"
            );
        }
    }

    fn swap(&self, state: &State) -> Option<Arc<Keyring>> {
        let sources = [&state.files, &state.redis];
        let parts: Vec<Part> = sources.into_iter().flatten().filter_map(Source::part).collect();
        let is_whole = parts.len() == sources.into_iter().flatten().count();
        if parts.is_empty() {
            return None;
        }
        let (classes, peppers) = (Arc::clone(&self.bypass_classes), Arc::clone(&state.peppers));
        self.in_force.swap(Some(Arc::new(Keyring::new(parts, is_whole, classes, peppers))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn source(&self, origin: Origin) -> Option<&Source> {
        match origin {
            Origin::Files => self.files.as_ref(),
            Origin::Redis => self.redis.as_ref(),
        }
    }

    fn source_mut(&mut self, origin: Origin) -> Option<&mut Source> {
        match origin {
            Origin::Files => self.files.as_mut(),
            Origin::Redis => self.redis.as_mut(),
        }
    }

    fn keys(&self, origin: Origin) -> Option<&KeySet> {
        self.source(origin).and_then(|source| source.keys.as_deref())
    }

    fn check_beside(
        &self,
        origin: Origin,
        keys: &KeySet,
        peppers: &Peppers,
    ) -> Result<(), Refused> {
        let other = origin.other();
        has_peppers(origin, keys, peppers)?;
        self.check_peppers(other, peppers)?;
        match self.keys(other).and_then(|others| others.clash(keys)) {
            Some(clash) => Err(Refused::Clash { clash, other: other.as_str() }),
            None => Ok(()),
        }
    }

    fn check_peppers(&self, origin: Origin, peppers: &Peppers) -> Result<(), Refused> {
        self.keys(origin).map_or(Ok(()), |keys| has_peppers(origin, keys, peppers))
    }
}

fn has_peppers(origin: Origin, keys: &KeySet, peppers: &Peppers) -> Result<(), Refused> {
    match keys.peppers().find(|version| !peppers.has(*version)) {
        Some(pepper) => Err(Refused::Pepper { pepper, origin: origin.as_str() }),
        None => Ok(()),
    }
}

impl Source {
    /// Says what is wrong, once.
    fn report(&mut self, origin: Origin, error: &str) {
        let is_new = self.status.last_error.as_deref() != Some(error);
        self.status.refused(error);
        let source = origin.as_str();
        if self.keys.is_some() {
            self.condition.warn(error);
        }
        match &self.keys {
            _ if !is_new => {}
            None => tracing::error!(error, source, "no keys in force: the source is not usable"),
            Some(_) => tracing::error!(error, source, "keys were refused, older ones are in force"),
        }
    }

    fn part(&self) -> Option<Part> {
        let keys = self.keys.clone()?;
        Some(Part { keys, is_stale: self.is_stale })
    }
}

/// Frees a keyring where no request waits for it.
fn release_aside(old: Option<Arc<Keyring>>) {
    if let Some(old) = old {
        tokio::task::spawn_blocking(|| release(old));
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
