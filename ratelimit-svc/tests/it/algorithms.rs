//! Algorithms and periods as Envoy sees them, on both stores and in an outage.

use proto::pb::envoy::service::ratelimit::v3::RateLimitResponse;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use proto::pb::google::protobuf::UInt64Value;
use serde_json::Value as Json;

use crate::support::{RedisServer, Service, http, request, wait_for};

/// Periods so long that no test meets their end.
const QUOTAS: &str = "
domain: edge
descriptors:
  - key: bucket
    rate_limit: {unit: year, requests_per_unit: 2, algorithm: token_bucket, burst: 4}
  - key: sliding
    rate_limit: {unit: year, unit_multiplier: 10, requests_per_unit: 4, algorithm: sliding_window}
  - key: fixed
    rate_limit: {window: 80000h, requests_per_unit: 9}
";

async fn ask(service: &Service, keys: &[&str], hits: u64, refund: bool) -> RateLimitResponse {
    let entries: Vec<[(&str, &str); 1]> = keys.iter().map(|key| [(*key, "a")]).collect();
    let descriptors: Vec<&[(&str, &str)]> = entries.iter().map(|entry| &entry[..]).collect();
    let mut asked = request("edge", &descriptors);
    for descriptor in &mut asked.descriptors {
        descriptor.hits_addend = Some(UInt64Value { value: hits });
        descriptor.is_negative_hits = refund;
    }
    service.ask(asked).await.expect("answered")
}

/// Whether the request is over, and what is left of each limit.
fn left(answer: &RateLimitResponse) -> (bool, Vec<u32>) {
    let left = answer.statuses.iter().map(|status| status.limit_remaining).collect();
    (answer.overall_code() == Code::OverLimit, left)
}

async fn in_reach(service: &Service) -> bool {
    service.is_in_reach().await
}

#[tokio::test]
async fn every_algorithm_on_either_store() {
    let server = RedisServer::start().await;
    for mut environment in [vec![], server.environment()] {
        environment.push(("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "true".to_owned()));
        environment.push(("LOCAL_CACHE_SIZE_IN_BYTES", "65536".to_owned()));
        let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
        wait_for("the store is there", async || in_reach(&service).await).await;
        let all = ["bucket", "sliding", "fixed"];
        assert_eq!(left(&ask(&service, &all, 3, false).await), (false, vec![1, 1, 6]));
        // Two of three refuse, and nothing moves.
        for _ in 0..2 {
            assert_eq!(left(&ask(&service, &all, 2, false).await), (true, vec![0, 0, 6]));
        }
        assert_eq!(left(&ask(&service, &all, 0, false).await), (false, vec![1, 1, 6]));
        assert_eq!(left(&ask(&service, &all, 1, false).await), (false, vec![0, 0, 5]));
        let refused = ask(&service, &["bucket"], 1, false).await;
        let reset = refused.statuses[0].duration_until_reset.expect("limited").seconds;
        // One token of two a year.
        assert!((365 * 43_200 - 60..=365 * 43_200).contains(&reset), "{reset}");
        assert_eq!(left(&ask(&service, &all, 2, true).await), (false, vec![2, 2, 7]));
        assert_eq!(left(&ask(&service, &all, 2, false).await), (false, vec![0, 0, 5]));
        service.stop().await;
    }
}

#[tokio::test]
async fn a_period_has_a_unit_only_where_that_is_true() {
    let environment = [("RESPONSE_DYNAMIC_METADATA", "true".to_owned())];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    let answer = ask(&service, &["bucket", "sliding", "fixed"], 1, false).await;
    let limits: Vec<(u32, Unit)> = answer
        .statuses
        .iter()
        .map(|status| status.current_limit.clone().expect("limited"))
        .map(|limit| (limit.requests_per_unit, limit.unit()))
        .collect();
    assert_eq!(limits, [(2, Unit::Year), (4, Unit::Unknown), (9, Unit::Unknown)]);
    let body = r#"{"domain":"edge","descriptors":[{"entries":[{"key":"sliding","value":"j"}]},{"entries":[{"key":"bucket","value":"j"}]}]}"#;
    let (_, text) = http(service.addresses.http, "POST", "/json", body).await;
    let answer: Json = serde_json::from_str(&text).expect("JSON");
    assert_eq!(answer["statuses"][0]["currentLimit"]["requestsPerUnit"], 4);
    assert_eq!(answer["statuses"][0]["currentLimit"]["unit"], Json::Null);
    assert_eq!(answer["statuses"][1]["currentLimit"]["unit"], "YEAR");
    let limits = |at: usize| answer["dynamicMetadata"]["descriptors"][at]["limit"].clone();
    assert_eq!(
        (&limits(0)["window"], &limits(0)["algorithm"]),
        (&"315360000s".into(), &"sliding_window".into())
    );
    assert_eq!(limits(1)["burst"], 4);
    let (_, text) = service.admin("/rlconfig").await;
    for expected in [
        "edge.bucket: unit=YEAR requests_per_unit=2 algorithm=token_bucket burst=4, shadow",
        "edge.sliding: window=315360000s requests_per_unit=4 algorithm=sliding_window, shadow",
        "edge.fixed: window=288000000s requests_per_unit=9, shadow",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_every_algorithm_in_an_outage() {
    let mut server = RedisServer::start().await;
    server.kill();
    let mut environment = server.environment();
    environment.push(("LOCAL_SHARE_REPLICAS", "2".to_owned()));
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    for key in ["bucket", "sliding"] {
        for expected in [(false, vec![1]), (false, vec![0]), (true, vec![0])] {
            assert_eq!(left(&ask(&service, &[key], 1, false).await), expected, "{key}");
        }
    }
    server.restart().await;
    wait_for("redis is in use", async || in_reach(&service).await).await;
    // Redis was told of the 2 of 4 that passed.
    for key in ["bucket", "sliding"] {
        assert_eq!(left(&ask(&service, &[key], 1, false).await), (false, vec![1]), "{key}");
    }
    service.stop().await;
}
