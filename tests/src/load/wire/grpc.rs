//! The gRPC methods that load is made for, and connections that call them.

use super::http2::Http2;
use super::{Connection, Meaning};

/// The path of `ShouldRateLimit`.
pub const RATE_LIMIT_PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// The path of `Check`.
pub const CHECK_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Connections that call a gRPC method.
pub fn grpc(path: &'static str, meaning: Meaning) -> impl Fn(&str) -> Box<dyn Connection + Send> {
    move |authority| Box::new(Http2::new(authority, path, meaning))
}
