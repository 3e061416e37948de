//! The client's side: connecting to a gRPC server over TLS.
//!
//! Files are read anew for each connection, so new ones need no restart and nobody to follow them.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use super::{ALPN, TlsError, authorities, certificates, private_key, provider};

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
    // Requests carry the scheme that they have on the wire.
    let authority = endpoint.uri().authority().cloned();
    let origin = authority.and_then(|at| {
        Uri::builder().scheme("https").authority(at).path_and_query("/").build().ok()
    });
    let endpoint = match origin {
        Some(origin) => endpoint.origin(origin),
        None => endpoint,
    };
    endpoint.connect_with_connector(Connector { settings: Arc::new(settings.clone()) }).await
}

#[derive(Clone)]
struct Connector {
    settings: Arc<ClientSettings>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, at: Uri) -> Self::Future {
        let settings = self.settings.clone();
        Box::pin(async move { settings.connect(at).await.map(TokioIo::new) })
    }
}

impl ClientSettings {
    async fn connect(self: Arc<Self>, at: Uri) -> Result<TlsStream<TcpStream>, ConnectError> {
        let (Some(host), Some(port)) = (at.host(), at.port_u16()) else {
            return Err(ConnectError::Address(at));
        };
        // Addresses of IPv6 stand in brackets, but not in certificates.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| ConnectError::ServerName(host.to_owned()))?,
        };
        let config = tokio::task::spawn_blocking(move || self.config());
        let config = config.await.expect("reading files does not panic");
        let config = config.map_err(ConnectError::Files)?;
        let socket = TcpStream::connect((host, port)).await.map_err(ConnectError::Connect)?;
        socket.set_nodelay(true).map_err(ConnectError::Connect)?;
        let connection = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
        let connection = connection.map_err(ConnectError::Handshake)?;
        match connection.get_ref().1.alpn_protocol() {
            Some(ALPN) => Ok(connection),
            _ => Err(ConnectError::Protocol),
        }
    }

    fn config(&self) -> Result<ClientConfig, TlsError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| TlsError::Read(path.clone(), error))
        };
        let roots = match &self.authorities {
            Some(path) => authorities(path, &read(path)?)?,
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
                let chain = certificates(certificate, &read(certificate)?)?;
                let key = private_key(key, &read(key)?)?;
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
