//! Tests of `check::keyring`.

use std::convert::Infallible;

use super::*;
use crate::check::digest::HMACS;
use crate::check::key::NewKey;
use crate::check::record::{Grant, Status};

const IMPORTED: &[u8] = b"0123456789abcdef0123456789abcdef";

fn peppers() -> Arc<Peppers> {
    let secrets = [(1, vec![1; 16]), (2, vec![2; 16])];
    Arc::new(Peppers::new(secrets.into()).expect("peppers"))
}

fn new_key(fill: u8) -> NewKey {
    let Ok(key) = NewKey::generate("live", |bytes: &mut [u8]| {
        bytes.fill(fill);
        Ok::<(), Infallible>(())
    });
    key.expect("a good environment")
}

fn record(fill: u8, kind: Kind) -> KeyRecord {
    let key = new_key(fill);
    let grant = Grant {
        priority: "ingest".into(),
        plan: "default".into(),
        scopes: Vec::new(),
        networks: Vec::new(),
    };
    KeyRecord {
        id: key.id(),
        tenant: "acme".into(),
        grant: Arc::new(grant),
        digest: peppers().digest(&key),
        not_before: None,
        expires_at: None,
        status: Status::Active,
        kind,
    }
}

fn keyring(records: impl IntoIterator<Item = KeyRecord>) -> Keyring {
    Keyring::try_new(records, peppers()).expect("different keys")
}

#[test]
fn imported_keys_are_found_by_their_digest_alone() {
    let old = Peppers::new([(1, vec![1; 16])].into()).expect("a pepper");
    let text = ImportedKey::parse(IMPORTED).expect("a key");
    let mut imported = record(1, Kind::Imported);
    for digest in [old.digest_imported(&text), peppers().digest_imported(&text)] {
        imported.digest = digest;
        let keys = keyring([record(2, Kind::Issued), imported.clone()]);
        assert!(keys.has_imported());
        let shown = Presented::parse(IMPORTED).expect("a key");
        assert!(matches!(keys.find(&shown), Found::Key(found) if found.id == imported.id));
        let other = Presented::parse(b"0123456789abcdef0123456789abcdeF").expect("a key");
        assert!(matches!(keys.find(&other), Found::Unknown));
        let issued = new_key(2);
        let shown = Presented::parse(issued.expose().as_bytes()).expect("a key");
        assert!(matches!(keys.find(&shown), Found::Key(found) if found.id == issued.id()));
    }
    // The id of an imported key opens nothing to somebody who makes up a text with it.
    let made_up = new_key(1);
    let shown = Presented::parse(made_up.expose().as_bytes()).expect("a key");
    imported.digest = peppers().digest(&made_up);
    assert!(matches!(keyring([imported]).find(&shown), Found::Unknown));
    assert!(!keyring([record(2, Kind::Issued)]).has_imported());
}

#[test]
fn an_imported_key_is_hashed_once_for_each_pepper_however_many_sources_have_it() {
    let part = |fill| {
        let keys = keyring([record(fill, Kind::Imported)]);
        keys.parts[0].clone()
    };
    let keys = Keyring::new(vec![part(1), part(2)], true, Arc::new([]), peppers());
    let before = HMACS.get();
    assert!(matches!(keys.find(&Presented::parse(IMPORTED).expect("a key")), Found::Unknown));
    assert_eq!(HMACS.get() - before, 1);
}
