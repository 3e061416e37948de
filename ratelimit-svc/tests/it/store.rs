//! One contract for every store, run on memory and on a real Redis.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ratelimit_svc::limits::unit::{Unit, Window};
use ratelimit_svc::outage::guard::Backend;
use ratelimit_svc::store::memory::Memory;
use ratelimit_svc::store::redis::{Redis, RedisSettings};
use ratelimit_svc::store::{Count, Hit, Mode, Role, Store, StoreError, settle};

use crate::support::{RedisServer, wait_for};

const NOW: u64 = 1_000_000;

fn hit(key: &str, amount: u64, limit: u32) -> Hit {
    let window = Unit::Hour.window(NOW);
    let role = Role::Enforced;
    Hit { key: key.as_bytes().into(), amount, is_refund: false, limit, window, role }
}

fn refund(key: &str, amount: u64, limit: u32) -> Hit {
    Hit { is_refund: true, ..hit(key, amount, limit) }
}

async fn count(store: &impl Store, mode: Mode, hits: &[Hit]) -> Vec<(u64, bool)> {
    let counts = store.count(hits, mode, NOW).await.expect("counted");
    assert_eq!(counts.len(), hits.len());
    counts.iter().map(|count| (count.value, count.over)).collect()
}

/// What every store does alike. `scope` keeps runs on one server apart.
async fn contract<S: Store + 'static>(store: Arc<S>) {
    each_hit_counts(&*store).await;
    nothing_or_all(&*store).await;
    what_is_given_back(&*store).await;
    looking_changes_nothing(&*store).await;
    a_budget_is_met_exactly(store.clone()).await;
    agrees_with_the_model(store).await;
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

/// Random requests, compared with plain numbers.
async fn agrees_with_the_model<S: Store + 'static>(store: Arc<S>) {
    let handle = tokio::runtime::Handle::current();
    let checked = tokio::task::spawn_blocking(move || {
        let role = prop_oneof![Just(Role::Enforced), Just(Role::Quota), Just(Role::Observer)];
        let one = (0..3usize, 0..4u64, any::<bool>(), 0..6u32, role);
        let requests =
            (any::<bool>(), proptest::collection::vec(proptest::collection::vec(one, 1..4), 1..12));
        let mut runner = TestRunner::new(ProptestConfig { cases: 48, ..Default::default() });
        let case = std::cell::Cell::new(0);
        runner
            .run(&requests, |(atomic, requests)| {
                case.set(case.get() + 1);
                let case = case.get();
                let mode = if atomic { Mode::AllOrNothing } else { Mode::CountAll };
                let mut model: HashMap<Box<[u8]>, u64> = HashMap::new();
                for request in requests {
                    let hits: Vec<Hit> = request
                        .into_iter()
                        .map(|(key, amount, is_refund, limit, role)| {
                            let hit = hit(&format!("m{case}-{key}"), amount, limit);
                            Hit { is_refund, role, ..hit }
                        })
                        .collect();
                    let expected =
                        settle(&hits, mode, |at| model.get(&hits[at].key).copied().unwrap_or(0));
                    for (hit, count) in hits.iter().zip(&expected) {
                        model.insert(hit.key.clone(), count.value);
                    }
                    let counted = handle.block_on(store.count(&hits, mode, NOW));
                    prop_assert_eq!(counted.expect("counted"), expected);
                }
                Ok(())
            })
            .map_err(|error| error.to_string())
    });
    checked.await.expect("did not panic").expect("agrees");
}

fn settings() -> RedisSettings {
    RedisSettings {
        call_budget: Duration::from_secs(5),
        key_prefix: "t:".to_owned(),
        expiration_jitter_max_seconds: 10,
        local_cache_bytes: 0,
    }
}

async fn connected(server: &RedisServer, settings: RedisSettings) -> Arc<Redis> {
    let url = format!("unix://{}", server.socket().display());
    let store = Redis::new(url, settings).expect("an address");
    store.probe().await.expect("connected");
    Arc::new(store)
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
    let mut exists = redis::cmd("EXISTS");
    let looked: i64 = exists.arg("t:looked").query_async(&mut connection).await.expect("answered");
    assert_eq!(looked, 0, "a look makes no key");
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

#[tokio::test]
async fn what_is_over_is_not_asked_again() {
    let server = RedisServer::start().await;
    let store = connected(&server, RedisSettings { local_cache_bytes: 4096, ..settings() }).await;
    let mut connection = server.connection().await;
    assert_eq!(count(&*store, Mode::CountAll, &[hit("o", 2, 1)]).await, [(2, true)]);
    let remembered = Count { value: 2, over: true, moved: false, remembered: true };
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
    let url = format!("unix://{}", server.socket().display());
    let store = Redis::new(url, settings()).expect("an address");
    let error = store.probe().await.expect_err("no password");
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    let error =
        store.count(&[hit("x", 1, 1)], Mode::CountAll, NOW).await.expect_err("no connection");
    assert!(matches!(error, StoreError::NotConnected), "{error:?}");
    server.kill();

    let full = RedisServer::start_with(&["--maxmemory", "100kb"]).await;
    let url = format!("unix://{}", full.socket().display());
    let store = Redis::new(url, settings()).expect("an address");
    let error = store.probe().await.expect_err("out of memory");
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
}

#[test]
fn windows_are_counted_apart_in_memory() {
    let memory = Memory::default();
    let at = |start: u64| {
        let window = Window { start, seconds: 60 };
        Hit { window, ..hit("same", 1, 1) }
    };
    assert_eq!(memory.count_now(&[at(0)], Mode::CountAll, 59)[0].value, 1);
    // The key of a real counter holds its window; one that does not still ends.
    assert_eq!(memory.count_now(&[at(60)], Mode::CountAll, 60)[0].value, 1);
}
