//! The client's side: connecting to a server over TLS.
//!
//! Files are read anew for each connection, and so is what a Workload API sent last; new ones need no restart
//! and nobody to follow them. While they cannot be used, what was good before is.
//!
//! ```text
//! connect ─ files as before ─► the same configuration
//!         ├ new, good ───────► theirs, from now on
//!         └ new, bad ────────► the old one, and a warning
//! ```

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

pub use super::client_settings::{ClientSettings, Pem, RawClientTls};
use super::material::Material;
use super::{ALPN, Protocols, TlsError};
use crate::causes::error_chain;
use crate::process::UsageError;
use crate::readiness::Readiness;
use crate::reload;

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
    material: Material,
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
        Self { shared: Arc::new(Shared::new(settings, protocols, name, None)) }
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
        Ok(Self { shared: Arc::new(Shared::new(settings, protocols, name, told)) })
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
    fn new(
        settings: ClientSettings,
        protocols: Protocols,
        name: &'static str,
        told: Option<Told>,
    ) -> Self {
        let material = settings.material();
        Self { settings, material, protocols, name, told, state: Mutex::default() }
    }

    /// The configuration for a connection that is made now.
    fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let files = self.material.read();
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
