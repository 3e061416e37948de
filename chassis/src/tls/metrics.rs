//! What metrics tell of TLS: when the certificate expires, whether new files were good, and why
//! handshakes fail.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The metrics of a listener.
#[derive(Clone, Default)]
pub(super) struct Metrics {
    expiry: Gauge,
    loads: Family<ResultLabels, Counter>,
    failures: Family<ReasonLabels, Counter>,
    ended: Family<ReasonLabels, Counter>,
    is_refused: Gauge,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "When the certificate in force expires, seconds since 1970; 0 without one";
        registry.register("tls_certificate_expiry_timestamp_seconds", help, self.expiry.clone());
        let help = "States of the TLS files read, by result";
        registry.register("tls_certificate_loads", help, self.loads.clone());
        let help = "TLS handshakes that failed, by reason";
        registry.register("tls_handshake_failures", help, self.failures.clone());
        let help = "Connections ended because their client's certificate was no longer good";
        registry.register("tls_connections_ended", help, self.ended.clone());
        let help = "1 while the newest TLS files are refused and older ones are in force";
        registry.register("tls_files_refused", help, self.is_refused.clone());
    }

    pub(super) fn loaded(&self, expires_at: Option<u64>) {
        self.expiry.set(expires_at.and_then(|at| i64::try_from(at).ok()).unwrap_or(0));
        self.loads.get_or_create(&ResultLabels { result: "success" }).inc();
        self.is_refused.set(0);
    }

    pub(super) fn refused(&self) {
        self.loads.get_or_create(&ResultLabels { result: "error" }).inc();
        self.is_refused.set(1);
    }

    pub(super) fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&ReasonLabels { reason }).inc();
    }
}
