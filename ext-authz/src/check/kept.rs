//! A key as it is kept in memory, of which there may be a million: what keys have in common is there
//! once.
//!
//! ```text
//! id 12 │ HMAC 32 │ tenant ─► name │ terms ─► pepper, times, status, kind, grant
//!                                        └── one for all keys that have the same
//! ```

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::digest::{DIGEST_LEN, Digest};
use super::key::KeyId;
use super::record::{Grant, KeyRecord, Kind, SHARED_MAX, Status, Validity, validity};
use crate::timestamp::Timestamp;

/// One key in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptKey {
    /// What logs call the key.
    pub id: KeyId,
    /// HMAC-SHA-256 of the whole key.
    pub hmac_sha256: [u8; DIGEST_LEN],
    /// Who calls with it.
    pub tenant: Arc<str>,
    /// All else.
    pub terms: Arc<Terms>,
}

/// On what terms a key may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Which pepper the HMAC was made with.
    pub pepper: u32,
    /// The first moment at which the key is valid.
    pub not_before: Option<Timestamp>,
    /// The first moment at which it is no longer valid.
    pub expires_at: Option<Timestamp>,
    /// Whether it was taken back.
    pub status: Status,
    /// Where it comes from.
    pub kind: Kind,
    /// What it may do.
    pub grant: Arc<Grant>,
}

/// Keeps one copy of terms that many keys have, as long as it has room for what is different.
#[derive(Default)]
pub struct SharedTerms {
    known: HashMap<u64, Arc<Terms>>,
    /// Keys beside each other are mostly alike.
    last: Option<Arc<Terms>>,
}

impl KeptKey {
    /// What is kept of a record.
    pub fn of(record: KeyRecord, shared: &mut SharedTerms) -> Self {
        let Digest { pepper, hmac_sha256 } = record.digest;
        let KeyRecord { id, tenant, grant, not_before, expires_at, status, kind, .. } = record;
        let terms = Terms { pepper, not_before, expires_at, status, kind, grant };
        Self { id, hmac_sha256, tenant, terms: shared.terms(terms) }
    }

    /// The record that it was made of.
    pub fn to_record(&self) -> KeyRecord {
        let terms = &*self.terms;
        KeyRecord {
            id: self.id,
            tenant: Arc::clone(&self.tenant),
            grant: Arc::clone(&terms.grant),
            digest: Digest { pepper: terms.pepper, hmac_sha256: self.hmac_sha256 },
            not_before: terms.not_before,
            expires_at: terms.expires_at,
            status: terms.status,
            kind: terms.kind,
        }
    }

    /// Valid from `not_before` on and until just before `expires_at`.
    pub fn validity(&self, now: Timestamp) -> Validity {
        let terms = &*self.terms;
        validity(terms.status, terms.not_before, terms.expires_at, now)
    }
}

impl SharedTerms {
    fn terms(&mut self, terms: Terms) -> Arc<Terms> {
        if let Some(last) = self.last.as_ref().filter(|last| ***last == terms) {
            return Arc::clone(last);
        }
        let mut hasher = DefaultHasher::new();
        let moments = [terms.not_before, terms.expires_at].map(|at| at.map(Timestamp::as_millis));
        (terms.pepper, moments, terms.status, terms.kind).hash(&mut hasher);
        // Where grants are there once as well, that is the same for the same.
        Arc::as_ptr(&terms.grant).addr().hash(&mut hasher);
        let hash = hasher.finish();
        let known = self.known.get(&hash).filter(|known| ***known == terms);
        let terms = known.map_or_else(|| Arc::new(terms), Arc::clone);
        if self.known.len() < SHARED_MAX {
            self.known.insert(hash, Arc::clone(&terms));
        }
        self.last = Some(Arc::clone(&terms));
        terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u8) -> KeyRecord {
        KeyRecord {
            id: KeyId::parse(&format!("{number:012}")).expect("a key id"),
            tenant: "acme".into(),
            grant: Arc::new(Grant {
                priority: "ingest".into(),
                plan: "default".into(),
                scopes: vec!["write".into()],
                networks: Vec::new(),
            }),
            digest: Digest { pepper: 3, hmac_sha256: [number; DIGEST_LEN] },
            not_before: None,
            expires_at: Some(Timestamp::from_millis(i64::from(number % 2))),
            status: Status::Suspended,
            kind: Kind::Imported,
        }
    }

    #[test]
    fn a_kept_key_is_small_shares_its_terms_and_is_the_record_again() {
        assert!(size_of::<KeptKey>() <= 72, "{}", size_of::<KeptKey>());
        let (mut shared, grant) = (SharedTerms::default(), record(0).grant);
        let alike = |number| KeyRecord { grant: Arc::clone(&grant), ..record(number) };
        let kept: Vec<KeptKey> = (0..4).map(|n| KeptKey::of(alike(n), &mut shared)).collect();
        for (number, kept) in (0..).zip(&kept) {
            assert_eq!(kept.to_record(), record(number));
            assert_eq!(kept.validity(Timestamp::from_millis(9)), Validity::Suspended);
        }
        assert!(Arc::ptr_eq(&kept[0].terms, &kept[2].terms));
        assert!(Arc::ptr_eq(&kept[1].terms, &kept[3].terms));
        assert_ne!(kept[0].terms, kept[1].terms);
    }

    #[test]
    fn terms_are_shared_while_there_is_room() {
        let (mut shared, alike) = (SharedTerms::default(), record(0));
        let mut of = |millis| {
            let expires_at = Some(Timestamp::from_millis(millis));
            KeptKey::of(KeyRecord { expires_at, ..alike.clone() }, &mut shared).terms
        };
        let first = of(-1);
        for millis in 0..i64::try_from(SHARED_MAX).expect("few") {
            of(millis);
        }
        assert!(Arc::ptr_eq(&first, &of(-1)));
        let more = of(i64::MAX);
        assert!(Arc::ptr_eq(&more, &of(i64::MAX)), "of neighbours there is always one");
        of(0);
        assert!(!Arc::ptr_eq(&more, &of(i64::MAX)));
        assert_eq!(shared.known.len(), SHARED_MAX);
    }
}
