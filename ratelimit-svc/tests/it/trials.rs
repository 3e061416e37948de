//! Limits that are tried: counted apart, shown everywhere, never enforced. In memory, on a real Redis,
//! and leased by replicas that share it.

use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;

use crate::support::{RedisServer, Service, request, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 8, trial: {requests_per_unit: 5}}
  - key: large
    rate_limit: {unit: year, requests_per_unit: 40000, trial: {requests_per_unit: 2000}}
  - key: plain
    rate_limit: {unit: year, requests_per_unit: 40000}
";

async fn in_reach(service: &Service) {
    wait_for("redis is in use", async || {
        let (_, shown) = service.admin("/config").await;
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        service.metric("ratelimit_breaker_open").await == Some(0.0)
            && shown["store"]["leases"]["holding"] == false
    })
    .await;
}

async fn tried(service: &Service, rule: &str) -> serde_json::Value {
    let (_, shown) = service.admin("/config").await;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let all = shown["trials"].as_array().expect("a list");
    all.iter().find(|trial| trial["rule"] == rule).expect("it is tried").clone()
}

/// Ten requests of one tenant, with the limit of 8 and the trial of 5.
async fn ten_requests(service: &Service) {
    let mut codes = Vec::new();
    let mut words = Vec::new();
    for _ in 0..10 {
        let asked = request("edge", &[&[("tenant", "acme"), ("priority", "ingest")]]);
        let answer = service.ask(asked).await.expect("answered");
        codes.push(answer.overall_code() == Code::OverLimit);
        let metadata = format!("{:?}", answer.dynamic_metadata.expect("asked for"));
        words.push(metadata.matches("\"trial\"").count());
    }
    assert_eq!(codes, [false, false, false, false, false, false, false, false, true, true]);
    assert_eq!(words, [2; 10], "for the request and for its descriptor");
    let shown = tried(service, "tenant").await;
    assert_eq!((&shown["limit"], &shown["trial"]), (&"8 per year".into(), &"5 per year".into()));
    assert_eq!((&shown["requests"], &shown["refused"]), (&10.into(), &2.into()));
    assert_eq!((&shown["newly_refused"], &shown["newly_admitted"]), (&3.into(), &0.into()));
    let (_, page) = service.admin("/metrics").await;
    for (decision, trial, count) in [("ok", "ok", 5), ("ok", "over_limit", 3)] {
        let labels = format!(
            "domain=\"edge\",rule=\"tenant\",class=\"ingest\",decision=\"{decision}\",trial=\"{trial}\""
        );
        let line = format!("ratelimit_trial_decisions_total{{{labels}}} {count}");
        assert!(page.contains(&line), "{line}");
    }
    let (_, listed) = service.admin("/rlconfig").await;
    assert!(listed.contains("trial={unit=YEAR requests_per_unit=5}"), "{listed}");
}

fn full_metadata() -> (&'static str, String) {
    ("RESPONSE_DYNAMIC_METADATA", "true".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_is_counted_in_memory_and_in_redis_alike() {
    let memory = Service::start_with(&[("a.yaml", QUOTAS)], &[full_metadata()]).await;
    ten_requests(&memory).await;
    memory.stop().await;

    let server = RedisServer::start().await;
    for all_or_nothing in ["false", "true"] {
        let mut environment = server.environment();
        environment.push(full_metadata());
        environment.push(("CACHE_KEY_PREFIX", format!("{all_or_nothing}:")));
        environment.push(("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", all_or_nothing.to_owned()));
        let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
        in_reach(&service).await;
        ten_requests(&service).await;
        let key = server.asked(&["KEYS", &format!("{all_or_nothing}:*~trial*")]);
        assert!(key.contains("{4:edge6:tenant4:acme}~trial|y"), "{key}");
        service.stop().await;
    }
}

/// Two replicas lease the trial as they lease the limit: what it would admit of both is its limit, for far
/// fewer commands than requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_lease_a_trial() {
    let server = RedisServer::start().await;
    let mut environment = server.environment();
    environment.push(("LOCAL_SHARE_REPLICAS", "2".to_owned()));
    let mut services = Vec::new();
    for _ in 0..2 {
        let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
        in_reach(&service).await;
        services.push(service);
    }
    for _ in 0..1500 {
        for service in &services {
            let answer = service.ask(request("edge", &[&[("large", "a")]])).await;
            assert_eq!(answer.expect("answered").overall_code(), Code::Ok);
        }
    }
    let mut sums = (0, 0);
    for service in &services {
        let shown = tried(service, "large").await;
        sums.0 += shown["requests"].as_u64().expect("a number");
        sums.1 += shown["newly_refused"].as_u64().expect("a number");
    }
    assert_eq!(sums.0, 3000);
    let admitted = sums.0 - sums.1;
    // Hits that the other replica holds near the end are stranded, never more than admitted.
    assert!((1950..=2000).contains(&admitted), "{admitted}");
    let calls = server.asked(&["INFO", "commandstats"]);
    let counted: u64 = calls
        .lines()
        .filter(|line| line.starts_with("cmdstat_incrby") || line.starts_with("cmdstat_evalsha"))
        .filter_map(|line| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok())
        .sum();
    assert!(counted < 600, "{counted} commands for 3000 requests and as many trials");
}

/// A store that is lost answers by its policy, and nothing is tried meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_tries_nothing_and_spoils_nothing() {
    let mut server = RedisServer::start().await;
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &server.environment()).await;
    in_reach(&service).await;
    let ask = async || {
        let asked = request("edge", &[&[("tenant", "b"), ("priority", "platform-core")]]);
        service.ask(asked).await.expect("never an error").overall_code()
    };
    assert_eq!(ask().await, Code::Ok);
    server.kill();
    wait_for("redis is lost", async || {
        ask().await;
        service.metric("ratelimit_breaker_open").await == Some(1.0)
    })
    .await;
    let before = tried(&service, "tenant").await["requests"].as_u64();
    for _ in 0..20 {
        ask().await;
    }
    assert_eq!(tried(&service, "tenant").await["requests"].as_u64(), before);
}
