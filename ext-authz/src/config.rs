//! The configuration of the service: the file as it is written, then what cannot be wrong.

mod redis;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chassis::config::{ConfigError, DurationText, Spanned, load_yaml, relative_to};
use chassis::drain::DrainTimes;
use chassis::grpc::workers_default;
use chassis::telemetry::TelemetryConfig;
use chassis::tls::client::RawClientTls;
use chassis::tls::{RawServerTls, ServerSettings};
use serde::Deserialize;

use self::redis::RawRedis;
use crate::check::digest::Peppers;
use crate::names::name_problem;
use crate::peppers::PepperSource;
use crate::source::KeySource;

/// Where Envoy asks, unless the file says otherwise.
pub const GRPC_LISTEN_DEFAULT: &str = "127.0.0.1:9001";
/// Where operators ask, unless the file says otherwise.
pub const ADMIN_LISTEN_DEFAULT: &str = "127.0.0.1:9002";
/// The classes a key may have, unless the file says otherwise.
pub const PRIORITY_CLASSES_DEFAULT: [&str; 4] =
    ["system-node-critical", "platform-core", "ingest", "background"];
/// The classes whose keys pass on the last known records, unless the file says otherwise.
pub const BYPASS_CLASSES_DEFAULT: [&str; 1] = ["system-node-critical"];
/// The most sentinels or nodes of a cluster that may be named.
pub const REDIS_ADDRESSES_MAX: usize = 16;
/// What all keys in Redis begin with, unless the file says otherwise.
pub const REDIS_PREFIX_DEFAULT: &str = "tidegate";
/// For how long records are believed without hearing of Redis, unless the file says otherwise.
pub const MAX_STALENESS_DEFAULT: Duration = Duration::from_secs(300);
/// The bounds of that time. Redis is heard of once a second.
pub const MAX_STALENESS_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(86_400));
/// What callers are told to wait when keys cannot be checked.
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(2);
/// The bounds of that wait.
pub const RETRY_AFTER_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(3600));
/// The most a drain step may take.
pub const DRAIN_MAX: Duration = Duration::from_secs(3600);
/// More threads than any machine has use for.
pub const WORKER_THREADS_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    grpc_listen: Option<Spanned<String>>,
    admin_listen: Option<Spanned<String>>,
    worker_threads: Option<Spanned<usize>>,
    grpc_tls: Option<RawServerTls>,
    keys_file: Option<PathBuf>,
    redis: Option<RawRedis>,
    pepper_files: Option<Spanned<BTreeMap<u32, Spanned<PathBuf>>>>,
    pepper_directory: Option<Spanned<PathBuf>>,
    priority_classes: Option<Spanned<Vec<Spanned<String>>>>,
    bypass_classes: Option<Spanned<Vec<Spanned<String>>>>,
    retry_after: Option<Spanned<DurationText>>,
    drain_delay: Option<Spanned<DurationText>>,
    drain_timeout: Option<Spanned<DurationText>>,
    log_level: Option<String>,
    otlp_endpoint: Option<String>,
    otlp_tls: Option<RawClientTls>,
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where Envoy asks.
    pub grpc_listen: SocketAddr,
    /// Where operators ask.
    pub admin_listen: SocketAddr,
    /// How many threads serve checks.
    pub worker_threads: NonZeroUsize,
    /// TLS of the listener for checks, or clear text.
    pub grpc_tls: Option<ServerSettings>,
    /// Where keys come from.
    pub keys: KeySource,
    /// What callers are told to wait when keys cannot be checked.
    pub retry_after: Duration,
    /// How the process ends.
    pub drain: DrainTimes,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

impl Config {
    /// Reads a configuration and the peppers it names. Relative paths are relative to the file.
    ///
    /// # Errors
    /// What is wrong, with file, line and column.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let raw: RawConfig = load_yaml(path)?;
        let reader = Reader { path };
        let defaults = (DrainTimes::default(), TelemetryConfig::default());
        let (delay, timeout) = (raw.drain_delay.as_ref(), raw.drain_timeout.as_ref());
        let zero_up = (Duration::ZERO, DRAIN_MAX);
        let (pepper_source, peppers) =
            reader.peppers(raw.pepper_files.as_ref(), raw.pepper_directory.as_ref())?;
        if raw.keys_file.is_none() && raw.redis.is_none() {
            let message = "one of 'keys_file' and 'redis', or both, must say where the keys are";
            return Err(ConfigError::file(path, message));
        }
        let priority_classes = reader.priority_classes(raw.priority_classes)?;
        Ok(Self {
            grpc_listen: reader.address("grpc_listen", raw.grpc_listen, GRPC_LISTEN_DEFAULT)?,
            admin_listen: reader.address("admin_listen", raw.admin_listen, ADMIN_LISTEN_DEFAULT)?,
            worker_threads: reader.worker_threads(raw.worker_threads.as_ref())?,
            grpc_tls: raw.grpc_tls.map(|raw| raw.settings(path, "grpc_tls")).transpose()?,
            keys: KeySource {
                path: raw.keys_file.map(|file| reader.beside(&file)),
                redis: raw.redis.map(|raw| reader.redis(raw)).transpose()?,
                pepper_source,
                peppers: Arc::new(peppers),
                bypass_classes: reader.bypass_classes(raw.bypass_classes, &priority_classes)?,
                priority_classes,
            },
            retry_after: reader.duration(
                "retry_after",
                raw.retry_after.as_ref(),
                RETRY_AFTER_DEFAULT,
                RETRY_AFTER_BOUNDS,
            )?,
            drain: DrainTimes {
                delay: reader.duration("drain_delay", delay, defaults.0.delay, zero_up)?,
                timeout: reader.duration("drain_timeout", timeout, defaults.0.timeout, zero_up)?,
            },
            telemetry: TelemetryConfig {
                log_level: raw.log_level.unwrap_or(defaults.1.log_level),
                otlp_endpoint: raw.otlp_endpoint,
                otlp_tls: raw.otlp_tls.map(|raw| raw.settings(path, "otlp_tls")).transpose()?,
                traces: defaults.1.traces,
            },
        })
    }
}

struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn beside(&self, path: &Path) -> PathBuf {
        relative_to(self.path, path)
    }

    fn address(
        &self,
        key: &str,
        raw: Option<Spanned<String>>,
        default: &str,
    ) -> Result<SocketAddr, ConfigError> {
        let Some(raw) = raw else {
            return Ok(default.parse().expect("the default is an address"));
        };
        raw.value.parse().map_err(|_| {
            let message = format!("'{key}' must be an address and port such as {default}");
            ConfigError::at(self.path, &raw, message)
        })
    }

    fn duration(
        &self,
        key: &str,
        raw: Option<&Spanned<DurationText>>,
        default: Duration,
        (min, max): (Duration, Duration),
    ) -> Result<Duration, ConfigError> {
        let Some(raw) = raw else { return Ok(default) };
        let duration = raw.value.0;
        if (min..=max).contains(&duration) {
            return Ok(duration);
        }
        let message = format!("'{key}' must be from {}s to {}s", min.as_secs(), max.as_secs());
        Err(ConfigError::at(self.path, raw, message))
    }

    fn worker_threads(&self, raw: Option<&Spanned<usize>>) -> Result<NonZeroUsize, ConfigError> {
        let Some(raw) = raw else { return Ok(workers_default()) };
        let threads = NonZeroUsize::new(raw.value).filter(|n| n.get() <= WORKER_THREADS_MAX);
        threads.ok_or_else(|| {
            let message = format!("'worker_threads' must be from 1 to {WORKER_THREADS_MAX}");
            ConfigError::at(self.path, raw, message)
        })
    }

    fn priority_classes(
        &self,
        raw: Option<Spanned<Vec<Spanned<String>>>>,
    ) -> Result<Vec<String>, ConfigError> {
        let Some(raw) = raw else {
            return Ok(PRIORITY_CLASSES_DEFAULT.map(str::to_owned).into());
        };
        if raw.value.is_empty() {
            let message = "'priority_classes' must name at least one class";
            return Err(ConfigError::at(self.path, &raw, message));
        }
        for class in &raw.value {
            if let Some(problem) = name_problem("priority class", &class.value) {
                return Err(ConfigError::at(self.path, class, problem));
            }
        }
        Ok(raw.value.into_iter().map(|class| class.value).collect())
    }

    fn bypass_classes(
        &self,
        raw: Option<Spanned<Vec<Spanned<String>>>>,
        all: &[String],
    ) -> Result<Arc<[String]>, ConfigError> {
        let Some(raw) = raw else {
            let default = BYPASS_CLASSES_DEFAULT.map(str::to_owned);
            return Ok(default.into_iter().filter(|class| all.contains(class)).collect());
        };
        if let Some(class) = raw.value.iter().find(|class| !all.contains(&class.value)) {
            let known = all.join(", ");
            let message = format!("bypass class {:?} is none of the classes {known}", class.value);
            return Err(ConfigError::at(self.path, class, message));
        }
        Ok(raw.value.into_iter().map(|class| class.value).collect())
    }

    /// Peppers are files of their own, so that a configuration can be shown to anyone.
    fn peppers(
        &self,
        files: Option<&Spanned<BTreeMap<u32, Spanned<PathBuf>>>>,
        directory: Option<&Spanned<PathBuf>>,
    ) -> Result<(PepperSource, Peppers), ConfigError> {
        let both = "one of 'pepper_files' and 'pepper_directory' must say where the peppers are";
        let source = match (files, directory) {
            (Some(files), None) if files.value.is_empty() => {
                let message = "'pepper_files' must name at least one pepper";
                return Err(ConfigError::at(self.path, files, message));
            }
            (Some(files), None) => {
                let file = |(version, file): (&u32, &Spanned<PathBuf>)| {
                    (*version, self.beside(&file.value))
                };
                PepperSource::Files(files.value.iter().map(file).collect())
            }
            (None, Some(directory)) => PepperSource::Directory(self.beside(&directory.value)),
            (Some(_), Some(directory)) => return Err(ConfigError::at(self.path, directory, both)),
            (None, None) => return Err(ConfigError::file(self.path, both)),
        };
        let (_, peppers) =
            source.read().map_err(|error| self.of_peppers(files, directory, error))?;
        Ok((source, peppers))
    }

    /// An error in a pepper's file, at the place of the configuration that names the file.
    fn of_peppers(
        &self,
        files: Option<&Spanned<BTreeMap<u32, Spanned<PathBuf>>>>,
        directory: Option<&Spanned<PathBuf>>,
        error: ConfigError,
    ) -> ConfigError {
        let named = files.and_then(|files| {
            files.value.values().find(|file| self.beside(&file.value) == error.path)
        });
        let message = format!("'{}' {}", error.path.display(), error.message);
        match named.or(directory) {
            Some(at) => ConfigError::at(self.path, at, message),
            None => error,
        }
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
