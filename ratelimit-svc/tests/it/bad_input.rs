//! What no honest caller sends: answered, refused, and never able to grow anything.

use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use proto::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use proto::pb::google::protobuf::UInt64Value;
use ratelimit_svc::metrics::RULES_MAX;
use tonic::Code;

use crate::support::{Service, descriptor, request};

const QUOTAS: &str = "
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 3}}
  - {key: detailed, detailed_metric: true, rate_limit: {unit: year, requests_per_unit: 3}}
";

type Expected = Result<(), (Code, &'static str)>;

#[tokio::test]
async fn absurd_requests_have_an_answer() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let ok = request("edge", &[&[("tenant", "a")]]);
    let mut cases: Vec<(&str, RateLimitRequest, Expected)> = Vec::new();
    let empty = RateLimitRequest { domain: String::new(), ..ok.clone() };
    cases.push(("no domain", empty, Err((Code::Unknown, "rate limit domain must not be empty"))));
    let none = request("edge", &[]);
    let message = "rate limit descriptor list must not be empty";
    cases.push(("no descriptors", none, Err((Code::Unknown, message))));
    cases.push(("no entries", request("edge", &[&[]]), Ok(())));
    let mut many = ok.clone();
    many.descriptors = vec![descriptor(&[("tenant", "a")]); 10_000];
    let message = "more than 128 descriptors";
    cases.push(("10,000 descriptors", many, Err((Code::InvalidArgument, message))));
    let deep = request("edge", &[&[("tenant", "a"); 100]]);
    let message = "more than 32 entries in a descriptor";
    cases.push(("100 entries", deep, Err((Code::InvalidArgument, message))));
    let huge = request("edge", &[&[("tenant", &"x".repeat(1 << 20))]]);
    let message = "more than 65536 bytes of domain, keys and values";
    cases.push(("1 MB value", huge, Err((Code::InvalidArgument, message))));
    for unit in [0, 7, 99, -1] {
        let mut bad = ok.clone();
        bad.descriptors[0].limit = Some(RateLimitOverride { requests_per_unit: 1, unit });
        let message = "limit override with an unknown unit";
        cases.push(("bad unit", bad, Err((Code::InvalidArgument, message))));
    }
    for value in [1 << 63, u64::MAX] {
        for is_negative_hits in [false, true] {
            let mut hits = ok.clone();
            hits.descriptors[0].hits_addend = Some(UInt64Value { value });
            hits.descriptors[0].is_negative_hits = is_negative_hits;
            cases.push(("huge hits", hits, Ok(())));
        }
    }
    let control = request("edge", &[&[("tenant", "\0\r\n\u{7f}\u{1f600}")]]);
    cases.push(("control characters", control, Ok(())));
    for (name, request, expected) in cases {
        let answer = service.ask(request).await.map(drop);
        let answer = answer.map_err(|status| (status.code(), status.message().to_owned()));
        assert_eq!(answer, expected.map_err(|(code, text)| (code, text.to_owned())), "{name}");
    }
    service.ask(ok).await.expect("still there");
    service.stop().await;
}

#[tokio::test]
async fn a_message_beyond_the_transport_bound_is_refused() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let huge = request("edge", &[&[("tenant", &"x".repeat(5 << 20))]]);
    assert_eq!(service.ask(huge).await.expect_err("too large").code(), Code::OutOfRange);
    service.ask(request("edge", &[&[("tenant", "a")]])).await.expect("still there");
    service.stop().await;
}

#[tokio::test]
async fn floods_of_names_do_not_grow_the_metrics() {
    let service = Service::start(&[("a.yaml", QUOTAS)]).await;
    let (before, _) = series(&service).await;
    for n in 0..500 {
        let name = format!("n{n}");
        service.is_over(&name, &[("tenant", &name)]).await;
        let mut asked = request("edge", &[&[("k", &name)]]);
        asked.descriptors[0].limit = Some(RateLimitOverride { requests_per_unit: 1, unit: 1 });
        service.ask(asked).await.expect("answered");
        service.is_over("edge", &[("tenant", &name), ("priority", &name)]).await;
    }
    let (after, text) = series(&service).await;
    assert!(after - before < 40, "{text}");
    // Rules that put values into metrics are capped.
    for n in 0..RULES_MAX + 200 {
        service.is_over("edge", &[("detailed", &format!("v{n}"))]).await;
    }
    let (capped, text) = series(&service).await;
    assert!(capped < after + 5 * RULES_MAX, "{capped}");
    assert!(text.contains("domain=\"other\",rule=\"other\""));
    service.stop().await;
}

async fn series(service: &Service) -> (usize, String) {
    let (_, text) = service.admin("/metrics").await;
    (text.lines().filter(|line| !line.starts_with('#')).count(), text)
}
