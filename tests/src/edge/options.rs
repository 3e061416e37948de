//! What an edge is started with, and where it listens.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use super::encryption::Encryption;
use crate::parts::envoy::{Limits, TlsFiles};
use crate::ports::{Held, free_address};

/// Which parts the edge stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Counters in memory, the journal on disk, points in a file.
    Embedded,
    /// Redis, Apache Kafka and InfluxDB.
    Real,
}

/// What an edge is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Configuration, data and logs go here; emptied first.
    pub dir: PathBuf,
    /// What it stands on.
    pub parts: Parts,
    /// How many processes of each service.
    pub replicas: usize,
    /// The port for clients; any free one when absent.
    pub port: Option<Arc<Held>>,
    /// The quota file of ratelimit-svc.
    pub quotas: String,
    /// OTLP collector for spans; nothing listens there when absent.
    pub otlp: Option<SocketAddr>,
    /// How long Envoy waits for ext-authz and ratelimit-svc, and ratelimit-svc for Redis.
    pub patience: Patience,
    /// What Envoy has beyond its defaults.
    pub proxy: Proxy,
    /// Whether hops are encrypted.
    pub encryption: Encryption,
}

/// What Envoy has beyond its defaults.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    /// Its bounds.
    pub limits: Limits,
    /// Turns on the break-glass listener.
    pub break_glass: Option<TlsFiles>,
    /// Lets [`super::Edge::set_pressure`] overload it.
    pub injected_pressure: bool,
}

/// Time limits inside the edge.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub(super) authz: &'static str,
    pub(super) ratelimit: &'static str,
    pub(super) redis: &'static str,
    pub(super) drain_delay: &'static str,
}

impl Patience {
    /// For a desk, where everything shares a machine with a browser and a compiler. Production has
    /// 0.25 s, 0.05 s and 5 ms.
    pub const DESK: Self =
        Self { authz: "1s", ratelimit: "0.5s", redis: "100ms", drain_delay: "3s" };
    /// As for a desk, where Redis may take as long as a busy machine makes it.
    pub const ROLLING: Self = Self { redis: "500ms", ..Self::DESK };
    /// For machines that compile and test at the same time.
    pub const BUSY_MACHINE: Self =
        Self { authz: "2s", ratelimit: "2s", redis: "500ms", drain_delay: "200ms" };
    /// With the time to look at a process that drains.
    pub const SLOW_DRAIN: Self = Self { drain_delay: "30s", ..Self::BUSY_MACHINE };
}

/// Where Envoy listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Where clients connect.
    pub edge: SocketAddr,
    /// Where clients connect over TLS, where hops are encrypted.
    pub edge_tls: SocketAddr,
    /// Envoy's admin interface.
    pub envoy_admin: SocketAddr,
    /// Envoy's listener for probes and metrics.
    pub envoy_status: SocketAddr,
    /// Envoy's break-glass listener, where it is on.
    pub break_glass: SocketAddr,
}

impl Addresses {
    pub(super) fn free(edge: SocketAddr) -> Result<Self> {
        Ok(Self {
            edge,
            edge_tls: free_address()?,
            envoy_admin: free_address()?,
            envoy_status: free_address()?,
            break_glass: free_address()?,
        })
    }
}
