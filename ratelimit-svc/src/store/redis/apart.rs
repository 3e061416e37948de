//! Two Redis: one for windows of a second, one for all else. Each has a breaker of its own, so
//! that one out of reach costs the other nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Redis;
use super::cluster::REPAIR_PAUSE;
use super::give_back::GiveBack;
use crate::outage::breaker::{Breaker, Change};
use crate::outage::guard::Backend;
use crate::store::split::count_apart;
use crate::store::{Count, Hit, Mode, StoreError};

/// The two.
pub struct Apart {
    main: Arc<Part>,
    per_second: Arc<Part>,
    back: GiveBack,
}

/// One of them.
struct Part {
    name: &'static str,
    store: Redis,
    breaker: Mutex<Breaker>,
    reviving: AtomicBool,
    /// Where it is revived, whoever asks for it: what that connects outlives the thread of a request.
    home: Handle,
}

impl Apart {
    /// Windows of a second go to `per_second`. Both are looked after on the runtime that this is
    /// called on.
    pub fn new(main: Redis, per_second: Redis) -> Self {
        let part = |name, store| {
            let breaker = Mutex::new(Breaker::new(std_now()));
            let (reviving, home) = (AtomicBool::new(false), Handle::current());
            Arc::new(Part { name, store, breaker, reviving, home })
        };
        let (main, per_second) = (part("main", main), part("per_second", per_second));
        Self { main, per_second, back: GiveBack::default() }
    }

    /// Counts each hit where it belongs, in both at once.
    ///
    /// # Errors
    /// When one that is needed is out of reach.
    pub fn count<'a>(
        &'a self,
        hits: &'a [Hit],
        mode: Mode,
        now: Duration,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Vec<Count>, StoreError>> {
        let is_second = |hit: &Hit| hit.window.seconds == 1;
        let count = move |is_second, hits: Vec<Hit>, mode| async move {
            let part = if is_second { &self.per_second } else { &self.main };
            part.count(&hits, mode, now, deadline).await
        };
        let give_back = async move |hits| self.back.by(deadline, hits, now).await;
        count_apart(hits, mode, is_second, count, give_back).boxed()
    }

    /// Gives back, in both and in what they consist of. Never ends.
    pub fn tend(&self, budget: Duration) -> BoxFuture<'_, ()> {
        let own = async move {
            loop {
                for back in self.back.next().await {
                    let deadline = Instant::now() + budget;
                    // What is not given back is lost until its window ends.
                    let _ = self.count(&back.hits, Mode::CountAll, back.now, deadline).await;
                    back.done();
                }
            }
        };
        async move {
            tokio::join!(own, self.main.store.tend(), self.per_second.store.tend());
        }
        .boxed()
    }

    /// A connection to where a hit is counted.
    ///
    /// # Errors
    /// When there is none.
    pub fn connection(&self, hit: &Hit) -> Result<MultiplexedConnection, StoreError> {
        let part = if hit.window.seconds == 1 { &self.per_second } else { &self.main };
        part.store.servers.connection(&part.store.key(hit))
    }

    /// The one for all else.
    pub fn main(&self) -> &Redis {
        &self.main.store
    }

    /// The one for windows of a second.
    pub fn per_second(&self) -> &Redis {
        &self.per_second.store
    }

    /// Connects to those that are out of reach, checks on those that are not.
    ///
    /// # Errors
    /// When both are out of reach.
    // Boxed: a store that holds stores.
    pub fn look_after(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            let (main, per_second) =
                tokio::join!(self.main.look_after(), self.per_second.look_after());
            main.or(per_second)
        }
        .boxed()
    }
}

impl Part {
    async fn count(
        self: &Arc<Self>,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
        deadline: Instant,
    ) -> Result<Vec<Count>, StoreError> {
        let Some(permit) = self.breaker().permit(std_now()) else {
            self.revive_soon();
            return Err(StoreError::Part(Box::new(StoreError::NotConnected)));
        };
        let counts = self.store.ask(hits, mode, now, deadline).await;
        match counts {
            Ok(_) => {
                self.breaker().succeeded(permit);
            }
            Err(ref error) if error.is_partial() => {}
            Err(error) => {
                let fatal = error.needs_reconnect();
                let change = self.breaker().failed(permit, fatal, std_now(), 0.5);
                self.changed(change, Some(&error));
                return Err(StoreError::Part(Box::new(error)));
            }
        }
        counts
    }

    async fn look_after(&self) -> Result<(), StoreError> {
        let permit = self.breaker().permit(std_now());
        match permit {
            Some(permit) => {
                let checked = self.store.check().await;
                if let Err(error) = &checked {
                    let fatal = error.needs_reconnect();
                    let change = self.breaker().failed(permit, fatal, std_now(), 0.5);
                    self.changed(change, Some(error));
                }
                checked.map(|_| ())
            }
            None => {
                self.store.probe().await?;
                let change = self.breaker().probe_succeeded(std_now());
                self.changed(change, None);
                Ok(())
            }
        }
    }

    /// Tries to connect; at once, unless that was just done.
    fn revive_soon(self: &Arc<Self>) {
        if self.reviving.swap(true, Ordering::AcqRel) {
            return;
        }
        let part = self.clone();
        self.home.spawn(async move {
            // Told when it was lost.
            let _ = part.look_after().await;
            tokio::time::sleep(REPAIR_PAUSE).await;
            part.reviving.store(false, Ordering::Release);
        });
    }

    fn changed(&self, change: Option<Change>, error: Option<&StoreError>) {
        let (name, cause) = (self.name, error.map(|error| chassis::telemetry::error_chain(error)));
        match change {
            Some(Change::Opened) => tracing::error!(redis = name, cause, "redis out of reach"),
            Some(Change::Closed) => tracing::info!(redis = name, "redis in reach"),
            None => {}
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn std_now() -> std::time::Instant {
    Instant::now().into_std()
}
