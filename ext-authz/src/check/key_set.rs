//! All keys of one source at one moment, each found in constant time, by id or by digest. A changed
//! copy shares all that did not change, so that a revocation among a million keys is small work.
//!
//! A record has some hundred bytes, texts that many records share not counted, so that a million
//! keys fit twice into memory while one set replaces another.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::digest::DIGEST_LEN;
use super::key::KeyId;
use super::record::{KeyRecord, Kind, Shared};
use super::trie::Trie;
use super::trie::bulk::Bulk;

/// The most keys in force at a time.
pub const KEYS_MAX: usize = 1_000_000;

/// How much of a digest, at its end, stands beside the id that has it.
const TAIL_LEN: usize = 8;

/// The keys of one state of their source.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    records: Trie<KeyRecord>,
    digests: Trie<DigestEntry>,
    /// How many keys, and how many imported ones, were hashed with each pepper.
    peppers: BTreeMap<u32, Uses>,
    suspended_tenants: Arc<HashSet<Arc<str>>>,
}

/// Which key has a digest that ends so.
#[derive(Clone, Debug)]
struct DigestEntry {
    tail: [u8; TAIL_LEN],
    id: KeyId,
}

#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    keys: usize,
    imported: usize,
}

/// Why a record cannot be in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// Its id is taken.
    #[error("key id '{0}' is used twice")]
    Id(KeyId),
    /// Its digest is another key's: one key would have two owners.
    #[error("key '{0}' has the digest of another key")]
    Digest(KeyId),
    /// There are too many.
    #[error("more than {KEYS_MAX} keys")]
    TooMany,
}

impl Clash {
    /// The key that cannot be beside the others.
    pub fn id(&self) -> Option<&KeyId> {
        match self {
            Self::Id(id) | Self::Digest(id) => Some(id),
            Self::TooMany => None,
        }
    }
}

impl KeySet {
    /// The key of this id.
    pub fn by_id(&self, id: &KeyId) -> Option<&KeyRecord> {
        self.records.find(hash_of_id(id), |record| record.id == *id)
    }

    /// The key of this digest.
    pub fn by_digest(&self, digest: &[u8; DIGEST_LEN]) -> Option<&KeyRecord> {
        let tail = tail(digest);
        let is_it = |entry: &DigestEntry| {
            entry.tail == tail
                && self.by_id(&entry.id).is_some_and(|found| found.digest.hmac_sha256 == *digest)
        };
        self.by_id(&self.digests.find(xxh3_64(&tail), is_it)?.id)
    }

    /// Of many records at once.
    fn of(pending: Bulk<KeyRecord>, suspended: Arc<HashSet<Arc<str>>>) -> Result<Self, Clash> {
        let records = pending.build(|record| hash_of_id(&record.id));
        let mut set = Self { records, suspended_tenants: suspended, ..Self::default() };
        if let Some((_, again)) = set.records.pair(|one, other| one.id == other.id) {
            return Err(Clash::Id(again.id));
        }
        let mut digests = Bulk::default();
        for record in set.records.iter() {
            let entry = DigestEntry { tail: tail(&record.digest.hmac_sha256), id: record.id };
            digests.push(xxh3_64(&entry.tail), entry);
            set.peppers.entry(record.digest.pepper).or_default().add(record.kind);
        }
        set.digests = digests.build(|entry| xxh3_64(&entry.tail));
        let digest_of = |entry: &DigestEntry| set.by_id(&entry.id).map(|found| &found.digest);
        let is_same = |one: &DigestEntry, other: &DigestEntry| {
            let digests = || (digest_of(one), digest_of(other));
            one.tail == other.tail
                && matches!(digests(), (Some(one), Some(other)) if one.hmac_sha256 == other.hmac_sha256)
        };
        match set.digests.pair(is_same) {
            Some((_, again)) => Err(Clash::Digest(again.id)),
            None => Ok(set),
        }
    }

    /// Adds a key, or replaces the one of its id.
    ///
    /// # Errors
    /// When its digest is another key's, or there are too many. Then nothing is changed.
    pub fn put(&mut self, record: KeyRecord) -> Result<(), Clash> {
        let owner = self.by_digest(&record.digest.hmac_sha256);
        if owner.is_some_and(|owner| owner.id != record.id) {
            return Err(Clash::Digest(record.id));
        }
        if !self.remove(&record.id) && self.len() == KEYS_MAX {
            return Err(Clash::TooMany);
        }
        let (id, digest) = (record.id, record.digest.hmac_sha256);
        self.peppers.entry(record.digest.pepper).or_default().add(record.kind);
        let entry = DigestEntry { tail: tail(&digest), id };
        self.digests.put(xxh3_64(&entry.tail), entry, |entry| entry.id == id);
        self.records.put(hash_of_id(&id), record, |record| record.id == id);
        Ok(())
    }

    /// Takes a key out. Returns whether there was one.
    pub fn remove(&mut self, id: &KeyId) -> bool {
        let Some(record) = self.by_id(id) else { return false };
        let (digest, kind) = (record.digest.clone(), record.kind);
        self.digests.remove(xxh3_64(&tail(&digest.hmac_sha256)), |entry| entry.id == *id);
        self.records.remove(hash_of_id(id), |record| record.id == *id);
        if let Some(uses) = self.peppers.get_mut(&digest.pepper) {
            uses.keys -= 1;
            uses.imported -= usize::from(kind == Kind::Imported);
        }
        self.peppers.retain(|_, uses| uses.keys > 0);
        true
    }

    /// States whether a tenant as a whole may not pass.
    pub fn set_tenant(&mut self, name: Arc<str>, is_suspended: bool) {
        let tenants = Arc::make_mut(&mut self.suspended_tenants);
        match is_suspended {
            true => tenants.insert(name),
            false => tenants.remove(&name),
        };
    }

    /// Whether a tenant as a whole may not pass.
    pub fn is_suspended(&self, tenant: &str) -> bool {
        !self.suspended_tenants.is_empty() && self.suspended_tenants.contains(tenant)
    }

    /// All keys, in the order of nothing in particular.
    pub fn iter(&self) -> impl Iterator<Item = &KeyRecord> {
        self.records.iter()
    }

    /// The tenants that may not pass.
    pub fn suspended_tenants(&self) -> impl Iterator<Item = &str> {
        self.suspended_tenants.iter().map(|name| &**name)
    }

    /// The numbers of the peppers that keys were hashed with.
    pub fn peppers(&self) -> impl Iterator<Item = u32> {
        self.peppers.keys().copied()
    }

    /// The numbers of the peppers that imported keys were hashed with.
    pub fn imported_peppers(&self) -> impl Iterator<Item = u32> {
        self.peppers.iter().filter(|(_, uses)| uses.imported > 0).map(|(version, _)| *version)
    }

    /// How many of these keys another set has not.
    pub fn missing_from(&self, other: &KeySet) -> usize {
        self.records.iter().filter(|record| other.by_id(&record.id).is_none()).count()
    }

    /// Whether replacing this set looks as if the newer one was cut: nothing is left, or more than
    /// a tenth of the keys is gone.
    pub fn is_cut_by(&self, newer: &KeySet) -> bool {
        let emptied = newer.is_empty() && !self.is_empty();
        emptied || self.missing_from(newer) * 10 > self.len()
    }

    /// Why a key cannot be in force beside this set.
    pub fn clash_with(&self, record: &KeyRecord) -> Option<Clash> {
        if self.by_id(&record.id).is_some() {
            return Some(Clash::Id(record.id));
        }
        self.by_digest(&record.digest.hmac_sha256).map(|_| Clash::Digest(record.id))
    }

    /// Why two sets cannot be in force together. Looks at the keys of the smaller one.
    pub fn clash(&self, other: &KeySet) -> Option<Clash> {
        let (few, many) = if self.len() < other.len() { (self, other) } else { (other, self) };
        if few.len() + many.len() > KEYS_MAX {
            return Some(Clash::TooMany);
        }
        few.records.iter().find_map(|record| many.clash_with(record))
    }

    /// How many keys there are, revoked and expired ones included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

fn hash_of_id(id: &KeyId) -> u64 {
    xxh3_64(id.as_bytes())
}

fn tail(digest: &[u8; DIGEST_LEN]) -> [u8; TAIL_LEN] {
    *digest.last_chunk().expect("a digest is longer")
}

impl Uses {
    fn add(&mut self, kind: Kind) {
        self.keys += 1;
        self.imported += usize::from(kind == Kind::Imported);
    }
}

/// A set that is being put together.
#[derive(Default)]
pub struct Builder {
    set: KeySet,
    pending: Bulk<KeyRecord>,
    tenants: HashSet<Arc<str>>,
    /// What records have in common.
    pub shared: Shared,
}

impl Builder {
    /// Adds a record.
    ///
    /// # Errors
    /// When it cannot be beside those before it.
    pub fn add(&mut self, record: KeyRecord) -> Result<(), Clash> {
        match self.set.by_id(&record.id) {
            Some(_) => Err(Clash::Id(record.id)),
            None => self.set.put(record),
        }
    }

    /// Adds a record that is looked at no sooner than [`Self::settle`], so that nothing is copied
    /// because others came after it.
    ///
    /// # Errors
    /// When there are too many.
    pub fn push(&mut self, record: KeyRecord) -> Result<(), Clash> {
        if self.set.len() + self.pending.len() >= KEYS_MAX {
            return Err(Clash::TooMany);
        }
        self.pending.push(hash_of_id(&record.id), record);
        Ok(())
    }

    /// Puts what was pushed into the set.
    ///
    /// # Errors
    /// When a record cannot be beside the others. Then the builder is good for nothing any more.
    pub fn settle(&mut self) -> Result<(), Clash> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        if self.set.is_empty() {
            self.set = KeySet::of(pending, Arc::clone(&self.set.suspended_tenants))?;
            return Ok(());
        }
        pending
            .build(|record| hash_of_id(&record.id))
            .iter()
            .try_for_each(|record| self.add(record.clone()))
    }

    /// Adds a record, or replaces the one of its id: for a source that may show a key twice.
    ///
    /// # Errors
    /// As [`KeySet::put`].
    pub fn put(&mut self, record: KeyRecord) -> Result<(), Clash> {
        self.set.put(record)
    }

    /// States a tenant's own status. False when that was done before.
    pub fn add_tenant(&mut self, name: Arc<str>, is_suspended: bool) -> bool {
        self.set.set_tenant(Arc::clone(&name), is_suspended);
        self.tenants.insert(name)
    }

    /// The set, without what was not settled.
    pub fn build(self) -> KeySet {
        self.set
    }
}

#[cfg(test)]
#[path = "key_set/tests.rs"]
mod tests;
