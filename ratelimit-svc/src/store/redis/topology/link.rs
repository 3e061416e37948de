//! Connections to Redis: where it is, how to log in, TLS, and the one connection in use where one
//! server holds all counters. Counts nothing.
//!
//! ```text
//! single     ──────────────────────────► server
//! sentinel   ask the sentinels ────────► the server they agree on, if its ROLE says so
//! cluster    see `cluster`
//! ```

use std::path::PathBuf;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;

use crate::store::backend::ServerState;
use crate::store::error::StoreError;
use crate::store::redis::connection::address::{Address, HostPort, Login};
use crate::store::redis::connection::connections::Connections;
use crate::store::redis::connection::connector::{Connector, Endpoint};
use crate::store::redis::connection::tls::TlsSettings;
use crate::store::redis::topology::sentinel::Sentinels;

/// Where Redis is and how to get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    /// Which servers hold the counters.
    pub topology: Topology,
    /// For the servers.
    pub login: Login,
    /// For the sentinels.
    pub sentinel_login: Login,
    /// For servers and sentinels, when connections are encrypted.
    pub tls: Option<TlsSettings>,
}

/// Which servers hold the counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server at a port.
    Tcp(HostPort),
    /// One server at a socket.
    Unix(PathBuf),
    /// The server that these sentinels call the master of that name.
    Sentinel {
        /// The name.
        master: String,
        /// Where the sentinels are.
        sentinels: Vec<HostPort>,
    },
    /// The primaries of a cluster, found by asking any of these nodes.
    Cluster(Vec<HostPort>),
}

/// The connections to the one server that holds all counters.
pub struct Link {
    connector: Connector,
    login: Login,
    target: Target,
    threads: Threads,
    current: ArcSwapOption<Connections>,
}

/// Which threads have connections of their own.
#[derive(Clone, Debug, Default)]
pub struct Threads {
    /// How many.
    pub number: usize,
    /// See [`Connections::new`].
    pub witness: Option<String>,
}

enum Target {
    At(Address),
    Sentinel(Sentinels),
}

/// A connection that is not yet in use.
pub struct Connected {
    /// To prove that it is of use.
    pub connection: MultiplexedConnection,
    endpoint: Endpoint,
}

impl Link {
    /// A link to a server.
    pub fn at(connector: Connector, login: Login, at: Address, threads: Threads) -> Self {
        Self::new(connector, login, Target::At(at), threads)
    }

    /// A link to the server that sentinels name.
    pub fn sentinel(
        connector: Connector,
        login: Login,
        sentinels: Sentinels,
        threads: Threads,
    ) -> Self {
        Self::new(connector, login, Target::Sentinel(sentinels), threads)
    }

    fn new(connector: Connector, login: Login, target: Target, threads: Threads) -> Self {
        Self { connector, login, target, threads, current: ArcSwapOption::empty() }
    }

    /// The connection in use on this thread.
    ///
    /// # Errors
    /// When there is none.
    pub fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        let current = self.current.load();
        Ok(current.as_ref().ok_or(StoreError::NotConnected)?.here())
    }

    /// Where the server in use is; before there was one, where it is looked for.
    pub fn server(&self) -> ServerState {
        let current = self.current.load();
        let at = match (&*current, &self.target) {
            (Some(current), _) => Some(current.address().to_string()),
            (None, Target::At(at)) => Some(at.to_string()),
            (None, Target::Sentinel(_)) => None,
        };
        ServerState { at, ..ServerState::default() }
    }

    /// Makes a new connection, not yet in use.
    ///
    /// # Errors
    /// When there is no server to connect to.
    pub async fn connect(&self) -> Result<Connected, StoreError> {
        let endpoint = |at| {
            let (connector, login) = (self.connector.clone(), self.login.clone());
            Endpoint { connector, login, at }
        };
        let (connection, endpoint) = match &self.target {
            Target::At(at) => {
                let endpoint = endpoint(at.clone());
                (endpoint.connect().await?, endpoint)
            }
            Target::Sentinel(sentinels) => {
                let (connection, at) = sentinels.connect(&self.connector, &self.login).await?;
                (connection, endpoint(Address::Tcp(at)))
            }
        };
        Ok(Connected { connection, endpoint })
    }

    /// Takes a connection into use, and those that threads make to the same server from now on.
    pub fn adopt(&self, connected: Connected) {
        let Connected { connection, endpoint } = connected;
        let Threads { number, witness } = self.threads.clone();
        self.current.store(Some(Connections::new(endpoint, connection, number, witness)));
    }

    /// Whether the sentinels, as far as they answer, name another server than the one in use.
    pub async fn has_moved(&self) -> bool {
        let Target::Sentinel(sentinels) = &self.target else { return false };
        let in_use = self.current.load_full();
        match (in_use, sentinels.agreed(&self.connector).await) {
            (Some(in_use), Some(at)) => !in_use.is_to(&at),
            _ => false,
        }
    }
}
