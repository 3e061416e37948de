//! What is known of one key: whom it belongs to, what it may do, from where, and when.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::digest::Digest;
use super::key::KeyId;
use super::network::Network;
use crate::timestamp::Timestamp;

/// How many tenants, and how many grants, are kept once: what finds them takes some 7 MiB then, and
/// each one more has a copy for each of its keys.
pub const SHARED_MAX: usize = 7 << 15;

/// One key, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// What logs call the key: unique, and in an issued key's text.
    pub id: KeyId,
    /// Who calls with it.
    pub tenant: Arc<str>,
    /// What it may do.
    pub grant: Arc<Grant>,
    /// What is stored of the key itself.
    pub digest: Digest,
    /// The first moment at which it is valid.
    pub not_before: Option<Timestamp>,
    /// The first moment at which it is no longer valid.
    pub expires_at: Option<Timestamp>,
    /// Whether it was taken back.
    pub status: Status,
    /// Where it comes from.
    pub kind: Kind,
}

/// What a key may do. Many keys have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The priority class its requests belong to.
    pub priority: String,
    /// The plan its quotas follow.
    pub plan: String,
    /// What it may do; a route may demand one of these.
    pub scopes: Vec<String>,
    /// From where it may be used; from everywhere where none is named.
    pub networks: Vec<Network>,
}

/// Whether a key was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It was not.
    Active,
    /// For a time.
    Suspended,
    /// For ever.
    Revoked,
}

/// Where a key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// From here: its text names its id.
    Issued,
    /// From another system, whose clients go on using it: found by its digest alone.
    Imported,
}

/// Whether a key may be used at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It may.
    Valid,
    /// It was taken back.
    Revoked,
    /// It was taken back for a time.
    Suspended,
    /// It is not valid any more.
    Expired,
    /// It is not valid yet.
    NotYet,
}

impl Status {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }
}

/// Keeps one copy of what many records say, as long as it has room for what is different.
#[derive(Default)]
pub struct Shared {
    tenants: HashSet<Arc<str>>,
    /// By hash: to find one no text is copied.
    grants: HashMap<u64, Arc<Grant>>,
}

impl Shared {
    /// The tenant's one name.
    pub fn tenant(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.tenants.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        if self.tenants.len() < SHARED_MAX {
            self.tenants.insert(Arc::clone(&name));
        }
        name
    }

    /// The one copy of a grant.
    pub fn grant(
        &mut self,
        priority: &str,
        plan: &str,
        scopes: &[String],
        networks: &[Network],
    ) -> Arc<Grant> {
        let mut hasher = DefaultHasher::new();
        (priority, plan, scopes, networks).hash(&mut hasher);
        let hash = hasher.finish();
        let is_it = |known: &&Arc<Grant>| {
            known.priority == priority
                && known.plan == plan
                && known.scopes == scopes
                && known.networks == networks
        };
        if let Some(known) = self.grants.get(&hash).filter(is_it) {
            return Arc::clone(known);
        }
        let grant = Arc::new(Grant {
            priority: priority.to_owned(),
            plan: plan.to_owned(),
            scopes: scopes.to_vec(),
            networks: networks.to_vec(),
        });
        if self.grants.len() < SHARED_MAX {
            self.grants.insert(hash, Arc::clone(&grant));
        }
        grant
    }
}

impl Validity {
    /// The word for `keys list` and `keys verify`.
    pub fn as_str(self) -> &'static str {
        match self {
            Validity::Valid => "valid",
            Validity::Revoked => "revoked",
            Validity::Suspended => "suspended",
            Validity::Expired => "expired",
            Validity::NotYet => "not yet valid",
        }
    }
}

impl Grant {
    /// Whether a scope is among its own.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == scope)
    }

    /// Whether a client at this address may use it. Nobody knows that of a client whose address is
    /// not known.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        self.networks.is_empty()
            || client.is_some_and(|client| self.networks.iter().any(|own| own.contains(client)))
    }
}

impl KeyRecord {
    /// Valid from `not_before` on and until just before `expires_at`.
    pub fn validity(&self, now: Timestamp) -> Validity {
        validity(self.status, self.not_before, self.expires_at, now)
    }
}

pub(super) fn validity(
    status: Status,
    not_before: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Validity {
    match status {
        Status::Revoked => Validity::Revoked,
        Status::Suspended => Validity::Suspended,
        Status::Active if expires_at.is_some_and(|end| now >= end) => Validity::Expired,
        Status::Active if not_before.is_some_and(|start| now < start) => Validity::NotYet,
        Status::Active => Validity::Valid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(not_before: Option<i64>, expires_at: Option<i64>, status: Status) -> KeyRecord {
        let grant = Grant {
            priority: "ingest".into(),
            plan: "default".into(),
            scopes: vec!["write".into()],
            networks: vec!["192.0.2.0/24".parse().expect("a network")],
        };
        KeyRecord {
            id: KeyId::parse("aaaaaaaaaaaa").expect("a key id"),
            tenant: "acme".into(),
            grant: Arc::new(grant),
            digest: Digest { pepper: 1, hmac_sha256: [0; 32] },
            not_before: not_before.map(Timestamp::from_millis),
            expires_at: expires_at.map(Timestamp::from_millis),
            status,
            kind: Kind::Issued,
        }
    }

    #[test]
    fn edges_of_validity() {
        let hour = 3_600_000;
        let active = |not_before, expires_at| record(not_before, expires_at, Status::Active);
        let table = [
            (active(None, None), 0, Validity::Valid),
            (active(None, None), i64::MAX, Validity::Valid),
            (active(None, Some(1000)), 999, Validity::Valid),
            (active(None, Some(1000)), 1000, Validity::Expired),
            (active(None, Some(1500)), 1499, Validity::Valid),
            (active(None, Some(1000)), 1000 - hour, Validity::Valid),
            (active(None, Some(1000)), 1000 + hour, Validity::Expired),
            (active(Some(1000), None), 999, Validity::NotYet),
            (active(Some(1000), None), 1000, Validity::Valid),
            (active(Some(1000), Some(1001)), 1000, Validity::Valid),
            (active(Some(1000), Some(1001)), 1001, Validity::Expired),
            (active(None, Some(i64::MAX)), 4_000_000_000_000, Validity::Valid),
            (record(None, None, Status::Revoked), 0, Validity::Revoked),
            (record(Some(5), Some(1), Status::Revoked), 3, Validity::Revoked),
            (record(None, None, Status::Suspended), 0, Validity::Suspended),
            (record(None, Some(1), Status::Suspended), 3, Validity::Suspended),
        ];
        for (record, now, expected) in table {
            assert_eq!(record.validity(Timestamp::from_millis(now)), expected, "{record:?} {now}");
        }
    }

    #[test]
    fn a_key_with_networks_is_for_their_addresses() {
        let grant = &record(None, None, Status::Active).grant;
        let at = |text: &str| Some(text.parse().expect("an address"));
        assert!(grant.admits(at("192.0.2.9")) && !grant.admits(at("192.0.3.9")));
        assert!(!grant.admits(None));
        let everywhere = Grant { networks: Vec::new(), ..Grant::clone(grant) };
        assert!(everywhere.admits(None) && everywhere.admits(at("::1")));
    }

    #[test]
    fn records_share_what_others_say() {
        let mut shared = Shared::default();
        let grant = record(None, None, Status::Active).grant;
        let mut shared_grant =
            |plan: &str| shared.grant(&grant.priority, plan, &grant.scopes, &grant.networks);
        assert_eq!(shared_grant("default"), grant);
        assert!(Arc::ptr_eq(&shared_grant("default"), &shared_grant("default")));
        assert_ne!(shared_grant("gold"), grant);
        assert!(Arc::ptr_eq(&shared.tenant("acme"), &shared.tenant("acme")));
        assert_ne!(shared.tenant("acme"), shared.tenant("umbrella"));
        for number in 0..SHARED_MAX {
            shared.tenant(&number.to_string());
        }
        assert_eq!(shared.tenants.len(), SHARED_MAX);
        assert!(Arc::ptr_eq(&shared.tenant("acme"), &shared.tenant("acme")));
        assert!(!Arc::ptr_eq(&shared.tenant("more"), &shared.tenant("more")));
    }
}
