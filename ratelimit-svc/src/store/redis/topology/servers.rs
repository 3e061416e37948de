//! The servers of one Redis, in whichever way they are run: finds them, looks at them, and hands a call
//! to the one that has a counter. Counts nothing.
//!
//! ```text
//!                       ┌ one server, or the master that sentinels name
//! call ─► side's breaker ──┤
//!          (of a pair)  └ slot ─► node's breaker ─► a primary of a cluster
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::lease::loss::{Finding, Whose};
use crate::store::backend::ServerState;
use crate::store::error::StoreError;
use crate::store::redis::connection::address::Address;
use crate::store::redis::connection::asking::Way;
use crate::store::redis::connection::connector::{Connector, prove};
use crate::store::redis::connection::deadlines;
use crate::store::redis::connection::tls::TlsError;
use crate::store::redis::loss::epoch::{Epochs, Marks};
use crate::store::redis::topology::cluster::Cluster;
use crate::store::redis::topology::link::{Link, LinkSettings, Threads, Topology};
use crate::store::redis::topology::part::Call;
use crate::store::redis::topology::scatter::at_owner;
use crate::store::redis::topology::sentinel::Sentinels;
use crate::store::redis::topology::side::Side;
use crate::store::redis::topology::slots::slot_of;

/// The servers of one Redis.
pub struct Servers {
    kind: Kind,
    /// What is written to find out whether a server counts.
    probe_key: String,
    clock: Arc<Clock>,
    /// The longest wait for one answer.
    budget: Duration,
    epochs: Arc<Epochs>,
    /// What marks the data of a single server.
    epoch_key: String,
    /// Where this Redis is one of two.
    side: Option<Side>,
}

enum Kind {
    /// All counters in one.
    One(Link),
    /// Each has some slots.
    Cluster(Cluster),
}

impl Servers {
    /// What `settings` say, with nothing connected yet. A probe takes no longer than `budget`;
    /// so many `threads` have connections of their own.
    ///
    /// # Errors
    /// When the TLS files are not what they should be.
    pub fn new(
        settings: LinkSettings,
        key_prefix: &str,
        clock: Arc<Clock>,
        budget: Duration,
        threads: usize,
    ) -> Result<Self, TlsError> {
        let (probe_key, epochs) = (format!("{key_prefix}probe"), Arc::new(Epochs::default()));
        let epoch_key = Epochs::key(key_prefix, |_| true).expect("the first name does");
        let LinkSettings { topology, login, sentinel_login, tls } = settings;
        let connector = Connector::new(tls)?;
        let of_link = Threads { number: threads, witness: Some(epoch_key.clone()) };
        let at = |connector, login, at| Kind::One(Link::at(connector, login, at, of_link.clone()));
        let kind = match topology {
            Topology::Tcp(host_port) => at(connector, login, Address::Tcp(host_port)),
            Topology::Unix(path) => at(connector, login, Address::Unix(path)),
            Topology::Sentinel { master, sentinels } => {
                let sentinels = Sentinels::new(master, sentinels, sentinel_login);
                Kind::One(Link::sentinel(connector, login, sentinels, of_link))
            }
            Topology::Cluster(seeds) => {
                let (key, clock) = (probe_key.clone(), clock.clone());
                let cluster = Cluster::new(connector, login, seeds, key, clock, budget, threads);
                let key_prefix = key_prefix.to_owned();
                Kind::Cluster(cluster.marked(Marks { epochs: epochs.clone(), key_prefix }))
            }
        };
        Ok(Self { kind, probe_key, clock, budget, epochs, epoch_key, side: None })
    }

    /// The same as one of two, with a breaker of its own.
    pub fn of_pair(self, side: Side) -> Self {
        Self { side: Some(side), ..self }
    }

    /// Whether one server has all counters.
    pub fn is_one(&self) -> bool {
        matches!(self.kind, Kind::One(_))
    }

    /// The slot of a counter, where there are several.
    pub fn slot(&self, key: impl FnOnce() -> Vec<u8>) -> Option<u16> {
        match self.kind {
            Kind::One(_) => None,
            Kind::Cluster(_) => Some(slot_of(&key())),
        }
    }

    /// A call to the server that has `key`, which is asked for only where there are several.
    ///
    /// # Errors
    /// As the call, while that server is out of reach, and where it does not answer by `deadline`.
    pub async fn call<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        key: impl FnOnce() -> Vec<u8>,
        kind: Call,
        deadline: Instant,
        call: impl Fn(Way) -> F,
    ) -> Result<T, StoreError> {
        let Some(side) = &self.side else {
            return self.call_server(key, kind, deadline, call).await;
        };
        let permit = side.permit(kind)?;
        side.judged(permit, self.call_server(key, kind, deadline, call).await)
    }

    async fn call_server<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        key: impl FnOnce() -> Vec<u8>,
        kind: Call,
        deadline: Instant,
        call: impl Fn(Way) -> F,
    ) -> Result<T, StoreError> {
        match &self.kind {
            Kind::One(link) => {
                let way = Way { connection: link.connection()?, is_asking: false };
                let answer = deadlines::by(deadline, call(way)).await;
                answer.unwrap_or(Err(StoreError::TimedOut))
            }
            Kind::Cluster(cluster) => {
                at_owner(cluster, slot_of(&key()), kind, deadline, call).await
            }
        }
    }

    /// The connection, on this thread, to the server that has `key`.
    ///
    /// # Errors
    /// While it is out of reach.
    pub fn connection(&self, key: &[u8]) -> Result<MultiplexedConnection, StoreError> {
        match &self.kind {
            Kind::One(link) => link.connection(),
            Kind::Cluster(cluster) => Ok(cluster.node(slot_of(key))?.connection(Call::Look)?.0),
        }
    }

    /// Finds the servers anew; of a pair, only a Redis that is lost.
    ///
    /// # Errors
    /// When they are out of reach.
    pub async fn find(&self) -> Result<(), StoreError> {
        match &self.side {
            None => self.probe().await,
            Some(side) => side.find(|| self.probe()).await,
        }
    }

    /// Finds out whether the servers in use are still good; of a pair, one that is lost is left to a
    /// task of its own.
    ///
    /// # Errors
    /// When they are out of reach.
    pub async fn look(&self) -> Result<(), StoreError> {
        match &self.side {
            None => self.check().await,
            Some(side) => side.look(|| self.check()).await,
        }
    }

    /// Connects anew and writes: a replica that lost its primary, a server that is loading or
    /// out of memory answers a ping but counts nothing.
    async fn probe(&self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::One(link) => {
                let mut connected = link.connect().await?;
                let (key, clock) = (Some(&*self.probe_key), Some(&*self.clock));
                prove(&mut connected.connection, key, clock, false, self.budget).await?;
                // Before anything is counted it is known whether these are the same data.
                self.read_epoch(&mut connected.connection).await?;
                link.adopt(connected);
                Ok(())
            }
            Kind::Cluster(cluster) => cluster.repair().await,
        }
    }

    async fn check(&self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::One(link) if link.has_moved().await => self.probe().await,
            Kind::One(link) => {
                let (key, clock) = (Some(&*self.probe_key), Some(&*self.clock));
                prove(&mut link.connection()?, key, clock, true, self.budget).await
            }
            Kind::Cluster(cluster) => cluster.look().await,
        }
    }

    /// Reads which data each server holds that is in reach.
    ///
    /// # Errors
    /// When one of those did not say.
    pub async fn read_epochs(&self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::One(link) => self.read_epoch(&mut link.connection()?).await,
            Kind::Cluster(cluster) => cluster.read_epochs().await,
        }
    }

    async fn read_epoch(&self, connection: &mut MultiplexedConnection) -> Result<(), StoreError> {
        self.epochs.read(connection, self.epoch_key.clone(), Whose::all()).await
    }

    /// What was found out of the data of the servers.
    pub fn findings(&self, take_in: &mut dyn FnMut(Finding)) {
        self.epochs.take(&mut |Finding { whose, state }| {
            let whose = match &self.side {
                None => whose,
                Some(side) => side.only_its_own(whose),
            };
            take_in(Finding { whose, state });
        });
    }

    /// Whether the server that has `key` is lost, where it has a breaker of its own.
    pub fn is_lost(&self, key: &[u8]) -> bool {
        let is_node_lost = match &self.kind {
            Kind::One(_) => false,
            Kind::Cluster(cluster) => cluster.is_lost(slot_of(key)),
        };
        is_node_lost || self.side.as_ref().is_some_and(Side::is_lost)
    }

    /// The servers, as far as they are known.
    pub fn states(&self) -> Vec<ServerState> {
        let mut states = match &self.kind {
            Kind::One(link) => vec![link.server()],
            Kind::Cluster(cluster) => cluster.servers(),
        };
        if let Some(side) = &self.side {
            states.iter_mut().for_each(|state| side.mark(state));
        }
        states
    }

    /// Looks for what is lost, and reports it in the log. Never ends.
    pub async fn tend(&self) {
        let nodes = async {
            match &self.kind {
                Kind::One(_) => std::future::pending().await,
                Kind::Cluster(cluster) => cluster.tend().await,
            }
        };
        let side = async {
            match &self.side {
                None => std::future::pending().await,
                Some(side) => side.tend(|| self.probe()).await,
            }
        };
        tokio::join!(nodes, side);
    }
}
