//! What is known of one key: whom it belongs to, what it may do, and when.

use super::digest::Digest;
use super::key::KeyId;
use crate::timestamp::Timestamp;

/// One key of the keys file, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// The public part of the key, unique in a file.
    pub id: KeyId,
    /// Who calls with it.
    pub tenant: String,
    /// The priority class its requests belong to.
    pub priority: String,
    /// The plan its quotas follow.
    pub plan: String,
    /// What it may do; a route may demand one of these.
    pub scopes: Vec<String>,
    /// What is stored of the key itself.
    pub digest: Digest,
    /// The first moment at which it is valid.
    pub not_before: Option<Timestamp>,
    /// The first moment at which it is no longer valid.
    pub expires_at: Option<Timestamp>,
    /// Whether it was taken back.
    pub revoked: bool,
}

/// Whether a key may be used at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It may.
    Valid,
    /// It was taken back.
    Revoked,
    /// It is not valid any more.
    Expired,
    /// It is not valid yet.
    NotYet,
}

impl Validity {
    /// The word for `keys list` and `keys verify`.
    pub fn as_str(self) -> &'static str {
        match self {
            Validity::Valid => "valid",
            Validity::Revoked => "revoked",
            Validity::Expired => "expired",
            Validity::NotYet => "not yet valid",
        }
    }
}

impl KeyRecord {
    /// Valid from `not_before` on and until just before `expires_at`.
    pub fn validity(&self, now: Timestamp) -> Validity {
        if self.revoked {
            Validity::Revoked
        } else if self.expires_at.is_some_and(|end| now >= end) {
            Validity::Expired
        } else if self.not_before.is_some_and(|start| now < start) {
            Validity::NotYet
        } else {
            Validity::Valid
        }
    }

    /// Whether the key carries a scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(not_before: Option<i64>, expires_at: Option<i64>, revoked: bool) -> KeyRecord {
        KeyRecord {
            id: KeyId::parse("aaaaaaaaaaaa").expect("a key id"),
            tenant: "acme".into(),
            priority: "ingest".into(),
            plan: "default".into(),
            scopes: vec!["write".into()],
            digest: Digest { pepper: 1, hmac_sha256: [0; 32] },
            not_before: not_before.map(Timestamp::from_millis),
            expires_at: expires_at.map(Timestamp::from_millis),
            revoked,
        }
    }

    #[test]
    fn edges_of_validity() {
        let hour = 3_600_000;
        let table = [
            (record(None, None, false), 0, Validity::Valid),
            (record(None, None, false), i64::MAX, Validity::Valid),
            (record(None, Some(1000), false), 999, Validity::Valid),
            (record(None, Some(1000), false), 1000, Validity::Expired),
            (record(None, Some(1500), false), 1499, Validity::Valid),
            (record(None, Some(1000), false), 1000 - hour, Validity::Valid),
            (record(None, Some(1000), false), 1000 + hour, Validity::Expired),
            (record(Some(1000), None, false), 999, Validity::NotYet),
            (record(Some(1000), None, false), 1000, Validity::Valid),
            (record(Some(1000), Some(1001), false), 1000, Validity::Valid),
            (record(Some(1000), Some(1001), false), 1001, Validity::Expired),
            (record(None, Some(i64::MAX), false), 4_000_000_000_000, Validity::Valid),
            (record(None, None, true), 0, Validity::Revoked),
            (record(Some(5), Some(1), true), 3, Validity::Revoked),
        ];
        for (record, now, expected) in table {
            assert_eq!(record.validity(Timestamp::from_millis(now)), expected, "{record:?} {now}");
        }
    }
}
