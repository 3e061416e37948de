//! Settings of the writer role.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::config::{ByteSize, ConfigError, DurationText, Spanned};
use chassis::tls::client::{ClientSettings, RawClientTls};
use serde::Deserialize;

use crate::destination::config::DestinationsConfig;

mod bounds;

use bounds::{duration, within};

mod server;

use server::{tls, url};

/// `writer:` as written by the user; exactly one target is given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawWriter {
    /// Where `/livez`, `/readyz`, `/metrics` and `/config` are served.
    pub admin_listen: Option<SocketAddr>,
    /// Points of a batch.
    pub batch_lines_max: Option<Spanned<u64>>,
    /// Bytes of a batch before compression.
    pub batch_bytes_max: Option<Spanned<ByteSize>>,
    /// Memory of all batches in hand.
    pub batches_bytes_max: Option<Spanned<ByteSize>>,
    /// Writes under way at once.
    pub writes_at_once_max: Option<Spanned<u32>>,
    /// Tenants with a watermark of their own.
    pub watermark_tenants_max: Option<Spanned<u32>>,
    /// How long a batch waits for more points.
    pub linger: Option<Spanned<DurationText>>,
    /// The longest pause between two tries.
    pub backoff_max: Option<Spanned<DurationText>>,
    /// How often the database may fail on the same points before they are suspected.
    pub poison_attempts: Option<Spanned<u32>>,
    /// InfluxDB 1.x.
    pub influxdb_v1: Option<Spanned<RawInfluxdbV1>>,
    /// InfluxDB 2.x.
    pub influxdb_v2: Option<Spanned<RawInfluxdbV2>>,
    /// InfluxDB 3.
    pub influxdb_v3: Option<Spanned<RawInfluxdbV3>>,
    /// A file of line protocol.
    pub file: Option<Spanned<RawFile>>,
}

/// `writer.influxdb_v1:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawInfluxdbV1 {
    /// `http://host:port` or `https://host:port`.
    pub url: Spanned<String>,
    /// The retention policy to write to; the database's default when absent.
    pub retention_policy: Option<String>,
    /// Whom to log in as.
    pub username: Option<Spanned<String>>,
    /// A file that holds the password.
    pub password_file: Option<Spanned<PathBuf>>,
    /// Creates databases that are missing.
    pub create_database: Option<bool>,
    /// TLS of an https URL.
    pub tls: Option<Spanned<RawClientTls>>,
    /// How long one request may take.
    pub request_timeout: Option<Spanned<DurationText>>,
}

/// `writer.influxdb_v2:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawInfluxdbV2 {
    /// `http://host:port` or `https://host:port`.
    pub url: Spanned<String>,
    /// The organisation, by name or ID.
    pub org: Spanned<String>,
    /// A file that holds the token.
    pub token_file: Spanned<PathBuf>,
    /// Creates buckets that are missing.
    pub create_bucket: Option<bool>,
    /// TLS of an https URL.
    pub tls: Option<Spanned<RawClientTls>>,
    /// How long one request may take.
    pub request_timeout: Option<Spanned<DurationText>>,
}

/// `writer.influxdb_v3:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawInfluxdbV3 {
    /// `http://host:port` or `https://host:port`.
    pub url: Spanned<String>,
    /// A file that holds the token.
    pub token_file: Option<Spanned<PathBuf>>,
    /// TLS of an https URL.
    pub tls: Option<Spanned<RawClientTls>>,
    /// How long one request may take.
    pub request_timeout: Option<Spanned<DurationText>>,
}

/// `writer.file:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawFile {
    /// The file; appended to.
    pub path: Spanned<PathBuf>,
}

/// `admin_listen` when absent.
pub const ADMIN_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9903);
/// `batch_lines_max` when absent.
pub const BATCH_LINES_MAX: usize = 5000;
/// `batch_bytes_max` when absent.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// `batches_bytes_max` when absent.
pub const BATCHES_BYTES_MAX: u64 = 256 << 20;
/// `writes_at_once_max` when absent.
pub const WRITES_AT_ONCE_MAX: usize = 8;
/// `watermark_tenants_max` when absent.
pub const WATERMARK_TENANTS_MAX: usize = 100;
/// `linger` when absent.
pub const LINGER: Duration = Duration::from_millis(200);
/// `backoff_max` when absent.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// `poison_attempts` when absent.
pub const POISON_ATTEMPTS: u32 = 3;
/// `request_timeout` when absent.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The writer's settings, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterConfig {
    /// Where the admin pages are served.
    pub admin_listen: SocketAddr,
    /// How points are put together.
    pub batch: BatchConfig,
    /// Memory of all batches in hand, bytes.
    pub batches_bytes_max: u64,
    /// How many writes may be under way at once.
    pub writes_at_once_max: usize,
    /// How many tenants have a watermark of their own in the metrics.
    pub watermark_tenants_max: usize,
    /// How failures are met.
    pub retry: RetryConfig,
    /// Which database each tenant's points go to: a section of its own, as the gateway has it too.
    pub destinations: DestinationsConfig,
    /// TLS to the collector of spans, whose files are followed; the section is of both roles.
    pub otlp_tls: Option<ClientSettings>,
    /// Where points go.
    pub target: TargetConfig,
}

/// How points are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// A batch is full at this many points.
    pub lines_max: usize,
    /// A batch is full at this many bytes.
    pub bytes_max: usize,
    /// A batch that is not full is written after this time.
    pub linger: Duration,
}

/// How failures are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// The longest pause between two tries.
    pub backoff_max: Duration,
    /// How often the database may fail on the same points before they are suspected.
    pub poison_attempts: u32,
}

/// Where points go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetConfig {
    /// InfluxDB 1.x.
    InfluxdbV1(InfluxdbV1Config),
    /// InfluxDB 2.x.
    InfluxdbV2(InfluxdbV2Config),
    /// InfluxDB 3.
    InfluxdbV3(InfluxdbV3Config),
    /// A file of line protocol at this path.
    File(PathBuf),
}

/// Settings of the InfluxDB 1.x target, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfluxdbV1Config {
    /// Scheme, host and port; no path.
    pub url: String,
    /// The retention policy to write to.
    pub retention_policy: Option<String>,
    /// Whom to log in as, and the file with the password.
    pub login: Option<(String, PathBuf)>,
    /// Creates databases that are missing.
    pub create_database: bool,
    /// TLS of an https URL.
    pub tls: Option<ClientSettings>,
    /// How long one request may take.
    pub request_timeout: Duration,
}

/// Settings of the InfluxDB 2.x target, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfluxdbV2Config {
    /// Scheme, host and port; no path.
    pub url: String,
    /// The organisation.
    pub org: String,
    /// The file with the token.
    pub token_file: PathBuf,
    /// Creates buckets that are missing.
    pub create_bucket: bool,
    /// TLS of an https URL.
    pub tls: Option<ClientSettings>,
    /// How long one request may take.
    pub request_timeout: Duration,
}

/// Settings of the InfluxDB 3 target, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfluxdbV3Config {
    /// Scheme, host and port; no path.
    pub url: String,
    /// The file with the token.
    pub token_file: Option<PathBuf>,
    /// TLS of an https URL.
    pub tls: Option<ClientSettings>,
    /// How long one request may take.
    pub request_timeout: Duration,
}

impl WriterConfig {
    /// The defaults, for this target.
    pub fn new(target: TargetConfig) -> Self {
        Self {
            admin_listen: ADMIN_LISTEN,
            batch: BatchConfig {
                lines_max: BATCH_LINES_MAX,
                bytes_max: BATCH_BYTES_MAX,
                linger: LINGER,
            },
            batches_bytes_max: BATCHES_BYTES_MAX,
            writes_at_once_max: WRITES_AT_ONCE_MAX,
            watermark_tenants_max: WATERMARK_TENANTS_MAX,
            retry: RetryConfig { backoff_max: BACKOFF_MAX, poison_attempts: POISON_ATTEMPTS },
            destinations: DestinationsConfig::default(),
            otlp_tls: None,
            target,
        }
    }

    /// Checks what the user wrote in the file at `path`.
    ///
    /// # Errors
    /// Naming the first key that cannot work.
    pub fn from_raw(path: &Path, raw: &RawWriter) -> Result<Self, ConfigError> {
        let mut config = Self::new(target(path, raw)?);
        if let Some(listen) = raw.admin_listen {
            config.admin_listen = listen;
        }
        if let Some(lines) = &raw.batch_lines_max {
            within(path, "batch_lines_max", lines, 1, 100_000, lines.value, |n| n.to_string())?;
            config.batch.lines_max = lines.value as usize;
        }
        if let Some(bytes) = &raw.batch_bytes_max {
            let (min, max) = (ByteSize(4 << 10), ByteSize(64 << 20));
            within(path, "batch_bytes_max", bytes, min, max, bytes.value, |size| {
                format!("{}KiB", size.0 >> 10)
            })?;
            config.batch.bytes_max = bytes.value.0 as usize;
        }
        if let Some(bytes) = &raw.batches_bytes_max {
            let (min, max) = (ByteSize(16 << 20), ByteSize(64 << 30));
            within(path, "batches_bytes_max", bytes, min, max, bytes.value, |size| {
                format!("{}MiB", size.0 >> 20)
            })?;
            config.batches_bytes_max = bytes.value.0;
        }
        if let Some(writes) = &raw.writes_at_once_max {
            within(path, "writes_at_once_max", writes, 1, 256, writes.value, |n| n.to_string())?;
            config.writes_at_once_max = writes.value as usize;
        }
        if let Some(tenants) = &raw.watermark_tenants_max {
            let (key, show) = ("watermark_tenants_max", |n: &u32| n.to_string());
            within(path, key, tenants, 0, 10_000, tenants.value, show)?;
            config.watermark_tenants_max = tenants.value as usize;
        }
        if let Some(linger) = &raw.linger {
            config.batch.linger = duration(path, "linger", linger, 0, 60)?;
        }
        if let Some(backoff) = &raw.backoff_max {
            config.retry.backoff_max = duration(path, "backoff_max", backoff, 1, 3600)?;
        }
        if let Some(attempts) = &raw.poison_attempts {
            within(path, "poison_attempts", attempts, 1, 100, attempts.value, |n| n.to_string())?;
            config.retry.poison_attempts = attempts.value;
        }
        Ok(config)
    }
}

fn target(path: &Path, raw: &RawWriter) -> Result<TargetConfig, ConfigError> {
    let given = [
        raw.influxdb_v1.as_ref().map(|v1| ConfigError::at(path, v1, TWO_TARGETS)),
        raw.influxdb_v2.as_ref().map(|v2| ConfigError::at(path, v2, TWO_TARGETS)),
        raw.influxdb_v3.as_ref().map(|v3| ConfigError::at(path, v3, TWO_TARGETS)),
        raw.file.as_ref().map(|file| ConfigError::at(path, file, TWO_TARGETS)),
    ];
    if let Some(second) = given.into_iter().flatten().nth(1) {
        return Err(second);
    }
    if let Some(config) = &raw.influxdb_v1 {
        return influxdb_v1(path, &config.value).map(TargetConfig::InfluxdbV1);
    }
    if let Some(config) = &raw.influxdb_v2 {
        return influxdb_v2(path, &config.value).map(TargetConfig::InfluxdbV2);
    }
    if let Some(config) = &raw.influxdb_v3 {
        return influxdb_v3(path, &config.value).map(TargetConfig::InfluxdbV3);
    }
    let Some(file) = &raw.file else {
        return Err(ConfigError::file(path, format!("writer needs a target: {TARGETS}")));
    };
    let file = &file.value.path;
    match file.value.file_name() {
        Some(_) => Ok(TargetConfig::File(file.value.clone())),
        None => Err(ConfigError::at(path, file, "writer.file.path does not name a file")),
    }
}

const TARGETS: &str = "'influxdb_v1', 'influxdb_v2', 'influxdb_v3' or 'file'";
const TWO_TARGETS: &str = "writer has two targets, give exactly one";

fn name(path: &Path, key: &str, raw: &Spanned<String>) -> Result<String, ConfigError> {
    match raw.value.is_empty() {
        true => Err(ConfigError::at(path, raw, format!("writer.{key} is empty"))),
        false => Ok(raw.value.clone()),
    }
}

fn request_timeout(
    path: &Path,
    section: &str,
    raw: &Option<Spanned<DurationText>>,
) -> Result<Duration, ConfigError> {
    match raw {
        Some(given) => duration(path, &format!("{section}.request_timeout"), given, 1, 600),
        None => Ok(REQUEST_TIMEOUT),
    }
}

fn influxdb_v2(path: &Path, raw: &RawInfluxdbV2) -> Result<InfluxdbV2Config, ConfigError> {
    Ok(InfluxdbV2Config {
        tls: tls(path, "influxdb_v2", &raw.url.value, raw.tls.as_ref())?,
        url: url(path, "influxdb_v2", &raw.url)?,
        org: name(path, "influxdb_v2.org", &raw.org)?,
        token_file: raw.token_file.value.clone(),
        create_bucket: raw.create_bucket.unwrap_or(true),
        request_timeout: request_timeout(path, "influxdb_v2", &raw.request_timeout)?,
    })
}

fn influxdb_v3(path: &Path, raw: &RawInfluxdbV3) -> Result<InfluxdbV3Config, ConfigError> {
    Ok(InfluxdbV3Config {
        tls: tls(path, "influxdb_v3", &raw.url.value, raw.tls.as_ref())?,
        url: url(path, "influxdb_v3", &raw.url)?,
        token_file: raw.token_file.as_ref().map(|file| file.value.clone()),
        request_timeout: request_timeout(path, "influxdb_v3", &raw.request_timeout)?,
    })
}

fn influxdb_v1(path: &Path, raw: &RawInfluxdbV1) -> Result<InfluxdbV1Config, ConfigError> {
    let login = match (&raw.username, &raw.password_file) {
        (None, None) => None,
        (Some(username), Some(file)) => Some((username.value.clone(), file.value.clone())),
        (Some(username), None) => {
            let message = "writer.influxdb_v1.username needs password_file";
            return Err(ConfigError::at(path, username, message));
        }
        (None, Some(file)) => {
            let message = "writer.influxdb_v1.password_file needs username";
            return Err(ConfigError::at(path, file, message));
        }
    };
    Ok(InfluxdbV1Config {
        tls: tls(path, "influxdb_v1", &raw.url.value, raw.tls.as_ref())?,
        url: url(path, "influxdb_v1", &raw.url)?,
        retention_policy: raw.retention_policy.clone(),
        login,
        create_database: raw.create_database.unwrap_or(true),
        request_timeout: request_timeout(path, "influxdb_v1", &raw.request_timeout)?,
    })
}

#[cfg(test)]
mod tests {
    use chassis::config::parse_yaml;

    use super::*;

    fn parse(text: &str) -> Result<WriterConfig, String> {
        let path = Path::new("i.yaml");
        let raw = parse_yaml(path, text.as_bytes()).map_err(|error| error.to_string())?;
        WriterConfig::from_raw(path, &raw).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_constants() {
        assert_eq!(
            parse("file: {path: out.lp}\n"),
            Ok(WriterConfig::new(TargetConfig::File("out.lp".into())))
        );
        let config =
            parse("influxdb_v1: {url: 'http://db:8086/', username: u, password_file: p}\n");
        let target = TargetConfig::InfluxdbV1(InfluxdbV1Config {
            url: "http://db:8086".to_owned(),
            retention_policy: None,
            login: Some(("u".to_owned(), "p".into())),
            create_database: true,
            tls: None,
            request_timeout: REQUEST_TIMEOUT,
        });
        assert_eq!(config, Ok(WriterConfig::new(target)));
    }

    #[test]
    fn what_cannot_work_is_named_with_its_place() {
        let influxdb = |rest: &str| format!("influxdb_v1:\n  create_database: false\n  {rest}\n");
        let cases = [
            ("{}\n".to_owned(), "needs a target"),
            ("file: {path: a}\ninfluxdb_v1: {url: 'http://a'}\n".to_owned(), "two targets"),
            ("influxdb_v2: {url: 'http://a', org: '', token_file: t}\n".to_owned(), "org is empty"),
            ("influxdb_v3: {url: 'http://a', database: d}\n".to_owned(), "unknown field"),
            ("file: {path: /}\n".to_owned(), "does not name a file"),
            ("batch_lines_max: 0\nfile: {path: a}\n".to_owned(), "i.yaml:1:18: writer.batch_li"),
            ("batch_bytes_max: 1GiB\nfile: {path: a}\n".to_owned(), "4KiB and 65536KiB"),
            ("watermark_tenants_max: 20000\nfile: {path: a}\n".to_owned(), "0 and 10000"),
            ("linger: 2m\nfile: {path: a}\n".to_owned(), "0s and 60s"),
            ("backoff_max: 1ms\nfile: {path: a}\n".to_owned(), "writer.backoff_max"),
            ("poison_attempts: 0\nfile: {path: a}\n".to_owned(), "writer.poison_attempts"),
            (influxdb("url: http://db\n  tls: {ca_file: a}"), "needs a url that begins with https"),
            (influxdb("url: https://db\n  tls: {key_file: a}"), "needs 'certificate_file'"),
            (influxdb("url: http://u:p@db:8086"), "must not hold a password"),
            (influxdb("url: db"), "must begin with http:// or"),
            (influxdb("url: http://db/x"), "no path"),
            (influxdb("url: http://db\n  username: u"), "needs password_file"),
            (influxdb("url: http://db\n  password_file: u"), "needs username"),
            (influxdb("url: http://db\n  request_timeout: 0s"), "request_timeout"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).expect_err(&text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
