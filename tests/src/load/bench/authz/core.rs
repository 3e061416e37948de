//! The decision of ext-authz by itself, without gRPC: what it takes among 100 and among a million
//! keys, what the one HMAC in it takes, and what a revocation takes.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use ext_authz::check::builder::Builder;
use ext_authz::check::decide::{Decision, decide};
use ext_authz::check::digest::Peppers;
use ext_authz::check::extract::Request;
use ext_authz::check::key::{KeyId, NewKey};
use ext_authz::check::key_set::KeySet;
use ext_authz::check::keyring::Keyring;
use ext_authz::check::profile::Profile;
use ext_authz::check::record::{Grant, KeyRecord, Kind, Status};
use ext_authz::timestamp::Timestamp;

use super::{ASKED, PEPPER, Random};
use crate::load::bench::Context;
use crate::load::bench::results::{Aim, median, min};

/// What ten thousand times the keys may cost.
const FLAT: f64 = 1.1;
/// What a decision may take besides its HMAC, ns.
const BESIDES_MAX: f64 = 1_000.0;
/// What a revocation may take, us.
const REVOCATION_MAX: f64 = 1_000.0;
/// How often each key is asked for in a round.
const TIMES: usize = 20;
/// Revocations of a round.
const REVOKED: usize = 100;

struct Subject {
    count: usize,
    keyring: Keyring,
    keys: Vec<String>,
    /// In passes over all keys that are asked for, but the first of each round.
    decisions_ns: Vec<f64>,
    /// In the first passes, when other keys were in the processor's caches before.
    first_ns: Vec<f64>,
    revocations_us: Vec<f64>,
}

/// Runs this part of the stage.
///
/// # Errors
/// When keys cannot be made, or one is not let in.
pub fn measure(cx: &mut Context, counts: &[usize]) -> Result<()> {
    let peppers = Peppers::new([(1, PEPPER.as_bytes().to_vec())].into());
    let peppers = Arc::new(peppers.context("the pepper is long enough")?);
    let mut subjects = Vec::new();
    for count in counts {
        cx.step(&format!("authz: the decision among {count} keys"));
        subjects.push(Subject::new(*count, &peppers)?);
    }
    let mut hmac_ns = Vec::new();
    for _ in 0..cx.rounds() {
        for subject in &mut subjects {
            subject.decide()?;
            subject.revoke()?;
        }
        let key = subjects[0].keys[0].as_bytes();
        for _ in 0..TIMES {
            let began = Instant::now();
            for _ in 0..ASKED {
                black_box(peppers.hmac(1, black_box(key)));
            }
            hmac_ns.push(began.elapsed().as_secs_f64() * 1e9 / ASKED as f64);
        }
    }
    let results = &mut cx.results;
    results.add_samples("authz/core/one HMAC", &hmac_ns, "ns");
    for subject in &subjects {
        let name = format!("authz/core/{} keys", subject.count);
        results.add_samples(&format!("{name}/decision"), &subject.decisions_ns, "ns");
        results.add_samples(
            &format!("{name}/the first decision for a key"),
            &subject.first_ns,
            "ns",
        );
        let besides = min(&subject.decisions_ns) - min(&hmac_ns);
        results.add(format!("{name}/besides the HMAC"), besides, "ns", Aim::AtMost(BESIDES_MAX));
        let revocation = median(&subject.revocations_us);
        let aim = Aim::AtMost(REVOCATION_MAX);
        results.add(format!("{name}/a revocation (median)"), revocation, "us", aim);
    }
    let (few, many) = (subjects.first(), subjects.last());
    let (few, many) = few.zip(many).context("there are counts")?;
    let slope = min(&many.decisions_ns) / min(&few.decisions_ns);
    let name = format!("authz/core/{} to {} keys", many.count, few.count);
    results.add(name, slope, "x", Aim::AtMost(FLAT));
    Ok(())
}

impl Subject {
    fn new(count: usize, peppers: &Arc<Peppers>) -> Result<Self> {
        let grant = Arc::new(Grant {
            priority: "ingest".to_owned(),
            plan: "default".to_owned(),
            scopes: Vec::new(),
            networks: Vec::new(),
        });
        let (mut random, mut builder) = (Random(0x243f_6a88_85a3_08d3), Builder::default());
        let (every, mut keys) = (count.div_ceil(ASKED), Vec::new());
        for number in 0..count {
            let key = NewKey::generate("live", |bytes| random.fill(bytes))?;
            let key = key.context("'live' is an environment")?;
            builder.add(KeyRecord {
                id: key.id(),
                tenant: format!("tenant-{number:07}").into(),
                grant: Arc::clone(&grant),
                digest: peppers.digest(&key),
                not_before: None,
                expires_at: None,
                status: Status::Active,
                kind: Kind::Issued,
            })?;
            if number % every == 0 {
                keys.push(key.expose().to_owned());
            }
        }
        // As many requests whatever the number of keys, each in memory of its own: what is compared
        // is the cost of the keys, not that of more requests.
        let (asked, mut again) = (keys.len(), 0);
        while keys.len() < ASKED {
            keys.push(keys[again % asked].clone());
            again += 1;
        }
        let keyring = Keyring::of(builder.build(), Arc::clone(peppers));
        let (decisions_ns, first_ns, revocations_us) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { count, keyring, keys, decisions_ns, first_ns, revocations_us })
    }

    /// Asks for up to [`ASKED`] keys that are spread over all of them, in turn.
    fn decide(&mut self) -> Result<()> {
        let requests: Vec<Request<'_>> = self.keys.iter().map(|key| request(key)).collect();
        let now = Timestamp::now();
        for pass in 0..TIMES {
            let (mut admitted, began) = (0, Instant::now());
            for request in &requests {
                let decision = decide(now, Some(&self.keyring), Some(black_box(request)));
                admitted += usize::from(matches!(decision, Decision::Allow { .. }));
            }
            let (took, asked) = (began.elapsed(), requests.len());
            anyhow::ensure!(admitted == asked, "{} of {asked} not admitted", asked - admitted);
            let took_ns = took.as_secs_f64() * 1e9 / asked as f64;
            match pass {
                0 => self.first_ns.push(took_ns),
                _ => self.decisions_ns.push(took_ns),
            }
        }
        Ok(())
    }

    /// Makes the set that follows a revocation, again and again, while the one before it is in use.
    fn revoke(&mut self) -> Result<()> {
        let set: &KeySet = self.keyring.part(0).context("one source")?;
        for key in self.keys.iter().cycle().take(REVOKED) {
            let id = KeyId::parse(key.get(9..21).context("a key")?).context("a key id")?;
            let record = set.by_id(&id).context("it was put in")?;
            let began = Instant::now();
            let mut next = set.clone();
            next.put(KeyRecord { status: Status::Revoked, ..record.to_record() })?;
            self.revocations_us.push(began.elapsed().as_secs_f64() * 1e6);
            drop(black_box(next));
        }
        Ok(())
    }
}

/// As Envoy asks for a write.
fn request(key: &str) -> Request<'_> {
    let headers: Vec<(&str, &[u8])> = vec![
        (":authority", b"edge.example.com"),
        (":method", b"POST"),
        (":path", b"/write?db=metrics&precision=ns"),
        ("user-agent", b"Telegraf/1.32.0 Go/1.23.0"),
        ("content-length", b"4096"),
        ("content-type", b"text/plain; charset=utf-8"),
        ("x-api-key", key.as_bytes()),
    ];
    Request {
        client: None,
        profile: Ok(Profile::InfluxV2),
        required_scope: None,
        headers,
        path: "/api/v2/write?bucket=metrics&precision=ns",
        body_bytes: Some(4096),
    }
}
