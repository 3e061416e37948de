//! The connections to one server: one for what no request waits for, and one for each thread that
//! serves requests. Decides who sends over which; counts nothing.
//!
//! ```text
//! worker 0 ── its requests ──────────► own ┐
//! worker 1 ── its requests ──────────► own ┼──► server
//! all else, and workers without ───► shared ┘
//! ```
//!
//! A connection belongs to the runtime it was made on. Over one of its own thread all requests of
//! a turn leave in one write, and their answers wake nobody elsewhere; over the shared one every
//! request would cross threads twice. No request waits for a connection: until its thread has one,
//! and where it gets none, it goes over the shared one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

use crate::store::error::StoreError;
use crate::store::redis::connection::address::{Address, HostPort};
use crate::store::redis::connection::connector::{Endpoint, PROBE_TIMEOUT};
use crate::store::redis::connection::refusal::classify;

/// Between two threads' connections to one server: what a server that was found again has to do
/// for all replicas' threads must not keep it from counting.
pub const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// From a thread's failure to connect to its next attempt.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often each thread's connection is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The connections to one server.
pub struct Connections {
    endpoint: Endpoint,
    shared: MultiplexedConnection,
    threads: Box<[OfThread]>,
    /// One thread connects at a time.
    turn: Arc<Mutex<()>>,
    /// What is read over a new connection and over the shared one: who reads something else is
    /// connected to another server.
    witness: Option<String>,
    /// A thread that could not connect was reported.
    reported: AtomicBool,
}

/// What one thread has.
#[derive(Default)]
struct OfThread {
    connection: ArcSwapOption<MultiplexedConnection>,
    /// A task looks after it.
    kept: AtomicBool,
}

impl Connections {
    /// Connections to the server at `endpoint`, of which `shared` is one, for that many threads.
    pub fn new(
        endpoint: Endpoint,
        shared: MultiplexedConnection,
        threads: usize,
        witness: Option<String>,
    ) -> Arc<Self> {
        let threads = (0..threads).map(|_| OfThread::default()).collect();
        let (turn, reported) = (Arc::default(), AtomicBool::new(false));
        Arc::new(Self { endpoint, shared, threads, turn, witness, reported })
    }

    /// The connection for whoever runs on this thread.
    pub fn here(self: &Arc<Self>) -> MultiplexedConnection {
        match chassis::grpc::worker() {
            Some(worker) => self.on(worker),
            None => self.shared.clone(),
        }
    }

    /// The connection for whoever runs on that worker, which must be this thread.
    pub fn on(self: &Arc<Self>, worker: usize) -> MultiplexedConnection {
        let Some(of_thread) = self.threads.get(worker) else { return self.shared.clone() };
        if let Some(own) = &*of_thread.connection.load() {
            return MultiplexedConnection::clone(own);
        }
        if !of_thread.kept.swap(true, Ordering::AcqRel) {
            tokio::spawn(keep(Arc::downgrade(self), self.turn.clone(), worker));
        }
        self.shared.clone()
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.endpoint.at
    }

    /// Whether they are to the server at that port.
    pub fn is_to(&self, at: &HostPort) -> bool {
        matches!(&self.endpoint.at, Address::Tcp(own) if own == at)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut own = self.endpoint.connect_aside().await?;
        if let Some(witness) = &self.witness {
            let mut shared = self.shared.clone();
            let (here, there) = tokio::join!(read(&mut own, witness), read(&mut shared, witness));
            if here? != there? {
                return Err(StoreError::Unexpected);
            }
        }
        Ok(own)
    }
}

/// Gives a thread its connection, and looks after it until it is lost or nobody needs it any more.
async fn keep(connections: Weak<Connections>, turn: Arc<Mutex<()>>, number: usize) {
    let turn = turn.lock_owned().await;
    let Some(strong) = connections.upgrade() else { return };
    let connected = strong.connect().await.map(|own| {
        strong.threads[number].connection.store(Some(Arc::new(own)));
    });
    drop(strong);
    tokio::time::sleep(CONNECT_PAUSE).await;
    drop(turn);
    match connected {
        Ok(()) => look_after(&connections, number).await,
        Err(error) => {
            if let Some(connections) = connections.upgrade()
                && !connections.reported.swap(true, Ordering::Relaxed)
            {
                let cause = chassis::telemetry::error_chain(&error);
                tracing::warn!(cause, "a thread shares a connection to redis");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
    if let Some(connections) = connections.upgrade() {
        connections.threads[number].kept.store(false, Ordering::Release);
    }
}

/// Looks at a thread's connection while it is of use. An idle one may have been closed, or its way
/// lost, and no request should be the one to find out.
async fn look_after(connections: &Weak<Connections>, number: usize) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let own = {
            let Some(connections) = connections.upgrade() else { return };
            connections.threads[number].connection.load_full()
        };
        let Some(own) = own else { return };
        let mut own = MultiplexedConnection::clone(&own);
        // Not every user may ask for a PONG.
        let time = redis::cmd("TIME");
        let time = tokio::time::timeout(PROBE_TIMEOUT, time.query_async::<Value>(&mut own));
        if !matches!(time.await, Ok(Ok(_))) {
            if let Some(connections) = connections.upgrade() {
                connections.threads[number].connection.store(None);
            }
            return;
        }
    }
}

/// What is under a key; nothing may be.
async fn read(connection: &mut MultiplexedConnection, key: &str) -> Result<Value, StoreError> {
    let mut get = redis::cmd("GET");
    let get = get.arg(key).query_async(connection);
    let answer = tokio::time::timeout(PROBE_TIMEOUT, get).await;
    answer.map_err(|_| StoreError::TimedOut)?.map_err(classify)
}
