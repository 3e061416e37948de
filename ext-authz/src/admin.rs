//! What may be changed in a key's record, and what is kept of who changed it.

use serde_json::{Value, json};

use crate::check::key::KeyId;
use crate::check::record::{KeyRecord, Status};
use crate::timestamp::Timestamp;

/// The longest name of who changes keys, in bytes.
pub const WHO_BYTES_MAX: usize = 64;

/// What is kept of a change: never the key itself.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Who, as they say themselves or as their shell knows them.
    pub who: String,
    /// What was done, by the name of the command.
    pub what: &'static str,
    /// To which key, where it was one.
    pub key_id: Option<KeyId>,
    /// To which tenant or whose key.
    pub tenant: Option<String>,
}

impl Event {
    /// As it is logged and kept.
    pub fn to_json(&self) -> Value {
        json!({
            "at": self.at.to_string(),
            "who": self.who,
            "what": self.what,
            "key_id": self.key_id.map(|id| id.as_str().to_owned()),
            "tenant": self.tenant,
        })
    }
}

/// Why a key cannot be changed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// There is no such key.
    #[error("there is no key '{0}'")]
    NoSuchKey(KeyId),
    /// The key has that status already.
    #[error("key '{0}' is {1} already")]
    Already(KeyId, &'static str),
    /// The key is revoked, which is for ever.
    #[error("key '{0}' is revoked, which cannot be undone")]
    Revoked(KeyId),
    /// A key that may not pass has no successor.
    #[error("key '{0}' is revoked or suspended")]
    NotActive(KeyId),
}

/// Whether a key of one status may be given another.
///
/// # Errors
/// When it is of that status, or revoked for ever.
pub fn may_become(id: KeyId, present: Status, wanted: Status) -> Result<(), Objection> {
    match (present, wanted) {
        (present, wanted) if present == wanted => Err(Objection::Already(id, wanted.as_str())),
        (Status::Revoked, _) => Err(Objection::Revoked(id)),
        _ => Ok(()),
    }
}

/// The record with another status.
///
/// # Errors
/// As [`may_become`].
pub fn with_status(record: KeyRecord, status: Status) -> Result<KeyRecord, Objection> {
    may_become(record.id, record.status, status)?;
    Ok(KeyRecord { status, ..record })
}

/// A key's record once it has a successor, ending at `end` or sooner if it would have.
///
/// # Errors
/// When it may not pass now.
pub fn succeeded(record: KeyRecord, end: Timestamp) -> Result<KeyRecord, Objection> {
    if record.status != Status::Active {
        return Err(Objection::NotActive(record.id));
    }
    let expires_at = Some(record.expires_at.map_or(end, |sooner| sooner.min(end)));
    Ok(KeyRecord { expires_at, ..record })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_revoked_stays_so_and_nothing_is_done_twice() {
        use Status::{Active, Revoked, Suspended};
        let id = KeyId::parse("aaaaaaaaaaaa").expect("a key id");
        for (present, wanted, expected) in [
            (Active, Revoked, Ok(())),
            (Active, Suspended, Ok(())),
            (Suspended, Active, Ok(())),
            (Suspended, Revoked, Ok(())),
            (Active, Active, Err(Objection::Already(id, "active"))),
            (Suspended, Suspended, Err(Objection::Already(id, "suspended"))),
            (Revoked, Revoked, Err(Objection::Already(id, "revoked"))),
            (Revoked, Active, Err(Objection::Revoked(id))),
            (Revoked, Suspended, Err(Objection::Revoked(id))),
        ] {
            assert_eq!(may_become(id, present, wanted), expected, "{present:?} {wanted:?}");
        }
    }

    #[test]
    fn an_event_has_who_when_and_what() {
        let event = Event {
            at: Timestamp::from_millis(0),
            who: "ann \"x\"\n".into(),
            what: "revoke",
            key_id: KeyId::parse("aaaaaaaaaaaa"),
            tenant: None,
        };
        assert_eq!(
            event.to_json().to_string(),
            r#"{"at":"1970-01-01T00:00:00Z","key_id":"aaaaaaaaaaaa","tenant":null,"what":"revoke","who":"ann \"x\"\n"}"#
        );
    }
}
