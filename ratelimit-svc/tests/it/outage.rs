//! Redis absent, killed and hung: every class gets its policy, nobody gets an error, and all is
//! well again soon after Redis is.

use std::time::{Duration, Instant};

use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use proto::pb::google::protobuf::value::Kind;

use crate::support::{RedisServer, Service, request, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 4}
";

async fn in_reach(service: &Service) -> bool {
    service.metric("ratelimit_breaker_open").await == Some(0.0)
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
    for over in [false, false, true, true] {
        assert_eq!(ask(service, tenant, "ingest").await, (over, true));
    }
    let other = format!("{tenant}-other");
    assert_eq!(ask(service, &other, "a class that does not exist").await, (false, true));
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
    assert_eq!(ask(&service, "early", "background").await, (false, false));
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
        let name = format!("ratelimit_degraded_total{{policy=\"{policy}\"}}");
        assert!(service.metric(&name).await.is_some_and(|count| count > 0.0), "{name}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_hung_and_back() {
    let server = RedisServer::start().await;
    let service = service(&server, "50ms").await;
    wait_for("redis is in use", async || in_reach(&service).await).await;
    assert_eq!(ask(&service, "a", "ingest").await, (false, false));
    server.signal("STOP");
    // While it hangs a call costs its budget, until the breaker spares everybody that.
    policies_answer(&service, "b").await;
    wait_for("the breaker is open", async || !in_reach(&service).await).await;
    let began = Instant::now();
    for _ in 0..100 {
        ask(&service, "c", "background").await;
    }
    assert!(began.elapsed() < Duration::from_millis(50 * 100), "requests wait for a hung store");
    server.signal("CONT");
    wait_for("redis is in use again", async || in_reach(&service).await).await;
    assert_eq!(ask(&service, "d", "background").await, (false, false));
    let timeouts = service.metric("ratelimit_store_errors_total{kind=\"timeout\"}").await;
    assert!(timeouts.is_some_and(|count| count >= 3.0), "{timeouts:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_over_tcp_with_a_password() {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        free.local_addr().expect("bound").port().to_string()
    };
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
        let name = "ratelimit_store_errors_total{kind=\"refused\"}";
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
