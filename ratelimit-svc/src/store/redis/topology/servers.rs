//! The servers that hold the counters, in whichever way they are run.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;

use crate::clock::Clock;
use crate::store::error::StoreError;
use crate::store::redis::connection::address::Address;
use crate::store::redis::connection::connector::Connector;
use crate::store::redis::connection::tls::TlsError;
use crate::store::redis::loss::epoch::Marks;
use crate::store::redis::topology::cluster::Cluster;
use crate::store::redis::topology::link::{Link, LinkSettings, Threads, Topology};
use crate::store::redis::topology::pair::Pair;
use crate::store::redis::topology::sentinel::Sentinels;
use crate::store::redis::topology::slots::slot_of;

/// The servers that hold the counters.
pub enum Servers {
    /// All in one.
    One(Link),
    /// Each has some slots.
    Cluster(Arc<Cluster>),
    /// Windows of a second are elsewhere.
    Pair(Pair),
}

impl Servers {
    /// What `settings` say, with nothing connected yet. A probe takes no longer than `budget`;
    /// `threads` have connections of their own.
    ///
    /// # Errors
    /// When the TLS files are not what they should be.
    pub fn new(
        settings: LinkSettings,
        probe_key: &str,
        clock: &Arc<Clock>,
        budget: Duration,
        threads: Threads,
    ) -> Result<Self, TlsError> {
        let LinkSettings { topology, login, sentinel_login, tls } = settings;
        let connector = Connector::new(tls)?;
        Ok(match topology {
            Topology::Tcp(at) => Self::One(Link::at(connector, login, Address::Tcp(at), threads)),
            Topology::Unix(path) => {
                Self::One(Link::at(connector, login, Address::Unix(path), threads))
            }
            Topology::Sentinel { master, sentinels } => {
                let sentinels = Sentinels::new(master, sentinels, sentinel_login);
                Self::One(Link::sentinel(connector, login, sentinels, threads))
            }
            Topology::Cluster(seeds) => {
                let (key, clock) = (probe_key.to_owned(), clock.clone());
                let threads = threads.number;
                let cluster = Cluster::new(connector, login, seeds, key, clock, budget, threads);
                Self::Cluster(Arc::new(cluster))
            }
        })
    }

    /// The same, with `marks` to know the data of several servers apart.
    pub fn marked(self, marks: Marks) -> Self {
        match self {
            Self::Cluster(cluster) => {
                let cluster = Arc::into_inner(cluster).expect("nobody else has it yet");
                Self::Cluster(Arc::new(cluster.marked(marks)))
            }
            other => other,
        }
    }

    /// The connection, on this thread, to the server that has `key`.
    ///
    /// # Errors
    /// While it is out of reach.
    pub fn connection(&self, key: &[u8]) -> Result<MultiplexedConnection, StoreError> {
        match self {
            Self::One(link) => link.connection(),
            Self::Cluster(cluster) => Ok(cluster.node(slot_of(key))?.connection(&[])?.0),
            Self::Pair(pair) => pair.main().servers.connection(key),
        }
    }
}
