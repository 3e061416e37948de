//! Settings of the destinations, the same for both roles.

use std::path::Path;

use chassis::config::{ConfigError, Spanned};
use serde::{Deserialize, Serialize};

use super::name::NAME_BYTES_MIN;
use super::template::Template;

/// `destinations:` as written by the user.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDestinations {
    /// The template of the database's name.
    pub database: Option<Spanned<String>>,
    /// The client's database where it names none.
    pub default_database: Option<Spanned<String>>,
    /// The longest name.
    pub name_bytes_max: Option<Spanned<u64>>,
    /// How many databases a tenant may have.
    pub databases_per_tenant_max: Option<Spanned<u64>>,
}

/// The template of the database's name when absent.
pub const DATABASE: &str = "{tenant}__{database}";
/// The client's database where it names none, when absent.
pub const DEFAULT_DATABASE: &str = "default";
/// `name_bytes_max` when absent: what InfluxDB 3 takes.
pub const NAME_BYTES_MAX: usize = 64;
/// `databases_per_tenant_max` when absent.
pub const DATABASES_PER_TENANT_MAX: usize = 100;

/// Settings that cannot be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DestinationsConfig {
    /// The template of the database's name.
    #[serde(rename = "database")]
    pub(super) template: Template,
    /// The client's database where it names none.
    pub default_database: String,
    /// The longest name, bytes.
    pub name_bytes_max: usize,
    /// How many databases a tenant may have beside the default one.
    pub databases_per_tenant_max: usize,
}

impl Default for DestinationsConfig {
    fn default() -> Self {
        Self {
            template: Template::parse(DATABASE).expect("the default is a template"),
            default_database: DEFAULT_DATABASE.to_owned(),
            name_bytes_max: NAME_BYTES_MAX,
            databases_per_tenant_max: DATABASES_PER_TENANT_MAX,
        }
    }
}

impl DestinationsConfig {
    /// Checks the settings of the file `path`.
    ///
    /// # Errors
    /// When a value is out of bounds or the template could mix databases; names the key.
    pub fn from_raw(path: &Path, raw: &RawDestinations) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(text) = &raw.database {
            config.template = Template::parse(&text.value).map_err(|why| {
                ConfigError::at(path, text, format!("destinations.database {why}"))
            })?;
        }
        if let Some(text) = &raw.default_database {
            if text.value.is_empty() {
                let message = "destinations.default_database is empty";
                return Err(ConfigError::at(path, text, message));
            }
            config.default_database = text.value.clone();
        }
        if let Some(bytes) = &raw.name_bytes_max {
            config.name_bytes_max = within(path, "name_bytes_max", bytes, NAME_BYTES_MIN, 200)?;
        }
        if let Some(count) = &raw.databases_per_tenant_max {
            let key = "databases_per_tenant_max";
            config.databases_per_tenant_max = within(path, key, count, 1, 100_000)?;
        }
        Ok(config)
    }
}

fn within(
    path: &Path,
    key: &str,
    given: &Spanned<u64>,
    min: usize,
    max: usize,
) -> Result<usize, ConfigError> {
    let value = usize::try_from(given.value).ok().filter(|value| (min..=max).contains(value));
    value.ok_or_else(|| {
        let message = format!("destinations.{key} must be between {min} and {max}");
        ConfigError::at(path, given, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DestinationsConfig, String> {
        let path = Path::new("a.yaml");
        chassis::config::parse_yaml::<RawDestinations>(path, text.as_bytes())
            .and_then(|raw| DestinationsConfig::from_raw(path, &raw))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_out_of_bounds_are_named_with_their_place() {
        let config = parse("database: all\nname_bytes_max: 48\n").expect("valid");
        let shown = serde_json::to_value(&config).expect("JSON");
        assert_eq!(shown["database"], "all");
        for (text, expected) in [
            ("database: '{tenant}{database}'\n", "a.yaml:1:11: destinations.database must have"),
            ("default_database: ''\n", "a.yaml:1:19: destinations.default_database is empty"),
            ("name_bytes_max: 47\n", "a.yaml:1:17: destinations.name_bytes_max must be between 48"),
            ("databases_per_tenant_max: 0\n", "a.yaml:1:27: destinations.databases_per_tenant"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
