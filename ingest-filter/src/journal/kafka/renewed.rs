//! A client of the library that is built anew when the files of its login change. Whoever uses the
//! old one goes on with it, and it ends when nobody does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::error::KafkaResult;
use tokio::sync::watch;

use crate::journal::config::KafkaConfig;
use crate::journal::credentials::Material;

/// How often it is looked whether the old client is used still.
const DRAIN_PERIOD: Duration = Duration::from_millis(100);

type Build<T> = Box<dyn Fn() -> KafkaResult<T> + Send + Sync>;

/// The client in use, and how the next one is made.
pub(super) struct Renewed<T> {
    build: Build<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    in_force: watch::Receiver<Arc<Material>>,
    client: Arc<T>,
}

impl<T: Send + Sync + 'static> Renewed<T> {
    /// Builds the first.
    pub fn new(
        config: &KafkaConfig,
        build: impl Fn() -> KafkaResult<T> + Send + Sync + 'static,
    ) -> KafkaResult<Self> {
        let mut in_force = config.credentials.in_force();
        in_force.mark_unchanged();
        let client = Arc::new(build()?);
        Ok(Self { build: Box::new(build), state: Mutex::new(State { in_force, client }) })
    }

    /// The client for what begins now.
    pub fn current(&self) -> Arc<T> {
        let mut state = self.state();
        if !state.in_force.has_changed().unwrap_or(false) {
            return state.client.clone();
        }
        state.in_force.mark_unchanged();
        match (self.build)() {
            Ok(client) => drain(std::mem::replace(&mut state.client, Arc::new(client))),
            Err(error) => tracing::error!(%error, "no Kafka client could be built with new files"),
        }
        state.client.clone()
    }

    /// Builds a new one in any case.
    pub fn replace(&self) -> KafkaResult<()> {
        let client = Arc::new((self.build)()?);
        drain(std::mem::replace(&mut self.state().client, client));
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
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::journal::config::security::{Mechanism, Proof, Sasl, Security};
    use crate::journal::credentials::Credentials;

    #[test]
    fn new_files_bring_a_new_client_and_the_old_one_ends_with_its_last_user() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("password");
        std::fs::write(&file, "one").expect("written");
        let proof = Proof::Password { username: "tidegate".to_owned(), file: file.clone() };
        let sasl = Some(Sasl { mechanism: Mechanism::ScramSha512, proof });
        let credentials = Credentials::new(Security { tls: None, sasl });
        credentials.read_files().expect("good");
        let config = KafkaConfig { credentials: credentials.clone(), ..KafkaConfig::new("a:1") };
        let built = AtomicU32::new(0);
        let count = move || Ok(built.fetch_add(1, Ordering::Relaxed));
        let renewed = Renewed::new(&config, count).expect("built");
        let first = renewed.current();
        assert_eq!((*first, *renewed.current()), (0, 0));
        std::fs::write(&file, "two").expect("written");
        credentials.read_files().expect("good");
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
}
