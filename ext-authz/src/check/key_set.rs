//! All keys of one source at one moment, each found in constant time, by id or by digest. A changed
//! copy shares all that did not change, so that a revocation among a million keys is small work.
//!
//! A key has 72 bytes, what many keys share not counted, so that a million of them fit twice into
//! memory while one set replaces another.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::digest::DIGEST_LEN;
use super::kept::{KeptKey, SharedTerms};
use super::key::KeyId;
use super::record::{KeyRecord, Kind};
use super::table::{Hashed, ITEMS_MAX, Table};

/// The most keys in force at a time.
pub const KEYS_MAX: usize = 1_000_000;

const _: () = assert!(KEYS_MAX <= ITEMS_MAX, "all keys fit into a table");

/// How much of a digest, at its end, stands beside the id that has it.
const TAIL_LEN: usize = 8;

/// The keys of one state of their source.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    pub(super) kept: Table<KeptKey>,
    pub(super) digests: Table<DigestEntry>,
    pub(super) peppers: PepperUses,
    pub(super) suspended_tenants: Arc<HashSet<Arc<str>>>,
}

/// Which key has a digest that ends so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DigestEntry {
    pub(super) tail: [u8; TAIL_LEN],
    pub(super) id: KeyId,
}

/// How many keys, and how many imported ones, were hashed with each pepper.
#[derive(Clone, Debug, Default)]
pub(super) struct PepperUses(BTreeMap<u32, Uses>);

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

impl KeySet {
    /// The key of this id.
    pub fn by_id(&self, id: &KeyId) -> Option<&KeptKey> {
        self.kept.find(hash_of_id(id), |kept| kept.id == *id)
    }

    /// The key of this digest.
    pub fn by_digest(&self, digest: &[u8; DIGEST_LEN]) -> Option<&KeptKey> {
        let kept = |id: &KeyId| self.by_id(id).filter(|found| found.hmac_sha256 == *digest);
        let tail = tail(digest);
        let is_it = |entry: &DigestEntry| entry.tail == tail && kept(&entry.id).is_some();
        kept(&self.digests.find(hash_of_tail(&tail), is_it)?.id)
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
        let kept = KeptKey::of(record, &mut SharedTerms::default());
        let (id, entry) = (kept.id, DigestEntry::of(&kept));
        self.peppers.add(&kept);
        self.digests.put(entry, |entry| entry.id == id);
        self.kept.put(kept, |kept| kept.id == id);
        Ok(())
    }

    /// Takes a key out. Returns whether there was one.
    pub fn remove(&mut self, id: &KeyId) -> bool {
        let found = self.kept.find(hash_of_id(id), |kept| kept.id == *id);
        let Some(kept) = found else { return false };
        let entry = DigestEntry::of(kept);
        self.peppers.subtract(kept);
        self.digests.remove(entry.hash(), |other| *other == entry);
        self.kept.remove(hash_of_id(id), |kept| kept.id == *id)
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
    pub fn iter(&self) -> impl Iterator<Item = &KeptKey> {
        self.kept.iter()
    }

    /// The tenants that may not pass.
    pub fn suspended_tenants(&self) -> impl Iterator<Item = &str> {
        self.suspended_tenants.iter().map(|name| &**name)
    }

    /// The numbers of the peppers that keys were hashed with.
    pub fn peppers(&self) -> impl Iterator<Item = u32> {
        self.peppers.0.keys().copied()
    }

    /// The numbers of the peppers that imported keys were hashed with.
    pub fn imported_peppers(&self) -> impl Iterator<Item = u32> {
        self.peppers.0.iter().filter(|(_, uses)| uses.imported > 0).map(|(version, _)| *version)
    }

    /// How many of these keys another set has not.
    pub fn missing_from(&self, other: &KeySet) -> usize {
        let unshared = self.kept.unshared_with(&other.kept);
        unshared.filter(|kept| other.by_id(&kept.id).is_none()).count()
    }

    /// Whether replacing this set looks as if the newer one was cut: nothing is left, or more than
    /// a tenth of the keys is gone.
    pub fn is_cut_by(&self, newer: &KeySet) -> bool {
        let emptied = newer.is_empty() && !self.is_empty();
        emptied || self.missing_from(newer) * 10 > self.len()
    }

    /// Why a key cannot be in force beside this set.
    pub fn clash_with(&self, record: &KeyRecord) -> Option<Clash> {
        self.clash_of(record.id, &record.digest.hmac_sha256)
    }

    fn clash_of(&self, id: KeyId, hmac_sha256: &[u8; DIGEST_LEN]) -> Option<Clash> {
        if self.by_id(&id).is_some() {
            return Some(Clash::Id(id));
        }
        self.by_digest(hmac_sha256).map(|_| Clash::Digest(id))
    }

    /// Why two sets cannot be in force together. Looks at the keys of the smaller one.
    pub fn clash(&self, other: &KeySet) -> Option<Clash> {
        let (few, many) = if self.len() < other.len() { (self, other) } else { (other, self) };
        if few.len() + many.len() > KEYS_MAX {
            return Some(Clash::TooMany);
        }
        few.kept.iter().find_map(|kept| many.clash_of(kept.id, &kept.hmac_sha256))
    }

    /// How many keys there are, revoked and expired ones included.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

impl Hashed for KeptKey {
    fn hash(&self) -> u64 {
        hash_of_id(&self.id)
    }
}

impl Hashed for DigestEntry {
    fn hash(&self) -> u64 {
        hash_of_tail(&self.tail)
    }
}

impl DigestEntry {
    pub(super) fn of(kept: &KeptKey) -> Self {
        Self { tail: tail(&kept.hmac_sha256), id: kept.id }
    }
}

impl PepperUses {
    pub(super) fn add(&mut self, kept: &KeptKey) {
        let uses = self.0.entry(kept.terms.pepper).or_default();
        uses.keys += 1;
        uses.imported += usize::from(kept.terms.kind == Kind::Imported);
    }

    pub(super) fn subtract(&mut self, kept: &KeptKey) {
        let pepper = kept.terms.pepper;
        if let Some(uses) = self.0.get_mut(&pepper) {
            uses.keys -= 1;
            uses.imported -= usize::from(kept.terms.kind == Kind::Imported);
            if uses.keys == 0 {
                self.0.remove(&pepper);
            }
        }
    }
}

pub(super) fn hash_of_id(id: &KeyId) -> u64 {
    xxh3_64(id.as_bytes())
}

fn hash_of_tail(tail: &[u8; TAIL_LEN]) -> u64 {
    xxh3_64(tail)
}

fn tail(digest: &[u8; DIGEST_LEN]) -> [u8; TAIL_LEN] {
    *digest.last_chunk().expect("a digest is longer")
}

#[cfg(test)]
#[path = "key_set/tests.rs"]
mod tests;
