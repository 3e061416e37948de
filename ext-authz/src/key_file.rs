//! A keys file: YAML or JSON in, validated records out, every error with its line and column.
//!
//! An empty list must be written as `keys: []` and then denies everyone. A file without `keys` is
//! an error: no keys never means that anyone may pass. A file that says how many keys it has is
//! refused when it has not: it was cut.

pub mod edit;
pub mod json;
mod map;
pub mod save;
mod validate;
mod yaml;

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use chassis::config::ConfigError;

use self::map::Map;
use self::validate::{RawFile, Validator, position};
use crate::check::builder::Builder;
use crate::check::digest::Peppers;
use crate::check::key_set::KEYS_MAX;
use crate::check::record::{KeyRecord, Shared};

/// The largest file that is read whole, in bytes. A larger one must be JSON, and is read key by key.
pub const WHOLE_BYTES_MAX: u64 = 64 << 20;
/// The largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// The most networks a key may have.
pub const NETWORKS_MAX: usize = 32;
/// The most scopes a key may have.
pub const SCOPES_MAX: usize = 32;
/// The longest comment, in bytes.
pub const COMMENT_BYTES_MAX: usize = 256;
/// The plan of a key that names none.
pub const PLAN_DEFAULT: &str = "default";

const MARK: &[u8] = b"\xef\xbb\xbf";

/// What a file is checked against besides its own grammar.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The peppers that digests may name.
    pub peppers: &'a Peppers,
    /// The priority classes there are.
    pub priority_classes: &'a [String],
}

/// A 1-based line and column.
pub type Position = (u64, u64);

/// A record and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record itself.
    pub record: KeyRecord,
    /// What the operator noted; never sent anywhere.
    pub comment: Option<String>,
    /// Where the value of `id` is.
    pub id_at: Position,
    /// Where the value of `revoked` is, if it is written.
    pub revoked_at: Option<Position>,
    /// Where the value of `suspended` is, if it is written.
    pub suspended_at: Option<Position>,
    /// Where the value of `expires_at` is, if it is written.
    pub expires_at_at: Option<Position>,
}

/// A tenant's own status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Whether none of its keys may pass for a time.
    pub is_suspended: bool,
}

/// A valid keys file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Its records, in their order.
    pub entries: Vec<Entry>,
    /// The tenants that have a status of their own.
    pub tenants: Vec<Tenant>,
    /// Where the list of keys begins.
    pub list_at: Position,
    /// How many keys it says it has, and where.
    pub count: Option<(u64, Position)>,
}

impl KeyFile {
    /// Parses and validates a file that was read from `path`.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn parse(path: &Path, bytes: &[u8], rules: Rules<'_>) -> Result<Self, ConfigError> {
        let bytes = without_mark(bytes);
        Self::validate(path, yaml::parse(path, bytes)?, rules, &mut Shared::default())
    }

    /// As [`Self::parse`], without where records stand where that is quicker.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn read_quickly(path: &Path, bytes: &[u8], rules: Rules<'_>) -> Result<Self, ConfigError> {
        Self::read(path, bytes, rules, &mut Shared::default())
    }

    /// As [`Self::parse`], without where records stand where that is quicker: a file in JSON is
    /// read some ten times as fast.
    fn read(
        path: &Path,
        bytes: &[u8],
        rules: Rules<'_>,
        shared: &mut Shared,
    ) -> Result<Self, ConfigError> {
        let bytes = without_mark(bytes);
        let quick = json::read(bytes);
        let quick = quick.and_then(|raw| Self::validate(path, raw, rules, shared).ok());
        // What is wrong with a file, and where, is for the YAML reader to say.
        quick.map_or_else(|| Self::validate(path, yaml::parse(path, bytes)?, rules, shared), Ok)
    }

    fn validate(
        path: &Path,
        raw: RawFile,
        rules: Rules<'_>,
        shared: &mut Shared,
    ) -> Result<Self, ConfigError> {
        let count = raw.keys.value.len();
        if count > KEYS_MAX {
            return Err(ConfigError::at(path, &raw.keys, format!("more than {KEYS_MAX} keys")));
        }
        if let Some(stated) = &raw.count
            && let Some(problem) = count_problem(stated.value, count)
        {
            return Err(ConfigError::at(path, stated, problem));
        }
        let list_at = position(&raw.keys);
        let mut validator = Validator { path, rules, shared };
        let tenants = validator.tenants(raw.tenants)?;
        let mut entries = Vec::with_capacity(count);
        let mut lines_by_id = HashMap::with_capacity(count);
        let mut ids_by_digest = HashMap::with_capacity(count);
        for Map(raw) in raw.keys.value {
            let (id_span, hmac_span) = (raw.id.clone(), raw.digest.0.hmac_sha256.clone());
            let entry = validator.entry(raw)?;
            let (id, digest) = (entry.record.id, entry.record.digest.hmac_sha256);
            if let Some(line) = lines_by_id.insert(id, entry.id_at.0) {
                let message = format!("key id '{id}' is already used in line {line}");
                return Err(ConfigError::at(path, &id_span, message));
            }
            if let Some(other) = ids_by_digest.insert(digest, id) {
                let message = format!("keys '{other}' and '{id}' have the same digest");
                return Err(ConfigError::at(path, &hmac_span, message));
            }
            entries.push(entry);
        }
        let count = raw.count.map(|stated| (stated.value, position(&stated)));
        Ok(Self { entries, tenants, list_at, count })
    }

    /// The records alone.
    pub fn into_records(self) -> impl Iterator<Item = KeyRecord> {
        self.entries.into_iter().map(|entry| entry.record)
    }
}

/// How many keys a file of so many bytes has if it goes on as it begins.
pub fn estimate(head: &[u8], len: u64) -> usize {
    const OF_EACH: &[u8] = b"hmac_sha256";
    let keys = head.windows(OF_EACH.len()).filter(|window| *window == OF_EACH).count() as u64;
    let all = (keys * len).checked_div(head.len() as u64).unwrap_or(0);
    usize::try_from(all).unwrap_or(KEYS_MAX).min(KEYS_MAX)
}

/// Reads a file of so many bytes into a keyring that is put together. Returns whether the file says
/// how many keys it has, so that a part of it can never pass for the whole.
///
/// # Errors
/// What is wrong, with line and column where that is known.
pub fn load(
    path: &Path,
    len: u64,
    mut file: impl BufRead + Send,
    rules: Rules<'_>,
    keys: &mut Builder,
) -> Result<bool, ConfigError> {
    let unreadable =
        |error: std::io::Error| ConfigError::file(path, format!("cannot be read: {error}"));
    if len > FILE_BYTES_MAX {
        return Err(ConfigError::file(path, format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    if len > WHOLE_BYTES_MAX {
        if file.fill_buf().map_err(unreadable)?.starts_with(MARK) {
            file.consume(MARK.len());
        }
        return json::stream::read(path, file, rules, keys);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.by_ref().take(WHOLE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let bytes = without_mark(&bytes);
    if json::is_json(bytes) {
        let read = json::stream::read(path, bytes, rules, keys);
        // What is wrong in the file itself, and where, is for the YAML reader to say.
        return read.map_err(|error| KeyFile::parse(path, bytes, rules).err().unwrap_or(error));
    }
    match yaml::read(path, bytes, rules, &mut keys.shared) {
        Some(read) => add_all(path, bytes, rules, read, keys),
        None => {
            let file = KeyFile::parse(path, bytes, rules)?;
            let (count, tenants) = (file.count.map(|(count, _)| count), file.tenants.clone());
            let read = yaml::Read { count, tenants, records: file.into_records().collect() };
            add_all(path, bytes, rules, read, keys)
        }
    }
}

/// Puts what a file in YAML says into a keyring. Returns whether it says how many keys it has.
fn add_all(
    path: &Path,
    bytes: &[u8],
    rules: Rules<'_>,
    read: yaml::Read,
    keys: &mut Builder,
) -> Result<bool, ConfigError> {
    let yaml::Read { count, tenants, records } = read;
    if count.is_some_and(|stated| count_problem(stated, records.len()).is_some()) {
        KeyFile::parse(path, bytes, rules)?;
    }
    for tenant in tenants {
        let name = keys.shared.tenant(&tenant.name);
        add_tenant(path, keys, name, tenant.is_suspended)?;
    }
    for record in records {
        let id = record.id;
        if let Err(clash) = keys.add(record) {
            // Where it stands, unless it is not even right by itself.
            let entries = KeyFile::parse(path, bytes, rules)?.entries;
            let at = entries.iter().find(|entry| entry.record.id == id).map(|entry| entry.id_at);
            return Err(ConfigError { at, ..ConfigError::file(path, clash.to_string()) });
        }
    }
    Ok(count.is_some())
}

/// Two files may not both speak of a tenant: nobody could tell which is right.
fn add_tenant(
    path: &Path,
    keys: &mut Builder,
    name: Arc<str>,
    is_suspended: bool,
) -> Result<(), ConfigError> {
    match keys.add_tenant(Arc::clone(&name), is_suspended) {
        true => Ok(()),
        false => {
            let message = format!("the status of tenant '{name}' is stated twice");
            Err(ConfigError::file(path, message))
        }
    }
}

fn count_problem(stated: u64, count: usize) -> Option<String> {
    (u64::try_from(count) != Ok(stated)).then(|| {
        format!(
            "'count' says {stated} keys and there are {count}: the file was cut, or is not finished"
        )
    })
}

/// Without the mark that some editors put before UTF-8.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

#[cfg(test)]
#[path = "key_file/tests.rs"]
mod tests;
