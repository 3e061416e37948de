//! All keys at one moment: immutable, each found in constant time.
//!
//! ```text
//! issued key   ─► key id ──────────────► by_id ─────┐
//!                                                   ├─► records[n]
//! imported key ─► HMAC under each pepper ─► by_digest ┘
//! ```
//!
//! A record has some hundred bytes, texts that many records share not counted, so that a million
//! keys fit twice into memory while one set replaces another.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::digest::{DIGEST_LEN, Peppers};
use super::key::{ApiKey, ImportedKey, KeyId, Presented};
use super::record::{KeyRecord, Kind, Shared};

/// The most keys in force at a time.
pub const KEYS_MAX: usize = 1_000_000;

/// The keys of one state of their source.
#[derive(Debug)]
pub struct Keyring {
    records: Box<[KeyRecord]>,
    by_id: HashMap<KeyId, u32>,
    by_digest: HashMap<[u8; DIGEST_LEN], u32>,
    /// The peppers that imported keys were hashed with.
    imported_peppers: Vec<u32>,
    suspended_tenants: HashSet<Arc<str>>,
    peppers: Arc<Peppers>,
}

/// What a keyring says of a key.
pub enum Found<'s> {
    /// It was issued or imported; whether it may be used now is for its record to say.
    Key(&'s KeyRecord),
    /// Its id was issued with another secret.
    WrongSecret,
    /// Nobody issued or imported it.
    Unknown,
}

/// Why a record cannot be in a keyring.
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

/// A keyring that is being put together.
#[derive(Default)]
pub struct Builder {
    records: Vec<KeyRecord>,
    by_id: HashMap<KeyId, u32>,
    /// The first half of each digest: enough to notice two that may be equal.
    digest_heads: HashSet<u128>,
    suspended_tenants: HashSet<Arc<str>>,
    tenants: HashSet<Arc<str>>,
    /// What records have in common.
    pub shared: Shared,
}

impl Builder {
    /// Makes room for so many more.
    pub fn reserve(&mut self, count: usize) {
        let count = count.min(KEYS_MAX.saturating_sub(self.records.len()));
        self.records.reserve_exact(count);
        self.by_id.reserve(count);
        self.digest_heads.reserve(count);
    }

    /// Adds a record.
    ///
    /// # Errors
    /// When it cannot be beside those before it.
    pub fn add(&mut self, record: KeyRecord) -> Result<(), Clash> {
        if self.records.len() == KEYS_MAX {
            return Err(Clash::TooMany);
        }
        let at = u32::try_from(self.records.len()).expect("KEYS_MAX is below 2^32");
        if self.by_id.insert(record.id, at).is_some() {
            return Err(Clash::Id(record.id));
        }
        let (head, _) = record.digest.hmac_sha256.split_at(16);
        let head = u128::from_be_bytes(head.try_into().expect("sixteen bytes"));
        let equal = |other: &KeyRecord| other.digest.hmac_sha256 == record.digest.hmac_sha256;
        if !self.digest_heads.insert(head) && self.records.iter().any(equal) {
            return Err(Clash::Digest(record.id));
        }
        self.records.push(record);
        Ok(())
    }

    /// States a tenant's own status. False when that was done before.
    pub fn add_tenant(&mut self, name: Arc<str>, is_suspended: bool) -> bool {
        if is_suspended {
            self.suspended_tenants.insert(Arc::clone(&name));
        }
        self.tenants.insert(name)
    }

    /// The keyring, under these peppers, which the records' digests name.
    pub fn build(self, peppers: Arc<Peppers>) -> Keyring {
        let mut by_digest = HashMap::new();
        let mut imported_peppers = Vec::new();
        for (at, record) in (0_u32..).zip(&self.records) {
            if record.kind == Kind::Imported {
                by_digest.insert(record.digest.hmac_sha256, at);
                if !imported_peppers.contains(&record.digest.pepper) {
                    imported_peppers.push(record.digest.pepper);
                }
            }
        }
        Keyring {
            records: self.records.into_boxed_slice(),
            by_id: self.by_id,
            by_digest,
            imported_peppers,
            suspended_tenants: self.suspended_tenants,
            peppers,
        }
    }
}

impl Keyring {
    /// Of records with different ids and digests, under the peppers that those name.
    ///
    /// # Errors
    /// When two of them clash.
    pub fn try_new(
        records: impl IntoIterator<Item = KeyRecord>,
        peppers: Arc<Peppers>,
    ) -> Result<Self, Clash> {
        let mut builder = Builder::default();
        for record in records {
            builder.add(record)?;
        }
        Ok(builder.build(peppers))
    }

    /// Looks a key up.
    pub fn find(&self, key: &Presented<'_>) -> Found<'_> {
        match key {
            Presented::Issued(key) => self.find_issued(key),
            Presented::Imported(key) => self.find_imported(key),
        }
    }

    /// One hash map probe, one HMAC and one comparison, whatever comes of it.
    fn find_issued(&self, key: &ApiKey<'_>) -> Found<'_> {
        let record = self.by_id.get(&key.id()).map(|at| &self.records[*at as usize]);
        let record = record.filter(|record| record.kind == Kind::Issued);
        let matches = self.peppers.matches(key, record.map(|record| &record.digest));
        match record {
            Some(record) if matches => Found::Key(record),
            Some(_) => Found::WrongSecret,
            None => Found::Unknown,
        }
    }

    /// One HMAC and one probe for each pepper that such keys have, whatever comes of it. The time a
    /// probe takes says nothing: its key is an HMAC under a secret.
    fn find_imported(&self, key: &ImportedKey<'_>) -> Found<'_> {
        let mut found = Found::Unknown;
        for version in &self.imported_peppers {
            let digest = self.peppers.hmac(*version, key.expose());
            if let Some(at) = digest.and_then(|digest| self.by_digest.get(&digest)) {
                found = Found::Key(&self.records[*at as usize]);
            }
        }
        found
    }

    /// Whether any key was imported; without one nothing but issued keys is ever hashed.
    pub fn has_imported(&self) -> bool {
        !self.imported_peppers.is_empty()
    }

    /// Whether a tenant as a whole may not pass.
    pub fn is_suspended(&self, tenant: &str) -> bool {
        !self.suspended_tenants.is_empty() && self.suspended_tenants.contains(tenant)
    }

    /// The numbers of the peppers.
    pub fn pepper_versions(&self) -> impl Iterator<Item = u32> {
        self.peppers.versions()
    }

    /// How many of these keys another keyring has not.
    pub fn missing_from(&self, other: &Keyring) -> usize {
        self.records.iter().filter(|record| !other.by_id.contains_key(&record.id)).count()
    }

    /// Whether replacing this keyring looks like a file that was cut: nothing is left, or more than
    /// a tenth of the keys is gone.
    pub fn is_cut_by(&self, newer: &Keyring) -> bool {
        let emptied = newer.is_empty() && !self.is_empty();
        emptied || self.missing_from(newer) * 10 > self.len()
    }

    /// How many keys there are, revoked and expired ones included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none, so that every request is denied.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
#[path = "keyring/tests.rs"]
mod tests;
