//! Replicas that lease from one real Redis: together they stay within the limit, ask it seldom,
//! go on without it while they hold tokens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use ratelimit_svc::decide::hit::{Hit, Role};
use ratelimit_svc::lease::loss::{Restoration, merged};
use ratelimit_svc::limits::algorithm::Algorithm;
use ratelimit_svc::limits::rule::Limit;
use ratelimit_svc::limits::unit::Unit;
use ratelimit_svc::store::backend::Backend;
use ratelimit_svc::store::redis::RedisSettings;
use ratelimit_svc::store::redis::topology::link::Topology;

use crate::store::unconnected;
use crate::support::{DEADLINE, RedisServer, Service, commands_but_for_upkeep, request, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: hot
    rate_limit: {unit: year, requests_per_unit: 1200, reserve: none}
  - key: small
    rate_limit: {unit: year, requests_per_unit: 60, mode: lease}
  - key: strict
    rate_limit: {unit: year, requests_per_unit: 3000, mode: exact}
  - key: second
    rate_limit: {unit: second, requests_per_unit: 1000}
";

async fn replicas(
    server: &RedisServer,
    count: usize,
    more: &[(&'static str, String)],
) -> Vec<Service> {
    let mut environment = server.environment();
    environment.push(("LOCAL_SHARE_REPLICAS", count.to_string()));
    environment.extend_from_slice(more);
    let mut services = Vec::new();
    for _ in 0..count {
        let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
        wait_for("redis is in use", async || {
            service.metric("ratelimit_breaker_open").await == Some(0.0)
                && !is_holding(&service).await
        })
        .await;
        services.push(service);
    }
    services
}

/// Whether leases wait for others to tell a store of what they had claimed.
async fn is_holding(service: &Service) -> bool {
    let (_, shown) = service.admin("/config").await;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    shown["store"]["leases"]["holding"].as_bool().expect("told")
}

/// Sends so many requests to each replica, from several clients at a time, with `entries` each;
/// how many were admitted.
async fn ask_all(services: &[Service], each: usize, entries: &[&[(&str, &str)]]) -> usize {
    const CLIENTS: usize = 8;
    let mut clients = tokio::task::JoinSet::new();
    for service in services {
        for _ in 0..CLIENTS {
            let (client, asked) = (service.client.clone(), request("edge", entries));
            clients.spawn(async move {
                let mut admitted = 0;
                for _ in 0..each / CLIENTS {
                    let answer = client.clone().should_rate_limit(asked.clone()).await;
                    let answer = answer.expect("never an error").into_inner();
                    admitted += usize::from(answer.overall_code() == Code::Ok);
                }
                admitted
            });
        }
    }
    clients.join_all().await.into_iter().sum()
}

/// Asks each replica until it refuses: what one had claimed and not spent is now spent as well.
async fn ask_the_rest(services: &[Service], entries: &[(&str, &str)]) -> usize {
    let mut admitted = 0;
    for service in services {
        while !service.is_over("edge", entries).await {
            admitted += 1;
        }
    }
    admitted
}

/// Commands that count, as Redis tells; those of probes and heartbeats are others.
async fn counting_commands(server: &RedisServer) -> u64 {
    let mut connection = server.connection().await;
    let info: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.expect("told");
    commands_but_for_upkeep(&info, &["incrby", "expire", "get", "evalsha", "eval"])
}

async fn counted(server: &RedisServer, pattern: &str) -> Option<u64> {
    let mut connection = server.connection().await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.expect("told");
    let key = keys.first()?;
    Some(redis::cmd("GET").arg(key).query_async(&mut connection).await.expect("told"))
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_a_limit_to_the_last_hit() {
    let server = RedisServer::start().await;
    let services = replicas(&server, 3, &[]).await;
    let before = counting_commands(&server).await;
    let requests = 3 * 800;
    let admitted = ask_all(&services, 800, &[&[("hot", "a")]]).await;
    let commands = counting_commands(&server).await - before;
    let rest = ask_the_rest(&services, &[("hot", "a")]).await;
    assert_eq!(admitted + rest, 1200, "all of the limit and no more");
    println!("{commands} commands for {requests} decisions of 3 replicas");
    // However slowly they ask: a block has eight hits and more before little is left.
    assert!(commands * 10 <= requests, "{commands} commands for {requests} decisions");
    for service in &services {
        assert!(service.is_over("edge", &[("hot", "a")]).await);
        let spent = async || service.metric("ratelimit_lease_tokens_total{kind=\"spent\"}").await;
        wait_for("tokens are told", async || spent().await.is_some_and(|spent| spent > 0.0)).await;
    }
    for service in services {
        service.stop().await;
    }
}

/// What may be spent without a claim is taken off a limit for whoever counts exactly, and so judged.
#[tokio::test(flavor = "multi_thread")]
async fn free_hits_are_kept_from_exact_requests() {
    let server = RedisServer::start().await;
    let free = [("LEASE_FREE_RATIO", "0.05".to_owned()), ("LEASE_FREE_REPLICAS", "1".to_owned())];
    let services = replicas(&server, 1, &free).await;
    // 60 of 1200 are free, so 1140 can be counted.
    let ask = async |amount| {
        let mut request = request("edge", &[&[("hot", "a")], &[("strict", "a")]]);
        request.hits_addend = amount;
        services[0].ask(request).await.expect("answered").overall_code()
    };
    assert_eq!(ask(1140).await, Code::Ok);
    assert_eq!(ask(10).await, Code::OverLimit);
    let over = services[0]
        .metric("ratelimit_hits_total{domain=\"edge\",rule=\"hot\",kind=\"over_limit\"}");
    assert_eq!(over.await, Some(10.0));
    for service in services {
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_limits_hold_together() {
    let server = RedisServer::start().await;
    let services = replicas(&server, 3, &[]).await;
    let admitted = ask_all(&services, 80, &[&[("hot", "a")], &[("small", "b")]]).await;
    let rest = ask_the_rest(&services, &[("small", "b")]).await;
    assert_eq!(admitted + rest, 60, "the small limit");
    let admitted = admitted as u64;
    let rest = ask_the_rest(&services, &[("hot", "a")]).await;
    assert_eq!(
        rest as u64,
        1200 - admitted,
        "what the small limit refused is not taken of the other"
    );
    // Beside a limit that is counted exactly, all are.
    let admitted = ask_all(&services, 80, &[&[("strict", "a")], &[("small", "c")]]).await;
    assert_eq!((admitted, counted(&server, "*strict*").await), (60, Some(240)));
    for service in services {
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_admits_more_than_its_limit() {
    let server = RedisServer::start().await;
    let services = replicas(&server, 3, &[]).await;
    let began = std::time::SystemTime::now();
    let admitted = ask_all(&services, 800, &[&[("second", "a")]]).await;
    let second = |at: std::time::SystemTime| {
        at.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
    };
    let windows = second(std::time::SystemTime::now()) - second(began) + 1;
    assert!(admitted as u64 <= 1000 * windows, "{admitted} in {windows} windows");
    assert!(admitted >= 800, "{admitted}");
    for service in services {
        service.stop().await;
    }
}

/// What a replica had not spent as it ends is lost to the window. A counter that went down would be
/// taken for one that lost data, and the claims of the others with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_ends_lowers_no_counter() {
    let server = RedisServer::start().await;
    let services = replicas(&server, 2, &[]).await;
    for service in &services {
        for _ in 0..5 {
            assert!(!service.is_over("edge", &[("hot", "a")]).await);
        }
    }
    let claimed = counted(&server, "*hot*").await.expect("claimed");
    assert!(claimed > 10, "blocks are claimed");
    let mut services = services.into_iter();
    services.next().expect("two").stop().await;
    assert_eq!(counted(&server, "*hot*").await, Some(claimed));
    let rest = [services.next().expect("two")];
    let admitted = 10 + ask_the_rest(&rest, &[("hot", "a")]).await;
    assert!(
        (1200 - 24..=1200).contains(&admitted),
        "{admitted}: at most a block and a half is lost"
    );
    let [rest] = rest;
    for result in ["restored", "failed"] {
        let name = format!("ratelimit_lease_told_total{{result=\"{result}\"}}");
        assert_eq!(rest.metric(&name).await.unwrap_or_default(), 0.0, "no data were lost");
    }
    rest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_outlive_an_outage_for_the_classes_that_pass_in_one() {
    let mut server = RedisServer::start().await;
    let services = replicas(&server, 1, &[]).await;
    let service = &services[0];
    let ask = async |class| {
        let asked = request("edge", &[&[("hot", "a"), ("priority", class)]]);
        let answer = service.ask(asked).await.expect("never an error for a fault of the store");
        let degraded = answer
            .dynamic_metadata
            .clone()
            .is_some_and(|told| told.fields.contains_key("degraded"));
        (answer.overall_code() == Code::Ok, degraded)
    };
    assert_eq!(ask("background").await, (true, false));
    server.kill();
    wait_for("the outage is known", async || {
        service.metric("ratelimit_breaker_open").await == Some(1.0)
    })
    .await;
    // There are tokens, claimed by this very class: they are for those above it.
    for _ in 0..3 {
        assert_eq!(ask("background").await, (false, true), "denied, as configured");
        assert_eq!(ask("ingest").await, (true, false), "a token is spent");
    }
    let mut spent = 3;
    while ask("ingest").await == (true, false) {
        spent += 1;
        assert!(spent <= 1200, "no more than was claimed");
    }
    assert_eq!(ask("system-node-critical").await, (true, true), "always admitted");
    for service in services {
        service.stop().await;
    }
}

/// What a Redis forgot that was killed and came back empty, its replicas tell it.
#[tokio::test(flavor = "multi_thread")]
async fn what_redis_forgot_is_not_admitted_again() {
    let mut server = RedisServer::start().await;
    let mut services = replicas(&server, 3, &[]).await;
    let entries = [("hot", "a"), ("priority", "background")];
    let before = ask_all(&services, 200, &[&entries[..]]).await;
    assert!(before >= 500, "{before}");
    server.kill();
    for service in &services {
        wait_for("the outage is known", async || {
            service.metric("ratelimit_breaker_open").await == Some(1.0)
        })
        .await;
    }
    // One that starts now does not know what was claimed, and waits until all have told.
    let mut environment = server.environment();
    environment.push(("LOCAL_SHARE_REPLICAS", "4".to_owned()));
    let newcomer = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    server.restart().await;
    let mut after = 0;
    wait_for("redis is in use", async || {
        after += usize::from(!newcomer.is_over("edge", &entries).await);
        newcomer.metric("ratelimit_breaker_open").await == Some(0.0)
    })
    .await;
    after += usize::from(!newcomer.is_over("edge", &entries).await);
    for service in &services {
        let told = "ratelimit_lease_restored_total{result=\"restored\"}";
        wait_for("redis is told", async || service.metric(told).await >= Some(1.0)).await;
        assert_eq!(service.metric("ratelimit_lease_losses_total").await, Some(1.0));
    }
    assert!(counted(&server, "*hot*|y[0-9]*[0-9]").await >= Some(before as u64), "it is told");
    // Until all have told nobody claims, and the policy of the class denies.
    services.push(newcomer);
    let until = Instant::now() + DEADLINE;
    while before + after < 1200 && Instant::now() < until {
        for service in &services {
            after += usize::from(!service.is_over("edge", &entries).await);
        }
    }
    assert_eq!(before + after, 1200, "all of the limit");
    assert_eq!(ask_all(&services, 80, &[&entries[..]]).await, 0, "and no more");
    for service in services {
        service.stop().await;
    }
}

/// What replicas tell adds up on Redis as it does in memory, in any order and told twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_adds_up() {
    let server = RedisServer::start().await;
    let settings = RedisSettings {
        call_budget: Duration::from_secs(5),
        key_prefix: "p:".to_owned(),
        expiration_jitter_max_seconds: 0,
        local_cache_bytes: 0,
        threads: 0,
    };
    let store = || unconnected(Topology::Unix(server.socket()), settings.clone());
    let stores = [store(), store(), store()];
    for store in &stores {
        wait_for("connected", async || store.probe().await.is_ok()).await;
        store.sign_of_life().await.expect("signed");
    }
    let window = Limit::fixed(1000, Unit::Hour).period.window(3600 * 500_000);
    let assertion = |name: &str, amount, taken| {
        let hit = Hit {
            key: format!("{{4:edge1:k1:{name}}}|h500000").into_bytes().into(),
            amount,
            is_refund: false,
            limit: 1000,
            window,
            algorithm: Algorithm::FixedWindow,
            role: Role::Enforced,
            share: None,
        };
        Restoration { stem: hit.key.to_vec().into(), hit, taken }
    };
    let told = [(0, 30, 0), (1, 40, 90), (1, 20, 0), (2, 50, 0), (0, 30, 120), (0, 45, 10)];
    let (mut granted, mut count) = (BTreeMap::new(), 0);
    for (replica, amount, taken) in told {
        let own: &mut u64 = granted.entry(replica).or_default();
        *own = amount.max(*own);
        count = merged(count, granted.values().copied(), taken);
        let assertions = [assertion("a", amount, taken), assertion("b", 7, 0)];
        let answers = stores[replica].restore_claimed(&assertions).await;
        let answer: Vec<u64> = answers.into_iter().map(|stands| stands.expect("told")).collect();
        assert_eq!(answer, [count, 7 * granted.len() as u64]);
    }
    let mut connection = server.connection().await;
    let lives: i64 = redis::cmd("TTL")
        .arg("p:{4:edge1:k1:a}|h500000|granted")
        .query_async(&mut connection)
        .await
        .expect("told");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later");
    let left = 500_001 * 3600_i64 - i64::try_from(now.as_secs()).expect("this age");
    let expected = left.max(3600) - 60..=left.max(3600) + 10;
    assert!(expected.contains(&lives), "{lives} of {left}");
}

/// Who looks sees how much is leased, and of which rules, but no tenant.
#[tokio::test(flavor = "multi_thread")]
async fn leases_are_shown_without_tenants() {
    let server = RedisServer::start().await;
    let services = replicas(&server, 1, &[]).await;
    assert!(!services[0].is_over("edge", &[("hot", "a-tenant")]).await);
    let (_, shown) = services[0].admin("/config").await;
    assert!(!shown.contains("a-tenant"), "{shown}");
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let leases = &shown["store"]["leases"];
    assert_eq!((leases["counters"].as_u64(), leases["unrestored"].as_u64()), (Some(1), Some(0)));
    assert_eq!(leases["largest"][0]["rule"], "edge.hot", "{leases}");
    assert!(leases["held"].as_u64() > Some(0), "{leases}");
    assert_eq!(leases["largest"][0]["held"], leases["held"]);
    for service in services {
        service.stop().await;
    }
}

/// Replicas of an authorization service that disagree while a plan changes send two limits by turns for
/// one counter.
#[tokio::test(flavor = "multi_thread")]
async fn two_limits_by_turns_leave_the_larger_part_of_either() {
    let server = RedisServer::start().await;
    let services = replicas(&server, 1, &[]).await;
    let ask = async |requests_per_unit| {
        let mut asked = request("edge", &[&[("plan", "a")]]);
        // A year, in which no window ends meanwhile.
        asked.descriptors[0].limit = Some(RateLimitOverride { requests_per_unit, unit: 6 });
        let code = services[0].ask(asked).await.expect("answered").overall_code();
        usize::from(code == Code::Ok)
    };
    let mut admitted = 0;
    for _ in 0..3000 {
        admitted += ask(2000).await + ask(3000).await;
    }
    assert!((2000..=3000).contains(&admitted), "{admitted} of 6000 requests");
    for service in services {
        service.stop().await;
    }
}

/// What one limit had claimed and not spent goes back before another is in force.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_lowered_leaves_what_is_not_spent() {
    let server = RedisServer::start().await;
    let services = replicas(&server, 2, &[]).await;
    let limited =
        |limit: u32| QUOTAS.replace("1200, reserve: none", &format!("{limit}, reserve: none"));
    let in_force = async |limit: u32| {
        for service in &services {
            service.write_quotas("a.yaml", limited(limit));
            wait_for("the limit is in force", async || {
                let (_, listing) = service.admin("/rlconfig").await;
                let word = format!("requests_per_unit={limit}");
                listing.split_whitespace().any(|found| found.trim_end_matches(',') == word)
            })
            .await;
        }
    };
    in_force(1_000_000).await;
    assert_eq!(ask_all(&services, 248, &[&[("hot", "a")]]).await, 2 * 248);
    in_force(1000).await;
    let admitted = ask_all(&services, 800, &[&[("hot", "a")]]).await;
    let rest = ask_the_rest(&services, &[("hot", "a")]).await;
    assert!((480..=504).contains(&(admitted + rest)), "{admitted} and {rest} of 504");
    // Raised again, what is left of the larger limit is there.
    in_force(2000).await;
    let admitted = ask_all(&services, 800, &[&[("hot", "a")]]).await;
    let rest = ask_the_rest(&services, &[("hot", "a")]).await;
    assert!((960..=1030).contains(&(admitted + rest)), "{admitted} and {rest} of the second 1000");
    for service in services {
        service.stop().await;
    }
}
