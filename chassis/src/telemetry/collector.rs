//! The way to the collector of spans: in clear text for `http`, over TLS for `https`.

use std::time::Duration;

use http::Uri;
use http::uri::{PathAndQuery, Scheme};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use tonic::transport::Endpoint;

use crate::causes::error_chain;
use crate::process::UsageError;
use crate::tls::Protocols;
use crate::tls::client::{ClientSettings, Connector, connect_lazily};

/// How long a connection to the collector may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The port of `https` where the address names none.
const PORT_DEFAULT: u16 = 443;

/// Exports spans to `endpoint`. Connects with the first of them.
///
/// # Errors
/// For an address that cannot be one, TLS files that cannot be used, and TLS files for clear text.
pub(super) fn exporter(
    endpoint: &str,
    tls: Option<&ClientSettings>,
) -> Result<SpanExporter, UsageError> {
    let bad = |reason: String| UsageError(format!("OTLP endpoint '{endpoint}': {reason}"));
    let refused = |error: ExporterBuildError| bad(error_chain(&error));
    let address: Uri = endpoint.parse().map_err(|error| bad(error_chain(&error)))?;
    let builder = SpanExporter::builder().with_tonic();
    if address.scheme() != Some(&Scheme::HTTPS) {
        return match tls {
            Some(_) => Err(bad("TLS files are for an address that begins with https".to_owned())),
            None => builder.with_endpoint(endpoint).build().map_err(refused),
        };
    }
    let tls = tls.cloned().unwrap_or_default();
    tls.check()?;
    let at = in_clear(&address).ok_or_else(|| bad("is no address".to_owned()))?;
    let connector = Connector::new(tls, Protocols::Grpc, "collector");
    let channel = connect_lazily(Endpoint::from(at).connect_timeout(CONNECT_TIMEOUT), connector);
    builder.with_channel(channel).build().map_err(refused)
}

/// The same host and port without the scheme that the transport would encrypt by itself.
fn in_clear(address: &Uri) -> Option<Uri> {
    let (host, port) = (address.host()?, address.port_u16().unwrap_or(PORT_DEFAULT));
    Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(format!("{host}:{port}"))
        .path_and_query(PathAndQuery::from_static("/"))
        .build()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_added_where_none_is_named() {
        for (address, expected) in [
            ("https://collector.example:4317", "http://collector.example:4317/"),
            ("https://collector.example", "http://collector.example:443/"),
            ("https://[::1]/path", "http://[::1]:443/"),
        ] {
            let found = in_clear(&address.parse().expect("an address"));
            assert_eq!(found.expect("one too").to_string(), expected);
        }
    }

    #[tokio::test]
    async fn what_cannot_work_is_refused_with_its_file() {
        crate::tls::install_provider();
        let absent = ClientSettings {
            authorities: Some("/nowhere/ca.crt".into()),
            ..ClientSettings::default()
        };
        for (endpoint, expected) in [
            ("https://collector:4317", "'/nowhere/ca.crt' cannot be read"),
            ("http://collector:4317", "TLS files are for an address that begins with https"),
            ("https://", "OTLP endpoint 'https://': "),
        ] {
            let error = exporter(endpoint, Some(&absent)).map(drop).expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
