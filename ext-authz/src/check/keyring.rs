//! The keys of all sources at one moment: immutable, each found in constant time.
//!
//! ```text
//! issued key   ─► key id ──────────────────┐
//!                                          ├─► the sources' sets, one after the other
//! imported key ─► HMAC under each pepper ──┘
//! ```
//!
//! A source that could not be asked for too long is stale: what it last said may be wrong by now,
//! and it may have keys that nobody here knows. A source that was never read lacks all of its keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::digest::{DIGEST_LEN, Peppers};
use super::kept::KeptKey;
use super::key::{ApiKey, ImportedKey, Presented};
use super::key_set::{Clash, KeySet};
use super::record::{KeyRecord, Kind};

/// The keys of every source.
#[derive(Clone, Debug)]
pub struct Keyring {
    parts: Vec<Part>,
    is_whole: bool,
    bypass_classes: Arc<[String]>,
    peppers: Arc<Peppers>,
}

/// The keys of one source.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its keys, as last read.
    pub keys: Arc<KeySet>,
    /// Whether that was too long ago.
    pub is_stale: bool,
}

/// What a keyring says of a key.
pub enum Found<'s> {
    /// It was issued or imported; whether it may be used now is for its record to say.
    Key(&'s KeptKey),
    /// The same, as it was when its source could last be asked.
    StaleKey(&'s KeptKey),
    /// Its id was issued with another secret.
    WrongSecret,
    /// Nobody issued or imported it.
    Unknown,
    /// It is not among those known here, which are not all.
    Unsure,
}

impl Keyring {
    /// The keys of those sources that were ever read; `is_whole` says whether that is all. Keys of
    /// the classes that bypass pass on what their source last said.
    pub fn new(
        parts: Vec<Part>,
        is_whole: bool,
        bypass_classes: Arc<[String]>,
        peppers: Arc<Peppers>,
    ) -> Self {
        Self { parts, is_whole, bypass_classes, peppers }
    }

    /// Of records with different ids and digests, under the peppers that those name.
    ///
    /// # Errors
    /// When two of them clash.
    pub fn try_new(
        records: impl IntoIterator<Item = KeyRecord>,
        peppers: Arc<Peppers>,
    ) -> Result<Self, Clash> {
        let mut builder = super::builder::Builder::default();
        for record in records {
            builder.add(record)?;
        }
        Ok(Self::of(builder.build(), peppers))
    }

    /// Of one source, fresh.
    pub fn of(keys: KeySet, peppers: Arc<Peppers>) -> Self {
        let part = Part { keys: Arc::new(keys), is_stale: false };
        Self::new(vec![part], true, Arc::new([]), peppers)
    }

    /// Looks a key up.
    pub fn find(&self, key: &Presented<'_>) -> Found<'_> {
        match key {
            Presented::Issued(key) => self.find_issued(key),
            Presented::Imported(key) => self.find_imported(key),
        }
    }

    /// A probe of each source, one HMAC and one comparison, whatever comes of it.
    fn find_issued(&self, key: &ApiKey<'_>) -> Found<'_> {
        let id = key.id();
        let found = self.parts.iter().find_map(|part| Some((part, part.keys.by_id(&id)?)));
        let found = found.filter(|(_, kept)| kept.terms.kind == Kind::Issued);
        let pepper = found.map(|(_, kept)| kept.terms.pepper);
        let hmac = found.map_or(&[0; DIGEST_LEN], |(_, kept)| &kept.hmac_sha256);
        let matches = self.peppers.matches(key, pepper, hmac);
        match found {
            Some((part, kept)) if matches => part.found(kept),
            Some(_) => Found::WrongSecret,
            None => self.not_found(),
        }
    }

    /// One HMAC for each pepper that such keys have, and a probe of each source, whatever comes of it.
    /// The time a probe takes says nothing: its key is an HMAC under a secret.
    fn find_imported(&self, key: &ImportedKey<'_>) -> Found<'_> {
        let versions: BTreeSet<u32> =
            self.parts.iter().flat_map(|part| part.keys.imported_peppers()).collect();
        let digests =
            versions.into_iter().filter_map(|version| self.peppers.hmac(version, key.expose()));
        let mut found = None;
        for digest in digests {
            for part in &self.parts {
                let kept = part.keys.by_digest(&digest);
                if let Some(kept) = kept.filter(|kept| kept.terms.kind == Kind::Imported) {
                    found = Some(part.found(kept));
                }
            }
        }
        found.unwrap_or_else(|| self.not_found())
    }

    fn not_found(&self) -> Found<'_> {
        match self.knows_all() {
            true => Found::Unknown,
            false => Found::Unsure,
        }
    }

    fn knows_all(&self) -> bool {
        self.is_whole && !self.parts.iter().any(|part| part.is_stale)
    }

    /// Whether any key may have been imported; without one nothing but issued keys is ever hashed.
    pub fn has_imported(&self) -> bool {
        let imported = |part: &Part| part.keys.imported_peppers().next().is_some();
        !self.knows_all() || self.parts.iter().any(imported)
    }

    /// Whether keys of a class pass on what their source last said.
    pub fn is_bypass(&self, class: &str) -> bool {
        self.bypass_classes.iter().any(|bypass| bypass == class)
    }

    /// Whether a tenant as a whole may not pass.
    pub fn is_suspended(&self, tenant: &str) -> bool {
        self.parts.iter().any(|part| part.keys.is_suspended(tenant))
    }

    /// The keys of one source, by its place among them.
    pub fn part(&self, place: usize) -> Option<&KeySet> {
        self.parts.get(place).map(|part| &*part.keys)
    }

    /// The numbers of the peppers.
    pub fn pepper_versions(&self) -> impl Iterator<Item = u32> {
        self.peppers.versions()
    }

    /// How many keys there are, revoked and expired ones included.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.keys.len()).sum()
    }

    /// Whether there is none, so that every request is denied.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Part {
    fn found<'s>(&self, kept: &'s KeptKey) -> Found<'s> {
        match self.is_stale {
            true => Found::StaleKey(kept),
            false => Found::Key(kept),
        }
    }
}

#[cfg(test)]
#[path = "keyring/tests.rs"]
mod tests;
