//! What one key costs, without gRPC: junk, a key that nobody issued, a wrong secret, a good key;
//! and the good key again among a hundred times the keys.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use ext_authz::check::digest::Peppers;
use ext_authz::check::key::{NewKey, Presented};
use ext_authz::check::keyring::{Found, Keyring};
use ext_authz::check::record::{Grant, KeyRecord, Kind, Status, Validity};
use ext_authz::timestamp::Timestamp;

/// Repeatable keys (xorshift64); they guard nothing.
struct Keys(u64);

impl Keys {
    fn next(&mut self) -> NewKey {
        let random = |bytes: &mut [u8]| {
            for byte in bytes {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                *byte = self.0.to_be_bytes()[0];
            }
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(key) = NewKey::generate("live", random);
        key.expect("'live' is an environment")
    }
}

fn keyring(count: usize) -> (Keyring, NewKey) {
    let secret = BTreeMap::from([(1, b"a pepper of thirty-two bytes, yes".to_vec())]);
    let peppers = Arc::new(Peppers::new(secret).expect("the pepper is long enough"));
    let mut keys = Keys(0x9e37_79b9_7f4a_7c15);
    let record = |key: &NewKey| KeyRecord {
        id: key.id(),
        tenant: "acme".into(),
        grant: Arc::new(Grant {
            priority: "ingest".to_owned(),
            plan: "default".to_owned(),
            scopes: Vec::new(),
            networks: Vec::new(),
        }),
        digest: peppers.digest(key),
        not_before: None,
        expires_at: None,
        status: Status::Active,
        kind: Kind::Issued,
    };
    let asked = keys.next();
    let mut records = vec![record(&asked)];
    records.extend((1..count).map(|_| record(&keys.next())));
    (Keyring::try_new(records, peppers).expect("different keys"), asked)
}

/// Whether the keyring lets a key pass now.
fn passes(keyring: &Keyring, key: &[u8], now: Timestamp) -> bool {
    let Ok(key) = Presented::parse(key) else { return false };
    match keyring.find(&key) {
        Found::Key(record) => record.validity(now) == Validity::Valid,
        _ => false,
    }
}

fn verify(criterion: &mut Criterion) {
    let now = Timestamp::from_millis(1_700_000_000_000);
    let (few, good) = keyring(1_000);
    let (many, same) = keyring(100_000);
    assert!(passes(&few, good.expose().as_bytes(), now) && good.expose() == same.expose());
    let unknown = Keys(7).next();
    let mut mistyped = good.expose().as_bytes().to_vec();
    mistyped[20] ^= 1;
    let mut group = criterion.benchmark_group("verify");
    for (name, keyring, key) in [
        ("junk", &few, b"Bearer of something else".as_slice()),
        ("mistyped", &few, &mistyped),
        ("unknown", &few, unknown.expose().as_bytes()),
        ("good, 1,000 keys", &few, good.expose().as_bytes()),
        ("good, 100,000 keys", &many, good.expose().as_bytes()),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| passes(keyring, black_box(key), now));
        });
    }
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
