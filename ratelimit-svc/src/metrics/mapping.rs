//! The mapping language of statsd_exporter: which Prometheus metric a statsd name becomes. Reads a
//! mapping file and applies it; shows nothing. Pure.
//!
//! ```text
//! match   ratelimit.service.rate_limit.*.*.over_limit     each * is one part between dots
//! name    over_limit                                      $1, ${1}: what a * or a group matched
//! labels  {domain: $1, key1: $2}
//! ```
//!
//! Globs come before regular expressions, and of each kind the first that matches decides. What
//! none matches keeps its name, with `_` for what a metric's name cannot hold.

use std::collections::BTreeMap;
use std::path::Path;

use chassis::config::{ConfigError, Spanned, parse_yaml};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::mogrifier::PATTERN_BYTES_MAX;

/// The most bytes of a mapping file.
pub const MAPPING_BYTES_MAX: usize = 1 << 20;
/// The most mappings of a file: each name on a page meets all of them.
pub const MAPPINGS_MAX: usize = 256;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counts.
    Counter,
    /// Durations.
    Timer,
    /// Goes up and down. The service has none under the names of the reference.
    Gauge,
}

/// What becomes of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The metric.
    pub name: String,
    /// By name.
    pub labels: Vec<(String, String)>,
    /// What the page says of it.
    pub help: String,
}

/// A mapping file.
#[derive(Clone, Debug)]
pub struct Mapping {
    rules: Vec<Rule>,
    text: Vec<u8>,
}

impl PartialEq for Mapping {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Mapping {
    /// Parses a file that was read from `path`.
    ///
    /// # Errors
    /// With the line: what is no mapping, a pattern that is none, a group that does not exist.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, ConfigError> {
        if text.len() > MAPPING_BYTES_MAX {
            let problem = format!("is larger than {MAPPING_BYTES_MAX} bytes");
            return Err(ConfigError::file(path, problem));
        }
        let raw: RawFile = parse_yaml(path, text)?;
        if raw.mappings.len() > MAPPINGS_MAX {
            let problem = format!("has more than {MAPPINGS_MAX} mappings");
            return Err(ConfigError::at(path, &raw.mappings[MAPPINGS_MAX].matched, problem));
        }
        if let Some(disabled) = raw.defaults.glob_disable_ordering.filter(|off| off.value) {
            let problem = "glob_disable_ordering is not supported: the first that matches decides";
            return Err(ConfigError::at(path, &disabled, problem));
        }
        let default = raw.defaults.match_type;
        let rule = |raw| Rule::try_new(path, raw, default.as_ref());
        let mut rules = raw.mappings.into_iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        // Stable, so the order within each kind is that of the file.
        rules.sort_by_key(|rule| matches!(rule.pattern, Pattern::Regex(_)));
        Ok(Self { rules, text: text.to_vec() })
    }

    /// What a name becomes; none when it is dropped.
    pub fn apply(&self, name: &str, kind: Kind) -> Option<Series> {
        let of_kind = self.rules.iter().filter(|rule| rule.kind.is_none_or(|own| own == kind));
        let found = of_kind.into_iter().find_map(|rule| Some((rule, rule.pattern.groups(name)?)));
        let Some((rule, groups)) = found else {
            let help = "Under its statsd name, which no mapping matches".to_owned();
            return Some(Series { name: escaped(name), labels: Vec::new(), help });
        };
        let Target::Series { name, labels, help } = &rule.target else { return None };
        let label = |(label, value): &(String, Template)| (label.clone(), value.expand(&groups));
        let labels = labels.iter().map(label).collect();
        Some(Series { name: escaped(&name.expand(&groups)), labels, help: help.clone() })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    defaults: RawDefaults,
    #[serde(default)]
    mappings: Vec<RawMapping>,
}

/// What says how durations are shown has no effect: they are histograms with bounds of our own.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawDefaults {
    match_type: Option<Spanned<String>>,
    glob_disable_ordering: Option<Spanned<bool>>,
    observer_type: Option<IgnoredAny>,
    timer_type: Option<IgnoredAny>,
    buckets: Option<IgnoredAny>,
    quantiles: Option<IgnoredAny>,
    histogram_options: Option<IgnoredAny>,
    summary_options: Option<IgnoredAny>,
    ttl: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "accepted without effect, unlike a key that is not of the language")]
struct RawMapping {
    #[serde(rename = "match")]
    matched: Spanned<String>,
    match_type: Option<Spanned<String>>,
    match_metric_type: Option<Spanned<String>>,
    name: Option<Spanned<String>>,
    #[serde(default)]
    labels: BTreeMap<String, Spanned<String>>,
    help: Option<String>,
    action: Option<Spanned<String>>,
    scale: Option<Spanned<f64>>,
    observer_type: Option<IgnoredAny>,
    timer_type: Option<IgnoredAny>,
    buckets: Option<IgnoredAny>,
    quantiles: Option<IgnoredAny>,
    histogram_options: Option<IgnoredAny>,
    summary_options: Option<IgnoredAny>,
    ttl: Option<IgnoredAny>,
    honor_labels: Option<IgnoredAny>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    /// None for every kind.
    kind: Option<Kind>,
    target: Target,
}

#[derive(Clone, Debug)]
enum Target {
    Drop,
    Series { name: Template, labels: Vec<(String, Template)>, help: String },
}

impl Rule {
    fn try_new(
        path: &Path,
        raw: RawMapping,
        default: Option<&Spanned<String>>,
    ) -> Result<Self, ConfigError> {
        let pattern = match raw.match_type.as_ref().or(default) {
            None => glob(&raw.matched.value),
            Some(of) => match of.value.as_str() {
                "" | "glob" => glob(&raw.matched.value),
                "regex" => regex(&raw.matched.value),
                _ => return Err(ConfigError::at(path, of, "match_type must be glob or regex")),
            },
        };
        let pattern = pattern.map_err(|problem| ConfigError::at(path, &raw.matched, problem))?;
        if let Some(scale) = raw.scale {
            return Err(ConfigError::at(path, &scale, "scale is not supported"));
        }
        let kind = raw.match_metric_type.as_ref().map(|of| match of.value.as_str() {
            "counter" => Ok(Kind::Counter),
            "gauge" => Ok(Kind::Gauge),
            "observer" | "timer" | "histogram" | "distribution" => Ok(Kind::Timer),
            _ => Err(ConfigError::at(path, of, "must be counter, gauge, observer or timer")),
        });
        let kind = kind.transpose()?;
        match raw.action.as_ref().map(|action| action.value.as_str()) {
            Some("drop") => return Ok(Self { pattern, kind, target: Target::Drop }),
            None | Some("" | "map") => {}
            Some(_) => {
                let action = raw.action.as_ref().expect("it has a value");
                return Err(ConfigError::at(path, action, "action must be map or drop"));
            }
        }
        let template = |text: &Spanned<String>| {
            let template = Template::parse(&text.value, &pattern);
            template.map_err(|problem| ConfigError::at(path, text, problem))
        };
        let name = raw.name.as_ref();
        let name = name.ok_or_else(|| ConfigError::at(path, &raw.matched, "needs a name"))?;
        let mut labels = Vec::new();
        for (label, value) in &raw.labels {
            if !is_label(label) {
                return Err(ConfigError::at(path, value, format!("'{label}' is no label")));
            }
            labels.push((label.clone(), template(value)?));
        }
        let help =
            raw.help.unwrap_or_else(|| "By the mapping of PROMETHEUS_MAPPER_YAML".to_owned());
        Ok(Self { kind, target: Target::Series { name: template(name)?, labels, help }, pattern })
    }
}

#[derive(Clone, Debug)]
enum Pattern {
    /// Parts between dots; none for any.
    Glob(Vec<Option<String>>),
    Regex(Regex),
}

impl Pattern {
    /// What the groups of the pattern match, the whole name first; none where it does not match.
    fn groups<'a>(&self, name: &'a str) -> Option<Vec<&'a str>> {
        match self {
            Self::Glob(parts) => {
                let mut groups = vec![name];
                let mut found = name.split('.');
                for part in parts {
                    match (part, found.next()?) {
                        (None, found) => groups.push(found),
                        (Some(part), found) if part == found => {}
                        _ => return None,
                    }
                }
                found.next().is_none().then_some(groups)
            }
            Self::Regex(regex) => {
                let captures = regex.captures(name)?;
                let group =
                    |group: Option<regex::Match<'a>>| group.map_or("", |found| found.as_str());
                Some(captures.iter().map(group).collect())
            }
        }
    }

    /// Which group `$name` stands for.
    fn group(&self, name: &str) -> Option<usize> {
        match self {
            Self::Glob(parts) => {
                let groups = parts.iter().filter(|part| part.is_none()).count();
                name.parse().ok().filter(|group| (1..=groups).contains(group))
            }
            Self::Regex(regex) => match name.parse::<usize>() {
                Ok(group) => (group < regex.captures_len()).then_some(group),
                Err(_) => regex.capture_names().position(|own| own == Some(name)),
            },
        }
    }
}

fn glob(text: &str) -> Result<Pattern, String> {
    let part = |part: &str| match part {
        "*" => Ok(None),
        "" => Err("has an empty part".to_owned()),
        _ if part.contains('*') => Err(format!("'{part}': a * must be a whole part")),
        _ => Ok(Some(part.to_owned())),
    };
    text.split('.').map(part).collect::<Result<_, _>>().map(Pattern::Glob)
}

fn regex(text: &str) -> Result<Pattern, String> {
    let regex = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
    regex.map(Pattern::Regex).map_err(|error| match error {
        regex::Error::CompiledTooBig(bytes) => format!("needs more than {bytes} bytes"),
        _ => "is not a regular expression".to_owned(),
    })
}

/// A text with groups of a pattern in it.
#[derive(Clone, Debug)]
struct Template(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Group(usize),
}

impl Template {
    /// `$1`, `${1}` and `${name}` are groups, and so is the longest run of letters, digits and `_`
    /// after a `$`; a `$` before anything else is text.
    fn parse(text: &str, pattern: &Pattern) -> Result<Self, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find('$') {
            let (before, after) = rest.split_at(at);
            let (braced, name) = match after[1..].strip_prefix('{') {
                Some(inner) => (true, inner),
                None => (false, &after[1..]),
            };
            let len = name.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            let end = name[len..].strip_prefix(if braced { "}" } else { "" });
            let Some(end) = end.filter(|_| len > 0) else {
                pieces.push(Piece::Text(rest[..=at].to_owned()));
                rest = &after[1..];
                continue;
            };
            let group = pattern.group(&name[..len]);
            let group = group.ok_or_else(|| format!("has no group ${}", &name[..len]))?;
            pieces.extend([Piece::Text(before.to_owned()), Piece::Group(group)]);
            rest = end;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    fn expand(&self, groups: &[&str]) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Group(group) => groups.get(*group).copied().unwrap_or_default().to_owned(),
        };
        self.0.iter().map(piece).collect()
    }
}

fn is_label(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.starts_with(|c: char| c.is_ascii_digit()) && !text.is_empty() && text.chars().all(is_word)
}

/// A text as the name of a metric.
fn escaped(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == ':' { c } else { '_' };
    let name: String = text.chars().map(safe).collect();
    match name.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("_{name}"),
        false => name,
    }
}

#[cfg(test)]
mod tests;
