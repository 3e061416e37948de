//! A keys file in JSON, which is YAML too and can be read so much faster that large files are best
//! written in it. Says nothing of what is wrong with one: the YAML reader does, and knows where.

use std::fmt::{self, Write as _};
use std::path::Path;

use chassis::config::ConfigError;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, Serialize};

use super::map::Map;
use super::validate::{RawFile, RawKey, RawTenant, Validator};
use super::{Rules, Tenant, add_tenant, count_problem};
use crate::check::builder::Builder;
use crate::check::record::{KeyRecord, Kind, Shared, Status};

/// Whether a file is JSON from its first brace to its last.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    // Anything else is told apart by one byte, and not read twice.
    bytes.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Reads a file that is JSON from its first brace to its last; positions are unknown.
pub(super) fn read(bytes: &[u8]) -> Option<RawFile> {
    bytes.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(bytes).ok())?
}

/// Reads one record as [`render`] writes it, and its comment.
///
/// # Errors
/// What is wrong with it.
pub fn record(
    path: &Path,
    text: &str,
    rules: Rules<'_>,
    shared: &mut Shared,
) -> Result<(KeyRecord, Option<String>), ConfigError> {
    let Map(raw) = serde_json::from_str::<Map<RawKey>>(text)
        .map_err(|error| ConfigError::file(path, error.to_string()))?;
    let entry = Validator { path, rules, shared }.entry(raw)?;
    Ok((entry.record, entry.comment))
}

/// Reads a file key by key, so that it is never whole in memory. Returns whether it says how many
/// keys it has.
///
/// # Errors
/// What is wrong, with the line and column that were reached.
pub(super) fn stream<'de>(
    path: &Path,
    mut deserializer: serde_json::Deserializer<impl serde_json::de::Read<'de>>,
    rules: Rules<'_>,
    keys: &mut Builder,
) -> Result<bool, ConfigError> {
    let read = FileSeed { path, rules, keys }
        .deserialize(&mut deserializer)
        .and_then(|has_count| deserializer.end().map(|()| has_count));
    read.map_err(|error| {
        let at = Some((error.line() as u64, error.column() as u64)).filter(|at| at.0 > 0);
        let mut message = error.to_string();
        // The position is told once, in front.
        if let Some(cut) = message.rfind(" at line ") {
            message.truncate(cut);
        }
        ConfigError { path: path.to_owned(), at, message }
    })
}

/// The whole file, into a keyring.
struct FileSeed<'a> {
    path: &'a Path,
    rules: Rules<'a>,
    keys: &'a mut Builder,
}

/// The list of keys, into a keyring; its value is their number.
struct KeysSeed<'a, 'b>(&'b mut FileSeed<'a>);

impl<'de> DeserializeSeed<'de> for FileSeed<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FileSeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with the list 'keys'")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<bool, A::Error> {
        let (mut stated, mut count, mut seen_tenants) = (None, None, false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "count" if stated.is_none() => {
                    let number = map.next_value::<u64>()?;
                    stated = Some(number);
                }
                "tenants" if !seen_tenants => {
                    seen_tenants = true;
                    let raw = map.next_value::<Vec<Map<RawTenant>>>()?;
                    let (path, rules) = (self.path, self.rules);
                    let validator = Validator { path, rules, shared: &mut self.keys.shared };
                    let tenants = validator.tenants(raw).map_err(worded)?;
                    for tenant in tenants {
                        add_tenant(path, self.keys, &tenant.name, tenant.is_suspended)
                            .map_err(worded)?;
                    }
                }
                "keys" if count.is_none() => {
                    count = Some(map.next_value_seed(KeysSeed(&mut self))?);
                }
                other => {
                    return Err(A::Error::custom(format!("unknown or repeated key {other:?}")));
                }
            }
        }
        let count = count.ok_or_else(|| A::Error::missing_field("keys"))?;
        match stated.and_then(|stated| count_problem(stated, count)) {
            Some(problem) => Err(A::Error::custom(problem)),
            None => Ok(stated.is_some()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for KeysSeed<'_, '_> {
    type Value = usize;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for KeysSeed<'_, '_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of keys")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<usize, A::Error> {
        let FileSeed { path, rules, keys } = self.0;
        let mut count = 0;
        while let Some(Map(raw)) = list.next_element::<Map<RawKey>>()? {
            let mut validator = Validator { path, rules: *rules, shared: &mut keys.shared };
            let record = validator.entry(raw).map_err(worded)?.record;
            keys.add(record).map_err(A::Error::custom)?;
            count += 1;
        }
        Ok(count)
    }
}

/// The message alone: the position is the deserializer's to know.
fn worded<E: Error>(error: ConfigError) -> E {
    E::custom(error.message)
}

#[derive(Serialize)]
struct RawRecord<'a> {
    id: &'a str,
    tenant: &'a str,
    priority: &'a str,
    plan: &'a str,
    scopes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    revoked: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    suspended: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    imported: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<&'a str>,
    digest: RawRecordDigest,
}

#[derive(Serialize)]
struct RawRecordDigest {
    pepper: u32,
    hmac_sha256: String,
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex_text(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(hex, "{byte:02x}").expect("writing to a string does not fail");
    }
    hex
}

/// A record as one line of JSON, with the keys and in the order of [`super::edit::render`].
pub fn render(record: &KeyRecord, comment: Option<&str>) -> String {
    let raw = RawRecord {
        id: record.id.as_str(),
        tenant: &record.tenant,
        priority: &record.grant.priority,
        plan: &record.grant.plan,
        scopes: &record.grant.scopes,
        not_before: record.not_before.map(|moment| moment.to_string()),
        expires_at: record.expires_at.map(|moment| moment.to_string()),
        revoked: record.status == Status::Revoked,
        suspended: record.status == Status::Suspended,
        networks: record.grant.networks.iter().map(ToString::to_string).collect(),
        imported: record.kind == Kind::Imported,
        comment,
        digest: RawRecordDigest {
            pepper: record.digest.pepper,
            hmac_sha256: hex_text(&record.digest.hmac_sha256),
        },
    };
    serde_json::to_string(&raw).expect("texts, numbers and truth values are JSON")
}

#[derive(Serialize)]
struct RawTenantStatus<'a> {
    name: &'a str,
    suspended: bool,
}

/// A whole file, a line for each record. It says how many there are.
pub fn file<'a>(
    tenants: &[Tenant],
    records: impl Iterator<Item = (&'a KeyRecord, Option<&'a str>)>,
) -> String {
    let lines: Vec<String> = records.map(|(record, comment)| render(record, comment)).collect();
    let tenants: Vec<_> = tenants
        .iter()
        .map(|tenant| RawTenantStatus { name: &tenant.name, suspended: tenant.is_suspended })
        .collect();
    let tenants = match serde_json::to_string(&tenants).expect("texts and truth values are JSON") {
        none if none == "[]" => String::new(),
        some => format!("\"tenants\": {some}, "),
    };
    let count = lines.len();
    format!("{{\"count\": {count}, {tenants}\"keys\": [\n{}\n]}}\n", lines.join(",\n"))
}

/// The text of a file in JSON with one more record at its end.
pub(super) fn appended(text: &str, record: &KeyRecord, comment: Option<&str>) -> Option<String> {
    let (list, end) = text.split_at(text.rfind(']')?);
    let records = list.trim_end();
    let comma = if records.ends_with('[') { "" } else { "," };
    let space = &list[records.len()..];
    Some(format!("{records}{comma}\n{}{space}{end}", render(record, comment)))
}

#[cfg(test)]
#[path = "json/tests.rs"]
mod tests;
