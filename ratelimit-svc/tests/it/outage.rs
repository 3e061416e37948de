//! Redis absent, killed and hung: every class gets its policy, nobody gets an error, and all is
//! well again soon after Redis is.

use std::time::{Duration, Instant};

use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use proto::pb::google::protobuf::value::Kind;
use ratelimit_svc::decide::hit::{Hit, Mode, Role};
use ratelimit_svc::limits::algorithm::Algorithm;
use ratelimit_svc::limits::unit::Unit;
use ratelimit_svc::store::Store;
use ratelimit_svc::store::backend::Backend;
use ratelimit_svc::store::error::StoreError;
use ratelimit_svc::store::redis::RedisSettings;
use ratelimit_svc::store::redis::topology::link::Topology;

use crate::redis_parts::free_port;
use crate::store::unconnected;
use crate::support::proxy::{Fault, Proxy};
use crate::support::{RedisServer, Service, request, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 4}
";

async fn in_reach(service: &Service) -> bool {
    service.is_in_reach().await
}

/// Whether the answer is over limit and whether it says that it is degraded.
async fn ask(service: &Service, tenant: &str, class: &str) -> (bool, bool) {
    let asked = request("edge", &[&[("tenant", tenant), ("priority", class)]]);
    let answer = service.ask(asked).await.expect("never an error for a fault of the store");
    let limit = answer.statuses[0].current_limit.clone().expect("always told");
    assert_eq!(limit.requests_per_unit, 4);
    let metadata = answer.dynamic_metadata.clone().unwrap_or_default();
    let degraded = metadata.fields.get("degraded").and_then(|value| value.kind.clone());
    (answer.overall_code() == Code::OverLimit, degraded == Some(Kind::BoolValue(true)))
}

/// Every class gets what is configured, with limits of 4 shared by two replicas.
async fn policies_answer(service: &Service, tenant: &str) {
    for _ in 0..6 {
        assert_eq!(ask(service, tenant, "system-node-critical").await, (false, true));
        assert_eq!(ask(service, tenant, "background").await, (true, true));
    }
    // What bypasses is counted: it is not there for the others.
    assert_eq!(ask(service, tenant, "ingest").await, (true, true));
    let alone = format!("{tenant}-alone");
    for over in [false, false, true, true] {
        assert_eq!(ask(service, &alone, "ingest").await, (over, true));
    }
    let other = format!("{tenant}-other");
    assert_eq!(ask(service, &other, "a class that does not exist").await, (false, true));
}

/// Waits until Redis counts a request of this class; on a busy machine it is not asked in time each time.
async fn is_counted(service: &Service, tenant: &str, class: &str) {
    let mut asked = 0;
    wait_for("a hit is counted in time", async || {
        asked += 1;
        ask(service, &format!("{tenant}-{asked}"), class).await == (false, false)
    })
    .await;
}

async fn service(server: &RedisServer, budget: &str) -> Service {
    let mut environment = server.environment();
    environment.push(("LOCAL_SHARE_REPLICAS", "2".to_owned()));
    environment.retain(|(name, _)| *name != "REDIS_CALL_BUDGET");
    environment.push(("REDIS_CALL_BUDGET", budget.to_owned()));
    Service::start_with(&[("a.yaml", QUOTAS)], &environment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_before_redis_is_there() {
    let mut server = RedisServer::start().await;
    server.kill();
    let service = service(&server, "1s").await;
    assert_eq!(service.admin("/readyz").await.0, 200);
    policies_answer(&service, "early").await;
    server.restart().await;
    wait_for("redis is in use", async || in_reach(&service).await).await;
    // What bypassed is counted, beyond the limit if need be.
    assert_eq!(ask(&service, "early", "background").await, (true, false));
    assert_eq!(ask(&service, "late", "background").await, (false, false));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_and_back() {
    let mut server = RedisServer::start().await;
    let service = service(&server, "1s").await;
    wait_for("redis is in use", async || in_reach(&service).await).await;
    for over in [false, false, false, false, true] {
        assert_eq!(ask(&service, "a", "ingest").await, (over, false));
    }
    server.kill();
    policies_answer(&service, "b").await;
    assert_eq!(service.metric("ratelimit_breaker_open").await, Some(1.0));
    server.restart().await;
    wait_for("redis is in use again", async || in_reach(&service).await).await;
    for over in [false, false, false, false, true] {
        assert_eq!(ask(&service, "a", "background").await, (over, false));
    }
    for policy in ["bypass", "local", "deny"] {
        let (_, text) = service.admin("/metrics").await;
        let start = format!("ratelimit_degraded_total{{policy=\"{policy}\",class=");
        assert!(text.lines().any(|line| line.starts_with(&start)), "{start}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_hung_and_back() {
    let server = RedisServer::start().await;
    // More than a hundred answers take on any machine, if each waits for it.
    let budget = Duration::from_secs(1);
    let service = service(&server, "1s").await;
    wait_for("redis is in use", async || in_reach(&service).await).await;
    is_counted(&service, "a", "ingest").await;
    server.signal("STOP");
    // While it hangs a call costs its budget, until the breaker spares everybody that.
    policies_answer(&service, "b").await;
    wait_for("the breaker is open", async || !in_reach(&service).await).await;
    let began = Instant::now();
    for _ in 0..100 {
        ask(&service, "c", "background").await;
    }
    assert!(began.elapsed() < budget * 100, "requests wait for a hung store");
    server.signal("CONT");
    wait_for("redis is in use again", async || in_reach(&service).await).await;
    is_counted(&service, "d", "background").await;
    let timeouts = service.metric("ratelimit_store_errors_total{kind=\"timeout\"}").await;
    assert!(timeouts.is_some_and(|count| count >= 2.0), "{timeouts:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_over_tcp_with_a_password() {
    let port = free_port().to_string();
    let arguments = ["--bind", "127.0.0.1", "--port", &port, "--requirepass", "secret"];
    let _server = RedisServer::start_with(&arguments).await;
    let mut environment = vec![
        ("BACKEND_TYPE", "redis".to_owned()),
        ("REDIS_SOCKET_TYPE", "tcp".to_owned()),
        ("REDIS_URL", format!("127.0.0.1:{port}")),
        ("REDIS_CALL_BUDGET", "1s".to_owned()),
        ("CACHE_KEY_PREFIX", "edge:".to_owned()),
    ];
    let refused = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    wait_for("the server refuses", async || {
        let name = "ratelimit_store_errors_total{kind=\"configuration\"}";
        refused.metric(name).await.is_some_and(|count| count > 0.0)
    })
    .await;
    assert_eq!(ask(&refused, "a", "background").await, (true, true));
    refused.stop().await;

    environment.push(("REDIS_AUTH", "default:secret".to_owned()));
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    wait_for("redis is in use", async || in_reach(&service).await).await;
    assert_eq!(ask(&service, "a", "background").await, (false, false));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_counter_is_its_own_outage() {
    let server = RedisServer::start().await;
    let service = service(&server, "1s").await;
    wait_for("redis is in use", async || in_reach(&service).await).await;
    // Without a class a hit is a plain increment, which changes no counter that is none.
    let degraded = async |tenant: &str| {
        let asked = request("edge", &[&[("tenant", tenant)]]);
        let answer = service.ask(asked).await.expect("never an error for a fault of the store");
        answer.dynamic_metadata.is_some_and(|told| told.fields.contains_key("degraded"))
    };
    for tenant in ["list", "text", "good"] {
        assert!(!degraded(tenant).await);
    }
    let mut connection = server.connection().await;
    for (tenant, makes) in [("list", "LPUSH"), ("text", "SET")] {
        let pattern = format!("*:{tenant}}}|y*");
        let mut keys = redis::cmd("KEYS");
        let keys = keys.arg(pattern).query_async::<Vec<String>>(&mut connection).await;
        let keys = keys.expect("told");
        assert_eq!(keys.len(), 1, "{keys:?}");
        server.commands(&[&["DEL", &keys[0]], &[makes, &keys[0], "no count"]]).await;
    }
    for _ in 0..10 {
        assert!(degraded("list").await && degraded("text").await);
    }
    assert!(!degraded("good").await);
    assert_eq!(service.metric("ratelimit_breaker_opened_total").await, Some(0.0));
    let counters = service.metric("ratelimit_store_errors_total{kind=\"counter\"}").await;
    assert_eq!(counters, Some(20.0));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_find_each_other_and_stay_known_in_an_outage() {
    let mut server = RedisServer::start().await;
    let mut environment = server.environment();
    environment.push(("CACHE_KEY_PREFIX", "edge:".to_owned()));
    let start = async || Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    let replicas = [start().await, start().await, start().await, start().await];
    for replica in &replicas {
        wait_for("all are known", async || {
            replica.metric("ratelimit_share_replicas").await == Some(4.0)
        })
        .await;
    }
    server.kill();
    for replica in &replicas {
        wait_for("the breaker is open", async || !in_reach(replica).await).await;
        assert_eq!(replica.metric("ratelimit_share_replicas").await, Some(4.0));
        let (_, told) = replica.admin("/config").await;
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(told["store"]["share_replicas"], 4, "{told}");
        assert_eq!(told["store"]["in_reach"], false, "{told}");
        for over in [false, true] {
            assert_eq!(ask(replica, "a", "ingest").await, (over, true), "a fourth of 4");
        }
    }
    // The first to find it again does not take itself for the only one.
    server.restart().await;
    for replica in replicas {
        wait_for("redis is in use again", async || in_reach(&replica).await).await;
        assert_eq!(replica.metric("ratelimit_share_replicas").await, Some(4.0));
        replica.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_drains_counts_no_more() {
    let server = RedisServer::start().await;
    let environment = server.environment();
    let start = async || Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    let first = start().await;
    wait_for("its sign of life", async || server.asked(&["zcard", "replicas"]).trim() == "1").await;
    first.stop().await;
    assert_eq!(server.asked(&["zcard", "replicas"]).trim(), "0");
    // Whoever takes its place is the only one, and has the whole of every limit in an outage.
    let second = start().await;
    wait_for("redis is in use", async || in_reach(&second).await).await;
    assert_eq!(second.metric("ratelimit_share_replicas").await, Some(1.0));
    second.stop().await;
}

/// On a clock that stands still while nothing happens: the wait is what was asked for, however
/// slow the machine.
#[tokio::test]
async fn a_call_ends_with_its_budget() {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(server.socket());
    let settings = RedisSettings {
        call_budget: Duration::from_millis(5),
        key_prefix: String::new(),
        expiration_jitter_max_seconds: 0,
        local_cache_bytes: 0,
        threads: 0,
    };
    let at = ("127.0.0.1".to_owned(), proxy.port());
    let redis = unconnected(Topology::Tcp(at), settings);
    wait_for("connected", async || redis.probe().await.is_ok()).await;
    proxy.set(Fault::BlackHole).await;
    let window = Unit::Day.window(0);
    let hit = Hit {
        key: b"a"[..].into(),
        amount: 1,
        is_refund: false,
        limit: 4,
        window,
        algorithm: Algorithm::FixedWindow,
        role: Role::Enforced,
        share: None,
    };
    tokio::time::pause();
    for mode in [Mode::CountAll, Mode::AllOrNothing] {
        let began = tokio::time::Instant::now();
        let answer = redis.count(std::slice::from_ref(&hit), mode, Duration::ZERO).await;
        assert!(matches!(answer, Err(StoreError::TimedOut)), "{answer:?}");
        assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
    }
    let began = tokio::time::Instant::now();
    assert!(matches!(redis.check().await, Err(StoreError::TimedOut)));
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
}
