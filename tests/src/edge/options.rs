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
    /// Whether API keys are in Redis, where there is one, in place of a file.
    pub keys_in_redis: bool,
}

/// What Envoy has beyond its defaults.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    /// Its bounds.
    pub limits: Limits,
    /// Turns on the break-glass listener.
    pub break_glass: Option<TlsFiles>,
    /// Origins whose pages may write: the gateway's `cors_origins`.
    pub cors_origins: Vec<String>,
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
    /// As for a desk, where every part may take as long as a busy machine makes it: no request fails for
    /// anything but a replica that stops, dies or hangs.
    pub const ROLLING: Self = Self { authz: "3s", ratelimit: "3s", redis: "1s", ..Self::DESK };
    /// For machines that compile and test at the same time.
    pub const BUSY_MACHINE: Self =
        Self { authz: "5s", ratelimit: "5s", redis: "1s", drain_delay: "200ms" };
    /// With the time to look at a process that drains.
    pub const SLOW_DRAIN: Self = Self { drain_delay: "120s", ..Self::BUSY_MACHINE };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::workspace;

    /// Every value of `key` in a file, in seconds.
    fn seconds(text: &str, key: &str) -> Vec<f64> {
        let values = text.lines().filter_map(|line| line.trim().strip_prefix(key));
        let number = |value: &str| value.trim().strip_suffix('s').and_then(|n| n.parse().ok());
        values.map(|value| number(value).expect("a time in seconds")).collect()
    }

    fn read(path: &str) -> String {
        std::fs::read_to_string(workspace().join(path)).expect("it is in the repository")
    }

    /// A process that stops goes on serving until Envoy knows: one interval and one timeout of the
    /// health check, which fails at once. Then it has its drain timeout, and only then is it killed.
    #[test]
    fn what_drains_outlasts_the_health_check() {
        let envoy = read("envoy-config/envoy.yaml");
        let (_, check) = envoy.split_once("health_checks: &health").expect("a health check");
        let (check, _) = check.split_once("grpc_health_check").expect("over gRPC");
        assert!(check.contains("unhealthy_threshold: 1\n"), "failed at once");
        let noticed = seconds(check, "- interval:")[0] + seconds(check, "timeout:")[0];
        let compose = read("compose.yaml");
        let mut delays = seconds(&compose, "drain_delay:");
        delays.extend(seconds(&compose, "DRAIN_DELAY:"));
        assert_eq!(delays.len(), 3, "ext-authz, ratelimit-svc, and gateway and writer together");
        for patience in [Patience::DESK, Patience::ROLLING] {
            delays.extend(seconds(&format!("delay: {}", patience.drain_delay), "delay:"));
        }
        for delay in &delays {
            assert!(*delay > noticed, "a drain delay of {delay} s, noticed after {noticed} s");
        }
        let longest = delays.iter().copied().fold(0.0, f64::max);
        let timeout = seconds(&compose, "DRAIN_TIMEOUT:")[0];
        let grace = seconds(&compose, "stop_grace_period:");
        for grace in grace {
            assert!(grace > longest + timeout, "killed after {grace} s, amid its drain");
        }
    }
}
