//! The server's side: certificates that are followed while the process runs, and handshakes.
//!
//! ```text
//! files ─ good ─► in force for the next handshake; open connections stay while their client may
//!       └ bad ──► at the start the end of the process, later a warning; what was in force stays
//! Workload API ─► the same, but that it may be away: at the start nothing is ready until it serves
//! ```

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::metrics::Metrics;
use super::peer::Peer;
use super::settings::{InForce, Protocols, ServerSettings};
use super::workload::{self, News};
use crate::causes::error_chain;
use crate::process::UsageError;
use crate::readiness::{Condition, Readiness};
use crate::reload::{self, ReloadStatus, Snapshot};

/// How long a client may take to become a connection.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The name of the warning in `/readyz`.
const WARNING: &str = "tls";
/// The name of the warning that the Workload API is away.
const AWAY: &str = "workload API";
/// How often the clock is asked whether our certificate has expired; it may be set meanwhile.
const CLOCK_PERIOD: Duration = Duration::from_secs(5);

/// Turns accepted sockets into connections over TLS.
pub struct Acceptor {
    settings: ServerSettings,
    protocols: Protocols,
    in_force: watch::Sender<Arc<InForce>>,
    metrics: Metrics,
    readiness: Readiness,
    /// Held back while the Workload API has given no certificate that is good now.
    condition: Option<Condition>,
    state: Mutex<State>,
    /// Since when failures are counted, and the second at which one was last logged.
    began: Instant,
    logged: AtomicU64,
}

struct State {
    read: u64,
    reload: ReloadStatus,
    /// Of the Workload API: what came last, the files beside it, and whether it is away.
    svid: Option<Snapshot>,
    files: Snapshot,
    is_away: bool,
}

impl State {
    fn new() -> Self {
        let (read, reload) = (0, ReloadStatus::default());
        Self { read, reload, svid: None, files: Snapshot::new(), is_away: false }
    }
}

/// What `/config` tells of the certificate.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    #[serde(flatten)]
    reload: ReloadStatus,
    /// When it expires, seconds since 1970.
    expires_at_seconds: Option<u64>,
    /// Whether clients need a certificate.
    clients_authenticated: bool,
}

impl Acceptor {
    /// Reads the files, if there is to be TLS. The metrics are there in any case.
    ///
    /// # Errors
    /// When the files cannot be used; the first of them is named.
    pub fn start(
        settings: Option<ServerSettings>,
        protocols: Protocols,
        readiness: &Readiness,
        registry: &mut Registry,
    ) -> Result<Option<Arc<Self>>, UsageError> {
        let metrics = Metrics::default();
        metrics.register(registry);
        let Some(settings) = settings else { return Ok(None) };
        let (mut state, mut condition) = (State::new(), None);
        let in_force = match &settings.workload_api {
            Some(_) => {
                let names = settings.allowed(&settings.source().read());
                names.map_err(|error| UsageError(error_chain(&error)))?;
                let reason = "the Workload API has given no certificate yet";
                condition = Some(readiness.condition("tls", reason));
                InForce::nothing()
            }
            None => {
                let snapshot = settings.source().read();
                let in_force = settings.read(&snapshot, protocols);
                let in_force = in_force.map_err(|error| UsageError(error_chain(&error)))?;
                metrics.loaded(in_force.expires_at);
                state.read = reload::hash(&snapshot);
                state.reload.loaded(state.read);
                in_force
            }
        };
        Ok(Some(Arc::new(Self {
            condition,
            settings,
            protocols,
            in_force: watch::Sender::new(Arc::new(in_force)),
            metrics,
            readiness: readiness.clone(),
            state: Mutex::new(state),
            began: Instant::now(),
            logged: AtomicU64::new(0),
        })))
    }

    /// Follows the files. Never ends.
    pub async fn follow(&self, period: Duration) {
        let apply = |snapshot| {
            self.apply(&snapshot);
            std::future::ready(())
        };
        let files = reload::follow(self.settings.source(), period, apply);
        let Some(address) = &self.settings.workload_api else {
            files.await;
            return;
        };
        let svids = workload::follow(address, |news| self.hear(address, news));
        tokio::join!(files, svids, self.expire());
    }

    /// Takes what the Workload API sends; that it is away is said once.
    fn hear(&self, address: &str, news: News) {
        let mut state = self.state();
        let was_away = std::mem::replace(&mut state.is_away, matches!(news, News::Away(_)));
        match news {
            News::Svid(svid) => {
                state.svid = Some(svid);
                self.readiness.all_well(AWAY);
                if was_away {
                    tracing::info!(address, "the Workload API serves");
                }
                self.take(&mut state);
            }
            News::Away(reason) if !was_away => {
                let kept = match state.svid.is_some() {
                    true => "the last certificate is in force until it expires",
                    false => "there is no certificate yet",
                };
                self.readiness.warn(AWAY, format!("{address} is away, {kept}: {reason}"));
                tracing::error!(address, reason, kept, "the Workload API is away");
            }
            News::Away(_) => {}
        }
    }

    /// Holds readiness back when the certificate in force has expired. Never ends.
    async fn expire(&self) -> Infallible {
        let mut in_force = self.in_force.subscribe();
        loop {
            let expires_at = in_force.borrow_and_update().expires_at;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
            let left = expires_at.map(|at| (at + 1).saturating_sub(now));
            if let (Some(0), Some(condition)) = (left, &self.condition) {
                condition.lost("the last certificate of the Workload API has expired");
            }
            // What has expired and what is not there change by a new certificate alone.
            let wait = left.filter(|left| *left > 0).map(Duration::from_secs);
            let wait = wait.map_or(Duration::MAX, |wait| wait.min(CLOCK_PERIOD));
            // Either it has changed, or the clock is to be asked.
            let _ = tokio::time::timeout(wait, in_force.changed()).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in force, and what was last wrong.
    pub fn status(&self) -> Status {
        let state = self.state();
        Status {
            reload: state.reload.clone(),
            expires_at_seconds: self.in_force.borrow().expires_at,
            clients_authenticated: self.authenticates_clients(),
        }
    }

    /// Whether clients need a certificate.
    pub fn authenticates_clients(&self) -> bool {
        self.settings.client_authorities.is_some()
    }

    fn apply(&self, snapshot: &Snapshot) {
        let mut state = self.state();
        state.files.clone_from(snapshot);
        self.take(&mut state);
    }

    fn take(&self, state: &mut State) {
        let mut snapshot = state.files.clone();
        match &state.svid {
            Some(svid) => snapshot.extend(svid.clone()),
            None if self.settings.workload_api.is_some() => return,
            None => {}
        }
        let hash = reload::hash(&snapshot);
        if std::mem::replace(&mut state.read, hash) == hash {
            return;
        }
        match self.settings.read(&snapshot, self.protocols) {
            Ok(in_force) => {
                let expires_at = in_force.expires_at;
                self.in_force.send_replace(Arc::new(in_force));
                self.metrics.loaded(expires_at);
                self.readiness.all_well(WARNING);
                if let Some(condition) = &self.condition {
                    condition.met();
                }
                state.reload.loaded(hash);
                tracing::info!(expires_at_seconds = expires_at, "TLS certificate in force");
            }
            Err(error) => {
                let reason = error_chain(&error);
                self.metrics.refused();
                let warning = format!("new files are refused, the old are in force: {reason}");
                self.readiness.warn(WARNING, warning);
                let is_without = self.in_force.borrow().config.is_none();
                if let (true, Some(condition)) = (is_without, &self.condition) {
                    condition.lost(reason.clone());
                }
                tracing::error!(reason, "TLS files refused");
                state.reload.refused(reason);
            }
        }
    }

    /// The handshake. One that fails is counted, and the connection is closed.
    pub(crate) async fn accept<IO>(&self, io: IO) -> Option<(TlsStream<IO>, Peer)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // Before the configuration is taken, so that no change goes by unseen.
        let changes = self.in_force.subscribe();
        let Some(config) = self.in_force.borrow().config.clone() else {
            self.failed("no_certificate", "there is no certificate of ours yet");
            return None;
        };
        let handshake = TlsAcceptor::from(config).accept(io);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(connection)) => {
                let chain = connection.get_ref().1.peer_certificates();
                let peer = Peer::new(chain, changes, self.metrics.clone());
                return Some((connection, peer));
            }
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
