//! Whether the client of an open connection may stay: its certificate may expire, and its
//! authority or its name may leave the lists.
//!
//! ```text
//! handshake ── open ──┬─ certificate expires ──────────────► lost
//!                     └─ files change ─ verified anew ─ bad ► lost
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

use super::expiry;
use super::metrics::Metrics;
use super::settings::InForce;

/// How often the clock is asked whether the certificate has expired; it may be set meanwhile.
const CLOCK_PERIOD: Duration = Duration::from_secs(5);

/// How long a connection has for its open requests, from the moment its client may not stay.
pub const FAREWELL: Duration = Duration::from_secs(10);

/// The client at the other end of a connection.
pub struct Peer {
    chain: Vec<CertificateDer<'static>>,
    in_force: watch::Receiver<Arc<InForce>>,
    metrics: Metrics,
}

impl Peer {
    /// The client that came with this chain, and has been verified as `in_force` has it.
    pub(super) fn new(
        chain: Option<&[CertificateDer<'_>]>,
        in_force: watch::Receiver<Arc<InForce>>,
        metrics: Metrics,
    ) -> Self {
        let chain = chain.unwrap_or_default();
        let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
        Self { chain, in_force, metrics }
    }

    /// Resolves when the client may not stay. A client without a certificate may.
    pub async fn lost(mut self) {
        let Some(leaf) = self.chain.first() else { return std::future::pending().await };
        let not_after = expiry::not_after(leaf).unwrap_or(0);
        let expired = async {
            loop {
                let now = seconds_since_1970();
                if now > not_after {
                    return;
                }
                let left = Duration::from_secs(not_after - now + 1);
                tokio::time::sleep(left.min(CLOCK_PERIOD)).await;
            }
        };
        let (chain, in_force) = (&self.chain, &mut self.in_force);
        let refused = async {
            while in_force.changed().await.is_ok() {
                let now_in_force = in_force.borrow_and_update().clone();
                if !still_allowed(chain, &now_in_force) {
                    return;
                }
            }
            std::future::pending().await
        };
        let reason = tokio::select! {
            () = expired => "expired",
            () = refused => "not_allowed",
        };
        self.metrics.ended(reason);
        tracing::warn!(reason, "a client's certificate is no longer good, its connection ends");
    }
}

fn still_allowed(chain: &[CertificateDer<'static>], in_force: &InForce) -> bool {
    let Some((leaf, between)) = chain.split_first() else { return true };
    in_force.verifier.verify_client_cert(leaf, between, UnixTime::now()).is_ok()
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
