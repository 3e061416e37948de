//! A file of rules: as written by the user, and as it is when nothing in it is wrong.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use chassis::config::{ByteSize, ConfigError, DurationText, Spanned, parse_yaml};
use serde::Deserialize;

use super::mapping::{DatabaseTemplate, Mapping};
use super::{Attributes, FieldTypes, OtlpRules, Rules, Temporality, Unit};
use crate::destination::RESERVED_PREFIX;
use crate::point::TAGS_MAX;

/// The longest name of a tag that a rule may add, bytes.
const TAG_BYTES_MAX: usize = 64;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRules {
    /// For tenants without rules of their own, and for what theirs leave open.
    pub default: Option<Partial>,
    /// By tenant.
    pub tenants: BTreeMap<String, Partial>,
}

/// Rules, as far as they are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    field_types: Option<FieldTypes>,
    labels_max: Option<usize>,
    label_name_bytes_max: Option<usize>,
    label_value_bytes_max: Option<usize>,
    request_bytes_max: Option<usize>,
    series_max: Option<usize>,
    new_series_per_minute: Option<u32>,
    past_max: Option<Duration>,
    future_max: Option<Duration>,
    database: Option<DatabaseTemplate>,
    database_tag: Option<String>,
    organization_tag: Option<String>,
    unit: Option<Unit>,
    temporality: Option<Temporality>,
    attributes: Option<Attributes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    default: Option<RawRules>,
    #[serde(default)]
    tenants: BTreeMap<String, RawRules>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRules {
    field_types: Option<Spanned<String>>,
    labels_max: Option<Spanned<u64>>,
    label_name_bytes_max: Option<Spanned<ByteSize>>,
    label_value_bytes_max: Option<Spanned<ByteSize>>,
    request_bytes_max: Option<Spanned<ByteSize>>,
    series_max: Option<Spanned<u64>>,
    new_series_per_minute: Option<Spanned<u64>>,
    past_max: Option<Spanned<DurationText>>,
    future_max: Option<Spanned<DurationText>>,
    database: Option<Spanned<String>>,
    database_tag: Option<Spanned<String>>,
    organization_tag: Option<Spanned<String>>,
    otlp_unit: Option<Spanned<String>>,
    otlp_temporality: Option<Spanned<String>>,
    otlp_attributes: Option<Spanned<String>>,
}

impl FileRules {
    /// Reads a file.
    ///
    /// # Errors
    /// When it is not YAML or something in it is wrong; names the place.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ConfigError> {
        let raw: RawFile = parse_yaml(path, bytes)?;
        let default = raw.default.map(|raw| Checker(path).rules(&raw)).transpose()?;
        let mut tenants = BTreeMap::new();
        for (tenant, raw) in &raw.tenants {
            let rules = Checker(path).rules(raw).map_err(|mut error| {
                error.message = format!("tenant {tenant:?}: {}", error.message);
                error
            })?;
            tenants.insert(tenant.clone(), rules);
        }
        Ok(Self { default, tenants })
    }
}

impl Partial {
    /// The rules, with those of `default` where these leave one open.
    pub fn over(&self, default: &Partial) -> Rules {
        let (own, other) = (self, default);
        Rules {
            field_types: own.field_types.or(other.field_types).unwrap_or_default(),
            labels_max: own.labels_max.or(other.labels_max),
            label_name_bytes_max: own.label_name_bytes_max.or(other.label_name_bytes_max),
            label_value_bytes_max: own.label_value_bytes_max.or(other.label_value_bytes_max),
            request_bytes_max: own.request_bytes_max.or(other.request_bytes_max),
            series_max: own.series_max.or(other.series_max),
            new_series_per_minute: own.new_series_per_minute.or(other.new_series_per_minute),
            past_max: own.past_max.or(other.past_max),
            future_max: own.future_max.or(other.future_max),
            mapping: Mapping {
                database: own.database.clone().or(other.database.clone()).unwrap_or_default(),
                database_tag: own.database_tag.clone().or(other.database_tag.clone()),
                organization_tag: own.organization_tag.clone().or(other.organization_tag.clone()),
            },
            otlp: OtlpRules {
                unit: own.unit.or(other.unit).unwrap_or_default(),
                temporality: own.temporality.or(other.temporality).unwrap_or_default(),
                attributes: own.attributes.or(other.attributes).unwrap_or_default(),
            },
        }
    }
}

/// Checks the values of the file at this path.
struct Checker<'p>(&'p Path);

impl Checker<'_> {
    fn rules(&self, raw: &RawRules) -> Result<Partial, ConfigError> {
        let size = |value: &Option<Spanned<ByteSize>>| value.as_ref().map(|size| size.value.0);
        let bytes = |key, value: &Option<Spanned<ByteSize>>, most| {
            self.within(key, value.as_ref(), size(value), 1, most)
        };
        let count = |key, value: &Option<Spanned<u64>>, most| {
            self.within(key, value.as_ref(), value.as_ref().map(|count| count.value), 1, most)
        };
        Ok(Partial {
            field_types: self.one_of(
                "field_types",
                raw.field_types.as_ref(),
                &[
                    ("convert", FieldTypes::Convert),
                    ("refuse", FieldTypes::Refuse),
                    ("off", FieldTypes::Off),
                ],
            )?,
            labels_max: count("labels_max", &raw.labels_max, TAGS_MAX as u64)?,
            label_name_bytes_max: bytes("label_name_bytes_max", &raw.label_name_bytes_max, 65536)?,
            label_value_bytes_max: bytes(
                "label_value_bytes_max",
                &raw.label_value_bytes_max,
                65536,
            )?,
            request_bytes_max: bytes("request_bytes_max", &raw.request_bytes_max, 1 << 30)?,
            series_max: count("series_max", &raw.series_max, 1_000_000_000)?,
            new_series_per_minute: count(
                "new_series_per_minute",
                &raw.new_series_per_minute,
                1_000_000_000,
            )?
            .map(|rate| rate as u32),
            past_max: self.duration("past_max", raw.past_max.as_ref())?,
            future_max: self.duration("future_max", raw.future_max.as_ref())?,
            database: self.template(raw.database.as_ref())?,
            database_tag: self.tag("database_tag", raw.database_tag.as_ref())?,
            organization_tag: self.tag("organization_tag", raw.organization_tag.as_ref())?,
            unit: self.one_of(
                "otlp_unit",
                raw.otlp_unit.as_ref(),
                &[("drop", Unit::Drop), ("suffix", Unit::Suffix), ("tag", Unit::Tag)],
            )?,
            temporality: self.one_of(
                "otlp_temporality",
                raw.otlp_temporality.as_ref(),
                &[
                    ("any", Temporality::Any),
                    ("cumulative", Temporality::Cumulative),
                    ("delta", Temporality::Delta),
                ],
            )?,
            attributes: self.one_of(
                "otlp_attributes",
                raw.otlp_attributes.as_ref(),
                &[
                    ("apart", Attributes::Apart),
                    ("plain", Attributes::Plain),
                    ("typed", Attributes::Typed),
                ],
            )?,
        })
    }

    fn within<T>(
        &self,
        key: &str,
        at: Option<&Spanned<T>>,
        value: Option<u64>,
        least: u64,
        most: u64,
    ) -> Result<Option<usize>, ConfigError> {
        match (at, value) {
            (Some(at), Some(value)) if !(least..=most).contains(&value) => {
                let message = format!("{key} is {value}, not between {least} and {most}");
                Err(ConfigError::at(self.0, at, message))
            }
            (_, value) => Ok(value.map(|value| value as usize)),
        }
    }

    fn one_of<T: Copy>(
        &self,
        key: &str,
        text: Option<&Spanned<String>>,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = text else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text.value);
        found.map(|(_, value)| Some(*value)).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("{key} is '{}', not one of {}", text.value, words.join(", "));
            ConfigError::at(self.0, text, message)
        })
    }

    fn duration(
        &self,
        key: &str,
        text: Option<&Spanned<DurationText>>,
    ) -> Result<Option<Duration>, ConfigError> {
        let bounds = Duration::from_secs(1)..=Duration::from_secs(100 * 366 * 86_400);
        match text {
            Some(text) if !bounds.contains(&text.value.0) => {
                let message = format!("{key} is not between 1s and 100 years");
                Err(ConfigError::at(self.0, text, message))
            }
            text => Ok(text.map(|text| text.value.0)),
        }
    }

    fn template(
        &self,
        text: Option<&Spanned<String>>,
    ) -> Result<Option<DatabaseTemplate>, ConfigError> {
        let Some(text) = text else { return Ok(None) };
        let template = DatabaseTemplate::parse(&text.value);
        template.map(Some).map_err(|why| {
            ConfigError::at(self.0, text, format!("database '{}' {why}", text.value))
        })
    }

    fn tag(
        &self,
        key: &str,
        text: Option<&Spanned<String>>,
    ) -> Result<Option<String>, ConfigError> {
        let Some(text) = text else { return Ok(None) };
        let name = text.value.as_str();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let is_plain = (1..=TAG_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
        let is_reserved =
            name.starts_with(RESERVED_PREFIX) || ["time", "_field", "_measurement"].contains(&name);
        if is_plain && !is_reserved {
            return Ok(Some(name.to_owned()));
        }
        let message = format!("{key} '{name}' is no name of a tag: letters, digits, '_', '-', '.'");
        Err(ConfigError::at(self.0, text, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FileRules, String> {
        FileRules::parse(Path::new("a.yaml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_tenants_rules_stand_over_the_default_ones() {
        let file = parse(
            "default: {labels_max: 30, past_max: 7d, otlp_unit: suffix, database_tag: db}\n\
             tenants:\n  acme: {otlp_attributes: typed, labels_max: 40, series_max: 1000, field_types: refuse,\n\
             \x20   database: '{organization}', otlp_temporality: cumulative}\n",
        )
        .expect("valid");
        let default = file.default.expect("a default");
        let rules = file.tenants["acme"].over(&default);
        let expected = Rules {
            labels_max: Some(40),
            series_max: Some(1000),
            field_types: FieldTypes::Refuse,
            past_max: Some(Duration::from_secs(7 * 86_400)),
            mapping: Mapping {
                database: DatabaseTemplate::parse("{organization}").expect("a template"),
                database_tag: Some("db".to_owned()),
                organization_tag: None,
            },
            otlp: OtlpRules {
                unit: Unit::Suffix,
                temporality: Temporality::Cumulative,
                attributes: Attributes::Typed,
            },
            ..Rules::default()
        };
        assert_eq!(rules, expected);
        assert!(Partial::default().over(&Partial::default()).is_nothing());
        assert_eq!(parse("{}"), Ok(FileRules::default()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, expected) in [
            ("default: {labels_max: 0}\n", "a.yaml:1:23: labels_max is 0, not between 1 and 98"),
            (
                "tenants:\n  acme: {series_max: 0}\n",
                "a.yaml:2:22: tenant \"acme\": series_max is 0, not between 1 and 1000000000",
            ),
            (
                "default: {field_types: drop}\n",
                "a.yaml:1:24: field_types is 'drop', not one of convert, refuse, off",
            ),
            ("default: {past_max: 0s}\n", "a.yaml:1:21: past_max is not between 1s and 100 years"),
            ("default: {database: '{tenant}'}\n", "a.yaml:1:21: database '{tenant}' has a bracket"),
            (
                "default: {database_tag: tidegate_db}\n",
                "a.yaml:1:25: database_tag 'tidegate_db' is",
            ),
            ("default: {organization_tag: 'a b'}\n", "a.yaml:1:29: organization_tag 'a b' is no"),
            (
                "default: {request_bytes_max: 2GiB}\n",
                "a.yaml:1:30: request_bytes_max is 2147483648",
            ),
            ("default: {serie_max: 1}\n", "a.yaml:1:11: unknown field"),
            ("tenant: {}\n", "a.yaml:1:1: unknown field"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
