//! Connections to Redis: where it is, how to log in, TLS, and the one connection in use where one
//! server holds all counters. Counts nothing.
//!
//! ```text
//! single     ──────────────────────────► server
//! sentinel   ask the sentinels ────────► the server they agree on, if its ROLE says so
//! cluster    see `cluster`
//! ```

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::connections::Connections;
use super::refusal::refusal;
use super::sentinel::Sentinels;
use super::tls::{TlsError, TlsSettings};
use crate::clock::Clock;
use crate::clock::offset::Sample;
use crate::store::StoreError;

/// The longest attempt to connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest wait for the probe that decides whether a connection is of use.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(250);
const PROBE_KEY_SECONDS: u64 = 60;
/// The most calls that wait to be written to one connection; more wait for room, within their
/// budget.
pub const CALLS_QUEUED_MAX: usize = 1024;

/// A host and a port.
pub type HostPort = (String, u16);

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

/// User and password, either of which may be absent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// An ACL user.
    pub user: Option<String>,
    /// Its password, or that of the default user.
    pub password: Option<String>,
}

// Passwords stay out of logs.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Makes connections.
#[derive(Clone, Debug)]
pub struct Connector {
    tls: Option<TlsSettings>,
}

impl Connector {
    /// A connector that encrypts when it is told how.
    ///
    /// # Errors
    /// When the files are not what they should be.
    pub fn new(tls: Option<TlsSettings>) -> Result<Self, TlsError> {
        if let Some(tls) = &tls {
            // Already installed is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
            tls.address(&("localhost".to_owned(), 0))?;
        }
        Ok(Self { tls })
    }

    /// Connects to a port and logs in.
    ///
    /// # Errors
    /// When that fails or takes too long.
    pub async fn tcp(
        &self,
        at: &HostPort,
        login: &Login,
    ) -> Result<MultiplexedConnection, StoreError> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, open(self.address(at)?, login)).await;
        connected.map_err(|_| StoreError::TimedOut)?
    }

    fn address(&self, at: &HostPort) -> Result<ConnectionAddr, StoreError> {
        match &self.tls {
            None => Ok(ConnectionAddr::Tcp(at.0.clone(), at.1)),
            Some(tls) => tls.address(at).map_err(StoreError::Tls),
        }
    }
}

/// One server, and how to get in.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Makes the connections.
    pub connector: Connector,
    /// For the server.
    pub login: Login,
    /// Where it is.
    pub at: Address,
}

/// Where a server is.
#[derive(Clone, Debug)]
pub enum Address {
    /// At a port.
    Tcp(HostPort),
    /// At a socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Connects and logs in.
    ///
    /// # Errors
    /// When that fails or takes too long.
    pub async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.open()).await;
        connected.map_err(|_| StoreError::TimedOut)?
    }

    /// The same, without keeping this thread from its requests: certificates and a handshake may
    /// take it longer than a request waits. The connection belongs to this thread's runtime.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn connect_aside(&self) -> Result<MultiplexedConnection, StoreError> {
        let (endpoint, runtime) = (self.clone(), Handle::current());
        // Without timers: they would not outlive the runtime, as the thread may for a moment.
        let (wanted, unwanted) = oneshot::channel::<()>();
        let opening = move || {
            runtime.block_on(async {
                tokio::select! {
                    opened = endpoint.open() => opened,
                    _ = unwanted => Err(StoreError::NotConnected),
                }
            })
        };
        let opened = tokio::task::spawn_blocking(opening);
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, opened).await;
        drop(wanted);
        opened.map_err(|_| StoreError::TimedOut)?.unwrap_or(Err(StoreError::NotConnected))
    }

    async fn open(&self) -> Result<MultiplexedConnection, StoreError> {
        let address = match &self.at {
            Address::Tcp(at) => self.connector.address(at)?,
            Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
        };
        open(address, &self.login).await
    }
}

/// Connects and logs in, for as long as its caller waits.
async fn open(address: ConnectionAddr, login: &Login) -> Result<MultiplexedConnection, StoreError> {
    let mut info = address.into_connection_info().map_err(classify)?;
    let mut settings = info.redis_settings().clone();
    if let Some(user) = &login.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &login.password {
        settings = settings.set_password(password);
    }
    info = info.set_redis_settings(settings);
    let client = Client::open(info).map_err(classify)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        // Whoever asks says how long to wait.
        .set_response_timeout(None)
        .set_pipeline_buffer_size(CALLS_QUEUED_MAX);
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(classify)
}

/// What an error of the client means for its connection.
pub fn classify(error: RedisError) -> StoreError {
    if error.is_timeout() {
        StoreError::TimedOut
    } else if error.kind() == ErrorKind::AuthenticationFailed {
        StoreError::Configuration(error)
    } else if error.is_unrecoverable_error() || error.is_connection_dropped() || error.is_io_error()
    {
        StoreError::Disconnected(error)
    } else {
        refusal(error)
    }
}

/// Finds out whether a server counts, and what time it is there if there is a clock to correct.
pub async fn prove(
    connection: &mut MultiplexedConnection,
    key: Option<&str>,
    clock: Option<&Clock>,
    same_server: bool,
    budget: Duration,
) -> Result<(), StoreError> {
    let mut pipe = redis::pipe();
    if let Some(key) = key {
        pipe.cmd("SET").arg(key).arg(1).arg("EX").arg(PROBE_KEY_SECONDS).ignore();
    }
    pipe.cmd("TIME");
    let asked = clock.map(Clock::steady);
    let answer = pipe.query_async::<((u64, u64),)>(connection);
    // A server that is slower than requests wait is of no use.
    let answer = tokio::time::timeout(budget, answer).await;
    let ((seconds, micros),) = answer.map_err(|_| StoreError::TimedOut)?.map_err(classify)?;
    if let (Some(clock), Some(asked)) = (clock, asked) {
        let told = Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros));
        clock.correct(Sample { asked, answered: clock.steady(), told }, same_server);
    }
    Ok(())
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
