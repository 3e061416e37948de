//! A set of keys that is put together record by record, beside the one whose place it takes.

use std::collections::HashSet;
use std::sync::Arc;

use super::key::KeyId;
use super::key_set::{Clash, DigestEntry, KEYS_MAX, KeySet, PepperUses, hash_of_id};
use super::record::{KeyRecord, Shared};
use super::table::Hashed;
use super::table::draft::Draft;

/// A set that is being put together.
#[derive(Default)]
pub struct Builder {
    records: Draft<KeyRecord>,
    digests: Draft<DigestEntry>,
    peppers: PepperUses,
    suspended_tenants: HashSet<Arc<str>>,
    tenants: HashSet<Arc<str>>,
    /// What records have in common.
    pub shared: Shared,
}

impl Builder {
    /// Of a set that is expected to have so many keys, and to be much like `present`: what they have
    /// in common will be there once.
    pub fn beside(present: Option<&KeySet>, expected: usize) -> Self {
        let none = KeySet::default();
        let (present, expected) = (present.unwrap_or(&none), expected.min(KEYS_MAX));
        Self {
            records: Draft::beside(&present.records, expected),
            digests: Draft::beside(&present.digests, expected),
            ..Self::default()
        }
    }

    fn by_id(&self, id: &KeyId) -> Option<&KeyRecord> {
        self.records.find(hash_of_id(id), |record| record.id == *id)
    }

    /// Which key has this very digest already.
    fn owner(&self, record: &KeyRecord) -> Option<KeyId> {
        let wanted = DigestEntry::of(record);
        let is_it = |entry: &DigestEntry| {
            let has_it = |found: &KeyRecord| found.digest.hmac_sha256 == record.digest.hmac_sha256;
            entry.tail == wanted.tail && self.by_id(&entry.id).is_some_and(has_it)
        };
        self.digests.find(wanted.hash(), is_it).map(|entry| entry.id)
    }

    /// Adds a record.
    ///
    /// # Errors
    /// When it cannot be beside those before it.
    pub fn add(&mut self, record: KeyRecord) -> Result<(), Clash> {
        match self.by_id(&record.id) {
            Some(_) => Err(Clash::Id(record.id)),
            None => self.put(record),
        }
    }

    /// Adds a record, or replaces the one of its id: for a source that may show a key twice.
    ///
    /// # Errors
    /// When its digest is another key's, or there are too many. Then nothing is changed.
    pub fn put(&mut self, record: KeyRecord) -> Result<(), Clash> {
        let id = record.id;
        if self.owner(&record).is_some_and(|owner| owner != id) {
            return Err(Clash::Digest(id));
        }
        match self.records.find(hash_of_id(&id), |record| record.id == id) {
            None if self.records.len() >= KEYS_MAX => return Err(Clash::TooMany),
            None => {}
            Some(old) => {
                let entry = DigestEntry::of(old);
                self.peppers.subtract(old);
                self.digests.remove(entry.hash(), |other| *other == entry);
            }
        }
        let entry = DigestEntry::of(&record);
        self.peppers.add(&record);
        self.digests.put(entry, |entry| entry.id == id);
        self.records.put(record, |record| record.id == id);
        Ok(())
    }

    /// States a tenant's own status. False when that was done before.
    pub fn add_tenant(&mut self, name: Arc<str>, is_suspended: bool) -> bool {
        match is_suspended {
            true => self.suspended_tenants.insert(Arc::clone(&name)),
            false => self.suspended_tenants.remove(&name),
        };
        self.tenants.insert(name)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The set.
    pub fn build(self) -> KeySet {
        KeySet {
            records: self.records.build(),
            digests: self.digests.build(),
            peppers: self.peppers,
            suspended_tenants: Arc::new(self.suspended_tenants),
        }
    }
}
