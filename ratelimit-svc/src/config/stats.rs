//! The variables of metrics: under which names, and where they go.

use std::time::Duration;

use chassis::config::DurationText;
use chassis::process::UsageError;

use super::Vars;
use crate::metrics::mapping::Mapping;
use crate::metrics::mogrifier::Mogrifier;
use crate::metrics::statsd::{Dialect, Protocol, StatsdSettings};

/// The most mogrifiers: each name of a flush meets all of them.
pub const MOGRIFIERS_MAX: usize = 64;

/// How metrics are shown and sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// `PROMETHEUS_NAMES`
    pub names: Names,
    /// `PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS`
    pub milliseconds: bool,
    /// `PROMETHEUS_MAPPER_YAML`: the names of the reference's metrics, in place of its own mapping.
    pub mapping: Option<Mapping>,
    /// `USE_PROMETHEUS`: a listener of its own for metrics.
    pub page: Option<Page>,
    /// `USE_STATSD`, `USE_DOG_STATSD`: a server metrics are sent to.
    pub statsd: Option<StatsdSettings>,
}

/// Under which names metrics are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Those of this service.
    Tidegate,
    /// Those of envoyproxy/ratelimit.
    Reference,
    /// Both.
    Both,
}

/// A listener for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Host and port of `PROMETHEUS_ADDR`.
    pub address: (String, u16),
    /// `PROMETHEUS_PATH`
    pub path: String,
}

impl Vars<'_> {
    pub(super) fn stats(&self) -> Result<Stats, UsageError> {
        // Everything is read, also what is not in force, so that a slip shows at once.
        let disabled = self.flag("DISABLE_STATS")?;
        let page = self.page()?;
        let statsd = self.statsd()?;
        let names = match (self.text("PROMETHEUS_NAMES").as_str(), &page) {
            ("tidegate", _) | ("", None) => Names::Tidegate,
            ("reference", _) => Names::Reference,
            ("both", _) | ("", Some(_)) => Names::Both,
            _ => {
                return Err(self.bad("PROMETHEUS_NAMES", "must be tidegate, reference or both"));
            }
        };
        Ok(Stats {
            names,
            milliseconds: self.flag("PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS")?,
            mapping: self.mapping()?,
            page: page.filter(|_| !disabled),
            statsd: statsd.filter(|_| !disabled),
        })
    }

    fn page(&self) -> Result<Option<Page>, UsageError> {
        let address = self.text("PROMETHEUS_ADDR");
        let problem = || self.bad("PROMETHEUS_ADDR", "must be HOST:PORT or :PORT");
        let (host, port) = address.rsplit_once(':').ok_or_else(problem)?;
        let port = port.parse().map_err(|_| problem())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.contains(['/', '@']) {
            return Err(problem());
        }
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        let path = self.text("PROMETHEUS_PATH");
        if !path.starts_with('/') || path.contains(['{', '}', '*', '?', '#']) {
            return Err(self.bad("PROMETHEUS_PATH", "must be a path that begins with /"));
        }
        let page = Page { address: (host.to_owned(), port), path };
        Ok(self.flag("USE_PROMETHEUS")?.then_some(page))
    }

    /// The mapping file, if one is named. One that is not there is none: gateways mount it from a
    /// ConfigMap that may be absent.
    fn mapping(&self) -> Result<Option<Mapping>, UsageError> {
        let Some(path) = self.path("PROMETHEUS_MAPPER_YAML") else { return Ok(None) };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(self.bad("PROMETHEUS_MAPPER_YAML", format!("cannot be read: {error}")));
            }
        };
        let mapping = Mapping::parse(&path, &text);
        mapping.map(Some).map_err(|error| UsageError(format!("PROMETHEUS_MAPPER_YAML: {error}")))
    }

    fn statsd(&self) -> Result<Option<StatsdSettings>, UsageError> {
        let (plain, dog) = (self.flag("USE_STATSD")?, self.flag("USE_DOG_STATSD")?);
        let set = self.environment.get("USE_STATSD").is_some_and(|set| !set.is_empty());
        if plain && dog && set {
            return Err(self.bad("USE_DOG_STATSD", "excludes USE_STATSD=true"));
        }
        let interval = self.parse::<DurationText>("STATS_FLUSH_INTERVAL")?.0;
        if interval.is_zero() || interval > Duration::from_secs(3600) {
            return Err(self.bad("STATS_FLUSH_INTERVAL", "must be above 0 and at most 1h"));
        }
        let mut extra_tags = self.pairs("EXTRA_TAGS", &[':'])?;
        extra_tags.sort();
        let odd = |text: &String| text.contains(['|', '#', '\n', ',']);
        if extra_tags.iter().any(|(key, value)| odd(key) || odd(value)) {
            return Err(self.bad("EXTRA_TAGS", "must not hold '|', '#' or line breaks"));
        }
        let mogrifiers = self.mogrifiers()?;
        let protocol = match self.text("STATSD_PROTOCOL").as_str() {
            "tcp" if dog => return Err(self.bad("STATSD_PROTOCOL", "must be udp for dogstatsd")),
            "" if dog => Protocol::Udp,
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(self.bad("STATSD_PROTOCOL", "must be tcp or udp")),
        };
        Ok((plain || dog).then_some(StatsdSettings {
            host: self.text("STATSD_HOST"),
            port: self.number("STATSD_PORT")?,
            protocol,
            dialect: if dog { Dialect::DogStatsd(mogrifiers) } else { Dialect::Statsd },
            extra_tags,
            interval,
        }))
    }

    /// The mogrifiers that `USE_DOG_STATSD_MOGRIFIERS` names, each from three variables.
    fn mogrifiers(&self) -> Result<Vec<Mogrifier>, UsageError> {
        let names = self.text("USE_DOG_STATSD_MOGRIFIERS");
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut mogrifiers = Vec::new();
        for name in names {
            if mogrifiers.len() == MOGRIFIERS_MAX {
                let problem = format!("must name at most {MOGRIFIERS_MAX} mogrifiers");
                return Err(self.bad("USE_DOG_STATSD_MOGRIFIERS", problem));
            }
            let variable = |part: &str| format!("DOG_STATSD_MOGRIFIER_{name}_{part}");
            let required = |part: &str| {
                let set = self.environment.get(&variable(part)).filter(|set| !set.is_empty());
                set.cloned().ok_or_else(|| UsageError(format!("{} is not set", variable(part))))
            };
            let (pattern, new_name) = (required("PATTERN")?, required("NAME")?);
            let tags = self.environment.get(&variable("TAGS")).map_or("", String::as_str);
            let tags = super::xds::pairs(&variable("TAGS"), tags, &[':'])?;
            let mogrifier = Mogrifier::try_new(&pattern, &new_name, tags);
            mogrifiers.push(mogrifier.map_err(|problem| {
                UsageError(format!("{}='{pattern}': {problem}", variable("PATTERN")))
            })?);
        }
        Ok(mogrifiers)
    }
}
