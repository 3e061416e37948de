//! The listener of clients: HTTP/1.1, HTTP/2 without TLS and gRPC on one port.

use std::time::Duration;

use chassis::connections::Limits;
use chassis::http::Options;

use crate::gateway::config::GatewayConfig;

/// What one HTTP/2 stream may send ahead, bytes; the memory of a stream that is not read yet.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// What all streams of a connection may send ahead, bytes.
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
/// How much longer than a request an answer may take to be read.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How clients are served.
pub fn options(config: &GatewayConfig) -> Options {
    let limits = Limits {
        request: config.request_timeout + ANSWER_TIMEOUT,
        ..Limits::of(config.connections_max as usize)
    };
    Options {
        limits,
        streams_max: config.streams_max,
        stream_window_bytes: STREAM_WINDOW_BYTES,
        connection_window_bytes: CONNECTION_WINDOW_BYTES,
    }
}
