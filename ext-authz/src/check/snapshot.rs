//! All keys at one moment: immutable, found by key id in constant time.

use std::collections::HashMap;
use std::sync::Arc;

use super::digest::Peppers;
use super::key::{ApiKey, KeyId};
use super::record::KeyRecord;

/// The keys of one state of the keys file.
#[derive(Debug)]
pub struct Snapshot {
    by_id: HashMap<KeyId, KeyRecord>,
    peppers: Arc<Peppers>,
}

/// What a snapshot says of a key.
pub enum Found<'s> {
    /// It was issued; whether it may be used now is for its record to say.
    Key(&'s KeyRecord),
    /// Its id was issued with another secret.
    WrongSecret,
    /// Its id was never issued.
    Unknown,
}

impl Snapshot {
    /// Ids are unique and their peppers exist: the keys file was validated.
    pub fn new(records: impl IntoIterator<Item = KeyRecord>, peppers: Arc<Peppers>) -> Self {
        Self { by_id: records.into_iter().map(|record| (record.id, record)).collect(), peppers }
    }

    /// Looks a key up: one hash map probe, one HMAC and one comparison, whatever comes of it.
    pub fn find(&self, key: &ApiKey<'_>) -> Found<'_> {
        let record = self.by_id.get(&key.id());
        let matches = self.peppers.matches(key, record.map(|record| &record.digest));
        match record {
            Some(record) if matches => Found::Key(record),
            Some(_) => Found::WrongSecret,
            None => Found::Unknown,
        }
    }

    /// How many keys there are, revoked and expired ones included.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none, so that every request is denied.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
