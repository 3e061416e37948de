//! The slots of a listener: the table behind a lock, and what tells a connection to close.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::table::{Admission, Limits, Peer, Table};

/// The slots of one listener; clones share them.
#[derive(Clone)]
pub struct Slots {
    shared: Arc<Shared>,
}

struct Shared {
    limits: Limits,
    state: Mutex<State>,
    freed: Notify,
}

struct State {
    table: Table,
    evictions: HashMap<u64, CancellationToken>,
}

/// The slot of one connection, given back when it is dropped.
pub struct Slot {
    shared: Arc<Shared>,
    id: u64,
    evicted: CancellationToken,
}

/// A request that has begun; dropped when its answer has been sent.
pub struct OpenRequest {
    slot: Arc<Slot>,
}

impl Slots {
    /// As many slots as `limits` says, all free.
    pub fn new(limits: Limits) -> Self {
        let state = State { table: Table::new(limits), evictions: HashMap::new() };
        let (state, freed) = (Mutex::new(state), Notify::new());
        Self { shared: Arc::new(Shared { limits, state, freed }) }
    }

    /// A slot for a connection that was accepted; `None` when it is to be closed at once. While
    /// all connections have open requests this waits until one has not. Cancel safe.
    pub async fn admit(&self, peer: Peer) -> Option<Slot> {
        loop {
            let freed = self.shared.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            match self.try_admit(peer) {
                Ok(slot) => return slot,
                Err(Full) => freed.await,
            }
        }
    }

    /// Closes the connection that others can best do without; for when the system has no more
    /// file descriptors.
    pub fn relieve(&self) {
        let mut state = self.shared.lock();
        if let Some(id) = state.table.relieve() {
            state.evict(id);
        }
    }

    /// How many connections hold a slot.
    pub fn taken(&self) -> usize {
        self.shared.lock().table.len()
    }

    fn try_admit(&self, peer: Peer) -> Result<Option<Slot>, Full> {
        let mut state = self.shared.lock();
        match state.table.admit(peer, Instant::now().into_std()) {
            Admission::Admitted { id, evicted } => {
                if let Some(evicted) = evicted {
                    state.evict(evicted);
                }
                let token = CancellationToken::new();
                state.evictions.insert(id, token.clone());
                Ok(Some(Slot { shared: self.shared.clone(), id, evicted: token }))
            }
            Admission::PeerFull => Ok(None),
            Admission::Full => Err(Full),
        }
    }
}

/// Every connection has an open request.
struct Full;

impl State {
    fn evict(&mut self, id: u64) {
        if let Some(token) = self.evictions.remove(&id) {
            token.cancel();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The head of a request has come.
    pub fn begin(self: &Arc<Self>) -> OpenRequest {
        self.shared.lock().table.begun(self.id, Instant::now().into_std());
        OpenRequest { slot: self.clone() }
    }

    /// The connection has brought a request and keeps its slot from now on, without limits of
    /// time: for listeners that do not follow single requests.
    pub fn keep(&self) {
        self.shared.lock().table.begun(self.id, Instant::now().into_std());
    }

    /// Resolves when the connection has to make room for another.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Resolves when the connection has been in its state for too long, at the latest the idle
    /// limit later.
    pub async fn expired(&self) {
        loop {
            let Some(at) = self.shared.lock().table.expires_at(self.id) else { return };
            let now = Instant::now();
            let at = Instant::from_std(at);
            if at <= now {
                return;
            }
            // A state that ends early is followed by one with another limit.
            sleep_until(at.min(now + self.shared.limits.idle)).await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.table.released(self.id);
        state.evictions.remove(&self.id);
        drop(state);
        self.shared.freed.notify_waiters();
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let shared = &self.slot.shared;
        let is_idle = shared.lock().table.ended(self.slot.id, Instant::now().into_std());
        if is_idle {
            shared.freed.notify_waiters();
        }
    }
}
