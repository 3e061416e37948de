//! The server's side: certificates that are followed while the process runs, and handshakes.
//!
//! ```text
//! files ─ good ─► in force for the next handshake; open connections stay as they are
//!       └ bad ──► named; what was in force stays, and before the first good ones nobody gets in
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::metrics::Metrics;
use super::subject::{NamedClient, Subject};
use super::{ALPN, TlsError, authorities, certificates, expiry, private_key, provider};
use crate::readiness::{Condition, Readiness};
use crate::reload::{self, ReloadStatus, Snapshot, Source};
use crate::telemetry::error_chain;

/// How long a client may take to become a connection.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The files of a server, and who may be its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// The certificate and those between it and the authority, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities that clients need a certificate of, PEM; none lets everyone in.
    pub client_authorities: Option<PathBuf>,
    /// The name that a client's certificate must carry as well.
    pub client_subject: Option<Subject>,
}

/// Turns accepted sockets into connections over TLS.
pub struct Acceptor {
    settings: ServerSettings,
    config: ArcSwapOption<ServerConfig>,
    metrics: Metrics,
    ready: Condition,
    state: Mutex<State>,
    /// Since when failures are counted, and the second at which one was last logged.
    began: Instant,
    logged: AtomicU64,
}

#[derive(Default)]
struct State {
    read: Option<u64>,
    reload: ReloadStatus,
    expires_at_seconds: Option<u64>,
}

/// What `/config` tells of the certificate.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    #[serde(flatten)]
    reload: ReloadStatus,
    /// When it expires, seconds since 1970.
    expires_at_seconds: Option<u64>,
}

impl Acceptor {
    /// Reads the files, if there is to be TLS. Bad ones hold back readiness until they are good.
    /// The metrics are there in any case.
    pub fn start(
        settings: Option<ServerSettings>,
        readiness: &Readiness,
        registry: &mut Registry,
    ) -> Option<Arc<Self>> {
        let metrics = Metrics::default();
        metrics.register(registry);
        let acceptor = Self {
            settings: settings?,
            config: ArcSwapOption::empty(),
            metrics,
            ready: readiness.condition("tls", "no certificate read yet"),
            state: Mutex::default(),
            began: Instant::now(),
            logged: AtomicU64::new(0),
        };
        acceptor.apply(&acceptor.source().read());
        Some(Arc::new(acceptor))
    }

    /// Follows the files. Never ends.
    pub async fn follow(&self, period: Duration) {
        let apply = |snapshot| {
            self.apply(&snapshot);
            std::future::ready(())
        };
        reload::follow(self.source(), period, apply).await;
    }

    /// What is in force, and what was last wrong.
    pub fn status(&self) -> Status {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Status { reload: state.reload.clone(), expires_at_seconds: state.expires_at_seconds }
    }

    fn source(&self) -> Source {
        let ServerSettings { certificate, key, client_authorities, .. } = &self.settings;
        Source::Files([certificate, key].into_iter().chain(client_authorities).cloned().collect())
    }

    fn apply(&self, snapshot: &Snapshot) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = reload::hash(snapshot);
        if state.read.replace(hash) == Some(hash) {
            return;
        }
        match self.settings.read(snapshot) {
            Ok((config, expires_at)) => {
                self.config.store(Some(Arc::new(config)));
                self.metrics.loaded(expires_at);
                self.ready.met();
                state.expires_at_seconds = expires_at;
                state.reload.loaded(hash);
                tracing::info!(expires_at_seconds = expires_at, "TLS certificate in force");
            }
            Err(error) => {
                let reason = error_chain(&error);
                self.metrics.refused();
                if self.config.load().is_none() {
                    self.ready.lost(&reason);
                }
                tracing::error!(reason, "TLS files refused");
                state.reload.refused(reason);
            }
        }
    }

    /// The handshake. One that fails is counted, and the connection is closed.
    pub(crate) async fn accept<IO>(&self, io: IO) -> Option<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(config) = self.config.load_full() else {
            self.failed("no_certificate", "no certificate in force");
            return None;
        };
        let handshake = TlsAcceptor::from(config).accept(io);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(connection)) => return Some(connection),
            Ok(Err(error)) => self.failed(reason(&error), &error_chain(&error)),
            Err(_) => self.failed("timeout", "the client took too long"),
        }
        None
    }

    fn failed(&self, reason: &'static str, error: &str) {
        self.metrics.failed(reason);
        // At most one line a second: whoever can connect could fill the disk otherwise.
        let second = 1 + self.began.elapsed().as_secs();
        if self.logged.swap(second, Ordering::Relaxed) != second {
            tracing::warn!(reason, error, "TLS handshake failed");
        }
    }
}

/// Why a handshake failed, from a closed set.
fn reason(error: &io::Error) -> &'static str {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        None => "connection",
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            "client_certificate"
        }
        Some(rustls::Error::InvalidMessage(_)) => "not_tls",
        Some(rustls::Error::AlertReceived(_)) => "refused_by_client",
        Some(_) => "protocol",
    }
}

impl ServerSettings {
    /// The configuration in these files, and when its certificate expires.
    fn read(&self, files: &Snapshot) -> Result<(ServerConfig, Option<u64>), TlsError> {
        let chain = certificates(&self.certificate, bytes(files, &self.certificate)?)?;
        let key = private_key(&self.key, bytes(files, &self.key)?)?;
        let expires_at = chain.first().and_then(|leaf| expiry::not_after(leaf));
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Identity(self.certificate.clone(), error))?
            .with_client_cert_verifier(self.verifier(files)?)
            .with_single_cert(chain, key);
        let mut config =
            config.map_err(|error| TlsError::Identity(self.certificate.clone(), error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Connections live for hours, and a resumed one would skip the client's certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((config, expires_at))
    }

    fn verifier(&self, files: &Snapshot) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let Some(path) = &self.client_authorities else {
            return Ok(WebPkiClientVerifier::no_client_auth());
        };
        let roots = Arc::new(authorities(path, bytes(files, path)?)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
        let verifier = verifier.map_err(TlsError::Verifier)?;
        Ok(match self.client_subject.clone() {
            Some(subject) => Arc::new(NamedClient { verifier, subject }),
            None => verifier,
        })
    }
}

fn bytes<'a>(files: &'a Snapshot, path: &Path) -> Result<&'a [u8], TlsError> {
    match files.get(path) {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(error)) => Err(TlsError::Read(path.to_owned(), io::Error::other(error.clone()))),
        None => Err(TlsError::Read(path.to_owned(), io::ErrorKind::NotFound.into())),
    }
}
