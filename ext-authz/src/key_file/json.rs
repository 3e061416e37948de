//! A keys file in JSON, which is YAML too and can be read so much faster that large files are best
//! written in it. Says nothing of what is wrong with one: the YAML reader does, and knows where.

pub(super) mod stream;
mod window;

use std::fmt::Write as _;
use std::path::Path;

use chassis::config::ConfigError;
use serde::Serialize;
use serde::de::IgnoredAny;

use super::map::Map;
use super::validate::{RawFile, RawKey, Validator};
use super::{Rules, Tenant};
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
