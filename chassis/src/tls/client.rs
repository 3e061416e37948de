//! The client's side: connecting to a server over TLS.
//!
//! Files are read anew for each connection, so new ones need no restart and nobody to follow them;
//! while they cannot be used, what was good before is.
//!
//! ```text
//! connect ─ files as before ─► the same configuration
//!         ├ new, good ───────► theirs, from now on
//!         └ new, bad ────────► the old one, and a warning
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use super::{
    ALPN, Protocols, TlsError, authorities, bytes, certificates, private_key, provider, valid_now,
};
use crate::causes::error_chain;
use crate::config::{ConfigError, Spanned};
use crate::process::UsageError;
use crate::readiness::Readiness;
use crate::reload::{self, Snapshot, Source};

/// TLS of a client, as written in a configuration file. Relative paths are relative to it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawClientTls {
    /// The authorities of the server, PEM; those of the system when absent.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate and those between it and its authority, PEM.
    pub certificate_file: Option<Spanned<PathBuf>>,
    /// Its private key, PEM.
    pub key_file: Option<Spanned<PathBuf>>,
    /// The name that the server's certificate must carry, where it is not the host's.
    pub server_name: Option<Spanned<String>>,
}

/// The files of a client, and who its server must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// The authorities of servers, PEM; none means those of the system.
    pub authorities: Option<PathBuf>,
    /// The client's own certificate and private key, PEM, where servers want one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must carry, where it is not the host's.
    pub server_name: Option<ServerName<'static>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is no host and port.
    #[error("'{0}' has no host and port")]
    Address(Uri),
    /// The host cannot be named in a certificate.
    #[error("'{0}' cannot be the name of a server")]
    ServerName(String),
    /// The files cannot be used.
    #[error("TLS files")]
    Files(#[source] TlsError),
    /// Nobody answers there.
    #[error("cannot reach the server")]
    Connect(#[source] io::Error),
    /// The two ends do not agree.
    #[error("TLS handshake")]
    Handshake(#[source] io::Error),
    /// An address of https without TLS settings.
    #[error("https needs TLS settings")]
    NoTls,
    /// The server speaks something else.
    #[error("the server does not speak HTTP/2 over TLS")]
    Protocol,
}

/// Connects to the server of `endpoint`, an `http` address that says only where it is, over TLS.
///
/// # Errors
/// The causes are [`ConnectError`], or a timeout of the endpoint's.
pub async fn connect(
    endpoint: Endpoint,
    settings: &ClientSettings,
) -> Result<Channel, tonic::transport::Error> {
    connect_by(endpoint, Connector::new(settings.clone(), Protocols::Grpc, "gRPC")).await
}

/// The same with a connector that is used again: while new files cannot be used, it has the old ones.
///
/// # Errors
/// As [`connect`].
pub async fn connect_by(
    endpoint: Endpoint,
    connector: Connector,
) -> Result<Channel, tonic::transport::Error> {
    secured(endpoint).connect_with_connector(connector).await
}

/// The same for a server that need not be there yet: connects with the first request, and again after
/// each connection that was lost.
pub fn connect_lazily(endpoint: Endpoint, connector: Connector) -> Channel {
    secured(endpoint).connect_with_connector_lazy(connector)
}

/// Requests carry the scheme that they have on the wire.
fn secured(endpoint: Endpoint) -> Endpoint {
    let authority = endpoint.uri().authority().cloned();
    let origin = authority.and_then(|at| {
        Uri::builder().scheme("https").authority(at).path_and_query("/").build().ok()
    });
    match origin {
        Some(origin) => endpoint.origin(origin),
        None => endpoint,
    }
}

/// Makes connections over TLS. Clones share what they know of the files.
#[derive(Clone)]
pub struct Connector {
    shared: Arc<Shared>,
}

struct Shared {
    settings: ClientSettings,
    protocols: Protocols,
    /// What the client is called where files are refused.
    name: &'static str,
    told: Option<Told>,
    state: Mutex<State>,
}

/// Where it is said, beside the log, that files are refused.
struct Told {
    readiness: Readiness,
    is_refused: Gauge,
}

#[derive(Default)]
struct State {
    /// The files that were last looked at.
    read: Option<u64>,
    in_force: Option<Arc<ClientConfig>>,
}

impl Connector {
    /// Reads the files when it first connects, and says only in the log when they change for the worse.
    pub fn new(settings: ClientSettings, protocols: Protocols, name: &'static str) -> Self {
        let state = Mutex::default();
        Self { shared: Arc::new(Shared { settings, protocols, name, told: None, state }) }
    }

    /// Reads the files, and says from now on in `/readyz`, as a warning of this name, and in the
    /// metric `tls_client_files_refused` when new ones cannot be used.
    ///
    /// # Errors
    /// When the files cannot be used; the first of them is named.
    pub fn start(
        settings: ClientSettings,
        protocols: Protocols,
        name: &'static str,
        readiness: &Readiness,
        registry: &mut Registry,
    ) -> Result<Self, UsageError> {
        settings.check()?;
        let is_refused = Gauge::default();
        let help = "1 while the newest TLS files of the client are refused and older ones are used";
        registry.register("tls_client_files_refused", help, is_refused.clone());
        let told = Some(Told { readiness: readiness.clone(), is_refused });
        let shared = Shared { settings, protocols, name, told, state: Mutex::default() };
        shared.config().map_err(|error| UsageError(error_chain(&error)))?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Connects to the host and port of this address.
    ///
    /// # Errors
    /// When there is no connection, or none over TLS.
    pub async fn connect(&self, at: Uri) -> Result<TlsStream<TcpStream>, ConnectError> {
        let shared = self.shared.clone();
        let host = at.host().map(str::to_owned);
        let port = at.port_u16().or((at.scheme_str() == Some("https")).then_some(443));
        let (Some(host), Some(port)) = (host, port) else {
            return Err(ConnectError::Address(at));
        };
        // Addresses of IPv6 stand in brackets, but not in certificates.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = match &shared.settings.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| ConnectError::ServerName(host.to_owned()))?,
        };
        let is_grpc = shared.protocols == Protocols::Grpc;
        let config = tokio::task::spawn_blocking(move || shared.config());
        let config = config.await.expect("reading files does not panic");
        let config = config.map_err(ConnectError::Files)?;
        let socket = TcpStream::connect((host, port)).await.map_err(ConnectError::Connect)?;
        socket.set_nodelay(true).map_err(ConnectError::Connect)?;
        let connection = TlsConnector::from(config).connect(name, socket).await;
        let connection = connection.map_err(ConnectError::Handshake)?;
        match connection.get_ref().1.alpn_protocol() {
            Some(ALPN) => Ok(connection),
            _ if is_grpc => Err(ConnectError::Protocol),
            _ => Ok(connection),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, at: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(at).await.map(TokioIo::new) })
    }
}

impl Shared {
    /// The configuration for a connection that is made now.
    fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let files = self.settings.source().read();
        let hash = reload::hash(&files);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = state.read.replace(hash) != Some(hash);
        if let (false, Some(config)) = (is_new, &state.in_force) {
            return Ok(config.clone());
        }
        let read = self.settings.read(&files).map(|mut config| {
            config.alpn_protocols = match self.protocols {
                Protocols::Grpc => vec![ALPN.to_vec()],
                // Clients of ours that are not gRPC speak HTTP/1.1.
                Protocols::Http => vec![b"http/1.1".to_vec()],
            };
            Arc::new(config)
        });
        match (read, &state.in_force) {
            (Ok(config), _) => {
                self.tell(None);
                state.in_force = Some(config.clone());
                Ok(config)
            }
            (Err(error), Some(before)) => {
                self.tell(Some(&error));
                Ok(before.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    fn tell(&self, refused: Option<&TlsError>) {
        let reason = refused.map(|error| error_chain(error));
        if let Some(reason) = &reason {
            tracing::error!(reason, client = self.name, "TLS files refused");
        }
        let Some(told) = &self.told else { return };
        told.is_refused.set(i64::from(reason.is_some()));
        match reason {
            None => told.readiness.all_well(self.name),
            Some(reason) => {
                let warning = format!("new files are refused, the old are in use: {reason}");
                told.readiness.warn(self.name, warning);
            }
        }
    }
}

impl RawClientTls {
    /// Checks the section `key` of the file `path`.
    ///
    /// # Errors
    /// For half an identity and for a name that cannot be any.
    pub fn settings(&self, path: &Path, key: &str) -> Result<ClientSettings, ConfigError> {
        let beside = |file: &PathBuf| path.parent().unwrap_or(Path::new("")).join(file);
        let identity = match (&self.certificate_file, &self.key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some((beside(&certificate.value), beside(&key.value)))
            }
            (Some(one), None) => {
                let message = format!("'{key}.certificate_file' needs 'key_file'");
                return Err(ConfigError::at(path, one, message));
            }
            (None, Some(one)) => {
                let message = format!("'{key}.key_file' needs 'certificate_file'");
                return Err(ConfigError::at(path, one, message));
            }
        };
        let server_name = match &self.server_name {
            None => None,
            Some(name) => Some(ServerName::try_from(name.value.clone()).map_err(|_| {
                let message = format!("'{key}.server_name' is neither a DNS name nor an address");
                ConfigError::at(path, name, message)
            })?),
        };
        Ok(ClientSettings { authorities: self.ca_file.as_ref().map(beside), identity, server_name })
    }
}

impl ClientSettings {
    /// The files, to be followed.
    pub fn source(&self) -> Source {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        Source::Files(self.authorities.iter().chain(identity).cloned().collect())
    }

    /// Whether the files can be used now.
    ///
    /// # Errors
    /// When they cannot; the first of them is named.
    pub fn check(&self) -> Result<(), UsageError> {
        self.config().map(drop).map_err(|error| UsageError(error_chain(&error)))
    }

    /// What the files hold now.
    ///
    /// # Errors
    /// When they cannot be used; the first of them is named.
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        self.read(&self.source().read())
    }

    /// What the files held when they were read together.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn read(&self, files: &Snapshot) -> Result<ClientConfig, TlsError> {
        let roots = match &self.authorities {
            Some(path) => authorities(path, bytes(files, path)?)?,
            None => system_authorities()?,
        };
        let own = self.identity.as_ref().map_or_else(PathBuf::new, |(path, _)| path.clone());
        let bad = |error| TlsError::Identity(own.clone(), error);
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate, bytes(files, certificate)?)?;
                valid_now(certificate, &chain)?;
                let key = private_key(key, bytes(files, key)?)?;
                builder.with_client_auth_cert(chain, key).map_err(bad)?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A store of an operating system may hold a few that no one can parse.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match (added, found.errors.first()) {
        (0, Some(error)) => Err(TlsError::SystemRoots(error.to_string())),
        (0, None) => Err(TlsError::SystemRoots("there are none".to_owned())),
        _ => Ok(roots),
    }
}
