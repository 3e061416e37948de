//! Tests of `check::key_set`.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::check::builder::Builder;
use crate::check::digest::Digest;
use crate::check::record::{Grant, Status};

fn record(number: u8) -> KeyRecord {
    let grant = Grant {
        priority: "ingest".into(),
        plan: "default".into(),
        scopes: Vec::new(),
        networks: Vec::new(),
    };
    KeyRecord {
        id: KeyId::parse(&format!("{number:012}")).expect("a key id"),
        tenant: "acme".into(),
        grant: Arc::new(grant),
        digest: Digest { pepper: 1, hmac_sha256: [number; DIGEST_LEN] },
        not_before: None,
        expires_at: None,
        status: Status::Active,
        kind: Kind::Issued,
    }
}

fn set(numbers: impl IntoIterator<Item = u8>) -> KeySet {
    let mut builder = Builder::default();
    for number in numbers {
        builder.add(record(number)).expect("different keys");
    }
    builder.build()
}

#[test]
fn two_records_may_not_share_an_id_or_a_key() {
    let (a, b) = (record(1), record(2));
    let clash = |records: [&KeyRecord; 2]| {
        let (mut builder, mut keys) = (Builder::default(), KeySet::default());
        let clash = records.into_iter().find_map(|record| builder.add(record.clone()).err());
        if !matches!(clash, Some(Clash::Id(_))) {
            let put = records.into_iter().find_map(|record| keys.put(record.clone()).err());
            assert_eq!(put, clash, "a change is held to the same");
        }
        clash
    };
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
fn a_set_made_beside_another_is_the_same() {
    let numbered = |number: u8| {
        let kind = if number.is_multiple_of(7) { Kind::Imported } else { Kind::Issued };
        KeyRecord { kind, ..record(number) }
    };
    let made = |mut builder: Builder, numbers: std::ops::RangeInclusive<u8>| {
        for number in numbers {
            builder.put(numbered(number)).expect("different keys");
        }
        builder.build()
    };
    let before = made(Builder::default(), 3..=120);
    let mut builder = Builder::beside(Some(&before), 0);
    // As a scan may show a key twice, changed meanwhile, one of another's digest before.
    builder.put(KeyRecord { digest: record(250).digest, ..numbered(9) }).expect("different keys");
    let keys = made(builder, 0..=200);
    assert_eq!((keys.len(), before.len()), (201, 118));
    for number in 0..=200 {
        let id = record(number).id;
        assert_eq!(keys.by_id(&id).map(KeptKey::to_record), Some(numbered(number)));
        assert_eq!(keys.by_digest(&[number; DIGEST_LEN]).map(|found| found.id), Some(id));
    }
    assert!(keys.by_digest(&[250; DIGEST_LEN]).is_none());
    assert_eq!(format!("{:?}", keys.peppers), "PepperUses({1: Uses { keys: 201, imported: 29 }})");
    assert_eq!((keys.missing_from(&before), before.missing_from(&keys)), (83, 0));
    assert_eq!(
        keys.kept.unshared_with(&made(Builder::beside(Some(&keys), 200), 0..=200).kept).count(),
        0
    );
}

#[test]
fn two_sources_may_not_have_the_same_key() {
    assert_eq!(set(1..4).clash(&set(4..9)), None);
    let shared = record(3).id;
    assert_eq!(set(1..4).clash(&set(3..9)), Some(Clash::Id(shared)));
    assert_eq!(set(3..9).clash(&set(1..4)), Some(Clash::Id(shared)));
    let mut other = record(200);
    other.digest = record(2).digest;
    assert_eq!(set(1..4).clash_with(&other), Some(Clash::Digest(other.id)));
}

#[test]
fn a_set_that_shrinks_by_more_than_a_tenth_looks_cut() {
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
        assert_eq!(set(old.clone()).is_cut_by(&set(new.clone())), cut, "{old:?} {new:?}");
    }
}

#[test]
fn a_tenant_is_suspended_as_a_whole_and_only_once() {
    let mut builder = Builder::default();
    assert!(builder.add_tenant("acme".into(), true) && builder.add_tenant("quiet".into(), false));
    assert!(!builder.add_tenant("acme".into(), true), "stated twice");
    let mut keys = builder.build();
    assert!(keys.is_suspended("acme") && !keys.is_suspended("quiet") && !keys.is_suspended("x"));
    keys.set_tenant("acme".into(), false);
    assert!(!keys.is_suspended("acme"));
}

#[test]
fn a_key_that_changes_its_digest_leaves_none_behind() {
    let mut keys = set(1..3);
    let imported = KeyRecord { kind: Kind::Imported, ..record(9) };
    let moved = KeyRecord { id: record(1).id, ..imported };
    keys.put(moved).expect("another key under the same id");
    assert!(keys.by_digest(&[1; DIGEST_LEN]).is_none());
    assert_eq!(keys.by_digest(&[9; DIGEST_LEN]).map(|found| found.id), Some(record(1).id));
    assert_eq!(keys.imported_peppers().collect::<Vec<_>>(), [1]);
    let refused = KeyRecord { id: record(7).id, ..record(2) };
    assert_eq!(keys.put(refused), Err(Clash::Digest(record(7).id)));
    assert!(keys.remove(&record(1).id) && !keys.remove(&record(1).id));
    assert_eq!((keys.len(), keys.imported_peppers().count()), (1, 0));
}

proptest! {
    /// Whatever is put and removed, both ways to a key lead to the same one, and older copies stay.
    #[test]
    fn both_indices_agree(changes in proptest::collection::vec((0_u8..12, 0_u8..12, any::<bool>()), 0..40)) {
        let (mut keys, mut model) = (KeySet::default(), HashMap::new());
        for (id, digest, is_put) in changes {
            let before = (keys.clone(), model.len());
            let mut changed = record(id);
            changed.digest.hmac_sha256 = [digest; DIGEST_LEN];
            let taken = model.iter().any(|(other, with)| *with == digest && *other != id);
            match (is_put, keys.clone()) {
                (true, mut next) => {
                    prop_assert_eq!(next.put(changed).is_err(), taken);
                    if !taken {
                        model.insert(id, digest);
                        keys = next;
                    }
                }
                (false, _) => {
                    prop_assert_eq!(keys.remove(&changed.id), model.remove(&id).is_some());
                }
            }
            prop_assert_eq!(before.0.len(), before.1);
            prop_assert_eq!(keys.len(), model.len());
            for number in 0..12 {
                let by_id = keys.by_id(&record(number).id).map(|found| found.hmac_sha256[0]);
                prop_assert_eq!(by_id, model.get(&number).copied());
                let by_digest = keys.by_digest(&[number; DIGEST_LEN]).map(|found| found.id);
                let owner = model.iter().find(|(_, digest)| **digest == number);
                prop_assert_eq!(by_digest, owner.map(|(id, _)| record(*id).id));
            }
        }
    }
}
