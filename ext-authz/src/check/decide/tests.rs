//! Tests of `check::decide`.

use std::convert::Infallible;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::check::builder::Builder;
use crate::check::digest::{HMACS, Peppers};
use crate::check::key::{ImportedKey, NewKey};
use crate::check::keyring::Part;
use crate::check::profile::{CREDENTIAL_HEADERS, Profile, UnknownProfile};
use crate::check::record::{Grant, KeyRecord, Kind, Status};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn new_key(fill: u8) -> NewKey {
    let Ok(key) = NewKey::generate("live", |bytes: &mut [u8]| {
        bytes.fill(fill);
        Ok::<(), Infallible>(())
    });
    key.expect("a good environment")
}

fn peppers() -> Arc<Peppers> {
    Arc::new(Peppers::new([(1, vec![9; 32])].into()).expect("a pepper"))
}

fn record(key: &NewKey) -> KeyRecord {
    KeyRecord {
        id: key.id(),
        tenant: "acme".into(),
        grant: Arc::new(Grant {
            priority: "ingest".into(),
            plan: "default".into(),
            scopes: vec!["write".into()],
            networks: Vec::new(),
        }),
        digest: peppers().digest(key),
        not_before: None,
        expires_at: None,
        status: Status::Active,
        kind: Kind::Issued,
    }
}

fn keyring(records: Vec<KeyRecord>) -> Keyring {
    Keyring::try_new(records, peppers()).expect("different keys")
}

fn request<'a>(value: &'a [u8], required_scope: Option<&'a str>) -> Request<'a> {
    let headers = vec![("host", &b"edge"[..]), ("x-api-key", value)];
    let profile = Ok(Profile::Default);
    Request { profile, required_scope, headers, path: "/", body_bytes: None, client: None }
}

/// The reason for a key of this record, or nothing when it passes.
fn reason(record: KeyRecord, presented: &NewKey, scope: Option<&str>) -> Option<Reason> {
    let keys = keyring(vec![record]);
    match decide(NOW, Some(&keys), Some(&request(presented.expose().as_bytes(), scope))) {
        Decision::Allow { .. } => None,
        Decision::Deny { reason, key_id } => {
            assert_eq!(key_id, Some(presented.id()));
            Some(reason)
        }
        Decision::Unavailable(_) => panic!("there are keys"),
    }
}

#[test]
fn what_becomes_of_a_well_formed_key() {
    let (key, other) = (new_key(1), new_key(2));
    let good = || record(&key);
    let at = |millis| Some(Timestamp::from_millis(NOW.as_millis() + millis));
    assert_eq!(reason(good(), &key, None), None);
    assert_eq!(reason(good(), &key, Some("write")), None);
    assert_eq!(reason(good(), &key, Some("read")), Some(Reason::Scope));
    assert_eq!(reason(good(), &other, None), Some(Reason::UnknownKey));
    let stolen_id = KeyRecord { digest: peppers().digest(&other), ..good() };
    assert_eq!(reason(stolen_id, &key, None), Some(Reason::WrongSecret));
    for (status, expected) in
        [(Status::Revoked, Reason::Revoked), (Status::Suspended, Reason::Suspended)]
    {
        let record = KeyRecord { status, ..good() };
        assert_eq!(reason(record, &key, None), Some(expected));
    }
    for (expires_at, expected) in
        [(0, Some(Reason::Expired)), (1, None), (-1, Some(Reason::Expired))]
    {
        let record = KeyRecord { expires_at: at(expires_at), ..good() };
        assert_eq!(reason(record, &key, None), expected, "{expires_at}");
    }
    for (not_before, expected) in [(0, None), (1, Some(Reason::NotYetValid)), (-1, None)] {
        let record = KeyRecord { not_before: at(not_before), ..good() };
        assert_eq!(reason(record, &key, None), expected, "{not_before}");
    }
    // A wrong secret is never told apart from a revoked key by someone who has no secret.
    let record = KeyRecord { status: Status::Revoked, digest: peppers().digest(&other), ..good() };
    assert_eq!(reason(record, &key, None), Some(Reason::WrongSecret));
}

/// What becomes of a credential, and how many HMACs were made for it.
fn work(keys: &Keyring, credential: &[u8]) -> (Option<Reason>, u32) {
    let before = HMACS.get();
    let decision = decide(NOW, Some(keys), Some(&request(credential, None)));
    let reason = match decision {
        Decision::Allow { .. } => None,
        Decision::Deny { reason, .. } => Some(reason),
        Decision::Unavailable(_) => panic!("there are keys"),
    };
    (reason, HMACS.get() - before)
}

#[test]
fn the_work_does_not_tell_which_keys_exist() {
    let [good, revoked, expired, stolen, foreign, unknown] = [1, 2, 3, 4, 5, 6].map(new_key);
    let records = vec![
        record(&good),
        KeyRecord { status: Status::Revoked, ..record(&revoked) },
        KeyRecord { expires_at: Some(NOW), ..record(&expired) },
        KeyRecord { digest: peppers().digest(&new_key(7)), ..record(&stolen) },
        KeyRecord { kind: Kind::Imported, ..record(&foreign) },
    ];
    let keys = keyring(records);
    for (key, expected) in [
        (&good, None),
        (&revoked, Some(Reason::Revoked)),
        (&expired, Some(Reason::Expired)),
        (&stolen, Some(Reason::WrongSecret)),
        (&unknown, Some(Reason::UnknownKey)),
        // The id of an imported key says nothing, as it stands in no key.
        (&foreign, Some(Reason::UnknownKey)),
    ] {
        let key = key.expose();
        assert_eq!(work(&keys, key.as_bytes()), (expected, 1), "{key}");
    }
    // Of another system: one for each pepper of such keys, whether there is one or not.
    assert_eq!(work(&keys, b"0123456789abcdef0123456789abcdef"), (Some(Reason::UnknownKey), 1));
}

#[test]
fn what_is_no_key_by_its_form_is_never_hashed() {
    let key = new_key(1);
    let keys = keyring(vec![record(&key)]);
    let mut mistyped = key.expose().as_bytes().to_vec();
    let last = mistyped.pop();
    mistyped.push(if last == Some(b'A') { b'B' } else { b'A' });
    let long = |bytes: usize| vec![b'k'; bytes];
    for (credential, expected) in [
        (long(513), Reason::Oversize),
        (long(60_000), Reason::Oversize),
        ([key.expose().as_bytes(), &long(512)[..]].concat(), Reason::Oversize),
        (long(512), Reason::Malformed),
        (mistyped, Reason::Checksum),
        (format!("{0},{0}", key.expose()).into_bytes(), Reason::Ambiguous),
        (b"0123456789abcdef0123456789abcdef".to_vec(), Reason::Malformed),
    ] {
        let shown = String::from_utf8_lossy(&credential[..credential.len().min(40)]).into_owned();
        assert_eq!(work(&keys, &credential), (Some(expected), 0), "{shown}");
    }
}

#[test]
fn a_key_is_for_its_networks_and_not_while_its_tenant_is_suspended() {
    let key = new_key(1);
    let mut limited = record(&key);
    Arc::make_mut(&mut limited.grant).networks = vec!["192.0.2.0/24".parse().expect("a network")];
    let at = |client: Option<&str>, suspended: bool, record: &KeyRecord| {
        let mut builder = Builder::default();
        builder.add(record.clone()).expect("the first");
        builder.add_tenant("acme".into(), suspended);
        let client = client.map(|client| client.parse().expect("an address"));
        let request = Request { client, ..request(key.expose().as_bytes(), Some("write")) };
        match decide(NOW, Some(&Keyring::of(builder.build(), peppers())), Some(&request)) {
            Decision::Allow { .. } => None,
            Decision::Deny { reason, .. } => Some(reason),
            Decision::Unavailable(_) => panic!("there are keys"),
        }
    };
    assert_eq!(at(Some("192.0.2.7"), false, &limited), None);
    assert_eq!(at(Some("::ffff:192.0.2.7"), false, &limited), None);
    assert_eq!(at(Some("198.51.100.7"), false, &limited), Some(Reason::Network));
    assert_eq!(at(None, false, &limited), Some(Reason::Network), "an unknown address");
    assert_eq!(at(None, false, &record(&key)), None);
    assert_eq!(at(Some("192.0.2.7"), true, &limited), Some(Reason::TenantSuspended));
}

#[test]
fn a_source_that_is_stale_or_was_never_read_denies_nobody_who_may_be_good() {
    let (key, revoked, critical, other) = (new_key(1), new_key(2), new_key(3), new_key(4));
    let mut keys = Builder::default();
    keys.add(record(&key)).expect("the first");
    keys.add(KeyRecord { status: Status::Revoked, ..record(&revoked) }).expect("another");
    let mut of_class = record(&critical);
    Arc::make_mut(&mut of_class.grant).priority = "critical".into();
    keys.add(of_class).expect("a third");
    let keys = Arc::new(keys.build());
    let decision = |is_stale, is_whole, key: &[u8]| {
        let part = Part { keys: Arc::clone(&keys), is_stale };
        let keyring = Keyring::new(vec![part], is_whole, Arc::new(["critical".into()]), peppers());
        match decide(NOW, Some(&keyring), Some(&request(key, None))) {
            Decision::Allow { .. } => "allow",
            Decision::Deny { reason, .. } => reason.as_str(),
            Decision::Unavailable(trouble) => trouble.as_str(),
        }
    };
    let foreign = b"0123456789abcdef0123456789abcdef".as_slice();
    let text = |key: &NewKey| key.expose().as_bytes().to_vec();
    for (shown, fresh, stale, not_whole) in [
        (text(&key), "allow", "stale", "allow"),
        (text(&critical), "allow", "allow", "allow"),
        (text(&revoked), "revoked", "revoked", "revoked"),
        (text(&other), "unknown_key", "stale", "stale"),
        (foreign.to_vec(), "malformed", "stale", "stale"),
        (b"junk".to_vec(), "malformed", "malformed", "malformed"),
    ] {
        assert_eq!(decision(false, true, &shown), fresh);
        assert_eq!(decision(true, true, &shown), stale);
        assert_eq!(decision(false, false, &shown), not_whole);
    }
}

#[test]
fn an_imported_key_is_hashed_only_where_there_are_any() {
    const FOREIGN: &[u8] = b"0123456789abcdef0123456789abcdef";
    let text = ImportedKey::parse(FOREIGN).expect("a key");
    let issued = keyring(vec![record(&new_key(1))]);
    let denied = decide(NOW, Some(&issued), Some(&request(FOREIGN, None)));
    assert_eq!(denied, Decision::Deny { reason: Reason::Malformed, key_id: None });
    let digest = peppers().digest_imported(&text);
    let imported = KeyRecord { digest, kind: Kind::Imported, ..record(&new_key(2)) };
    let keys = keyring(vec![imported.clone()]);
    let allowed = decide(NOW, Some(&keys), Some(&request(FOREIGN, Some("write"))));
    assert!(matches!(allowed, Decision::Allow { key, .. } if key.id == imported.id));
    let other = decide(NOW, Some(&keys), Some(&request(b"0123456789abcdef", None)));
    assert_eq!(other, Decision::Deny { reason: Reason::UnknownKey, key_id: None });
}

#[test]
fn no_keys_means_nobody_or_not_now() {
    let key = new_key(1);
    let request = request(key.expose().as_bytes(), None);
    assert_eq!(decide(NOW, None, Some(&request)), Decision::Unavailable(Trouble::NoKeys));
    assert_eq!(decide(NOW, None, None), Decision::Unavailable(Trouble::NoKeys));
    let empty = keyring(vec![]);
    let denied = |reason, key_id| Decision::Deny { reason, key_id };
    let unknown = denied(Reason::UnknownKey, Some(key.id()));
    assert_eq!(decide(NOW, Some(&empty), Some(&request)), unknown);
    assert_eq!(decide(NOW, Some(&empty), None), denied(Reason::NoRequest, None));
}

#[test]
fn a_route_of_an_unknown_profile_is_our_trouble() {
    let key = new_key(1);
    let keys = keyring(vec![record(&key)]);
    for value in [key.expose().as_bytes(), b"not a key", b""] {
        let request = Request { profile: Err(UnknownProfile), ..request(value, None) };
        let expected = Decision::Unavailable(Trouble::UnknownProfile);
        assert_eq!(decide(NOW, Some(&keys), Some(&request)), expected);
    }
}

#[test]
fn a_cost_is_always_one_envoy_charges() {
    let key = new_key(1);
    let keys = keyring(vec![record(&key)]);
    for (body_bytes, expected) in [
        (None, 1),
        (Some(0), 1),
        (Some(1), 1),
        (Some(2048), 2048),
        (Some(COST_MAX), COST_MAX),
        (Some(COST_MAX + 1), COST_MAX),
        (Some(u64::MAX), COST_MAX),
    ] {
        let request = Request { body_bytes, ..request(key.expose().as_bytes(), None) };
        let Decision::Allow { cost, is_announced, .. } = decide(NOW, Some(&keys), Some(&request))
        else {
            panic!("denied")
        };
        assert_eq!((cost, is_announced), (expected, body_bytes.is_some()));
    }
}

#[test]
fn every_byte_in_every_place_of_a_good_key_is_denied() {
    let key = new_key(1);
    let keys = keyring(vec![record(&key)]);
    for at in 0..key.expose().len() {
        for byte in 0..=u8::MAX {
            let mut bytes = key.expose().as_bytes().to_vec();
            if std::mem::replace(&mut bytes[at], byte) == byte {
                continue;
            }
            let decision = decide(NOW, Some(&keys), Some(&request(&bytes, None)));
            let Decision::Deny { reason, key_id: None } = decision else {
                panic!("{byte} at {at}: {decision:?}")
            };
            assert_eq!(reason == Reason::Ambiguous, byte == b',', "{byte} at {at}");
            let foreign = !byte.is_ascii_graphic();
            assert_eq!(reason == Reason::Characters, foreign, "{byte} at {at}");
        }
    }
}

#[test]
fn names_of_reasons_are_distinct() {
    let mut names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
}

fn header() -> impl Strategy<Value = (String, Vec<u8>)> {
    let mut names: Vec<String> = CREDENTIAL_HEADERS.map(str::to_owned).into();
    names.extend(["host".to_owned(), "X-API-KEY".to_owned(), "content-type".to_owned()]);
    let good = new_key(1).expose().to_owned();
    let value = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(good.clone().into_bytes()),
        Just(format!("Bearer {good}").into_bytes()),
        Just(format!("Basic {good}").into_bytes()),
        "[ -~]{0,40}".prop_map(String::into_bytes),
    ];
    (proptest::sample::select(names), value)
}

proptest! {
    /// However a request is put together, it passes only with exactly one credential, the right
    /// one, and nothing panics.
    #[test]
    fn whoever_passes_showed_the_key_once(
        headers in proptest::collection::vec(header(), 0..4),
        path in "(/|/\\?p=x|/\\?api_key=y|.{0,30})",
        profile in proptest::sample::select(Profile::ALL.to_vec()),
    ) {
        let key = new_key(1);
        let keys = keyring(vec![record(&key)]);
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let credentials: Vec<_> = headers
            .iter()
            .filter(|(name, _)| CREDENTIAL_HEADERS.contains(&name.to_ascii_lowercase().as_str()))
            .collect();
        let shown_once = credentials.len() == 1
            && credentials[0].1.ends_with(key.expose().as_bytes());
        let request =
            Request { profile: Ok(profile), required_scope: None, headers: headers.clone(), path: &path, body_bytes: None, client: None };
        if let Decision::Allow { .. } = decide(NOW, Some(&keys), Some(&request)) {
            prop_assert!(shown_once);
        }
    }
}
