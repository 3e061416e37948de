//! Making a connection: TLS, log in, the proof that a server counts. Keeps none.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::clock::offset::Sample;
use crate::store::error::StoreError;
use crate::store::redis::connection::address::{Address, HostPort, Login};
use crate::store::redis::connection::refusal::classify;
use crate::store::redis::connection::tls::{Sent, TlsError, TlsSettings};

/// The longest attempt to connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest wait for the probe that decides whether a connection is of use.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(250);
const PROBE_KEY_SECONDS: u64 = 60;
/// The most calls that wait to be written to one connection; more wait for room, within their
/// budget.
pub const CALLS_QUEUED_MAX: usize = 1024;

/// Makes connections.
#[derive(Clone, Debug)]
pub struct Connector {
    tls: Option<TlsSettings>,
    /// What a Workload API sends, where one is named.
    sent: Option<Sent>,
}

impl Connector {
    /// A connector that encrypts where it has the means.
    ///
    /// # Errors
    /// When the files are not what they should be.
    pub fn new(tls: Option<TlsSettings>) -> Result<Self, TlsError> {
        if tls.is_some() {
            // Already installed is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let sent = tls.as_ref().and_then(TlsSettings::sent);
        // A Workload API may be away at the start; then there are no connections until it serves.
        if let (Some(tls), false) = (&tls, sent.as_ref().is_some_and(Sent::is_awaited)) {
            tls.address(&("localhost".to_owned(), 0), sent.as_ref())?;
        }
        Ok(Self { tls, sent })
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
            Some(tls) => {
                let address = tls.address(at, self.sent.as_ref());
                address.map_err(|error| StoreError::Tls(Box::new(error)))
            }
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
        let server = Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros));
        clock.correct(Sample { asked, answered: clock.steady(), server }, same_server);
    }
    Ok(())
}
