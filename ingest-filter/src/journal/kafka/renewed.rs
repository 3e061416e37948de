//! A client of the library that is built anew when the files of its login change. Whoever uses the
//! old one goes on with it, and it ends when nobody does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult};
use tokio::sync::watch;

use crate::journal::config::KafkaConfig;
use crate::journal::credentials::Material;

/// How often it is looked whether the old client is used still.
const DRAIN_PERIOD: Duration = Duration::from_millis(100);

/// When a client that could not be built is tried again, at first.
const RETRY: Duration = Duration::from_secs(1);
/// The longest that is waited for the next try.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Whether a client is to be built anew, as the files of its login have changed, and when that is
/// tried again where it failed: the files stay as they are until the next rotation.
pub(super) struct Renewal {
    in_force: watch::Receiver<Arc<Material>>,
    /// After a failure: when to try again, and how long to wait after the next one.
    retry: Option<(Instant, Duration)>,
}

impl Renewal {
    /// With what is in force now.
    pub fn new(config: &KafkaConfig) -> Self {
        let mut in_force = config.credentials.in_force();
        in_force.mark_unchanged();
        Self { in_force, retry: None }
    }

    /// Whether a client is to be built now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if self.in_force.has_changed().unwrap_or(false) {
            self.in_force.mark_unchanged();
            self.retry = None;
            return true;
        }
        self.retry.is_some_and(|(at, _)| now >= at)
    }

    /// Waits until a client is to be built. Cancel safe.
    pub async fn due(&mut self) {
        let retry = self.retry;
        let again = async move {
            match retry {
                Some((at, _)) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.in_force.changed() => match changed {
                Ok(()) => self.retry = None,
                // Nothing changes any more.
                Err(_) => std::future::pending().await,
            },
            () = again => {}
        }
    }

    /// It was built.
    pub fn done(&mut self) {
        self.retry = None;
    }

    /// It could not be built.
    pub fn failed(&mut self, error: &KafkaError, now: Instant) {
        let wait = self.retry.map_or(RETRY, |(_, wait)| wait);
        self.retry = Some((now + wait, (wait * 2).min(RETRY_MAX)));
        tracing::error!(%error, ?wait, "no Kafka client could be built with new files, trying again");
    }
}

type Build<T> = Box<dyn Fn() -> KafkaResult<T> + Send + Sync>;

/// The client in use, and how the next one is made.
pub(super) struct Renewed<T> {
    build: Build<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    renewal: Renewal,
    client: Arc<T>,
}

impl<T: Send + Sync + 'static> Renewed<T> {
    /// Builds the first.
    pub fn new(
        config: &KafkaConfig,
        build: impl Fn() -> KafkaResult<T> + Send + Sync + 'static,
    ) -> KafkaResult<Self> {
        let renewal = Renewal::new(config);
        let client = Arc::new(build()?);
        Ok(Self { build: Box::new(build), state: Mutex::new(State { renewal, client }) })
    }

    /// The client for what begins now.
    pub fn current(&self) -> Arc<T> {
        self.current_at(Instant::now())
    }

    fn current_at(&self, now: Instant) -> Arc<T> {
        let mut state = self.state();
        if state.renewal.is_due(now) {
            match (self.build)() {
                Ok(client) => {
                    state.renewal.done();
                    drain(std::mem::replace(&mut state.client, Arc::new(client)));
                }
                Err(error) => state.renewal.failed(&error, now),
            }
        }
        state.client.clone()
    }

    /// Builds a new one in any case.
    pub fn replace(&self) -> KafkaResult<()> {
        let client = Arc::new((self.build)()?);
        let mut state = self.state();
        state.renewal.done();
        drain(std::mem::replace(&mut state.client, client));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops a client when nobody uses it any more, on a thread of its own: what is left in it is
/// purged, which takes a moment.
fn drain<T: Send + Sync + 'static>(client: Arc<T>) {
    let wait = move || {
        while Arc::strong_count(&client) > 1 {
            std::thread::sleep(DRAIN_PERIOD);
        }
        drop(client);
    };
    if let Err(error) = std::thread::Builder::new().name("kafka-drain".to_owned()).spawn(wait) {
        tracing::warn!(%error, "an old Kafka client ends where it is used last");
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;
    use crate::journal::config::security::{Mechanism, Proof, Sasl, Security};
    use crate::journal::credentials::Credentials;

    /// Settings whose login is a file, and the file.
    fn by_password() -> (tempfile::TempDir, PathBuf, KafkaConfig) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("password");
        std::fs::write(&file, "one").expect("written");
        let proof = Proof::Password { username: "tidegate".to_owned(), file: file.clone() };
        let sasl = Some(Sasl { mechanism: Mechanism::ScramSha512, proof });
        let credentials = Credentials::new(Security { tls: None, sasl });
        credentials.read_files().expect("good");
        (dir, file, KafkaConfig { credentials, ..KafkaConfig::new("a:1") })
    }

    fn rotate(file: &Path, config: &KafkaConfig, to: &str) {
        std::fs::write(file, to).expect("written");
        config.credentials.read_files().expect("good");
    }

    #[test]
    fn new_files_bring_a_new_client_and_the_old_one_ends_with_its_last_user() {
        let (_dir, file, config) = by_password();
        let built = AtomicU32::new(0);
        let count = move || Ok(built.fetch_add(1, Ordering::Relaxed));
        let renewed = Renewed::new(&config, count).expect("built");
        let first = renewed.current();
        assert_eq!((*first, *renewed.current()), (0, 0));
        rotate(&file, &config, "two");
        assert_eq!((*renewed.current(), *renewed.current()), (1, 1));
        assert_eq!(*first, 0, "whoever has it uses it");
        let weak = Arc::downgrade(&first);
        drop(first);
        while weak.upgrade().is_some() {
            std::thread::yield_now();
        }
        renewed.replace().expect("built");
        assert_eq!(*renewed.current(), 2);
    }

    #[test]
    fn a_client_that_cannot_be_built_is_tried_again_and_not_at_the_next_rotation_only() {
        let (_dir, file, config) = by_password();
        let (tries, fails) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, failing) = (tries.clone(), fails.clone());
        let build = move || match (count.fetch_add(1, Ordering::Relaxed), &failing) {
            (_, failing) if failing.load(Ordering::Relaxed) => Err(KafkaError::Canceled),
            (number, _) => Ok(number),
        };
        let renewed = Renewed::new(&config, build).expect("built");
        fails.store(true, Ordering::Relaxed);
        rotate(&file, &config, "two");
        let mut now = Instant::now();
        for (tried, wait) in [(2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (8, 30)] {
            assert_eq!(*renewed.current_at(now), 0, "the old one is used on");
            now += Duration::from_secs(wait);
            renewed.current_at(now - Duration::from_millis(1));
            assert_eq!(tries.load(Ordering::Relaxed), tried, "not before its time");
        }
        rotate(&file, &config, "three");
        renewed.current_at(now - Duration::from_millis(1));
        assert_eq!(tries.load(Ordering::Relaxed), 9, "other files are tried at once");
        fails.store(false, Ordering::Relaxed);
        assert_eq!(*renewed.current_at(now + RETRY), 9);
        assert_eq!(*renewed.current_at(now + Duration::from_secs(99)), 9, "and that is all");
    }
}
