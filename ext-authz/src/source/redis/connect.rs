//! Connections to the Redis that holds keys: TLS, the password, a time limit.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Connection, ConnectionAddr, IntoConnectionInfo,
    RedisError, TlsCertificates,
};
use zeroize::Zeroizing;

use super::settings::{Login, Names, RedisSettings, Topology};
use super::worded::worded;

/// The longest attempt to connect and log in.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest wait of a command for an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// What a Workload API sends cannot be used, or has not come yet.
    #[error("TLS: {0}")]
    Sent(chassis::tls::TlsError),
    /// Redis cannot be reached, or does not let us in.
    #[error("cannot be reached: {}", worded(.0))]
    Redis(RedisError),
    /// None of those that were asked knows one.
    #[error("has no primary that a sentinel or a node of the cluster knows")]
    NoPrimary,
    /// It does not answer.
    #[error("does not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
}

// Not as the error's source: where a chain of them is printed, each would say the same again.
impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

/// A connection for the service.
///
/// # Errors
/// When there is none. Each address has [`CONNECT_TIMEOUT`] to take us and as long to answer.
pub async fn open(settings: &RedisSettings) -> Result<MultiplexedConnection, ConnectError> {
    let asked = settings.clone();
    let located = tokio::task::spawn_blocking(move || locate(&asked)).await;
    // It does not panic; it is cancelled only when the runtime ends.
    let address = located.map_err(|_| ConnectError::NoPrimary)??;
    let client = client(settings, &settings.login, address)?;
    // The follower says of each call how long it waits.
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let opened = client.get_multiplexed_async_connection_with_config(&config);
    match tokio::time::timeout(CONNECT_TIMEOUT, opened).await {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(ConnectError::TimedOut),
    }
}

/// A connection for a command.
///
/// # Errors
/// When there is none. Each address has [`CONNECT_TIMEOUT`] to take us and as long to answer.
pub fn open_blocking(settings: &RedisSettings) -> Result<Connection, ConnectError> {
    connect(settings, &settings.login, locate(settings)?, ANSWER_TIMEOUT)
}

fn connect(
    settings: &RedisSettings,
    login: &Login,
    address: (String, u16),
    answer_timeout: Duration,
) -> Result<Connection, ConnectError> {
    if let Some(sent) = settings.tls.as_ref().and_then(|tls| tls.sent.as_ref()) {
        sent.material().wait_for_the_first(CONNECT_TIMEOUT);
    }
    let connection =
        client(settings, login, address)?.get_connection_with_timeout(CONNECT_TIMEOUT)?;
    connection.set_read_timeout(Some(answer_timeout))?;
    connection.set_write_timeout(Some(answer_timeout))?;
    Ok(connection)
}

/// Where the Redis is that has the keys. Sentinels and nodes of a cluster are asked in turn, anew
/// for every connection, until one knows.
fn locate(settings: &RedisSettings) -> Result<(String, u16), ConnectError> {
    let mut last = ConnectError::NoPrimary;
    for address in &settings.addresses {
        let ask = |login| connect(settings, login, address.clone(), CONNECT_TIMEOUT);
        let found = match &settings.topology {
            Topology::Single => return Ok(address.clone()),
            Topology::Sentinel { primary, login } => ask(login).and_then(|mut sentinel| {
                let mut ask = redis::cmd("SENTINEL");
                let ask = ask.arg("GET-MASTER-ADDR-BY-NAME").arg(primary);
                Ok(ask.query::<Option<(String, u16)>>(&mut sentinel)?)
            }),
            Topology::Cluster => ask(&settings.login)
                .and_then(|mut node| owner(&mut node, &settings.prefix, &address.0)),
        };
        match found {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What a node of a cluster calls a host whose name it does not know.
const HOST_UNKNOWN: &str = "?";

/// Which node of a cluster has the slot of all keys. Where its host is not known, or it is to be
/// reached as the node that is asked, that one's host is meant.
fn owner(
    node: &mut Connection,
    prefix: &str,
    asked: &str,
) -> Result<Option<(String, u16)>, ConnectError> {
    let name = Names::new(prefix).state;
    let slot: u16 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(name).query(node)?;
    let ranges: Vec<Vec<redis::Value>> = redis::cmd("CLUSTER").arg("SLOTS").query(node)?;
    for range in ranges {
        let [first, last, primary, ..] = &range[..] else { continue };
        let number = |value| redis::from_redis_value_ref::<u16>(value).map_err(RedisError::from);
        if (number(first)?..=number(last)?).contains(&slot) {
            let redis::Value::Array(primary) = primary else { continue };
            let [host, port, ..] = &primary[..] else { continue };
            let host = redis::from_redis_value_ref::<Option<String>>(host);
            let host = host.map_err(RedisError::from)?;
            let host = host.filter(|host| !host.is_empty() && host != HOST_UNKNOWN);
            return Ok(Some((host.unwrap_or_else(|| asked.to_owned()), number(port)?)));
        }
    }
    Ok(None)
}

fn client(
    settings: &RedisSettings,
    login: &Login,
    (host, port): (String, u16),
) -> Result<Client, ConnectError> {
    let address = match &settings.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
    };
    let mut info = address.into_connection_info()?;
    let mut known = info.redis_settings().clone();
    if let Some(user) = &login.user {
        known = known.set_username(user);
    }
    if let Some(path) = &login.password_file {
        let password = Zeroizing::new(read(path)?);
        let password = String::from_utf8_lossy(&password);
        known = known.set_password(password.trim_end_matches(['\r', '\n']));
    }
    info = info.set_redis_settings(known);
    let Some(tls) = &settings.tls else { return Ok(Client::open(info)?) };
    chassis::tls::install_provider();
    if let Some(sent) = &tls.sent {
        let pem = sent.settings.pem(&sent.material().read()).map_err(ConnectError::Sent)?;
        let client_tls = pem
            .identity
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let certificates = TlsCertificates { client_tls, root_cert: pem.authorities };
        return Ok(Client::build_with_tls(info, certificates)?);
    }
    let client_tls = match &tls.client {
        None => None,
        Some((certificate, key)) => {
            Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
        }
    };
    let root_cert = tls.ca.as_deref().map(read).transpose()?;
    Ok(Client::build_with_tls(info, TlsCertificates { client_tls, root_cert })?)
}

fn read(path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|why| ConnectError::Read { path: path.to_owned(), why })
}
