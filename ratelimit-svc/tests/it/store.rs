//! One contract for every store, run on memory and on a real Redis.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use ratelimit_svc::decide::algorithm::State;
use ratelimit_svc::decide::hit::Outcome;
use ratelimit_svc::decide::hit::{Count, Hit, Mode, Role};
use ratelimit_svc::decide::key::{KeyFormat, counter_key, usage_key};
use ratelimit_svc::decide::reserve::Usage;
use ratelimit_svc::decide::settle::settle;
use ratelimit_svc::limits::algorithm::Algorithm;
use ratelimit_svc::limits::rule::Limit;
use ratelimit_svc::limits::sharing::{ClassShare, Fraction, Guarantee, How};
use ratelimit_svc::limits::unit::{Period, Unit, Window};
use ratelimit_svc::store::Store;
use ratelimit_svc::store::backend::Backend;
use ratelimit_svc::store::error::StoreError;
use ratelimit_svc::store::memory::Memory;
use ratelimit_svc::store::redis::connection::address::Login;
use ratelimit_svc::store::redis::topology::link::{LinkSettings, Topology};
use ratelimit_svc::store::redis::{EXPIRY_MARGIN_SECONDS, Redis, RedisSettings};

use crate::support::{DEADLINE, RedisServer, wait_for};

pub const NOW: Duration = Duration::from_secs(1_000_000);

pub fn hit(key: &str, amount: u64, limit: u32) -> Hit {
    let window = Unit::Hour.window(NOW.as_secs());
    let (algorithm, role) = (Algorithm::FixedWindow, Role::Enforced);
    Hit {
        key: key.as_bytes().into(),
        amount,
        is_refund: false,
        limit,
        window,
        algorithm,
        role,
        share: None,
    }
}

/// A hit as a plan makes it, on the counter `name` under `limit`.
fn hit_at(name: &str, limit: Limit, amount: u64, now: Duration) -> Hit {
    let window = limit.period.window(now.as_secs());
    // The first entry places a key in a cluster: these are all in one slot.
    let entries = [("k", "same"), ("n", name)];
    let key = counter_key(KeyFormat::Tidegate, "d", &entries, &[], limit, window);
    let Limit { requests_per_unit, algorithm, .. } = limit;
    let role = Role::Enforced;
    Hit {
        key,
        amount,
        is_refund: false,
        limit: requests_per_unit,
        window,
        algorithm,
        role,
        share: None,
    }
}

fn limit(algorithm: Algorithm, requests_per_unit: u32, seconds: u64) -> Limit {
    let period = Period::try_new(seconds).expect("in bounds");
    Limit { requests_per_unit, period, algorithm, mode: None }
}

fn bucket(burst: u32) -> Algorithm {
    Algorithm::TokenBucket { burst }
}

fn refund(key: &str, amount: u64, limit: u32) -> Hit {
    Hit { is_refund: true, ..hit(key, amount, limit) }
}

pub async fn count(store: &impl Store, mode: Mode, hits: &[Hit]) -> Vec<(u64, bool)> {
    let counts = store.count(hits, mode, NOW).await.expect("counted");
    assert_eq!(counts.len(), hits.len());
    counts.iter().map(|count| (count.value, count.over)).collect()
}

/// What every store does alike, each on servers of its own.
pub async fn contract<S: Store + 'static>(store: Arc<S>) {
    contract_in_parts(store.clone()).await;
    agrees_with_the_model(store).await;
}

/// The same of a store that decides one request in several places: what is given back leaves no
/// trace but the time that it was to last.
pub async fn contract_in_parts<S: Store + 'static>(store: Arc<S>) {
    each_hit_counts(&*store).await;
    nothing_or_all(&*store).await;
    what_is_given_back(&*store).await;
    looking_changes_nothing(&*store).await;
    a_budget_is_met_exactly(store.clone()).await;
    algorithms_count(&*store).await;
    a_clock_that_is_behind_sees_no_room(&*store).await;
    algorithms_refuse_together(&*store).await;
    a_burst_is_met_exactly(store).await;
}

async fn each_hit_counts(store: &impl Store) {
    let mode = Mode::CountAll;
    assert_eq!(count(store, mode, &[hit("c1", 1, 2)]).await, [(1, false)]);
    assert_eq!(count(store, mode, &[hit("c1", 1, 2)]).await, [(2, false)]);
    assert_eq!(count(store, mode, &[hit("c1", 1, 2)]).await, [(3, true)]);
    // Over or not, neighbours count.
    let both = [hit("c1", 5, 2), hit("c2", 5, 9)];
    assert_eq!(count(store, mode, &both).await, [(8, true), (5, false)]);
    // A raised limit goes on with the count it finds.
    assert_eq!(count(store, mode, &[hit("c1", 1, 100)]).await, [(9, false)]);
    let huge = [hit("c3", 1 << 32, u32::MAX), hit("c3", 1 << 32, u32::MAX)];
    assert_eq!(count(store, mode, &huge).await, [(1 << 32, true), (1 << 33, true)]);
    assert_eq!(count(store, mode, &[]).await, []);
}

async fn nothing_or_all(store: &impl Store) {
    let mode = Mode::AllOrNothing;
    let both = |role| [Hit { role, ..hit("a1", 1, 1) }, hit("a2", 1, 9)];
    assert_eq!(count(store, mode, &both(Role::Enforced)).await, [(1, false), (1, false)]);
    assert_eq!(count(store, mode, &both(Role::Enforced)).await, [(1, true), (1, false)]);
    assert_eq!(count(store, mode, &both(Role::Observer)).await, [(1, true), (2, false)]);
    assert_eq!(count(store, mode, &both(Role::Quota)).await, [(1, true), (2, false)]);
    let twice = [hit("a3", 1, 1), hit("a3", 1, 1)];
    assert_eq!(count(store, mode, &twice).await, [(0, false), (0, true)]);
}

async fn what_is_given_back(store: &impl Store) {
    for mode in [Mode::CountAll, Mode::AllOrNothing] {
        let key = format!("r{mode:?}");
        assert_eq!(count(store, mode, &[refund(&key, 1, 5)]).await, [(0, false)]);
        assert_eq!(count(store, mode, &[hit(&key, 5, 5)]).await, [(5, false)]);
        assert_eq!(count(store, mode, &[refund(&key, 2, 5)]).await, [(3, false)]);
        assert_eq!(count(store, mode, &[refund(&key, 9, 5)]).await, [(0, false)]);
        let mixed = [hit(&key, 4, 5), refund(&key, 1, 5)];
        assert_eq!(count(store, mode, &mixed).await, [(4, false), (3, false)]);
    }
}

async fn looking_changes_nothing(store: &impl Store) {
    for mode in [Mode::CountAll, Mode::AllOrNothing] {
        let key = format!("l{mode:?}");
        assert_eq!(count(store, mode, &[hit(&key, 0, 2)]).await, [(0, false)]);
        assert_eq!(count(store, mode, &[hit(&key, 2, 2)]).await, [(2, false)]);
        assert_eq!(count(store, mode, &[hit(&key, 0, 2)]).await, [(2, false)]);
        assert_eq!(count(store, mode, &[hit(&key, 0, 1)]).await, [(2, true)]);
    }
}

async fn a_budget_is_met_exactly<S: Store + 'static>(store: Arc<S>) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let store = store.clone();
        tasks.spawn(async move {
            let both = [hit("budget", 1, 100), hit("wide", 1, 1000)];
            count(&*store, Mode::AllOrNothing, &both).await.iter().all(|(_, over)| !over)
        });
    }
    let admitted = tasks.join_all().await.into_iter().filter(|ok| *ok).count();
    assert_eq!(admitted, 100);
    let wide = count(&*store, Mode::CountAll, &[hit("wide", 0, 1000)]).await;
    assert_eq!(wide, [(100, false)], "refused requests consume nothing");
}

async fn algorithms_count(store: &impl Store) {
    for (name, algorithm) in [("g1", bucket(3)), ("g2", Algorithm::SlidingWindow)] {
        let limit = limit(algorithm, 3, 3600);
        for mode in [Mode::CountAll, Mode::AllOrNothing] {
            let name = format!("{name}{mode:?}");
            let hit = |amount| [hit_at(&name, limit, amount, NOW)];
            assert_eq!(count(store, mode, &hit(0)).await, [(0, false)]);
            assert_eq!(count(store, mode, &hit(2)).await, [(2, false)]);
            // What is refused consumes nothing, in either mode.
            assert_eq!(count(store, mode, &hit(2)).await, [(2, true)]);
            assert_eq!(count(store, mode, &hit(1 << 32)).await, [(2, true)]);
            assert_eq!(count(store, mode, &hit(1)).await, [(3, false)]);
            assert_eq!(count(store, mode, &hit(1)).await, [(3, true)]);
            let [back] = hit(2);
            let back = [Hit { is_refund: true, ..back }];
            assert_eq!(count(store, mode, &back).await, [(1, false)]);
            let [one] = hit(1);
            let thrice = [one.clone(), one.clone(), one];
            let expected = match mode {
                Mode::CountAll => [(2, false), (3, false), (3, true)],
                Mode::AllOrNothing => [(1, false), (1, false), (1, true)],
            };
            assert_eq!(count(store, mode, &thrice).await, expected);
        }
        let none = Limit { requests_per_unit: 0, ..limit };
        let never = [hit_at("none", none, 1, NOW)];
        assert_eq!(count(store, Mode::AllOrNothing, &never).await, [(0, true)]);
    }
}

/// A counter that a clock ahead has moved on is not read as if it had faded.
async fn a_clock_that_is_behind_sees_no_room(store: &impl Store) {
    let limit = limit(Algorithm::SlidingWindow, 10, 10);
    let start = Duration::from_secs(limit.period.window(NOW.as_secs()).start);
    let at = async |amount, seconds: f64| {
        let now = start + Duration::from_secs_f64(seconds);
        let hit = [hit_at("ahead", limit, amount, now)];
        let counts = store.count(&hit, Mode::CountAll, now).await.expect("counted");
        (counts[0].value, counts[0].over)
    };
    assert_eq!(at(10, 9.0).await, (10, false));
    assert_eq!(at(3, 15.0).await, (8, false));
    assert_eq!(at(1, 9.9).await, (13, true));
    assert_eq!(at(2, 15.0).await, (10, false));
}

async fn algorithms_refuse_together(store: &impl Store) {
    let hits = |fixed: u64, sliding: u64, tokens: u64| {
        [
            hit_at("mixed", limit(Algorithm::FixedWindow, 5, 30), fixed, NOW),
            hit_at("mixed", limit(Algorithm::SlidingWindow, 5, 30), sliding, NOW),
            hit_at("mixed", limit(bucket(5), 1, 30), tokens, NOW),
        ]
    };
    let mode = Mode::AllOrNothing;
    let all = |value, over: [bool; 3]| over.map(|over| (value, over));
    let passes = [false; 3];
    assert_eq!(count(store, mode, &hits(3, 3, 3)).await, all(3, passes));
    assert_eq!(count(store, mode, &hits(3, 1, 1)).await, all(3, [true, false, false]));
    assert_eq!(count(store, mode, &hits(1, 3, 1)).await, all(3, [false, true, false]));
    assert_eq!(count(store, mode, &hits(1, 1, 3)).await, all(3, [false, false, true]));
    assert_eq!(count(store, mode, &hits(2, 2, 2)).await, all(5, passes));
    // Counting all, each is on its own.
    let counts = count(store, Mode::CountAll, &hits(1, 1, 0)).await;
    assert_eq!(counts, [(6, true), (5, true), (5, false)]);
}

async fn a_burst_is_met_exactly<S: Store + 'static>(store: Arc<S>) {
    for algorithm in [bucket(100), Algorithm::SlidingWindow] {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let store = store.clone();
            tasks.spawn(async move {
                let hit = [hit_at("burst", limit(algorithm, 100, 86_400), 1, NOW)];
                !count(&*store, Mode::CountAll, &hit).await[0].1
            });
        }
        let admitted = tasks.join_all().await.into_iter().filter(|ok| *ok).count();
        assert_eq!(admitted, 100, "{algorithm}");
    }
}

/// One hit of a random schedule.
#[derive(Clone, Debug)]
struct Step {
    counter: usize,
    amount: u64,
    is_refund: bool,
    requests_per_unit: u32,
    role: Role,
    share: Option<ClassShare>,
}

/// What the counters of a schedule are: each name one algorithm and period.
fn counters() -> Vec<(Algorithm, u64)> {
    vec![
        (Algorithm::FixedWindow, 60),
        (Algorithm::FixedWindow, 7),
        (Algorithm::SlidingWindow, 3),
        (Algorithm::SlidingWindow, 1),
        (bucket(4), 60),
        (bucket(9), 7),
    ]
}

/// How a hit shares its limit: not at all, by thresholds, by forecast with and without guarantees.
fn shares() -> impl Strategy<Value = Option<ClassShare>> {
    let fraction = |percent: u32| Fraction::try_new(f64::from(percent) / 100.0).expect("in bounds");
    let guarantee = (0..33u32, 0..50u32).prop_map(move |(floor, reserve_min)| Guarantee {
        floor: fraction(floor),
        reserve_min: fraction(reserve_min),
    });
    let guarantees = proptest::option::of(proptest::collection::vec(guarantee, 3));
    let forecast = guarantees.prop_map(|list| How::Forecast { guarantees: list.map(Into::into) });
    let how =
        prop_oneof![1 => (0..=100u32).prop_map(move |p| How::UpTo(fraction(p))), 4 => forecast];
    // A claim tells of more or less demand than it takes.
    let asked = proptest::option::weighted(0.3, 0..60u64);
    let share = (0..3u8, how, asked).prop_map(|(rank, how, asked)| ClassShare {
        rank,
        classes: 3,
        how,
        asked,
    });
    prop_oneof![1 => Just(None), 3 => share.prop_map(Some)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let role = prop_oneof![Just(Role::Enforced), Just(Role::Quota), Just(Role::Observer)];
    let amount = prop_oneof![8 => 0..4u64, 3 => 4..60u64, 1 => Just(1 << 32)];
    let limit = prop_oneof![6 => 0..7u32, 4 => 20..300u32, 1 => Just(u32::MAX)];
    let is_refund = prop_oneof![4 => Just(false), 1 => Just(true)];
    let one = (0..counters().len(), amount, is_refund, limit, role, shares()).prop_map(
        |(counter, amount, is_refund, requests_per_unit, role, share)| Step {
            counter,
            amount,
            is_refund,
            requests_per_unit,
            role,
            share,
        },
    );
    proptest::collection::vec(one, 1..5)
}

/// A random schedule: whether its mode is all-or-nothing, and for each request the microseconds
/// the clock goes forward and back before it. Clocks of replicas differ, so it may go back.
type Schedule = (bool, Vec<(u64, u64, Vec<Step>)>);

fn schedules(back: u64) -> impl Strategy<Value = Schedule> {
    let pause = prop_oneof![Just(0), 0..2_000_000u64, 0..90_000_000u64];
    (any::<bool>(), proptest::collection::vec((pause, 0..=back, steps()), 1..14))
}

/// Schedules of counters without windows of their own and of short pauses: much is refused, and
/// clocks that go back meet what they left ahead.
fn close(back: u64) -> impl Strategy<Value = Schedule> {
    schedules(back).prop_map(|(atomic, mut requests)| {
        for (pause, _, steps) in &mut requests {
            *pause %= 2_000_000;
            for step in steps {
                step.counter = 2 + step.counter % 4;
            }
        }
        (atomic, requests)
    })
}

/// Runs a schedule through the pure functions and the store, and compares each answer.
async fn compare(
    store: &impl Store,
    scope: &str,
    (atomic, requests): Schedule,
    same: impl Fn(Vec<Count>, Vec<Count>) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mode = if atomic { Mode::AllOrNothing } else { Mode::CountAll };
    let mut model: HashMap<Box<[u8]>, State> = HashMap::new();
    let mut usages: HashMap<Box<[u8]>, Usage> = HashMap::new();
    let mut now = NOW + Duration::from_micros(999_999);
    for (pause, back, steps) in requests {
        now = now + Duration::from_micros(pause) - Duration::from_micros(back);
        let hit = |step: Step| {
            let (algorithm, seconds) = counters()[step.counter];
            let limit = limit(algorithm, step.requests_per_unit, seconds);
            let hit = hit_at(&format!("{scope}-{}", step.counter), limit, step.amount, now);
            Hit { is_refund: step.is_refund, role: step.role, share: step.share, ..hit }
        };
        let hits: Vec<Hit> = steps.into_iter().map(hit).collect();
        let settled = settle(&hits, mode, now, |at| {
            let usage = usages.get(&usage_key(&hits[at]));
            (model.get(&hits[at].key).copied(), usage)
        });
        let mut expected = Vec::new();
        for (hit, settled) in hits.iter().zip(settled) {
            if settled.moved && hit.amount > 0 {
                model.insert(hit.key.clone(), settled.state);
            }
            expected.push(settled.count(hit, now));
            if let Some(usage) = settled.usage {
                usages.insert(usage_key(hit), usage);
            }
        }
        // A machine too busy to answer in time says nothing; one that never does fails the test.
        let counted = store.count(&hits, mode, now).await.map_err(|error| match error {
            StoreError::TimedOut => TestCaseError::reject("timed out"),
            error => TestCaseError::fail(chassis::telemetry::error_chain(&error)),
        })?;
        same(counted, expected)?;
    }
    Ok(())
}

/// Random requests at random times: decisions, values and resets are those of the pure functions.
async fn agrees<S: Store + 'static>(
    store: Arc<S>,
    scope: &'static str,
    schedules: impl Strategy<Value = Schedule> + Send + 'static,
) {
    let case = AtomicU64::new(0);
    run(schedules, move |handle, schedule| {
        let scope = format!("{scope}{}", case.fetch_add(1, Ordering::Relaxed));
        handle.block_on(compare(&*store, &scope, schedule, |counted, expected| {
            prop_assert_eq!(counted, expected);
            Ok(())
        }))
    })
    .await;
}

/// Runs a property that waits for a store.
async fn run<T: std::fmt::Debug>(
    strategy: impl Strategy<Value = T> + Send + 'static,
    property: impl Fn(&tokio::runtime::Handle, T) -> Result<(), TestCaseError> + Send + 'static,
) {
    let handle = tokio::runtime::Handle::current();
    let checked = tokio::task::spawn_blocking(move || {
        let config = ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() };
        let run = TestRunner::new(config).run(&strategy, |value| property(&handle, value));
        run.map_err(|error| error.to_string())
    });
    checked.await.expect("did not panic").expect("agrees");
}

/// As the model decides, where a request is decided in several places.
pub async fn decides_as_the_model<S: Store + 'static>(store: Arc<S>) {
    let case = AtomicU64::new(0);
    let schedules = schedules(0).prop_map(|(atomic, mut requests)| {
        // What is given back in one rank comes too late for another.
        for step in requests.iter_mut().flat_map(|(_, _, steps)| steps) {
            step.is_refund = false;
            // Of demand that was cut off too much is taken back.
            step.share =
                step.share.take().filter(|share| matches!(share.how, How::Forecast { .. }));
            step.share.iter_mut().for_each(|share| share.asked = None);
            if step.share.is_some() {
                step.requests_per_unit = step.requests_per_unit.max(400);
                step.amount %= 60;
            }
        }
        (atomic, requests)
    });
    run(schedules, move |handle, schedule| {
        let scope = format!("parts{}", case.fetch_add(1, Ordering::Relaxed));
        handle.block_on(compare(&*store, &scope, schedule, |counted, expected| {
            for (counted, expected) in counted.iter().zip(expected) {
                prop_assert_eq!((counted.over, counted.moved), (expected.over, expected.moved));
            }
            Ok(())
        }))
    })
    .await;
}

async fn agrees_with_the_model<S: Store + 'static>(store: Arc<S>) {
    agrees(store, "m", schedules(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_agrees_under_clocks_that_differ() {
    let server = RedisServer::start().await;
    agrees(connected(&server, settings()).await, "back", close(3_000_000)).await;
}

/// What the memory of refusals answers is what Redis would have.
#[tokio::test(flavor = "multi_thread")]
async fn remembered_refusals_are_true() {
    let server = RedisServer::start().await;
    let settings = RedisSettings { local_cache_bytes: 1 << 20, ..settings() };
    let store = connected(&server, settings).await;
    let case = AtomicU64::new(0);
    let known = Arc::new(AtomicU64::new(0));
    let seen = known.clone();
    let schedules = close(0).prop_map(|(atomic, mut requests)| {
        // A limit that is changed there and back is a refusal that holds a little too long.
        let requests_per_unit = requests[0].2[0].requests_per_unit;
        for step in requests.iter_mut().flat_map(|(_, _, steps)| steps) {
            step.is_refund &= step.amount == 3;
            step.requests_per_unit = requests_per_unit;
            // A remembered refusal is not told to Redis as demand, so a forecast may differ.
            step.share = step.share.take().filter(|share| matches!(share.how, How::UpTo(_)));
        }
        (atomic, requests)
    });
    run(schedules, move |handle, schedule| {
        let scope = format!("known{}", case.fetch_add(1, Ordering::Relaxed));
        handle.block_on(compare(&*store, &scope, schedule, |counted, expected| {
            for (counted, expected) in counted.iter().zip(expected) {
                prop_assert_eq!((counted.over, counted.moved), (expected.over, expected.moved));
                seen.fetch_add(counted.remembered.into(), Ordering::Relaxed);
            }
            Ok(())
        }))
    })
    .await;
    assert!(known.load(Ordering::Relaxed) > 0, "some were remembered");
}

pub fn settings() -> RedisSettings {
    RedisSettings {
        call_budget: Duration::from_secs(5),
        key_prefix: "t:".to_owned(),
        expiration_jitter_max_seconds: 10,
        local_cache_bytes: 0,
        threads: 0,
    }
}

async fn connected(server: &RedisServer, settings: RedisSettings) -> Arc<Redis> {
    let store = unconnected(Topology::Unix(server.socket()), settings);
    // With little patience it takes a busy machine more than one attempt.
    wait_for("connected", async || store.probe().await.is_ok()).await;
    Arc::new(store)
}

/// A store that has not been anywhere yet.
pub fn unconnected(topology: Topology, settings: RedisSettings) -> Redis {
    let (login, sentinel_login) = (Login::default(), Login::default());
    let link = LinkSettings { topology, login, sentinel_login, tls: None };
    Redis::new(link, settings, Arc::default()).expect("no files to read")
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    contract(Arc::new(Memory::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_the_contract() {
    let server = RedisServer::start().await;
    contract(connected(&server, settings()).await).await;
}

#[tokio::test]
async fn every_key_expires_with_its_window() {
    let server = RedisServer::start().await;
    let store = connected(&server, settings()).await;
    let (plain, scripted) = ([hit("plain", 3, 9)], [hit("script", 3, 9)]);
    count(&*store, Mode::CountAll, &plain).await;
    count(&*store, Mode::AllOrNothing, &scripted).await;
    count(&*store, Mode::CountAll, &[hit("looked", 0, 9)]).await;
    let mut connection = server.connection().await;
    for key in ["t:plain", "t:script"] {
        wait_for("the key expires", async || {
            let mut ttl = redis::cmd("TTL");
            let seconds: i64 = ttl.arg(key).query_async(&mut connection).await.expect("answered");
            (3600 - 60..=3610).contains(&seconds)
        })
        .await;
    }
    // Claimed before its window begins, a counter lasts to the end of it.
    let later = NOW + Duration::from_secs(3600);
    let ahead = |key| hit_at(key, limit(Algorithm::FixedWindow, 9, 3600), 1, later);
    count(&*store, Mode::CountAll, &[ahead("t1")]).await;
    count(&*store, Mode::AllOrNothing, &[ahead("t2")]).await;
    for key in [ahead("t1").key, ahead("t2").key] {
        let key = [b"t:", &*key].concat();
        let left = ahead("t1").window.end() - NOW.as_secs();
        wait_for("the key outlives its window", async || {
            let mut ttl = redis::cmd("TTL");
            let seconds: i64 = ttl.arg(&key).query_async(&mut connection).await.expect("answered");
            seconds >= left as i64
        })
        .await;
    }
    let mut exists = redis::cmd("EXISTS");
    let looked: i64 = exists.arg("t:looked").query_async(&mut connection).await.expect("answered");
    assert_eq!(looked, 0, "a look makes no key");
}

#[tokio::test]
async fn counters_without_a_window_expire_when_they_say_nothing() {
    let server = RedisServer::start().await;
    let store = connected(&server, settings()).await;
    let mut connection = server.connection().await;
    // Half a bucket of 100 s, and two windows of 30 s; each and at most the margin more.
    for (algorithm, seconds, most) in [(bucket(10), 100, 50), (Algorithm::SlidingWindow, 30, 60)] {
        let hit = hit_at("ttl", limit(algorithm, 10, seconds), 5, NOW);
        let look = Hit { amount: 0, key: [b"look:", &*hit.key].concat().into(), ..hit.clone() };
        count(&*store, Mode::CountAll, &[hit.clone(), look.clone()]).await;
        let mut pttl = async |key: &[u8]| -> i64 {
            let key = [b"t:", key].concat();
            redis::cmd("PTTL").arg(key).query_async(&mut connection).await.expect("answered")
        };
        let lives = pttl(&hit.key).await;
        let margin = i64::try_from(EXPIRY_MARGIN_SECONDS).expect("small");
        assert!((1..=(most + margin) * 1000).contains(&lives), "{algorithm}: {lives}");
        assert!(lives > most * 1000 - 60_000, "{algorithm}: {lives}");
        assert_eq!(pttl(&look.key).await, -2, "a look makes no key");
    }
}

#[tokio::test]
async fn plain_fixed_windows_need_no_script() {
    let server = RedisServer::start().await;
    let store = connected(&server, settings()).await;
    let mut connection = server.connection().await;
    // Which data it holds was asked by a script.
    server.command(&["CONFIG", "RESETSTAT"]).await;
    let both = [hit("p1", 1, 9), hit_at("p2", limit(Algorithm::FixedWindow, 9, 30), 1, NOW)];
    count(&*store, Mode::CountAll, &both).await;
    let calls = async |connection: &mut redis::aio::MultiplexedConnection| {
        let mut info = redis::cmd("INFO");
        let text: String =
            info.arg("commandstats").query_async(connection).await.expect("answered");
        text.contains("cmdstat_eval")
    };
    assert!(!calls(&mut connection).await);
    count(&*store, Mode::CountAll, &[hit_at("p3", limit(bucket(1), 9, 30), 1, NOW)]).await;
    assert!(calls(&mut connection).await);
}

#[tokio::test]
async fn a_refused_bucket_is_asked_again_when_the_hit_would_pass() {
    let server = RedisServer::start().await;
    let store = connected(&server, RedisSettings { local_cache_bytes: 4096, ..settings() }).await;
    for (algorithm, wait) in [(bucket(6), 10), (Algorithm::SlidingWindow, 60)] {
        let limit = limit(algorithm, 6, 60);
        let start = Duration::from_secs(limit.period.window(NOW.as_secs()).start);
        let hit = |amount, now| [hit_at("again", limit, amount, now)];
        let ask = async |amount, now| {
            let hit = hit(amount, now);
            store.count(&hit, Mode::CountAll, now).await.expect("counted")[0]
        };
        assert!(!ask(6, start).await.over);
        let first = ask(1, start).await;
        assert!(first.over && !first.remembered, "{algorithm}");
        assert!(ask(1, start + first.reset / 2).await.remembered, "{algorithm}");
        assert!(first.reset >= Duration::from_secs(wait), "{algorithm}");
        let again = ask(1, start + first.reset).await;
        assert!(!again.over && !again.remembered, "{algorithm}");
    }
}

#[tokio::test]
async fn a_counter_whose_answer_was_lost_still_expires() {
    let mut server = RedisServer::start().await;
    let quick = RedisSettings { call_budget: Duration::from_millis(50), ..settings() };
    let store = connected(&server, quick).await;
    server.signal("STOP");
    let lost = store.count(&[hit("lost", 1, 9)], Mode::CountAll, NOW).await;
    assert!(matches!(lost, Err(StoreError::TimedOut)), "{lost:?}");
    server.signal("CONT");
    // Redis executes what it had received; the store cannot know.
    let mut connection = server.connection().await;
    wait_for("the lost hit is counted", async || {
        let mut get = redis::cmd("GET");
        let value: Option<u64> =
            get.arg("t:lost").query_async(&mut connection).await.expect("answered");
        value == Some(1)
    })
    .await;
    wait_for("the store recovers", async || store.probe().await.is_ok()).await;
    wait_for("the key expires", async || {
        let mut ttl = redis::cmd("TTL");
        let seconds: i64 = ttl.arg("t:lost").query_async(&mut connection).await.expect("answered");
        seconds > 0
    })
    .await;
    server.kill();
}

/// A process that ends within its first hit, at any command: what reached Redis expires.
#[tokio::test]
async fn a_process_that_ends_leaves_no_counter_without_an_expiry() {
    let server = RedisServer::start().await;
    let store = connected(&server, settings()).await;
    // What this process does after a call it will not do any more: nothing but the call is waited for.
    server.command(&["CONFIG", "RESETSTAT"]).await;
    let hits = [hit("e1", 1, 9), hit("e2", 2, 9)];
    count(&*store, Mode::CountAll, &hits).await;
    for key in ["t:e1", "t:e2"] {
        let ttl = server.asked(&["ttl", key]);
        assert!(ttl.trim().parse::<i64>().is_ok_and(|ttl| ttl > 0), "{key}: {ttl}");
    }
    // The next hit needs one command.
    server.command(&["CONFIG", "RESETSTAT"]).await;
    count(&*store, Mode::CountAll, &hits).await;
    let stats = server.asked(&["info", "commandstats"]);
    assert!(stats.contains("cmdstat_incrby:calls=2") && !stats.contains("cmdstat_set:"), "{stats}");
    // What the server loses under an open connection expires, too.
    server.command(&["FLUSHALL"]).await;
    count(&*store, Mode::CountAll, &hits).await;
    let ttl = server.asked(&["ttl", "t:e1"]);
    assert!(ttl.trim().parse::<i64>().is_ok_and(|ttl| ttl > 0), "{ttl}");
}

#[tokio::test]
async fn a_counter_whose_request_was_cancelled_still_expires() {
    let server = RedisServer::start().await;
    // Its own time is not up before that of the caller, however long this process stands still.
    let patient = RedisSettings { call_budget: DEADLINE, ..settings() };
    let store = connected(&server, patient).await;
    server.signal("STOP");
    let hits = [hit("cancelled", 1, 9)];
    let call = store.count(&hits, Mode::CountAll, NOW);
    tokio::time::timeout(Duration::from_millis(50), call).await.expect_err("no answer yet");
    server.signal("CONT");
    wait_for("the store recovers", async || store.probe().await.is_ok()).await;
    wait_for("the key expires", async || {
        server.asked(&["ttl", "t:cancelled"]).trim().parse::<i64>().is_ok_and(|ttl| ttl > 0)
    })
    .await;
}

#[tokio::test]
async fn a_counter_that_is_none_spoils_no_other() {
    let server = RedisServer::start().await;
    let store = connected(&server, settings()).await;
    server.command(&["SET", "t:bad", "text"]).await;
    let hits = [hit("bad", 1, 9), hit("good", 1, 9)];
    let error = store.count(&hits, Mode::CountAll, NOW).await.expect_err("one is no count");
    assert!(error.is_of_a_counter(), "{error:?}");
    let [Outcome::Unsure, Outcome::Counted(good)] = error.outcomes(2)[..] else {
        panic!("{error:?}");
    };
    assert_eq!((good.value, good.over), (1, false));
    wait_for("it expires", async || {
        server.asked(&["ttl", "t:good"]).trim().parse::<i64>().is_ok_and(|ttl| ttl > 0)
    })
    .await;
}

#[tokio::test]
async fn what_is_over_is_not_asked_again() {
    let server = RedisServer::start().await;
    let store = connected(&server, RedisSettings { local_cache_bytes: 4096, ..settings() }).await;
    let mut connection = server.connection().await;
    assert_eq!(count(&*store, Mode::CountAll, &[hit("o", 2, 1)]).await, [(2, true)]);
    let reset = Duration::from_secs(hit("o", 1, 1).window.remaining(NOW.as_secs()));
    let remembered =
        Count { value: 2, reset, over: true, moved: false, withheld: 0, remembered: true };
    let both = [hit("o", 1, 1), hit("p", 1, 9)];
    let counts = store.count(&both, Mode::CountAll, NOW).await.expect("counted");
    assert_eq!((counts[0], counts[1].value), (remembered, 1));
    let value: u64 =
        redis::cmd("GET").arg("t:o").query_async(&mut connection).await.expect("answered");
    assert_eq!(value, 2, "Redis was not asked");
    // A refund makes the store forget.
    count(&*store, Mode::CountAll, &[refund("o", 2, 1)]).await;
    assert_eq!(count(&*store, Mode::CountAll, &[hit("o", 1, 1)]).await, [(1, false)]);
}

#[tokio::test]
async fn a_server_that_cannot_count_fails_its_probe() {
    let mut server = RedisServer::start_with(&["--requirepass", "secret"]).await;
    let store = unconnected(Topology::Unix(server.socket()), settings());
    let error = store.probe().await.expect_err("no password");
    assert!(matches!(error, StoreError::Configuration(_)), "{error:?}");
    let error =
        store.count(&[hit("x", 1, 1)], Mode::CountAll, NOW).await.expect_err("no connection");
    assert!(matches!(error, StoreError::NotConnected), "{error:?}");
    server.kill();

    let full = RedisServer::start_with(&["--maxmemory", "100kb"]).await;
    let store = unconnected(Topology::Unix(full.socket()), settings());
    let error = store.probe().await.expect_err("out of memory");
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
}

/// After a failover too, nothing is counted before it is known which data the server holds.
#[tokio::test]
async fn a_server_that_does_not_say_which_data_it_holds_counts_nothing() {
    let mute = RedisServer::start_with(&["--rename-command", "EVALSHA", "NOBODY_CALLS_THIS"]).await;
    let store = unconnected(Topology::Unix(mute.socket()), settings());
    store.probe().await.expect_err("its epoch cannot be read");
    let hit = [hit("early", 1, 9)];
    let error = store.count(&hit, Mode::CountAll, NOW).await.expect_err("not in use");
    assert!(matches!(error, StoreError::NotConnected), "{error:?}");
    assert_eq!(mute.asked(&["exists", "t:early"]).trim(), "0");
}

#[test]
fn windows_are_counted_apart_in_memory() {
    let memory = Memory::default();
    let at = |start: u64| {
        let window = Window { start, seconds: 60 };
        Hit { window, ..hit("same", 1, 1) }
    };
    assert_eq!(memory.count_now(&[at(0)], Mode::CountAll, Duration::from_secs(59))[0].value, 1);
    // The key of a real counter holds its window; one that does not still ends.
    assert_eq!(memory.count_now(&[at(60)], Mode::CountAll, Duration::from_secs(60))[0].value, 1);
}
