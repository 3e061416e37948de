//! What Envoy and others see: statuses, headers, metadata, errors, health and pages.

use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus};
use proto::pb::google::protobuf::UInt64Value;
use serde_json::Value as Json;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{RedisServer, Service, descriptor, http, request, url, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 3, name: 'per \"tenant\"'}
  - key: shadow
    shadow_mode: true
    rate_limit: {unit: year, requests_per_unit: 1}
  - key: free
    metadata: {tier: gold}
    rate_limit: {unlimited: true, replaces: [{name: 'per \"tenant\"'}]}
";

fn code(status: &DescriptorStatus) -> Code {
    status.code()
}

#[tokio::test]
async fn a_limit_is_counted_and_refused() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    for left in [2, 1, 0] {
        let asked = request("edge", &[&[("tenant", "a")], &[("none", "b")]]);
        let answer = service.ask(asked).await.expect("answered");
        assert_eq!(answer.overall_code(), Code::Ok);
        let status = &answer.statuses[0];
        let limit = status.current_limit.clone().expect("limited");
        assert_eq!((limit.requests_per_unit, limit.unit()), (3, Unit::Year));
        assert_eq!(limit.name, "per _tenant_", "quotes would break Envoy's header");
        assert_eq!(status.limit_remaining, left);
        let reset = status.duration_until_reset.expect("limited");
        assert!((1..=365 * 86_400).contains(&reset.seconds));
        assert_eq!(code(&answer.statuses[1]), Code::Ok);
        assert_eq!(answer.statuses[1].current_limit, None);
        assert!(answer.response_headers_to_add.is_empty() && answer.dynamic_metadata.is_none());
    }
    assert!(service.is_over("edge", &[("tenant", "a")]).await);
    assert!(!service.is_over("edge", &[("tenant", "b")]).await);
    // The class is not part of the counter.
    assert!(service.is_over("edge", &[("tenant", "a"), ("priority", "background")]).await);
    assert!(!service.is_over("elsewhere", &[("tenant", "a")]).await, "an unknown domain passes");
    assert_eq!(service.metric("ratelimit_domain_not_found_total").await, Some(1.0));
    service.stop().await;
}

#[tokio::test]
async fn shadow_unlimited_and_replaced_limits_pass() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    for _ in 0..5 {
        assert!(!service.is_over("edge", &[("shadow", "")]).await);
        let asked = request("edge", &[&[("tenant", "a")], &[("free", "")]]);
        let answer = service.ask(asked).await.expect("answered");
        assert_eq!(answer.overall_code(), Code::Ok);
        assert_eq!(answer.statuses[0].current_limit, None, "replaced");
        assert_eq!(answer.statuses[1].limit_remaining, u32::MAX);
    }
    assert!(!service.is_over("edge", &[("tenant", "a")]).await, "replaced limits are not counted");
    service.stop().await;
}

#[tokio::test]
async fn hits_overrides_looks_and_refunds() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let hits = |hits: u64, negative: bool| {
        let mut asked = request("edge", &[&[("tenant", "h")]]);
        asked.descriptors[0].hits_addend = Some(UInt64Value { value: hits });
        asked.descriptors[0].is_negative_hits = negative;
        asked
    };
    for (amount, negative, over, left) in [
        (0, false, false, 3),
        (3, false, false, 0),
        (0, false, false, 0),
        (1, false, true, 0),
        (2, true, false, 1),
        (u64::MAX, false, true, 0),
        (u64::MAX, true, false, 1),
    ] {
        let answer = service.ask(hits(amount, negative)).await.expect("answered");
        let got = (answer.overall_code() == Code::OverLimit, answer.statuses[0].limit_remaining);
        assert_eq!(got, (over, left), "{amount} {negative}");
    }
    let mut asked = request("edge", &[&[("any", "x"), ("thing", "y")]]);
    asked.hits_addend = 2;
    asked.descriptors[0].limit = Some(RateLimitOverride { requests_per_unit: 5, unit: 5 });
    for left in [3, 1] {
        let answer = service.ask(asked.clone()).await.expect("answered");
        let limit = answer.statuses[0].current_limit.clone().expect("limited");
        assert_eq!(
            (limit.requests_per_unit, limit.unit(), limit.name.as_str()),
            (5, Unit::Month, "")
        );
        assert_eq!(answer.statuses[0].limit_remaining, left);
    }
    assert_eq!(service.ask(asked).await.expect("answered").overall_code(), Code::OverLimit);
    service.stop().await;
}

#[tokio::test]
async fn a_refused_request_consumes_nothing_on_either_store() {
    let server = RedisServer::start().await;
    for mut environment in [vec![], server.environment()] {
        environment.push(("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "true".to_owned()));
        let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
        wait_for("the store is there", async || {
            service.metric("ratelimit_breaker_open").await == Some(0.0)
        })
        .await;
        let narrow = |n: usize| {
            let tenant = format!("t{n}");
            request("edge", &[&[("tenant", "wide")], &[("tenant", &tenant)]])
        };
        for n in 0..3 {
            assert_eq!(service.ask(narrow(n)).await.expect("answered").overall_code(), Code::Ok);
        }
        for _ in 0..5 {
            let answer = service.ask(narrow(0)).await.expect("answered");
            assert_eq!(answer.overall_code(), Code::OverLimit);
            assert_eq!(code(&answer.statuses[1]), Code::Ok);
            assert_eq!(answer.statuses[1].limit_remaining, 2, "not consumed");
        }
        service.stop().await;
    }
}

#[tokio::test]
async fn headers_and_metadata_when_asked_for() {
    let environment = [
        ("LIMIT_RESPONSE_HEADERS_ENABLED", "true".to_owned()),
        ("LIMIT_RESET_HEADER", "x-reset".to_owned()),
        ("RESPONSE_DYNAMIC_METADATA", "true".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    let mut asked =
        request("edge", &[&[("tenant", "a"), ("priority", "platform-core")], &[("free", "")]]);
    asked.descriptors.swap(0, 1);
    asked.descriptors.truncate(1);
    asked.descriptors.push(descriptor(&[("tenant", "b"), ("priority", "platform-core")]));
    asked.descriptors[0] = descriptor(&[("none", "x")]);
    let answer = service.ask(asked).await.expect("answered");
    let headers: Vec<(&str, &str)> = answer
        .response_headers_to_add
        .iter()
        .map(|header| (header.key.as_str(), header.value.as_str()))
        .collect();
    assert_eq!(headers[..2], [("RateLimit-Limit", "3"), ("RateLimit-Remaining", "2")]);
    assert_eq!(headers[2].0, "x-reset");
    let metadata = answer.dynamic_metadata.expect("asked for");
    let text = format!("{metadata:?}");
    for expected in ["platform-core", "within_limit", "tenant=b", "none=x", "edge"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    service.stop().await;
}

#[tokio::test]
async fn json_over_http() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let at = service.addresses.http;
    let body = r#"{"domain":"edge","hits_addend":1,"descriptors":[{"entries":[{"key":"tenant","value":"j"}],"hitsAddend":"3"}]}"#;
    let (status, text) = http(at, "POST", "/json", body).await;
    let answer: Json = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, answer["overallCode"].as_str()), (200, Some("OK")));
    let status_0 = &answer["statuses"][0];
    assert_eq!(status_0["currentLimit"]["requestsPerUnit"], 3);
    assert_eq!(status_0["currentLimit"]["unit"], "YEAR");
    assert!(status_0["durationUntilReset"].as_str().is_some_and(|text| text.ends_with('s')));
    let (status, text) = http(at, "POST", "/json", body).await;
    assert_eq!(status, 429, "{text}");
    // What the mapping of protobuf takes beside that: null for a field, and whole numbers in any spelling.
    for body in [
        r#"{"domain":"edge","hitsAddend":null,"descriptors":[{"entries":[{"key":"tenant","value":"n"}],"limit":null,"hitsAddend":1e0,"isNegativeHits":null}]}"#,
        r#"{"domain":"edge","hitsAddend":2.0,"descriptors":[{"entries":[{"key":"tenant","value":"n"}],"limit":{"requestsPerUnit":"3.0","unit":6.0}}]}"#,
    ] {
        let (status, text) = http(at, "POST", "/json", body).await;
        assert_eq!(status, 200, "{body}: {text}");
    }
    for bad in [r#"{"domain":"edge","hitsAddend":1.5}"#, r#"{"domain":"edge","hitsAddend":-1}"#] {
        assert_eq!(http(at, "POST", "/json", bad).await.0, 400, "{bad}");
    }
    for bad in
        ["", "{", "[]", r#"{"domain":5}"#, r#"{"nope":1}"#, r#"{"domain":""}"#, r#"{"domain":"d"}"#]
    {
        let (status, text) = http(at, "POST", "/json", bad).await;
        assert_eq!(status, 400, "{bad}: {text}");
    }
    let (status, _) = http(at, "POST", "/json", &"x".repeat(2 << 20)).await;
    assert_eq!(status, 413);
    assert_eq!(http(at, "GET", "/healthcheck", "").await, (200, "OK".to_owned()));
    service.stop().await;
}

#[tokio::test]
async fn admin_pages() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    assert_eq!(service.admin("/livez").await.0, 200);
    assert_eq!(service.admin("/readyz").await.0, 200);
    let (_, text) = service.admin("/config").await;
    let config: Json = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&config["quotas"]["version"], &config["rules_by_domain"]["edge"]),
        (&1.into(), &3.into())
    );
    let (_, text) = service.admin("/rlconfig").await;
    assert!(
        text.contains("edge.tenant: unit=YEAR requests_per_unit=3, shadow_mode: false"),
        "{text}"
    );
    service.is_over("edge", &[("tenant", "a")]).await;
    let decisions = "ratelimit_decisions_total{domain=\"edge\",rule=\"tenant\",class=\"ingest\",decision=\"ok\",reason=\"within_limit\"}";
    assert_eq!(service.metric(decisions).await, Some(1.0));
    assert_eq!(service.metric("ratelimit_decision_duration_seconds_count").await, Some(1.0));
    service.stop().await;
}

#[tokio::test]
async fn health_follows_readiness_and_open_work_is_finished() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let url = url(&service.addresses.grpc);
    let channel = tonic::transport::Endpoint::from_shared(url).expect("a URL");
    let health = HealthClient::new(channel.connect().await.expect("connected"));
    let serving = async |name: &str| {
        let asked = HealthCheckRequest { service: name.to_owned() };
        let answer = health.clone().check(asked).await.expect("answered").into_inner();
        answer.status() == tonic_health::ServingStatus::Serving.into()
    };
    for name in ["", "ratelimit"] {
        wait_for("serving", async || serving(name).await).await;
    }
    let draining = service.readiness.latch("draining");
    for name in ["", "ratelimit"] {
        wait_for("not serving", async || !serving(name).await).await;
    }
    assert!(!service.is_over("edge", &[("tenant", "d")]).await, "still answers while draining");
    assert_eq!(service.admin("/readyz").await, (503, "draining\n".to_owned()));
    assert_eq!(http(service.addresses.http, "GET", "/healthcheck", "").await.0, 500);
    drop(draining);
    service.begin_shutdown();
    drop(health);
    service.stop().await;
}

#[tokio::test]
async fn a_traced_request_is_answered_alike() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    for trace in ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "nonsense", ""] {
        let mut asked = tonic::Request::new(request("edge", &[&[("tenant", "t")]]));
        asked.metadata_mut().insert("traceparent", trace.parse().expect("ASCII"));
        let answer = service.client.clone().should_rate_limit(asked).await.expect("answered");
        assert_eq!(answer.into_inner().overall_code(), Code::Ok);
    }
    service.stop().await;
}
