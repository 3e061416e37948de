//! What differs from envoyproxy/ratelimit on purpose, where no other test holds it.

use crate::support::{RedisServer, Service, request};

/// No window ends within a test.
const YEAR: &str = "rate_limit: {unit: year, requests_per_unit: 1}";

/// Asks twice: the first is admitted, the second is over a limit of one.
async fn has_a_limit_of_its_own(service: &Service, key: &str, value: &str) -> bool {
    let first = service.is_over("d", &[(key, value)]).await;
    !first && service.is_over("d", &[(key, value)]).await
}

#[tokio::test]
async fn key_and_value_are_compared_apart() {
    let quotas = format!(
        "domain: d\ndescriptors:\n  - {{key: a, value: b_c, {YEAR}}}\n  - {{key: a_b, value: c, {YEAR}}}\n"
    );
    let service = Service::start(&[("a.yaml", &quotas)]).await;
    assert!(has_a_limit_of_its_own(&service, "a", "b_c").await);
    assert!(has_a_limit_of_its_own(&service, "a_b", "c").await);
    service.stop().await;
}

#[tokio::test]
async fn a_key_may_be_a_pattern() {
    let quotas = format!("domain: d\ndescriptors:\n  - {{key: api*, {YEAR}}}\n");
    let service = Service::start(&[("a.yaml", &quotas)]).await;
    for (key, value) in [("api", "x"), ("api_v2", "x"), ("api_v2", "y"), ("apiary", "")] {
        assert!(has_a_limit_of_its_own(&service, key, value).await, "{key}={value}");
    }
    assert!(!has_a_limit_of_its_own(&service, "ap", "i").await);
    service.stop().await;
}

#[tokio::test]
async fn a_shadow_rule_freezes_nothing() {
    let quotas = format!(
        "domain: d\ndescriptors:\n  - {{key: shadow, shadow_mode: true, {YEAR}}}\n  \
         - {{key: real, rate_limit: {{unit: year, requests_per_unit: 3}}}}\n"
    );
    let stop = ("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "true".to_owned());
    let service = Service::start_with(&[("a.yaml", &quotas)], &[stop]).await;
    let both = || request("d", &[&[("shadow", "s")], &[("real", "r")]]);
    // The first rule is over from the second request on, and the other is counted all the same.
    for left in [2, 1, 0] {
        let answer = service.ask(both()).await.expect("answered");
        assert_eq!(answer.statuses[1].limit_remaining, left);
    }
    assert!(service.is_over("d", &[("real", "r")]).await);
    let within =
        service.metric("ratelimit_hits_total{domain=\"d\",rule=\"real\",kind=\"within_limit\"}");
    assert_eq!(within.await, Some(3.0), "a refused hit is not within the limit");
    service.stop().await;
}

#[tokio::test]
async fn sub_directories_are_not_read() {
    let service = Service::start(&[("a.yaml", "domain: d")]).await;
    let inner = service.quota_file("inner");
    std::fs::create_dir(&inner).expect("created");
    let quotas = format!("domain: inner\ndescriptors:\n  - {{key: a, {YEAR}}}\n");
    std::fs::write(inner.join("b.yaml"), quotas).expect("written");
    // A change that is seen after it shows that it was looked at.
    let quotas = format!("domain: d\ndescriptors:\n  - {{key: a, {YEAR}}}\n");
    service.write_quotas("a.yaml", quotas);
    crate::support::wait_for("the change is in force", async || {
        service.is_over("d", &[("a", "x")]).await
    })
    .await;
    for _ in 0..2 {
        assert!(!service.is_over("inner", &[("a", "x")]).await);
    }
    service.stop().await;
}

#[tokio::test]
async fn metrics_differ() {
    let quotas = "domain: d\ndescriptors:\n  - {key: free, rate_limit: {unlimited: true}}\n";
    let names = ("PROMETHEUS_NAMES", "both".to_owned());
    let service = Service::start_with(&[("a.yaml", quotas)], &[names]).await;
    assert!(!service.is_over("d", &[("free", "x")]).await);
    let total = "ratelimit_decisions_total{domain=\"d\",rule=\"free\",class=\"ingest\",decision=\"ok\",\
                 reason=\"unlimited\"}";
    assert_eq!(service.metric(total).await, Some(1.0));
    let (_, text) = service.admin("/metrics").await;
    for absent in ["ratelimit_go_", "redis_pool", "localcache"] {
        assert!(!text.contains(absent), "{absent}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_counter_is_given_its_expiry_once() {
    let redis = RedisServer::start().await;
    let quotas =
        "domain: d\ndescriptors:\n  - {key: a, rate_limit: {unit: year, requests_per_unit: 9}}\n";
    let environment = [
        ("BACKEND_TYPE", "redis".to_owned()),
        ("REDIS_URL", redis.socket().display().to_string()),
        ("REDIS_CALL_BUDGET", "1s".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", quotas)], &environment).await;
    crate::support::wait_for("Redis is in use", async || service.is_in_reach().await).await;
    for _ in 0..5 {
        assert!(!service.is_over("d", &[("a", "x")]).await);
    }
    let keys = redis.asked(&["keys", "*"]);
    let is_counter = |key: &&str| redis.asked(&["get", key]).trim() == "5";
    let key = keys.lines().find(is_counter).expect("five were counted");
    let ttl = redis.asked(&["ttl", key]);
    assert!(ttl.trim().parse::<i64>().is_ok_and(|ttl| ttl > 0), "{key}: {ttl}");
    let stats = redis.asked(&["info", "commandstats"]);
    assert!(stats.contains("cmdstat_incrby:calls=5,"), "{stats}");
    assert!(!stats.contains("cmdstat_expire:"), "{stats}");
    service.stop().await;
}
