//! A set of keys that is put together record by record, beside the one whose place it takes.

use std::collections::HashSet;
use std::sync::Arc;

use super::kept::{KeptKey, SharedTerms};
use super::key::KeyId;
use super::key_set::{Clash, DigestEntry, KEYS_MAX, KeySet, PepperUses, hash_of_id};
use super::record::{KeyRecord, Shared};
use super::table::Hashed;
use super::table::draft::Draft;

/// A set that is being put together.
#[derive(Default)]
pub struct Builder {
    kept: Draft<KeptKey>,
    digests: Draft<DigestEntry>,
    peppers: PepperUses,
    suspended_tenants: HashSet<Arc<str>>,
    tenants: HashSet<Arc<str>>,
    terms: SharedTerms,
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
            kept: Draft::beside(&present.kept, expected),
            digests: Draft::beside(&present.digests, expected),
            ..Self::default()
        }
    }

    fn by_id(&self, id: &KeyId) -> Option<&KeptKey> {
        self.kept.find(hash_of_id(id), |kept| kept.id == *id)
    }

    /// Which key has this very digest already.
    fn owner(&self, wanted: &KeptKey) -> Option<KeyId> {
        let entry = DigestEntry::of(wanted);
        let is_it = |other: &DigestEntry| {
            let has_it = |found: &KeptKey| found.hmac_sha256 == wanted.hmac_sha256;
            other.tail == entry.tail && self.by_id(&other.id).is_some_and(has_it)
        };
        self.digests.find(entry.hash(), is_it).map(|entry| entry.id)
    }

    /// Adds a record.
    ///
    /// # Errors
    /// When it cannot be beside those before it. Then nothing is changed.
    pub fn add(&mut self, record: KeyRecord) -> Result<(), Clash> {
        let kept = KeptKey::of(record, &mut self.terms);
        if self.by_id(&kept.id).is_some() {
            return Err(Clash::Id(kept.id));
        }
        self.put_beside(kept)
    }

    /// Adds a record, or replaces the one of its id: for a source that may show a key twice.
    ///
    /// # Errors
    /// When its digest is another key's, or there are too many. Then nothing is changed.
    pub fn put(&mut self, record: KeyRecord) -> Result<(), Clash> {
        let kept = KeptKey::of(record, &mut self.terms);
        let id = kept.id;
        let Some(old) = self.kept.find(hash_of_id(&id), |kept| kept.id == id) else {
            return self.put_beside(kept);
        };
        let old_entry = DigestEntry::of(old);
        if self.owner(&kept).is_some_and(|owner| owner != id) {
            return Err(Clash::Digest(id));
        }
        self.peppers.subtract(old);
        self.digests.remove(old_entry.hash(), |other| *other == old_entry);
        self.peppers.add(&kept);
        self.digests.push(DigestEntry::of(&kept));
        self.kept.put(kept, |kept| kept.id == id);
        Ok(())
    }

    /// Adds a key of whose id there is none.
    fn put_beside(&mut self, kept: KeptKey) -> Result<(), Clash> {
        if self.owner(&kept).is_some() {
            return Err(Clash::Digest(kept.id));
        }
        if self.kept.len() >= KEYS_MAX {
            return Err(Clash::TooMany);
        }
        self.peppers.add(&kept);
        self.digests.push(DigestEntry::of(&kept));
        self.kept.push(kept);
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
        self.kept.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The set.
    pub fn build(self) -> KeySet {
        KeySet {
            kept: self.kept.build(),
            digests: self.digests.build(),
            peppers: self.peppers,
            suspended_tenants: Arc::new(self.suspended_tenants),
        }
    }
}
