//! Settings of the gateway role: as written by the user, and as they are in force.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::config::{ByteSize, ConfigError, DurationText, Spanned, relative_to};
use chassis::tls::client::ClientSettings;
use chassis::tls::{RawServerTls, ServerSettings};
use serde::{Deserialize, Serialize};

use crate::destination::config::DestinationsConfig;
use crate::gateway::cors::Origins;
use crate::journal::config::QUEUE_BYTES_MAX;
use crate::types::Limits;

/// Where clients are served.
pub const LISTEN: SocketAddr = loopback(8086);
/// Where `/livez`, `/readyz`, `/metrics` and `/config` are served.
pub const ADMIN_LISTEN: SocketAddr = loopback(9086);
/// The largest body as it comes over the wire.
pub const BODY_BYTES_MAX: u64 = 32 << 20;
/// The largest body after decompression; OTLP asks for 64 MiB.
pub const DECODED_BYTES_MAX: u64 = 64 << 20;
/// How many times larger than its wire form a body may become.
pub const RATIO_MAX: u64 = 200;
/// All requests together hold at most this much, where no control group has a limit.
pub const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// What requests may hold of a control group's limit: as much again is for what peers send ahead,
/// the journal's queue, pinned types and the program.
pub const MEMORY_OF_LIMIT: f64 = 0.4;
/// The least of it.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Bounds of what a connection may send ahead, bytes.
const WINDOW_BYTES: std::ops::RangeInclusive<usize> = 64 << 10..=512 << 10;
/// The largest record handed to the journal.
pub const CHUNK_BYTES_MAX: u64 = 512 << 10;
/// Of how many fields the type is pinned.
pub const FIELDS_PINNED_MAX: u64 = 200_000;
/// Of how many fields of one tenant the type is pinned.
pub const FIELDS_PINNED_PER_TENANT_MAX: u64 = 20_000;
/// From the first byte of a request to its answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections are open at once.
pub const CONNECTIONS_MAX: u32 = 1024;
/// How many requests run at once on one HTTP/2 connection.
pub const STREAMS_MAX: u32 = 256;

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

/// `gateway:` as written by the user.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGateway {
    /// Address and port for clients.
    pub listen: Option<Spanned<String>>,
    /// TLS of that port.
    pub tls: Option<RawServerTls>,
    /// Address and port of the admin pages.
    pub admin_listen: Option<Spanned<String>>,
    /// The largest body on the wire.
    pub body_bytes_max: Option<Spanned<ByteSize>>,
    /// The largest body after decompression.
    pub decoded_bytes_max: Option<Spanned<ByteSize>>,
    /// Decompressed over wire size.
    pub ratio_max: Option<Spanned<u64>>,
    /// What all requests together may hold.
    pub memory_bytes_max: Option<Spanned<ByteSize>>,
    /// The largest record of the journal.
    pub chunk_bytes_max: Option<Spanned<ByteSize>>,
    /// Of how many fields the type is pinned.
    pub fields_pinned_max: Option<Spanned<u64>>,
    /// The same for one tenant.
    pub fields_pinned_per_tenant_max: Option<Spanned<u64>>,
    /// The deadline of a request.
    pub request_timeout: Option<Spanned<DurationText>>,
    /// Connections at once.
    pub connections_max: Option<Spanned<u32>>,
    /// HTTP/2 requests at once on one connection.
    pub streams_max: Option<Spanned<u32>>,
    /// Whether line protocol may hold unsigned integers.
    pub accept_unsigned: Option<bool>,
    /// Whose pages may write from a browser.
    pub cors_origins: Option<Vec<Spanned<String>>>,
    /// Where the rules of tenants are.
    pub rules_directory: Option<PathBuf>,
}

/// Settings of the gateway that cannot be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayConfig {
    /// Where clients are served.
    pub listen: SocketAddr,
    /// TLS of that port, or clear text. `/config` shows its state instead.
    #[serde(skip)]
    pub tls: Option<ServerSettings>,
    /// Where the admin pages are served.
    pub admin_listen: SocketAddr,
    /// The largest body on the wire, bytes.
    pub body_bytes_max: usize,
    /// The largest body after decompression, bytes.
    pub decoded_bytes_max: usize,
    /// How many times a body may grow when decompressed.
    pub ratio_max: u64,
    /// What all requests together may hold, bytes.
    pub memory_bytes_max: usize,
    /// The largest record of the journal, bytes.
    pub chunk_bytes_max: usize,
    /// Of how many fields the type is pinned.
    pub fields_pinned_max: usize,
    /// The same for one tenant.
    pub fields_pinned_per_tenant_max: usize,
    /// The deadline of a request.
    pub request_timeout: Duration,
    /// Connections at once.
    pub connections_max: u32,
    /// HTTP/2 requests at once on one connection.
    pub streams_max: u32,
    /// Whether line protocol may hold unsigned integers.
    pub accept_unsigned: bool,
    /// Whose pages may write from a browser.
    pub cors_origins: Origins,
    /// Where the rules of tenants are, if anywhere.
    pub rules_directory: Option<PathBuf>,
    /// Which database each tenant's points go to: a section of its own, as the writer has it too.
    pub destinations: DestinationsConfig,
    /// TLS to the collector of spans, whose files are followed; the section is of both roles.
    #[serde(skip)]
    pub otlp_tls: Option<ClientSettings>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self::from_raw(Path::new(""), &RawGateway::default()).expect("the defaults are valid")
    }
}

impl GatewayConfig {
    /// Bounds of the types that are pinned.
    pub fn type_limits(&self) -> Limits {
        Limits {
            fields_max: self.fields_pinned_max,
            fields_per_tenant_max: self.fields_pinned_per_tenant_max,
            databases_per_tenant_max: self.destinations.databases_per_tenant_max,
        }
    }

    /// What all streams of a connection may send ahead, bytes: all connections together at most a
    /// quarter of what requests may hold, as far as windows can be so small.
    pub fn window_bytes(&self) -> usize {
        let share = self.memory_bytes_max / 4 / self.connections_max as usize;
        share.clamp(*WINDOW_BYTES.start(), *WINDOW_BYTES.end())
    }

    /// What the journal's queue holds unless the user says otherwise, bytes: what it holds is in the
    /// memory of the requests that wait for it, but for those that were given up.
    pub fn queue_bytes_max(&self) -> u64 {
        (self.memory_bytes_max as u64 / 2).clamp(1 << 20, QUEUE_BYTES_MAX)
    }

    /// Checks the settings of the file `path` where memory has no limit.
    ///
    /// # Errors
    /// As [`GatewayConfig::within`].
    pub fn from_raw(path: &Path, raw: &RawGateway) -> Result<Self, ConfigError> {
        Self::within(path, raw, None)
    }

    /// Checks the settings of the file `path`; what it does not say of memory follows from the
    /// limit of the process, bytes.
    ///
    /// # Errors
    /// When a value is out of bounds or contradicts another; the error names its place.
    pub fn within(path: &Path, raw: &RawGateway, limit: Option<u64>) -> Result<Self, ConfigError> {
        let bytes = |key, value: &Option<Spanned<ByteSize>>, default, least, most| {
            let found = value.as_ref().map(|size| size.value.0);
            bounded(path, key, value.as_ref(), found.unwrap_or(default), least, most)
        };
        let count = |key, value: &Option<Spanned<u32>>, default, most| {
            let found = value.as_ref().map(|count| u64::from(count.value));
            bounded(path, key, value.as_ref(), found.unwrap_or(u64::from(default)), 1, most)
        };
        let fields = |key, value: &Option<Spanned<u64>>, default| {
            let found = value.as_ref().map_or(default, |count| count.value);
            bounded(path, key, value.as_ref(), found, 1, 100_000_000)
        };
        let timeout = raw.request_timeout.as_ref().map_or(REQUEST_TIMEOUT, |text| text.value.0);
        let bounds = Duration::from_millis(100)..=Duration::from_secs(300);
        if let (false, Some(at)) = (bounds.contains(&timeout), &raw.request_timeout) {
            let message = "gateway.request_timeout is not between 100ms and 300s";
            return Err(ConfigError::at(path, at, message));
        }
        let ratio = raw.ratio_max.as_ref().map_or(RATIO_MAX, |ratio| ratio.value);
        let (memory, decoded) = memory(path, raw, limit)?;
        let (key, most) = ("body_bytes_max", 1 << 30);
        let chunk = &raw.chunk_bytes_max;
        Ok(Self {
            listen: address(path, "listen", raw.listen.as_ref(), LISTEN)?,
            tls: raw.tls.as_ref().map(|raw| raw.settings(path, "gateway.tls")).transpose()?,
            admin_listen: address(path, "admin_listen", raw.admin_listen.as_ref(), ADMIN_LISTEN)?,
            body_bytes_max: bytes(key, &raw.body_bytes_max, BODY_BYTES_MAX, 1 << 10, most)?
                as usize,
            decoded_bytes_max: decoded as usize,
            ratio_max: bounded(path, "ratio_max", raw.ratio_max.as_ref(), ratio, 2, 10_000)?,
            memory_bytes_max: memory as usize,
            chunk_bytes_max: bytes("chunk_bytes_max", chunk, CHUNK_BYTES_MAX, 4 << 10, 8 << 20)?
                as usize,
            fields_pinned_max: fields(
                "fields_pinned_max",
                &raw.fields_pinned_max,
                FIELDS_PINNED_MAX,
            )? as usize,
            fields_pinned_per_tenant_max: fields(
                "fields_pinned_per_tenant_max",
                &raw.fields_pinned_per_tenant_max,
                FIELDS_PINNED_PER_TENANT_MAX,
            )? as usize,
            request_timeout: timeout,
            connections_max: count(
                "connections_max",
                &raw.connections_max,
                CONNECTIONS_MAX,
                1 << 20,
            )? as u32,
            streams_max: count("streams_max", &raw.streams_max, STREAMS_MAX, 1 << 16)? as u32,
            accept_unsigned: raw.accept_unsigned.unwrap_or(false),
            rules_directory: raw
                .rules_directory
                .as_ref()
                .map(|directory| relative_to(path, directory)),
            cors_origins: origins(path, raw.cors_origins.as_deref().unwrap_or_default())?,
            destinations: DestinationsConfig::default(),
            otlp_tls: None,
        })
    }
}

fn address(
    path: &Path,
    key: &str,
    text: Option<&Spanned<String>>,
    default: SocketAddr,
) -> Result<SocketAddr, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    text.value.parse().map_err(|_| {
        let message = format!("gateway.{key} is not an address and port such as 127.0.0.1:8086");
        ConfigError::at(path, text, message)
    })
}

/// What requests may hold, and the largest decoded body; what the user does not say follows from the
/// limit of the process, all in bytes.
fn memory(path: &Path, raw: &RawGateway, limit: Option<u64>) -> Result<(u64, u64), ConfigError> {
    let bytes = |key, value: &Option<Spanned<ByteSize>>, default, least, most| {
        let found = value.as_ref().map_or(default, |size| size.value.0);
        bounded(path, key, value.as_ref(), found, least, most)
    };
    let of_limit = |limit: u64| (limit as f64 * MEMORY_OF_LIMIT) as u64;
    let default = limit.map_or(MEMORY_BYTES_MAX, of_limit).max(MEMORY_BYTES_MIN);
    let key = "memory_bytes_max";
    let memory = bytes(key, &raw.memory_bytes_max, default, MEMORY_BYTES_MIN, 1 << 40)?;
    let key = "decoded_bytes_max";
    let default = match limit {
        Some(_) => DECODED_BYTES_MAX.min(memory / 4).max(64 << 10),
        None => DECODED_BYTES_MAX,
    };
    let decoded = bytes(key, &raw.decoded_bytes_max, default, 64 << 10, 1 << 30)?;
    if memory < decoded.saturating_mul(4) {
        let message = "gateway.memory_bytes_max is less than four times \
                       gateway.decoded_bytes_max, so the largest body could not be served";
        let at = raw.memory_bytes_max.as_ref().or(raw.decoded_bytes_max.as_ref());
        return Err(at.map_or_else(
            || ConfigError::file(path, message),
            |at| ConfigError::at(path, at, message),
        ));
    }
    Ok((memory, decoded))
}

fn origins(path: &Path, texts: &[Spanned<String>]) -> Result<Origins, ConfigError> {
    let mut origins = Origins::default();
    for text in texts {
        origins.add(&text.value).map_err(|problem| {
            let message = format!("gateway.cors_origins: '{}' {problem}", text.value);
            ConfigError::at(path, text, message)
        })?;
    }
    Ok(origins)
}

fn bounded<T>(
    path: &Path,
    key: &str,
    at: Option<&Spanned<T>>,
    value: u64,
    least: u64,
    most: u64,
) -> Result<u64, ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    let message = format!("gateway.{key} is {value}, not between {least} and {most}");
    Err(at.map_or_else(
        || ConfigError::file(path, message.clone()),
        |at| ConfigError::at(path, at, message.clone()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GatewayConfig, String> {
        let path = Path::new("a.yaml");
        chassis::config::parse_yaml::<RawGateway>(path, text.as_bytes())
            .and_then(|raw| GatewayConfig::from_raw(path, &raw))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn absent_keys_have_defaults_on_loopback() {
        let config = parse("listen: '0.0.0.0:1'\n").expect("valid");
        assert_eq!(
            config,
            GatewayConfig { listen: ([0, 0, 0, 0], 1).into(), ..Default::default() }
        );
        let config = GatewayConfig::default();
        assert!(config.listen.ip().is_loopback() && config.admin_listen.ip().is_loopback());
        assert_eq!(config.chunk_bytes_max, 512 << 10);
    }

    #[test]
    fn memory_follows_the_limit_of_the_process() {
        let within = |text: &str, limit: u64| {
            let path = Path::new("a.yaml");
            let raw = chassis::config::parse_yaml::<RawGateway>(path, text.as_bytes());
            GatewayConfig::within(path, &raw.expect("YAML"), Some(limit))
        };
        let config = within("{}", 1 << 30).expect("valid");
        assert_eq!(config.memory_bytes_max, (1 << 30) * 2 / 5);
        assert_eq!(config.decoded_bytes_max, 64 << 20);
        // 1,024 connections send ahead at most a quarter of that.
        assert_eq!(config.window_bytes(), (1 << 30) / 10 / 1024);
        assert_eq!(config.queue_bytes_max(), (1 << 30) / 5);
        let small = within("{}", 256 << 20).expect("valid");
        assert_eq!(small.decoded_bytes_max, (256 << 20) / 10);
        assert_eq!(small.window_bytes(), 64 << 10);
        let all = small.memory_bytes_max + 1024 * small.window_bytes();
        assert!(all as u64 + small.queue_bytes_max() < 256 << 20);
        let tiny = within("{}", 1).expect("valid");
        assert_eq!((tiny.memory_bytes_max, tiny.decoded_bytes_max), (1 << 20, 256 << 10));
        let said = within("memory_bytes_max: 300MiB\n", 1 << 30).expect("valid");
        assert_eq!((said.memory_bytes_max, said.decoded_bytes_max), (300 << 20, 64 << 20));
        assert!(within("{decoded_bytes_max: 64MiB}\n", 256 << 20).is_err());
        let few = within("connections_max: 10\n", 1 << 30).expect("valid");
        assert_eq!(few.window_bytes(), 512 << 10);
        assert_eq!(GatewayConfig::default().queue_bytes_max(), 256 << 20);
    }

    #[test]
    fn values_out_of_bounds_are_named_with_their_place() {
        for (text, expected) in [
            ("ratio_max: 1\n", "a.yaml:1:12: gateway.ratio_max is 1, not between 2 and 10000"),
            ("body_bytes_max: 1B\n", "a.yaml:1:17: gateway.body_bytes_max is 1, "),
            (
                "accept_unsigned: true\nchunk_bytes_max: 1GiB\n",
                "a.yaml:2:18: gateway.chunk_bytes_max",
            ),
            ("connections_max: 0\n", "a.yaml:1:18: gateway.connections_max is 0"),
            ("fields_pinned_max: 0\n", "a.yaml:1:20: gateway.fields_pinned_max is 0"),
            (
                "fields_pinned_per_tenant_max: 0\n",
                "a.yaml:1:31: gateway.fields_pinned_per_tenant_max is 0",
            ),
            ("streams_max: 0\n", "a.yaml:1:14: gateway.streams_max is 0"),
            ("request_timeout: 1h\n", "a.yaml:1:18: gateway.request_timeout is not between"),
            ("memory_bytes_max: 100MiB\n", "a.yaml:1:19: gateway.memory_bytes_max is less than"),
            ("decoded_bytes_max: 1GiB\n", "a.yaml:1:20: gateway.memory_bytes_max is less than"),
            ("decoded_bytes_max: 1B\n", "a.yaml:1:20: gateway.decoded_bytes_max is 1"),
            ("listen: here\n", "a.yaml:1:9: gateway.listen is not an address"),
            ("cors_origins: ['*', app]\n", "a.yaml:1:21: gateway.cors_origins: 'app' is not an"),
            ("admin_listen: ''\n", "a.yaml:1:15: gateway.admin_listen is not an address"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
