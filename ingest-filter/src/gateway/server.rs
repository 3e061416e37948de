//! The listener of clients: HTTP/1.1, HTTP/2 and gRPC on one port, over TLS or in clear text.

use std::sync::Arc;
use std::time::Duration;

use chassis::connections::Limits;
use chassis::http::Options;
use chassis::process::UsageError;
use chassis::readiness::Readiness;
use chassis::reload;
use chassis::tls::{Acceptor, FollowedFiles, Protocols};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::gateway::config::GatewayConfig;

/// What one HTTP/2 stream may send ahead, bytes; the memory of a stream that is not read yet.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// How much longer than a request an answer may take to be read.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// TLS of the listener, if there is to be any. Says in one line when anyone may speak for Envoy.
///
/// # Errors
/// When the files cannot be used.
pub fn tls(
    config: &GatewayConfig,
    readiness: &Readiness,
    registry: &mut Registry,
) -> Result<Option<Arc<Acceptor>>, UsageError> {
    let registry = registry.sub_registry_with_prefix("ingest_gateway");
    let acceptor = Acceptor::start(config.tls.clone(), Protocols::Http, readiness, registry)?;
    if !acceptor.as_ref().is_some_and(|tls| tls.authenticates_clients()) {
        tracing::warn!(
            "without gateway.tls.client_ca_file whoever reaches gateway.listen may write as any \
             tenant"
        );
    }
    Ok(acceptor)
}

/// The files of the collector's TLS, to be followed.
pub fn collector(
    config: &GatewayConfig,
    readiness: &Readiness,
    registry: &mut Registry,
) -> FollowedFiles {
    let registry = registry.sub_registry_with_prefix("ingest_gateway");
    FollowedFiles::new(config.otlp_tls.clone(), "otlp_tls", readiness, registry)
}

/// Follows the files of the listener. Never ends.
pub async fn follow(tls: Option<Arc<Acceptor>>) {
    match tls {
        Some(tls) => tls.follow(reload::PERIOD).await,
        None => std::future::pending().await,
    }
}

/// What `/config` shows of who may write.
pub fn describe(tls: Option<&Arc<Acceptor>>) -> Value {
    json!({
        "clients_authenticated": tls.is_some_and(|tls| tls.authenticates_clients()),
        "certificate": tls.map(|tls| tls.status()),
    })
}

/// How clients are served.
pub fn options(config: &GatewayConfig, tls: Option<Arc<Acceptor>>) -> Options {
    let limits = Limits {
        request: config.request_timeout + ANSWER_TIMEOUT,
        ..Limits::of(config.connections_max as usize)
    };
    let window = u32::try_from(config.window_bytes()).unwrap_or(u32::MAX);
    Options {
        limits,
        streams_max: config.streams_max,
        stream_window_bytes: STREAM_WINDOW_BYTES.min(window),
        connection_window_bytes: window,
        tls,
    }
}
