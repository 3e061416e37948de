//! The keys file: YAML or JSON in, validated records out, every error with its line and column.
//!
//! An empty list must be written as `keys: []` and then denies everyone. A file without `keys` is
//! an error: no keys never means that anyone may pass.

pub mod edit;
pub mod json;
pub mod save;

use std::collections::HashMap;
use std::path::Path;

use chassis::config::{ConfigError, Spanned};
use serde::Deserialize;

use self::json::Map;
use crate::check::digest::{DIGEST_LEN, Digest, Peppers};
use crate::check::key::KeyId;
use crate::check::record::KeyRecord;
use crate::names::{name_problem, scope_problem, tenant_problem};
use crate::timestamp::Timestamp;

/// The most keys a file may hold.
pub const KEYS_MAX: usize = 1_000_000;
/// The most scopes a key may have.
pub const SCOPES_MAX: usize = 32;
/// The longest comment, in bytes.
pub const COMMENT_BYTES_MAX: usize = 256;
/// The plan of a key that names none.
pub const PLAN_DEFAULT: &str = "default";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    keys: Spanned<Vec<Map<RawKey>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    id: Spanned<String>,
    tenant: Spanned<String>,
    priority: Spanned<String>,
    plan: Option<Spanned<String>>,
    #[serde(default)]
    scopes: Vec<Spanned<String>>,
    digest: Map<RawDigest>,
    not_before: Option<Spanned<String>>,
    expires_at: Option<Spanned<String>>,
    revoked: Option<Spanned<bool>>,
    comment: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDigest {
    pepper: Spanned<u32>,
    hmac_sha256: Spanned<String>,
}

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
}

/// A valid keys file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Its records, in their order.
    pub entries: Vec<Entry>,
    /// Where the list begins.
    pub list_at: Position,
}

impl KeyFile {
    /// Parses and validates a file that was read from `path`.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn parse(path: &Path, bytes: &[u8], rules: Rules<'_>) -> Result<Self, ConfigError> {
        Self::validate(path, parse_yaml(path, bytes)?, rules)
    }

    /// The records alone, without where they stand; a file in JSON is read some ten times as fast.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn records(
        path: &Path,
        bytes: &[u8],
        rules: Rules<'_>,
    ) -> Result<Vec<KeyRecord>, ConfigError> {
        let quick = json::read(bytes).and_then(|raw| Self::validate(path, raw, rules).ok());
        // What is wrong with a file, and where, is for the YAML reader to say.
        let file = quick.map_or_else(|| Self::parse(path, bytes, rules), Ok)?;
        Ok(file.into_records().collect())
    }

    fn validate(path: &Path, raw: RawFile, rules: Rules<'_>) -> Result<Self, ConfigError> {
        if raw.keys.value.len() > KEYS_MAX {
            return Err(ConfigError::at(path, &raw.keys, format!("more than {KEYS_MAX} keys")));
        }
        let list_at = position(&raw.keys);
        let mut entries = Vec::with_capacity(raw.keys.value.len());
        let mut lines_by_id = HashMap::with_capacity(raw.keys.value.len());
        let mut ids_by_digest = HashMap::with_capacity(raw.keys.value.len());
        for Map(raw) in raw.keys.value {
            let (id_span, hmac_span) = (raw.id.clone(), raw.digest.0.hmac_sha256.clone());
            let entry = Validator { path, rules }.entry(raw)?;
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
        Ok(Self { entries, list_at })
    }

    /// The records alone.
    pub fn into_records(self) -> impl Iterator<Item = KeyRecord> {
        self.entries.into_iter().map(|entry| entry.record)
    }
}

struct Validator<'a> {
    path: &'a Path,
    rules: Rules<'a>,
}

impl Validator<'_> {
    fn entry(&self, raw: RawKey) -> Result<Entry, ConfigError> {
        let id = KeyId::parse(&raw.id.value)
            .ok_or_else(|| self.bad(&raw.id, "'id' must be 12 letters or digits"))?;
        self.refuse(&raw.tenant, tenant_problem(&raw.tenant.value))?;
        let plan = raw.plan.map_or(Ok(PLAN_DEFAULT.to_owned()), |plan| {
            self.refuse(&plan, name_problem("plan", &plan.value)).map(|()| plan.value)
        })?;
        if let Some(comment) = &raw.comment
            && comment.value.len() > COMMENT_BYTES_MAX
        {
            let message = format!("'comment' is longer than {COMMENT_BYTES_MAX} bytes");
            return Err(self.bad(comment, message));
        }
        let not_before = self.moment("not_before", raw.not_before.as_ref())?;
        let expires_at = self.moment("expires_at", raw.expires_at.as_ref())?;
        if let (Some(start), Some(end), Some(span)) = (not_before, expires_at, &raw.expires_at)
            && start >= end
        {
            return Err(self.bad(span, "'expires_at' must be after 'not_before'"));
        }
        let record = KeyRecord {
            id,
            priority: self.priority(raw.priority)?,
            plan,
            scopes: self.scopes(raw.scopes)?,
            digest: self.digest(&raw.digest.0)?,
            not_before,
            expires_at,
            revoked: raw.revoked.as_ref().is_some_and(|revoked| revoked.value),
            tenant: raw.tenant.value,
        };
        let comment = raw.comment.map(|comment| comment.value);
        let revoked_at = raw.revoked.as_ref().map(position);
        Ok(Entry { record, comment, id_at: position(&raw.id), revoked_at })
    }

    fn priority(&self, raw: Spanned<String>) -> Result<String, ConfigError> {
        if !self.rules.priority_classes.contains(&raw.value) {
            let known = self.rules.priority_classes.join(", ");
            let message = format!("priority {:?} is none of the classes {known}", raw.value);
            return Err(self.bad(&raw, message));
        }
        Ok(raw.value)
    }

    fn scopes(&self, raw: Vec<Spanned<String>>) -> Result<Vec<String>, ConfigError> {
        let mut scopes: Vec<String> = Vec::with_capacity(raw.len());
        for scope in raw {
            self.refuse(&scope, scope_problem(&scope.value))?;
            if scopes.contains(&scope.value) {
                return Err(self.bad(&scope, format!("scope '{}' comes twice", scope.value)));
            }
            if scopes.len() == SCOPES_MAX {
                return Err(self.bad(&scope, format!("more than {SCOPES_MAX} scopes")));
            }
            scopes.push(scope.value);
        }
        Ok(scopes)
    }

    fn digest(&self, raw: &RawDigest) -> Result<Digest, ConfigError> {
        let pepper = raw.pepper.value;
        if !self.rules.peppers.has(pepper) {
            let message = format!("pepper {pepper} is not among 'pepper_files'");
            return Err(self.bad(&raw.pepper, message));
        }
        let hmac_sha256 = hex(&raw.hmac_sha256.value).ok_or_else(|| {
            self.bad(&raw.hmac_sha256, "'hmac_sha256' must be 64 lower-case hexadecimal digits")
        })?;
        Ok(Digest { pepper, hmac_sha256 })
    }

    fn moment(
        &self,
        key: &str,
        raw: Option<&Spanned<String>>,
    ) -> Result<Option<Timestamp>, ConfigError> {
        let Some(raw) = raw else { return Ok(None) };
        raw.value.parse().map(Some).map_err(|error| self.bad(raw, format!("'{key}' {error}")))
    }

    fn refuse<T>(&self, at: &Spanned<T>, problem: Option<String>) -> Result<(), ConfigError> {
        problem.map_or(Ok(()), |message| Err(self.bad(at, message)))
    }

    fn bad<T>(&self, at: &Spanned<T>, message: impl Into<String>) -> ConfigError {
        ConfigError::at(self.path, at, message)
    }
}

fn position<T>(value: &Spanned<T>) -> Position {
    (value.referenced.line(), value.referenced.column())
}

fn hex(text: &str) -> Option<[u8; DIGEST_LEN]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = [0; DIGEST_LEN];
    if pairs.len() != DIGEST_LEN {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// As the chassis parses YAML, with room for [`KEYS_MAX`] keys and none for aliases, which a keys
/// file has no use for.
fn parse_yaml(path: &Path, bytes: &[u8]) -> Result<RawFile, ConfigError> {
    const NODES_PER_KEY_MAX: usize = 32 + SCOPES_MAX;
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ConfigError::file(path, format!("is not UTF-8: {error}")))?;
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_nodes: KEYS_MAX * NODES_PER_KEY_MAX,
            max_events: KEYS_MAX * NODES_PER_KEY_MAX * 2,
            max_total_scalar_bytes: KEYS_MAX * 4096,
            max_documents: 1,
            max_aliases: 0,
            max_anchors: 0,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let at = error.location().map(|at| (at.line(), at.column())).filter(|at| at.0 > 0);
        let mut message = error.to_string();
        // The position is told once, in front.
        if let Some(cut) = message.find(" at line ") {
            message.truncate(cut);
        }
        ConfigError { path: path.to_owned(), at, message: message.replace('\n', " ") }
    })
}

#[cfg(test)]
#[path = "key_file/tests.rs"]
mod tests;
