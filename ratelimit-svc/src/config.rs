//! Settings from environment variables, with the names and defaults of envoyproxy/ratelimit.
//!
//! The environment is handed in, so that tests and other programs can do without one. A variable
//! of the reference that this service does not have is refused when it would change something;
//! see [`variables`] for all of them.

mod grpc_tls;
mod leases;
mod record;
mod redis;
pub mod stats;
mod traces;
pub mod variables;
mod view;
pub mod xds;

use std::collections::BTreeMap;
use std::num::{IntErrorKind, NonZeroUsize, ParseFloatError, ParseIntError};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chassis::config::DurationText;
use chassis::drain::DrainTimes;
use chassis::grpc::ConnectionAge;
use chassis::process::UsageError;
use chassis::reload;
use chassis::telemetry::TelemetryConfig;
use chassis::tls;

use crate::console::access::Access;
use crate::decide::key::KeyFormat;
use crate::decide::settings::{HeaderNames, Settings};
use crate::decide::standing::ViewSettings;
use crate::lease::LeaseSettings;
use crate::outage::guard::ShareSettings;
use crate::outage::replicas::ReplicasSettings;
use crate::record::RecordSettings;
use crate::store::redis::RedisSettings;
use crate::store::redis::topology::link::LinkSettings;
use variables::{Support, VARIABLES};

/// The largest `LOCAL_SHARE_FACTOR`.
const SHARE_FACTOR_MAX: f64 = 10.0;

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// Settings that cannot be wrong.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST`, `PORT`: JSON requests and `/healthcheck`.
    pub http: (String, u16),
    /// `GRPC_HOST`, `GRPC_PORT`: gRPC requests and health.
    pub grpc: (String, u16),
    /// `GRPC_UDS`: the unix socket that takes the place of the port.
    pub grpc_uds: Option<PathBuf>,
    /// `GRPC_MAX_CONNECTION_AGE`, `GRPC_MAX_CONNECTION_AGE_GRACE`
    pub connection_age: ConnectionAge,
    /// `GRPC_WORKER_THREADS`: how many threads serve gRPC connections.
    pub grpc_workers: NonZeroUsize,
    /// `GRPC_SERVER_USE_TLS` and the variables with it.
    pub grpc_tls: Option<tls::ServerSettings>,
    /// `GRPC_REFLECTION`
    pub grpc_reflection: bool,
    /// `DEBUG_HOST`, `DEBUG_PORT`: admin pages.
    pub debug: (String, u16),
    /// `LOG_LEVEL`, `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub telemetry: TelemetryConfig,
    /// `DRAIN_DELAY`, `DRAIN_TIMEOUT`.
    pub drain: DrainTimes,
    /// `CONFIG_TYPE`: where quotas come from.
    pub quotas: QuotaSource,
    /// How often quota files are looked at.
    pub reload_period: Duration,
    /// `MERGE_DOMAIN_CONFIG`
    pub merge_domains: bool,
    /// `BACKEND_TYPE` and the `REDIS_` variables.
    pub backend: StoreSettings,
    /// Switches for every request.
    pub settings: Settings,
    /// The clock of this machine.
    pub wall_clock: fn() -> Duration,
    /// `LOCAL_SHARE_REPLICAS`, `LOCAL_SHARE_REPLICAS_MIN`, `LOCAL_SHARE_FACTOR`
    pub share: ShareSettings,
    /// The `LEASE_` variables.
    pub leases: LeaseSettings,
    /// The `RECORD_` variables; none where nothing is recorded.
    pub record: Option<RecordSettings>,
    /// The `QUOTA_VIEW_` variables; none where tenants see nothing of their quotas.
    pub view: Option<ViewSettings>,
    /// `CONSOLE_TOKEN`: who may see the console.
    pub console: Access,
    /// How metrics are shown and sent.
    pub stats: stats::Stats,
    /// Variables that are set and have no effect here.
    pub without_effect: Vec<&'static str>,
}

/// Where quotas come from.
#[derive(Clone, Debug)]
pub enum QuotaSource {
    /// Files, from the `RUNTIME_` variables.
    Files(reload::Source),
    /// A control plane, from the `CONFIG_GRPC_XDS_` and `XDS_CLIENT_` variables.
    Xds(Box<crate::xds::Settings>),
}

/// Where counters live.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one, at the start")]
pub enum StoreSettings {
    /// In this process.
    Memory,
    /// In Redis.
    Redis {
        /// Where it is and how to get in.
        link: LinkSettings,
        /// The same of the one for windows of a second, if that is another.
        per_second: Option<LinkSettings>,
        /// How counters are kept.
        settings: RedisSettings,
    },
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// A sentence that names the first variable that cannot work.
    pub fn from_environment(environment: &Environment) -> Result<Self, UsageError> {
        let vars = Vars { environment };
        let mut without_effect = vars.refuse_unsupported()?;
        let stats = vars.stats()?;
        if stats.mapping.is_none() && vars.path("PROMETHEUS_MAPPER_YAML").is_some() {
            without_effect.push("PROMETHEUS_MAPPER_YAML");
        }
        let drain = DrainTimes {
            delay: vars.parse::<DurationText>("DRAIN_DELAY")?.0,
            timeout: vars.parse::<DurationText>("DRAIN_TIMEOUT")?.0,
        };
        Ok(Self {
            http: (vars.text("HOST"), vars.number("PORT")?),
            grpc: (vars.text("GRPC_HOST"), vars.number("GRPC_PORT")?),
            grpc_uds: Some(vars.text("GRPC_UDS")).filter(|path| !path.is_empty()).map(Into::into),
            connection_age: ConnectionAge {
                max: vars.duration_or_none("GRPC_MAX_CONNECTION_AGE")?,
                grace: vars.duration_or_none("GRPC_MAX_CONNECTION_AGE_GRACE")?,
            },
            grpc_workers: vars.grpc_workers()?,
            grpc_tls: vars.grpc_tls()?,
            grpc_reflection: vars.flag("GRPC_REFLECTION")?,
            debug: (vars.text("DEBUG_HOST"), vars.number("DEBUG_PORT")?),
            telemetry: vars.telemetry()?,
            drain,
            quotas: vars.quotas()?,
            reload_period: reload::PERIOD,
            merge_domains: vars.flag("MERGE_DOMAIN_CONFIG")?,
            backend: vars.backend()?,
            settings: vars.settings()?,
            wall_clock: crate::clock::wall,
            share: vars.share()?,
            leases: vars.leases()?,
            record: vars.record()?,
            view: vars.view()?,
            console: vars.console()?,
            stats,
            without_effect,
        })
    }
}

/// The switches for every request alone, for who decides without serving.
///
/// # Errors
/// A sentence that names the first variable that cannot work.
pub fn settings(environment: &Environment) -> Result<Settings, UsageError> {
    Vars { environment }.settings()
}

/// `LEASE_LIMIT_MIN` alone, for the same.
///
/// # Errors
/// A sentence that names the variable if it cannot work.
pub fn lease_limit_min(environment: &Environment) -> Result<u32, UsageError> {
    Vars { environment }.parse("LEASE_LIMIT_MIN")
}

struct Vars<'a> {
    environment: &'a Environment,
}

impl Vars<'_> {
    /// The value set, if it is not empty, or the default.
    fn text(&self, name: &str) -> String {
        let default = || {
            let variable = VARIABLES.iter().find(|variable| variable.name == name);
            variable.expect("every variable read here is in the table").default.to_owned()
        };
        self.environment.get(name).filter(|set| !set.is_empty()).cloned().unwrap_or_else(default)
    }

    fn bad(&self, name: &str, problem: impl std::fmt::Display) -> UsageError {
        UsageError(format!("{name}='{}': {problem}", self.text(name)))
    }

    fn parse<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, UsageError> {
        self.text(name).parse().map_err(|error| self.bad(name, error))
    }

    /// A number; what is wrong with one is said in our words.
    fn number<T: FromStr<Err: InWords>>(&self, name: &str) -> Result<T, UsageError> {
        self.text(name).parse().map_err(|error: T::Err| self.bad(name, error.in_words()))
    }

    /// A duration of which 0 means that there is none.
    fn duration_or_none(&self, name: &str) -> Result<Option<Duration>, UsageError> {
        Ok(Some(self.parse::<DurationText>(name)?.0).filter(|duration| !duration.is_zero()))
    }

    fn flag(&self, name: &str) -> Result<bool, UsageError> {
        match self.text(name).as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(self.bad(name, "must be true or false")),
        }
    }

    /// Refuses what would change something, and names what is set in vain.
    fn refuse_unsupported(&self) -> Result<Vec<&'static str>, UsageError> {
        let mut without_effect = Vec::new();
        for variable in VARIABLES {
            let Some(set) = self.environment.get(variable.name) else { continue };
            match variable.support {
                Support::Full => {}
                Support::NoEffect => without_effect.push(variable.name),
                Support::Refused(harmless) => {
                    if !set.is_empty() && !harmless.contains(&set.to_lowercase().as_str()) {
                        return Err(self.bad(variable.name, variable.about));
                    }
                }
            }
        }
        Ok(without_effect)
    }

    fn telemetry(&self) -> Result<TelemetryConfig, UsageError> {
        let text = self.text("LOG_LEVEL").to_lowercase();
        let mut parts = Vec::new();
        for part in text.split(',') {
            let (target, level) = part.rsplit_once('=').map_or((None, part), |(t, l)| (Some(t), l));
            let level = match level {
                "off" | "error" | "warn" | "info" | "debug" | "trace" => level,
                // The names of the reference that are not ours.
                "warning" => "warn",
                "fatal" | "panic" => "error",
                _ => return Err(self.bad("LOG_LEVEL", format!("'{level}' is not a log level"))),
            };
            let joined = |target: &str| format!("{target}={level}");
            parts.push(target.map_or_else(|| level.to_owned(), joined));
        }
        let log_level = parts.join(",");
        let (otlp_endpoint, traces) = self.traces()?;
        let otlp_tls = self.otlp_tls()?.filter(|_| otlp_endpoint.is_some());
        Ok(TelemetryConfig { log_level, otlp_endpoint, otlp_tls, traces })
    }

    fn quotas(&self) -> Result<QuotaSource, UsageError> {
        match self.text("CONFIG_TYPE").to_uppercase().as_str() {
            "FILE" => self.files().map(QuotaSource::Files),
            "GRPC_XDS_SOTW" => Ok(QuotaSource::Xds(Box::new(self.xds()?))),
            _ => Err(self.bad("CONFIG_TYPE", "must be FILE or GRPC_XDS_SOTW")),
        }
    }

    fn files(&self) -> Result<reload::Source, UsageError> {
        // Accepted for its value only: every way of changing files is noticed.
        self.flag("RUNTIME_WATCH_ROOT")?;
        let mut path = PathBuf::from(self.text("RUNTIME_ROOT"));
        for part in ["RUNTIME_SUBDIRECTORY", "RUNTIME_APPDIRECTORY"] {
            // Set to nothing, a part is left out, as in the reference.
            let part = self.environment.get(part).cloned().unwrap_or_else(|| self.text(part));
            // Relative by meaning: a leading slash must not replace the root.
            path.push(part.trim_start_matches('/'));
        }
        let ignore_dotfiles = self.flag("RUNTIME_IGNOREDOTFILES")?;
        Ok(reload::Source::Directory { path, ignore_dotfiles })
    }

    fn settings(&self) -> Result<Settings, UsageError> {
        let near_limit_ratio: f32 = self.number("NEAR_LIMIT_RATIO")?;
        if !(0.0..=1.0).contains(&near_limit_ratio) {
            return Err(self.bad("NEAR_LIMIT_RATIO", "must be from 0 to 1"));
        }
        let headers = HeaderNames {
            limit: self.header_name("LIMIT_LIMIT_HEADER")?,
            remaining: self.header_name("LIMIT_REMAINING_HEADER")?,
            reset: self.header_name("LIMIT_RESET_HEADER")?,
        };
        let key_format = match self.text("REDIS_KEY_FORMAT").as_str() {
            "tidegate" => KeyFormat::Tidegate,
            "reference" => KeyFormat::Reference,
            _ => return Err(self.bad("REDIS_KEY_FORMAT", "must be tidegate or reference")),
        };
        Ok(Settings {
            key_format,
            shadow_mode: self.flag("SHADOW_MODE")?,
            quota_mode: self.flag("QUOTA_MODE")?,
            all_or_nothing: self.flag("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT")?,
            near_limit_ratio,
            headers: self.flag("LIMIT_RESPONSE_HEADERS_ENABLED")?.then_some(headers),
            dynamic_metadata: self.flag("RESPONSE_DYNAMIC_METADATA")?,
            retry_info: self.flag("RESPONSE_RETRY_INFO")?,
        })
    }

    fn share(&self) -> Result<ShareSettings, UsageError> {
        let at_least_one = |name| match self.number(name)? {
            0 => Err(self.bad(name, "must be at least 1")),
            number => Ok(number),
        };
        let fixed = "LOCAL_SHARE_REPLICAS";
        let fixed = match self.text(fixed).is_empty() {
            true => None,
            false => Some(at_least_one(fixed)?),
        };
        let replicas = ReplicasSettings { fixed, min: at_least_one("LOCAL_SHARE_REPLICAS_MIN")? };
        let factor: f64 = self.number("LOCAL_SHARE_FACTOR")?;
        if !(0.01..=SHARE_FACTOR_MAX).contains(&factor) {
            return Err(self.bad("LOCAL_SHARE_FACTOR", "must be from 0.01 to 10"));
        }
        Ok(ShareSettings { replicas, factor })
    }

    fn header_name(&self, name: &str) -> Result<String, UsageError> {
        let value = self.text(name);
        axum::http::HeaderName::from_str(&value)
            .map_err(|_| self.bad(name, "is not the name of a header"))?;
        Ok(value)
    }
}

/// Why a text is no number, for people.
trait InWords {
    fn in_words(&self) -> &'static str;
}

impl InWords for ParseIntError {
    fn in_words(&self) -> &'static str {
        match self.kind() {
            IntErrorKind::PosOverflow => "is too large",
            IntErrorKind::Zero => "must be at least 1",
            _ => "must be a whole number, not below 0",
        }
    }
}

impl InWords for ParseFloatError {
    fn in_words(&self) -> &'static str {
        "must be a number"
    }
}

#[cfg(test)]
mod tests;
