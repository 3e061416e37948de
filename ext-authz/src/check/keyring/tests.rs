//! Tests of `check::keyring`.

use std::convert::Infallible;

use super::*;
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
fn two_records_may_not_share_an_id_or_a_key() {
    let (a, b) = (record(1, Kind::Issued), record(2, Kind::Issued));
    let clash =
        |records: [&KeyRecord; 2]| Keyring::try_new(records.map(KeyRecord::clone), peppers()).err();
    assert_eq!(clash([&a, &b]), None);
    let same_id = KeyRecord { id: a.id, ..b.clone() };
    assert_eq!(clash([&a, &same_id]), Some(Clash::Id(a.id)));
    let same_key = KeyRecord { digest: a.digest.clone(), ..b.clone() };
    assert_eq!(clash([&a, &same_key]), Some(Clash::Digest(b.id)));
    let mut half = b.clone();
    half.digest.hmac_sha256[..16].copy_from_slice(&a.digest.hmac_sha256[..16]);
    assert_eq!(clash([&a, &half]), None, "half of a digest is not the digest");
}

#[test]
fn a_set_that_shrinks_by_more_than_a_tenth_looks_cut() {
    let with = |ids: std::ops::Range<u8>| keyring(ids.map(|fill| record(fill, Kind::Issued)));
    for (old, new, cut) in [
        (0..20, 0..20, false),
        (0..20, 0..18, false),
        (0..20, 0..17, true),
        (0..20, 0..0, true),
        (0..20, 5..40, true),
        (0..1, 0..0, true),
        (0..0, 0..0, false),
        (0..0, 0..5, false),
        (0..10, 1..11, false),
    ] {
        assert_eq!(with(old.clone()).is_cut_by(&with(new.clone())), cut, "{old:?} {new:?}");
    }
}

#[test]
fn a_tenant_is_suspended_as_a_whole_and_only_once() {
    let mut builder = Builder::default();
    builder.add(record(1, Kind::Issued)).expect("the first");
    assert!(builder.add_tenant("acme".into(), true) && builder.add_tenant("quiet".into(), false));
    assert!(!builder.add_tenant("acme".into(), false), "stated twice");
    let keys = builder.build(peppers());
    assert!(keys.is_suspended("acme") && !keys.is_suspended("quiet") && !keys.is_suspended("x"));
}
