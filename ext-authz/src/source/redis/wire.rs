//! What stands in Redis, and what it means: records, changes, states of tenants.

use std::path::Path;

use chassis::config::ConfigError;

use crate::check::key_set::{Clash, KeySet};
use crate::check::record::{KeyRecord, Shared};
use crate::key_file::{Rules, json};
use crate::names::tenant_problem;

/// What a tenant's status is in Redis while none of its keys may pass.
pub const SUSPENDED: &str = "suspended";
/// What it is otherwise.
pub const ACTIVE: &str = "active";

/// One generation of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub generation: u64,
    /// Who changed what and when, in JSON.
    pub event: String,
    /// What changed.
    pub parts: Vec<Part>,
}

/// One of the things that changed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A record in JSON, new or in place of the one of its id.
    Put(String),
    /// A tenant and its status.
    Tenant(String, String),
}

/// What cannot be taken as it stands in Redis.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A record that is none.
    #[error("a record cannot be used: {0}")]
    Record(String),
    /// A tenant's status that is none.
    #[error("the status of a tenant cannot be used: {0}")]
    Tenant(String),
    /// A key that cannot be beside the others.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// An entry of the stream that is none.
    #[error("an entry of the stream of changes cannot be read: {0}")]
    Entry(String),
}

impl Entry {
    /// Reads an entry of the stream: its id, its fields and values in turns.
    ///
    /// # Errors
    /// When it is none that this program writes.
    pub fn parse(id: &str, fields: Vec<(String, String)>) -> Result<Self, WireError> {
        let unreadable = || WireError::Entry(format!("id {:?}", id.escape_debug().to_string()));
        let generation = id.strip_suffix("-0").and_then(|text| text.parse().ok());
        let mut entry = Self { generation: generation.ok_or_else(unreadable)?, ..Self::default() };
        for (name, value) in fields {
            match name.as_str() {
                "event" => entry.event = value,
                "put" => entry.parts.push(Part::Put(value)),
                "tenant" => {
                    let (tenant, status) = value.split_once('=').ok_or_else(unreadable)?;
                    entry.parts.push(Part::Tenant(tenant.to_owned(), status.to_owned()));
                }
                // A field of a newer version: what it means is not known, so it is not passed over.
                _ => return Err(unreadable()),
            }
        }
        Ok(entry)
    }
}

impl Part {
    /// Makes the change, beside the keys of another source.
    ///
    /// # Errors
    /// When it cannot be used; then nothing is changed.
    pub fn apply(
        &self,
        keys: &mut KeySet,
        rules: Rules<'_>,
        others: Option<&KeySet>,
    ) -> Result<(), WireError> {
        match self {
            Self::Put(text) => {
                let (record, _) = record(text, rules, &mut Shared::default())?;
                if let Some(clash) = others.and_then(|others| others.clash_with(&record)) {
                    return Err(clash.into());
                }
                Ok(keys.put(record)?)
            }
            Self::Tenant(name, status) => {
                let is_suspended = is_suspended(name, status)?;
                keys.set_tenant(name.as_str().into(), is_suspended);
                Ok(())
            }
        }
    }
}

/// A record and its comment.
///
/// # Errors
/// When it is none.
pub fn record(
    text: &str,
    rules: Rules<'_>,
    shared: &mut Shared,
) -> Result<(KeyRecord, Option<String>), WireError> {
    let error = |error: ConfigError| WireError::Record(error.message);
    json::record(Path::new("Redis"), text, rules, shared).map_err(error)
}

/// Whether a tenant of this status may not pass.
///
/// # Errors
/// When there is no such status, or no such tenant can be.
pub fn is_suspended(name: &str, status: &str) -> Result<bool, WireError> {
    if let Some(problem) = tenant_problem(name) {
        return Err(WireError::Tenant(problem));
    }
    match status {
        SUSPENDED => Ok(true),
        ACTIVE => Ok(false),
        other => Err(WireError::Tenant(format!("{name:?} is {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_whole_or_not_at_all() {
        let fields = |fields: &[(&str, &str)]| {
            fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>()
        };
        let entry = Entry::parse(
            "7-0",
            fields(&[("event", "e"), ("put", "a"), ("put", "b"), ("tenant", "t=active")]),
        )
        .expect("an entry");
        let parts = [Part::Put("a".into()), Part::Put("b".into())];
        let tenant = Part::Tenant("t".into(), "active".into());
        assert_eq!((entry.generation, entry.event.as_str()), (7, "e"));
        assert_eq!(entry.parts, [&parts[..], &[tenant]].concat());
        for (id, with) in [
            ("7-1", fields(&[])),
            ("7", fields(&[])),
            ("-0", fields(&[])),
            ("7-0", fields(&[("tenant", "t")])),
            ("7-0", fields(&[("remove", "x")])),
        ] {
            assert!(Entry::parse(id, with).is_err(), "{id}");
        }
    }

    #[test]
    fn a_tenant_has_one_of_two_states() {
        assert!(is_suspended("acme", SUSPENDED).expect("a status"));
        assert!(!is_suspended("acme", ACTIVE).expect("a status"));
        assert!(is_suspended("acme", "").is_err() && is_suspended("A B", ACTIVE).is_err());
    }
}
