//! Where a running service listens, as it is logged and as tests find it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC requests and health.
    pub grpc: GrpcAddress,
    /// `POST /json`, `GET /healthcheck`.
    pub http: SocketAddr,
    /// Admin pages.
    pub debug: SocketAddr,
    /// The page of `USE_PROMETHEUS`.
    pub prometheus: Option<SocketAddr>,
}

/// Where gRPC is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcAddress {
    /// On a port.
    Tcp(SocketAddr),
    /// On a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for GrpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
