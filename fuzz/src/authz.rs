//! Requests and keys of ext-authz.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use ext_authz::check::decide::{Decision, decide};
use ext_authz::check::digest::Peppers;
use ext_authz::check::extract::Request;
use ext_authz::check::key::{ApiKey, KeyId, NewKey};
use ext_authz::check::keyring::Keyring;
use ext_authz::check::record::{Grant, KeyRecord, Kind, Status};
use ext_authz::service::request::view;
use ext_authz::service::response::respond;
use ext_authz::timestamp::Timestamp;
use prost::Message;
use proto::pb::envoy::service::auth::v3::CheckRequest;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// The one key that is in force here.
fn known_key() -> NewKey {
    let mut next = 0;
    let counting = |bytes: &mut [u8]| {
        for byte in bytes {
            *byte = next % 62;
            next += 1;
        }
        Ok::<(), Infallible>(())
    };
    NewKey::generate("fuzz", counting).expect("cannot fail").expect("an environment")
}

fn keys() -> Keyring {
    let peppers = Peppers::new(BTreeMap::from([(1, b"a pepper of enough bytes".to_vec())]));
    let peppers = Arc::new(peppers.expect("a pepper"));
    let key = known_key();
    let record = KeyRecord {
        id: key.id(),
        tenant: "acme".into(),
        grant: Arc::new(Grant {
            priority: "ingest".to_owned(),
            plan: "free".to_owned(),
            scopes: vec!["write".to_owned()],
            networks: Vec::new(),
        }),
        digest: peppers.digest(&key),
        not_before: None,
        expires_at: None,
        status: Status::Active,
        kind: Kind::Issued,
    };
    Keyring::try_new([record], peppers).expect("one key")
}

/// A check from the message to the answer: only the known key may pass.
pub fn check_request(data: &[u8]) {
    static KEYS: LazyLock<Keyring> = LazyLock::new(keys);
    static KNOWN: LazyLock<NewKey> = LazyLock::new(known_key);
    let Ok(wire) = CheckRequest::decode(data) else { return };
    let request: Option<Request<'_>> = view(&wire);
    let decision = decide(NOW, Some(&KEYS), request.as_ref());
    if let Decision::Allow { key, .. } = &decision {
        assert_eq!(key.id, KNOWN.id());
    }
    let answer = respond(&decision, request.as_ref(), 1);
    let allowed = matches!(decision, Decision::Allow { .. });
    assert_eq!(answer.status.as_ref().is_some_and(|status| status.code == 0), allowed);
}

/// The text of a key: what is accepted is a key with that id.
pub fn api_key(data: &[u8]) {
    if let Ok(key) = ApiKey::parse(data) {
        let text = std::str::from_utf8(data).expect("a key is ASCII");
        let id = text.split('_').nth(2).expect("a key has four parts");
        assert_eq!(KeyId::parse(id), Some(key.id()));
    }
    // Any random bytes make a key that is read back.
    let mut source = data.iter().copied().cycle();
    let random = |bytes: &mut [u8]| {
        bytes.iter_mut().for_each(|byte| *byte = source.next().unwrap_or(0) % 62);
        Ok::<(), Infallible>(())
    };
    let key = NewKey::generate("prod", random).expect("cannot fail").expect("an environment");
    let id = ApiKey::parse(key.expose().as_bytes()).map(|key| key.id());
    assert_eq!(id.ok(), Some(key.id()));
}
