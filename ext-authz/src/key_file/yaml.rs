//! A keys file in YAML, as it is loaded: record by record, so that what the reader notes of each one, a
//! kilobyte with where all of it stands, is not there for all of them at once. Says nothing of what is
//! wrong with a file: the reader that notes all of it does.

use std::fmt;
use std::path::Path;

use chassis::config::ConfigError;
use serde::Deserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Options;

use super::map::Map;
use super::validate::{RawKey, RawTenant, Validator};
use super::{Rules, SCOPES_MAX, Tenant};
use crate::check::key_set::KEYS_MAX;
use crate::check::record::{KeyRecord, Shared};

/// What a file says.
#[derive(Default)]
pub(super) struct Read {
    /// How many keys it says it has.
    pub count: Option<u64>,
    /// The tenants that have a status of their own.
    pub tenants: Vec<Tenant>,
    /// Its records, in their order.
    pub records: Vec<KeyRecord>,
}

/// Reads a file that is right, as far as each record by itself can tell.
pub(super) fn read(
    path: &Path,
    bytes: &[u8],
    rules: Rules<'_>,
    shared: &mut Shared,
) -> Option<Read> {
    let text = std::str::from_utf8(bytes).ok()?;
    let seed = FileSeed { validator: Validator { path, rules, shared } };
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |file| {
        seed.deserialize(file)
    });
    // No keys never means that anyone may pass: how that was written is for the other reader.
    read.ok().filter(|read| !read.records.is_empty())
}

/// Reads a value, with where it stands.
///
/// # Errors
/// What is wrong, with line and column.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, ConfigError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ConfigError::file(path, format!("is not UTF-8: {error}")))?;
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let at = error.location().map(|at| (at.line(), at.column())).filter(|at| at.0 > 0);
        let mut message = error.to_string();
        // The position is told once, in front.
        if let Some(cut) = message.find(" at line ") {
            message.truncate(cut);
        }
        ConfigError { path: path.to_owned(), at, message: message.replace('\n', " ") }
    })
}

/// As the chassis parses YAML, with room for [`KEYS_MAX`] keys and none for aliases, which a keys
/// file has no use for.
fn options() -> Options {
    const NODES_PER_KEY_MAX: usize = 32 + SCOPES_MAX;
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_nodes: KEYS_MAX * NODES_PER_KEY_MAX,
            max_events: KEYS_MAX * NODES_PER_KEY_MAX * 2,
            max_total_scalar_bytes: KEYS_MAX * 4096,
            max_documents: 1,
            max_aliases: 0,
            max_anchors: 0,
        },
    }
}

/// The whole file.
struct FileSeed<'a> {
    validator: Validator<'a>,
}

/// The list of keys.
struct KeysSeed<'a, 'b>(&'b mut Validator<'a>);

impl<'de> DeserializeSeed<'de> for FileSeed<'_> {
    type Value = Read;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FileSeed<'_> {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with the list 'keys'")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Read, A::Error> {
        let mut read = Read::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "count" => read.count = Some(map.next_value()?),
                "tenants" => {
                    let raw = map.next_value::<Vec<Map<RawTenant>>>()?;
                    read.tenants = self.validator.tenants(raw).map_err(worded)?;
                }
                "keys" => read.records = map.next_value_seed(KeysSeed(&mut self.validator))?,
                _ => return Err(A::Error::custom("an unknown key")),
            }
        }
        Ok(read)
    }
}

impl<'de> DeserializeSeed<'de> for KeysSeed<'_, '_> {
    type Value = Vec<KeyRecord>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for KeysSeed<'_, '_> {
    type Value = Vec<KeyRecord>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of keys")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut records = Vec::new();
        while let Some(Map(raw)) = list.next_element::<Map<RawKey>>()? {
            records.push(self.0.entry(raw).map_err(worded)?.record);
        }
        Ok(records)
    }
}

/// Nobody reads it.
fn worded<E: Error>(error: ConfigError) -> E {
    E::custom(error.message)
}
