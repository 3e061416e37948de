//! Limits that classes share, on both stores, with callers that ask at once, and as Envoy sees
//! them.

use std::sync::Arc;
use std::time::Duration;

use proto::pb::envoy::service::ratelimit::v3::RateLimitResponse;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use ratelimit_svc::decide::hit::{Count, Hit, Mode, Role};
use ratelimit_svc::decide::key::{KeyFormat, counter_key};
use ratelimit_svc::limits::algorithm::Algorithm;
use ratelimit_svc::limits::rule::Limit;
use ratelimit_svc::limits::sharing::{ClassShare, How};
use ratelimit_svc::limits::unit::Unit;
use ratelimit_svc::store::Store;
use ratelimit_svc::store::backend::Backend;
use ratelimit_svc::store::memory::Memory;
use ratelimit_svc::store::redis::topology::link::Topology;
use ratelimit_svc::store::redis::{Redis, RedisSettings};
use serde_json::Value as Json;
use tokio::task::JoinSet;

use crate::store::unconnected;
use crate::support::{RedisServer, Service, http, request, wait_for};

/// A quarter into an hour.
const NOW: Duration = Duration::from_secs(500_000 * 3600 + 900);
const HOUR: Duration = Duration::from_secs(3600);

fn algorithms() -> [Algorithm; 3] {
    let bucket = Algorithm::TokenBucket { burst: 100 };
    [Algorithm::FixedWindow, Algorithm::SlidingWindow, bucket]
}

/// A hit on 100 per hour, of the class at `rank`; plain without one.
fn hit(name: &str, algorithm: Algorithm, rank: Option<u8>, now: Duration) -> Hit {
    let limit = Limit { algorithm, ..Limit::fixed(100, Unit::Hour) };
    let window = limit.period.window(now.as_secs());
    let key = counter_key(KeyFormat::Tidegate, "priority", &[("k", name)], &[], limit, window);
    let how = How::Forecast { guarantees: None };
    let share = rank.map(|rank| ClassShare { rank, classes: 4, how, asked: None });
    let role = Role::Enforced;
    Hit { key, amount: 1, is_refund: false, limit: 100, window, algorithm, role, share }
}

/// How many askers there are at once.
const ASKERS: usize = 16;

/// Asks for all hits, many at once, and checks that `expected` are admitted. On a machine too busy
/// to answer in time an answer may be lost, so that the hit was admitted and nobody knows.
async fn admits<S: Store + 'static>(
    store: &Arc<S>,
    hits: Vec<Hit>,
    now: Duration,
    expected: usize,
) {
    let mut asking = JoinSet::new();
    for part in hits.chunks(hits.len().div_ceil(ASKERS)) {
        let (store, part) = (store.clone(), part.to_vec());
        asking.spawn(async move {
            let mut told = (0, 0);
            for hit in part {
                match store.count(&[hit], Mode::CountAll, now).await {
                    Ok(counts) => told.0 += usize::from(!counts[0].over),
                    Err(_) => told.1 += 1,
                }
            }
            told
        });
    }
    let told = asking.join_all().await;
    let (admitted, lost) = told.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(admitted <= expected && expected <= admitted + lost, "{admitted} {lost} {expected}");
}

async fn on_both_stores(contract: impl AsyncFn(Arc<Memory>), redis: impl AsyncFn(Arc<Redis>)) {
    contract(Arc::new(Memory::default())).await;
    let server = RedisServer::start().await;
    let settings = RedisSettings {
        call_budget: Duration::from_secs(5),
        key_prefix: String::new(),
        expiration_jitter_max_seconds: 10,
        local_cache_bytes: 0,
        threads: 0,
    };
    let store = unconnected(Topology::Unix(server.socket()), settings);
    wait_for("connected", async || store.probe().await.is_ok()).await;
    redis(Arc::new(store)).await;
}

/// Classes and plain hits together take what there is, and not one more.
async fn the_limit_holds<S: Store + 'static>(store: Arc<S>) {
    for algorithm in algorithms() {
        let ranks = [Some(0), Some(1), Some(2), Some(3), None];
        let mut hits: Vec<Hit> =
            (0..400).map(|n| hit("all", algorithm, ranks[n % 5], NOW)).collect();
        // What was kept for the highest class it takes in the end.
        hits.extend((0..ASKERS * 100).map(|_| hit("all", algorithm, Some(0), NOW)));
        admits(&store, hits, NOW, 100).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_never_take_more_than_the_limit() {
    on_both_stores(the_limit_holds, the_limit_holds).await;
}

/// After two windows in which the highest class asked for 60, a flood of the lowest leaves that.
async fn a_flood_is_held_back<S: Store + 'static>(store: Arc<S>) {
    let high = |now| (0..60).map(|_| hit("flood", Algorithm::FixedWindow, Some(0), now)).collect();
    for now in [NOW, NOW + HOUR] {
        admits(&store, high(now), now, 60).await;
    }
    let now = NOW + HOUR * 2;
    let flood: Vec<Hit> =
        (0..300).map(|_| hit("flood", Algorithm::FixedWindow, Some(3), now)).collect();
    // Three quarters of 60 are expected in the rest of the window, and a margin of 10 / 3.
    admits(&store, flood.clone(), now, 100 - 45 - 4).await;
    // What was refused took nothing.
    admits(&store, high(now).into_iter().take(49).collect(), now, 49).await;
    // At the end of the window nothing is kept any more, and nothing is left either.
    let end = now + Duration::from_millis(2_699_999);
    admits(&store, flood, end, 0).await;
    let look = [Hit { amount: 0, ..hit("flood", Algorithm::FixedWindow, Some(3), end) }];
    let look = store.count(&look, Mode::CountAll, end).await.expect("counted");
    assert_eq!((look[0].value, look[0].withheld), (100, 1), "a margin, rounded up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_a_low_class_leaves_room_for_the_higher() {
    on_both_stores(a_flood_is_held_back, a_flood_is_held_back).await;
}

/// The limit of a tenant and of a pool: one refusal moves neither, and what the tenant is refused
/// is no demand on the pool.
async fn all_or_nothing<S: Store + 'static>(store: Arc<S>) {
    for algorithm in algorithms() {
        let ask = async |tenant: &str, amount, rank: u8, now: Duration| -> Vec<Count> {
            let both = [(tenant, 10), ("pool", 100)].map(|(name, limit)| {
                let algorithm = match algorithm {
                    Algorithm::TokenBucket { .. } => Algorithm::TokenBucket { burst: limit },
                    other => other,
                };
                Hit { amount, limit, ..hit(name, algorithm, Some(rank), now) }
            });
            store.count(&both, Mode::AllOrNothing, now).await.expect("counted")
        };
        let values = |counts: &[Count]| (counts[0].value, counts[1].value);
        let passes = |counts: &[Count]| counts.iter().all(|count| !count.over);
        let first = ask("greedy", 10, 0, NOW).await;
        assert!(passes(&first), "{algorithm} {first:?}");
        // Refused by its own limit again and again, the tenant does not starve the pool.
        for _ in 0..20 {
            let refused = ask("greedy", 11, 0, NOW).await;
            assert!(!passes(&refused), "{algorithm}");
            assert_eq!(values(&refused), values(&first), "{algorithm}: nothing moved");
        }
        let now = NOW + HOUR;
        let low = ask("modest", 5, 3, now).await;
        assert!(passes(&low), "{algorithm} {low:?}");
    }
}

#[tokio::test]
async fn tenant_and_pool_refuse_together() {
    on_both_stores(all_or_nothing, all_or_nothing).await;
}

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: steps
    rate_limit: {unit: year, requests_per_unit: 10, admit_up_to: {background: 0.5, ingest: 0.8}}
  - key: least
    rate_limit: {unit: year, requests_per_unit: 100, algorithm: token_bucket, reserve_min: {platform-core: 0.5}}
";

async fn ask(service: &Service, key: &str, class: &str) -> (RateLimitResponse, u32) {
    let asked = request("edge", &[&[(key, "a"), ("priority", class)]]);
    let answer = service.ask(asked).await.expect("answered");
    let left = answer.statuses[0].limit_remaining;
    (answer, left)
}

#[tokio::test]
async fn an_answer_names_the_class_and_the_reason() {
    let server = RedisServer::start().await;
    for mut environment in [vec![], server.environment()] {
        environment.push(("RESPONSE_DYNAMIC_METADATA", "true".to_owned()));
        environment.push(("LOCAL_CACHE_SIZE_IN_BYTES", "65536".to_owned()));
        let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
        wait_for("the store is there", async || {
            service.metric("ratelimit_breaker_open").await == Some(0.0)
        })
        .await;
        for left in (0..5).rev() {
            assert_eq!(ask(&service, "steps", "background").await.1, left, "of its own five");
        }
        for _ in 0..2 {
            let (refused, left) = ask(&service, "steps", "background").await;
            assert_eq!((refused.overall_code(), left), (Code::OverLimit, 0));
        }
        assert_eq!(ask(&service, "steps", "ingest").await.1, 2, "of eight, six are taken");
        assert_eq!(ask(&service, "steps", "platform-core").await.1, 3);
        let body = r#"{"domain":"edge","descriptors":[{"entries":[{"key":"steps","value":"a"},{"key":"priority","value":"background"}]}]}"#;
        let (status, text) = http(service.addresses.http, "POST", "/json", body).await;
        let answer: Json = serde_json::from_str(&text).expect("JSON");
        let metadata = &answer["dynamicMetadata"];
        assert_eq!((status, &metadata["class"]), (429, &"background".into()), "{text}");
        assert_eq!(metadata["reason"], "reserved", "{text}");
        assert_eq!(metadata["descriptors"][0]["reason"], "reserved", "{text}");
        let metric = r#"ratelimit_decisions_total{domain="edge",rule="steps",class="background",decision="over_limit",reason="reserved"}"#;
        assert_eq!(service.metric(metric).await, Some(3.0));

        for _ in 0..3 {
            ask(&service, "steps", "system-node-critical").await;
        }
        let (full, _) = ask(&service, "steps", "system-node-critical").await;
        assert_eq!(full.overall_code(), Code::OverLimit);
        let metric = r#"ratelimit_decisions_total{domain="edge",rule="steps",class="system-node-critical",decision="over_limit",reason="over_limit"}"#;
        assert_eq!(service.metric(metric).await, Some(1.0));

        assert_eq!(
            ask(&service, "least", "ingest").await.1,
            49,
            "half is kept for the class above"
        );
        assert_eq!(ask(&service, "least", "platform-core").await.1, 98);
        let (_, listing) = service.admin("/rlconfig").await;
        for expected in
            ["admit_up_to={background: 0.5, ingest: 0.8}", "reserve_min={platform-core: 0.5}"]
        {
            assert!(listing.contains(expected), "{listing}");
        }
        service.stop().await;
    }
}
