//! The configuration file of ingest-filter, one for both roles.

use std::path::Path;

use chassis::config::{ConfigError, DurationText};
use chassis::drain::DrainTimes;
use chassis::telemetry::TelemetryConfig;
use chassis::tls::client::RawClientTls;
use serde::Deserialize;

use crate::destination::config::RawDestinations;
use crate::gateway::config::RawGateway;
use crate::journal::config::RawJournal;
use crate::writer::config::RawWriter;

/// The file as written by the user. A role needs its own section and `journal`; the section of
/// the other role may be there too, so that one file serves both.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// `info`, or per module as in `info,h2=warn`.
    pub log_level: Option<String>,
    /// gRPC endpoint of an OpenTelemetry collector for spans of our own.
    pub otlp_endpoint: Option<String>,
    /// TLS to it, where the endpoint begins with `https`.
    pub otlp_tls: Option<RawClientTls>,
    /// From SIGTERM to the closing of the listeners.
    pub drain_delay: Option<DurationText>,
    /// From the closing of the listeners to the hard end.
    pub drain_timeout: Option<DurationText>,
    /// Where records are kept between gateway and writer.
    pub journal: RawJournal,
    /// Which database each tenant's points go to.
    pub destinations: Option<RawDestinations>,
    /// Settings of `ingest-filter gateway`.
    pub gateway: Option<RawGateway>,
    /// Settings of `ingest-filter writer`.
    pub writer: Option<RawWriter>,
}

impl RawConfig {
    /// What is logged and where spans go, by the file at `path`.
    ///
    /// # Errors
    /// For TLS settings of the collector that cannot work.
    pub fn telemetry(&self, path: &Path) -> Result<TelemetryConfig, ConfigError> {
        let default = TelemetryConfig::default();
        let otlp_tls = self.otlp_tls.as_ref().map(|tls| tls.settings(path, "otlp_tls"));
        Ok(TelemetryConfig {
            log_level: self.log_level.clone().unwrap_or(default.log_level),
            otlp_endpoint: self.otlp_endpoint.clone(),
            otlp_tls: otlp_tls.transpose()?,
            traces: default.traces,
        })
    }

    /// How long each step of the end takes at most.
    pub fn drain_times(&self) -> DrainTimes {
        let default = DrainTimes::default();
        DrainTimes {
            delay: self.drain_delay.map_or(default.delay, |delay| delay.0),
            timeout: self.drain_timeout.map_or(default.timeout, |timeout| timeout.0),
        }
    }
}
