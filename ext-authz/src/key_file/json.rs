//! A keys file in JSON, which is YAML too and can be read so much faster that large files are best
//! written in it. Says nothing of what is wrong with one: the YAML reader does, and knows where.

use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::RawFile;
use super::edit::hex_text;
use crate::check::record::KeyRecord;

/// Reads a file that is JSON from its first brace to its last; positions are unknown.
pub(super) fn read(bytes: &[u8]) -> Option<RawFile> {
    // Anything else is told apart by one byte, and not read twice.
    bytes.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(bytes).ok())?
}

/// A value that is written as a map. To serde's derived code a list of the values would do as well,
/// and the YAML reader would refuse what this one takes.
pub(super) struct Map<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Map<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Map<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Map<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Map)
            }
        }
        deserializer.deserialize_map(OfMap(PhantomData))
    }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<&'a str>,
    digest: RawRecordDigest,
}

#[derive(Serialize)]
struct RawRecordDigest {
    pepper: u32,
    hmac_sha256: String,
}

/// A record as one line of JSON, with the keys and in the order of [`super::edit::render`].
pub fn render(record: &KeyRecord, comment: Option<&str>) -> String {
    let raw = RawRecord {
        id: record.id.as_str(),
        tenant: &record.tenant,
        priority: &record.priority,
        plan: &record.plan,
        scopes: &record.scopes,
        not_before: record.not_before.map(|moment| moment.to_string()),
        expires_at: record.expires_at.map(|moment| moment.to_string()),
        revoked: record.revoked,
        comment,
        digest: RawRecordDigest {
            pepper: record.digest.pepper,
            hmac_sha256: hex_text(&record.digest.hmac_sha256),
        },
    };
    serde_json::to_string(&raw).expect("texts, numbers and truth values are JSON")
}

/// A whole file, a line for each record.
pub fn file<'a>(records: impl Iterator<Item = (&'a KeyRecord, Option<&'a str>)>) -> String {
    let lines: Vec<String> = records.map(|(record, comment)| render(record, comment)).collect();
    format!("{{\"keys\": [\n{}\n]}}\n", lines.join(",\n"))
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
