//! Limits that are tried: counted apart, shown everywhere, never enforced. In memory, on a real Redis,
//! and leased by replicas that share it.

use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;

use crate::redis_parts::{Cluster, Watched};
use crate::support::{RedisServer, Service, commands_but_for_upkeep, request, wait_for};

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
        service.is_whole().await && shown["store"]["leases"]["holding"] == false
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

/// Two replicas lease the trial as they lease the limit: what it would admit of both is its limit.
async fn two_lease_it(mut environment: Vec<(&'static str, String)>) {
    environment.push(("LOCAL_SHARE_REPLICAS", "2".to_owned()));
    let mut services = Vec::new();
    for _ in 0..2 {
        let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
        in_reach(&service).await;
        services.push(service);
    }
    let mut sums = (0, 0);
    // What Redis does not answer in time is not tried, so a busy machine asks more.
    wait_for("3000 trials", async || {
        for asked in sums.0..3000 {
            let service = &services[asked as usize % services.len()];
            let answer = service.ask(request("edge", &[&[("large", "a")]])).await;
            assert_eq!(answer.expect("answered").overall_code(), Code::Ok);
        }
        sums = (0, 0);
        for service in &services {
            let shown = tried(service, "large").await;
            sums.0 += shown["requests"].as_u64().expect("a number");
            sums.1 += shown["newly_refused"].as_u64().expect("a number");
        }
        sums.0 == 3000
    })
    .await;
    let admitted = sums.0 - sums.1;
    // Hits that the other replica holds near the end are stranded, never more than admitted.
    assert!((1950..=2000).contains(&admitted), "{admitted}");
    for service in services {
        service.stop().await;
    }
}

/// For far fewer commands than requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_lease_a_trial() {
    let server = RedisServer::start().await;
    two_lease_it(server.environment()).await;
    let stats = server.asked(&["INFO", "commandstats"]);
    let counted = commands_but_for_upkeep(&stats, &["incrby", "evalsha"]);
    assert!(counted < 600, "{counted} commands for 3000 requests and as many trials");
}

/// Each tenant's trial is on the node of its limit, and replicas lease it there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_is_counted_and_leased_on_a_cluster() {
    let mut cluster = Cluster::of(3, 0, &[], None).await;
    let environment = vec![
        ("BACKEND_TYPE", "redis".to_owned()),
        ("REDIS_TYPE", "CLUSTER".to_owned()),
        ("REDIS_URL", cluster.url()),
        // No slow machine may look like an outage.
        ("REDIS_CALL_BUDGET", "1s".to_owned()),
    ];
    for all_or_nothing in ["false", "true"] {
        let mut environment = environment.clone();
        environment.push(full_metadata());
        environment.push(("CACHE_KEY_PREFIX", format!("{all_or_nothing}:")));
        environment.push(("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", all_or_nothing.to_owned()));
        let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
        in_reach(&service).await;
        ten_requests(&service).await;
        let limit = format!("{all_or_nothing}:{{4:edge6:tenant4:acme}}");
        let keys = cluster.owner(&limit).asked(&["KEYS", &format!("{all_or_nothing}:*")]);
        assert!(keys.contains(&format!("{limit}~trial|y")), "{keys}");
        service.stop().await;
    }
    two_lease_it(environment).await;
}

/// The next master goes on with the trial where the last one had it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_goes_on_when_sentinels_name_another_master() {
    let mut watched = Watched::start("secret", "hush").await;
    let environment = vec![
        ("BACKEND_TYPE", "redis".to_owned()),
        ("REDIS_TYPE", "SENTINEL".to_owned()),
        ("REDIS_URL", watched.url()),
        ("REDIS_AUTH", "secret".to_owned()),
        ("REDIS_SENTINEL_AUTH", "hush".to_owned()),
        ("REDIS_CALL_BUDGET", "1s".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    in_reach(&service).await;
    let ask = async |key: &str| {
        let asked = request("edge", &[&[(key, "acme"), ("priority", "background")]]);
        let answer = service.ask(asked).await.expect("never an error for a fault");
        answer.overall_code() == Code::Ok
    };
    for _ in 0..4 {
        assert!(ask("tenant").await);
    }
    let offset = |server: &RedisServer| {
        let told = server.asked(&["info", "replication"]);
        told.lines().find_map(|line| line.strip_prefix("master_repl_offset:").map(str::to_owned))
    };
    wait_for("the replica has it", async || {
        let (ahead, behind) = (offset(&watched.master), offset(&watched.replica));
        ahead.is_some() && ahead == behind
    })
    .await;
    watched.master.kill();
    // An outage refuses this class, of whatever key.
    wait_for("the outage is known", async || !ask("plain").await).await;
    wait_for("the next master is in use", async || ask("plain").await).await;
    in_reach(&service).await;
    for _ in 0..4 {
        assert!(ask("tenant").await, "within the limit of 8");
    }
    let shown = tried(&service, "tenant").await;
    assert_eq!((&shown["requests"], &shown["newly_refused"]), (&8.into(), &3.into()), "{shown}");
    service.stop().await;
    two_lease_it(environment).await;
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
