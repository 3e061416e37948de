//! The TLS files of the connections that the service seldom makes: to the collector of spans and to the
//! control plane.

use chassis::readiness::Readiness;
use chassis::tls::FollowedFiles;
use prometheus_client::registry::Registry;

use crate::config::{Config, QuotaSource};

/// What follows them, with the metrics that say when new ones are refused.
pub fn client_files(
    config: &Config,
    readiness: &Readiness,
    registry: &mut Registry,
) -> [FollowedFiles; 2] {
    let control_plane = match &config.quotas {
        QuotaSource::Xds(settings) => settings.tls.clone(),
        QuotaSource::Files(_) => None,
    };
    let clients = [("otlp_tls", config.telemetry.otlp_tls.clone()), ("xds_tls", control_plane)];
    let registry = registry.sub_registry_with_prefix("ratelimit");
    clients.map(|(name, settings)| FollowedFiles::new(settings, name, readiness, registry))
}
