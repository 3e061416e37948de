//! The decision about one request.

use super::extract::{ExtractError, Request, extract};
use super::kept::KeptKey;
use super::key::{KeyError, KeyId, Presented};
use super::keyring::{Found, Keyring};
use super::record::{Status, Validity};
use crate::timestamp::Timestamp;

/// The most that one request can cost: above it Envoy would not charge anything at all.
pub const COST_MAX: u64 = 1_000_000_000;

/// What is to become of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision<'s> {
    /// It may pass, as this key's.
    Allow {
        /// Whose request it is.
        key: &'s KeptKey,
        /// Bytes of body announced, from 1 to [`COST_MAX`].
        cost: u64,
        /// Whether the body's length was announced at all.
        is_announced: bool,
    },
    /// It may not.
    Deny {
        /// Why, for operators; callers learn only [`Reason::refusal`].
        reason: Reason,
        /// The key id, once a well-formed key named one.
        key_id: Option<KeyId>,
    },
    /// Nothing can be said, for reasons of our own: the caller should come again.
    Unavailable(Trouble),
}

/// Why nothing can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// No keys were ever in force.
    NoKeys,
    /// A source of keys could not be asked for too long, or never: the key may have been issued or
    /// taken back since.
    Stale,
    /// Envoy's route names a profile that there is not, so nobody knows which answer is safe.
    UnknownProfile,
}

/// Why a request was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Envoy sent no HTTP request to check.
    NoRequest,
    /// No credential.
    Missing,
    /// More than one credential.
    Ambiguous,
    /// A credential longer than any key.
    Oversize,
    /// A credential with white space, controls or bytes beyond ASCII.
    Characters,
    /// An `authorization` scheme that carries no key.
    Scheme,
    /// Not a key by its form, or Basic credentials that cannot be read.
    Malformed,
    /// A key whose checksum is wrong.
    Checksum,
    /// A key nobody issued.
    UnknownKey,
    /// A key id with another secret.
    WrongSecret,
    /// A key that was taken back.
    Revoked,
    /// A key that was taken back for a time.
    Suspended,
    /// A key of a tenant that may not pass for a time.
    TenantSuspended,
    /// A key whose time is over.
    Expired,
    /// A key whose time has not come.
    NotYetValid,
    /// A key that is not good, from a source or with a key id that had too many of those.
    Throttled,
    /// A good key that is used from elsewhere than its networks.
    Network,
    /// A good key that lacks the scope the route demands.
    Scope,
}

/// What a caller is told. Everything wrong with a key looks alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The request carries no credential.
    NoCredential,
    /// The credential is not good.
    BadCredential,
    /// The request carries more than one credential, or one that cannot be a single one.
    InvalidRequest,
    /// The key is good, but not for this.
    Forbidden,
    /// Too many credentials that were not good: the caller should wait.
    Throttled,
    /// We cannot tell at the moment.
    Unavailable,
}

impl Trouble {
    /// Its name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Trouble::NoKeys => "no_keys",
            Trouble::Stale => "stale",
            Trouble::UnknownProfile => "unknown_profile",
        }
    }
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 18] = [
        Reason::NoRequest,
        Reason::Missing,
        Reason::Ambiguous,
        Reason::Oversize,
        Reason::Characters,
        Reason::Scheme,
        Reason::Malformed,
        Reason::Checksum,
        Reason::UnknownKey,
        Reason::WrongSecret,
        Reason::Revoked,
        Reason::Suspended,
        Reason::TenantSuspended,
        Reason::Expired,
        Reason::NotYetValid,
        Reason::Throttled,
        Reason::Network,
        Reason::Scope,
    ];

    /// Its name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoRequest => "no_request",
            Reason::Missing => "missing",
            Reason::Ambiguous => "ambiguous",
            Reason::Oversize => "oversize",
            Reason::Characters => "characters",
            Reason::Scheme => "scheme",
            Reason::Malformed => "malformed",
            Reason::Checksum => "checksum",
            Reason::UnknownKey => "unknown_key",
            Reason::WrongSecret => "wrong_secret",
            Reason::Revoked => "revoked",
            Reason::Suspended => "suspended",
            Reason::TenantSuspended => "tenant_suspended",
            Reason::Expired => "expired",
            Reason::NotYetValid => "not_yet_valid",
            Reason::Throttled => "throttled",
            Reason::Network => "network",
            Reason::Scope => "scope",
        }
    }

    /// Whether the key id it was denied with is one that exists; of others there are too many to
    /// count.
    pub fn is_of_a_known_key(self) -> bool {
        matches!(
            self,
            Reason::WrongSecret
                | Reason::Revoked
                | Reason::Suspended
                | Reason::TenantSuspended
                | Reason::Expired
                | Reason::NotYetValid
        )
    }

    /// What the caller is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Reason::Missing => Refusal::NoCredential,
            Reason::Throttled => Refusal::Throttled,
            Reason::Ambiguous | Reason::Characters => Refusal::InvalidRequest,
            Reason::NoRequest | Reason::Network | Reason::Scope => Refusal::Forbidden,
            Reason::Oversize
            | Reason::Scheme
            | Reason::Malformed
            | Reason::Checksum
            | Reason::UnknownKey
            | Reason::WrongSecret
            | Reason::Revoked
            | Reason::Suspended
            | Reason::TenantSuspended
            | Reason::Expired
            | Reason::NotYetValid => Refusal::BadCredential,
        }
    }
}

impl From<ExtractError> for Reason {
    fn from(error: ExtractError) -> Self {
        match error {
            ExtractError::Missing => Reason::Missing,
            ExtractError::Ambiguous => Reason::Ambiguous,
            ExtractError::Oversize => Reason::Oversize,
            ExtractError::Characters => Reason::Characters,
            ExtractError::Scheme => Reason::Scheme,
            ExtractError::Basic => Reason::Malformed,
        }
    }
}

impl From<KeyError> for Reason {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Grammar => Reason::Malformed,
            KeyError::Checksum => Reason::Checksum,
        }
    }
}

/// Decides about a request at the moment `now`, under the keys in force. Before any keys were
/// loaded there are none to ask, which is our trouble and not the caller's.
pub fn decide<'s>(
    now: Timestamp,
    keys: Option<&'s Keyring>,
    request: Option<&Request<'_>>,
) -> Decision<'s> {
    let Some(keys) = keys else { return Decision::Unavailable(Trouble::NoKeys) };
    let deny = |reason, key_id| Decision::Deny { reason, key_id };
    let Some(request) = request else { return deny(Reason::NoRequest, None) };
    let Ok(profile) = request.profile else {
        return Decision::Unavailable(Trouble::UnknownProfile);
    };
    let credential = match extract(request, profile) {
        Ok(credential) => credential,
        Err(error) => return deny(error.into(), None),
    };
    let key = match Presented::parse(credential.expose()) {
        Ok(Presented::Imported(_)) if !keys.has_imported() => {
            return deny(Reason::Malformed, None);
        }
        Ok(key) => key,
        Err(error) => return deny(error.into(), None),
    };
    let kept = match keys.find(&key) {
        Found::Key(kept) => kept,
        // What was revoked stays revoked, and classes that bypass pass on what was last known.
        Found::StaleKey(kept)
            if kept.terms.status == Status::Revoked
                || keys.is_bypass(&kept.terms.grant.priority) =>
        {
            kept
        }
        Found::StaleKey(_) | Found::Unsure => return Decision::Unavailable(Trouble::Stale),
        Found::WrongSecret => return deny(Reason::WrongSecret, key.id()),
        Found::Unknown => return deny(Reason::UnknownKey, key.id()),
    };
    match refused(now, keys, kept, request) {
        Some(reason) => deny(reason, Some(kept.id)),
        None => Decision::Allow {
            key: kept,
            cost: request.body_bytes.unwrap_or(1).clamp(1, COST_MAX),
            is_announced: request.body_bytes.is_some(),
        },
    }
}

/// Why a key that is known may not be used for a request.
fn refused(
    now: Timestamp,
    keys: &Keyring,
    kept: &KeptKey,
    request: &Request<'_>,
) -> Option<Reason> {
    match kept.validity(now) {
        Validity::Valid => {}
        Validity::Revoked => return Some(Reason::Revoked),
        Validity::Suspended => return Some(Reason::Suspended),
        Validity::Expired => return Some(Reason::Expired),
        Validity::NotYet => return Some(Reason::NotYetValid),
    }
    if keys.is_suspended(&kept.tenant) {
        return Some(Reason::TenantSuspended);
    }
    let grant = &kept.terms.grant;
    if !grant.admits(request.client) {
        return Some(Reason::Network);
    }
    let scope = request.required_scope;
    scope.is_some_and(|scope| !grant.has_scope(scope)).then_some(Reason::Scope)
}

#[cfg(test)]
#[path = "decide/tests.rs"]
mod tests;
