//! What a running service records of what it was asked, held against what it answered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use ratelimit_svc::record::reader::Traffic;

use crate::support::{Service, request, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 30}}
  - {key: path, value: /slow, rate_limit: {unit: year, requests_per_unit: 10}}
";

fn settings(dir: &Path) -> Vec<(&'static str, String)> {
    vec![("RECORD_DIR", dir.display().to_string()), ("RECORD_HASH_KEYS", String::new())]
}

/// By tenant: requests and what was refused of them, by rule and reason.
type Sums = BTreeMap<String, (u64, BTreeMap<(String, String), u64>)>;

fn recorded(dir: &Path) -> Sums {
    let (all, traffic) = Traffic::open(&[dir.to_owned()]).expect("recordings").read_all();
    assert_eq!(traffic.problems.count, 0, "{:?}", traffic.problems);
    let mut sums = Sums::new();
    for row in all.values().flat_map(|second| &second.rows) {
        let tenant = traffic.shapes[row.shape].descriptors[0].entries[0].1.clone();
        let (requests, refusals) = sums.entry(tenant).or_default();
        *requests += row.requests;
        for (rule, reason, refused) in row.refusals.clone() {
            *refusals.entry((rule, reason)).or_default() += refused;
        }
    }
    sums
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_and_answered_is_in_the_recording() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &settings(dir.path())).await;
    let mut refused = BTreeMap::new();
    for n in 0..100 {
        let tenant = if n % 4 == 0 { "acme" } else { "bolt" };
        let asked: &[&[(&str, &str)]] = match n % 2 {
            0 => &[&[("tenant", tenant), ("priority", "ingest")], &[("path", "/slow")]],
            _ => &[&[("tenant", tenant), ("priority", "background")]],
        };
        let answer = service.ask(request("edge", asked)).await.expect("answered");
        let is_over = answer.overall_code() == Code::OverLimit;
        *refused.entry(tenant.to_owned()).or_insert(0) += u64::from(is_over);
    }
    wait_for("a second is written", async || {
        service.metric("ratelimit_record_requests_total").await > Some(0.0)
    })
    .await;
    service.stop().await;
    let sums = recorded(dir.path());
    let shape = |tenant: &str| (sums[tenant].0, sums[tenant].1.values().sum::<u64>());
    assert_eq!(shape("acme"), (25, refused["acme"]));
    assert_eq!(shape("bolt"), (75, refused["bolt"]));
    let rules: Vec<&str> = sums["acme"].1.keys().map(|(rule, _)| rule.as_str()).collect();
    assert!(rules.contains(&"path_/slow"), "{rules:?}");
    assert!(refused["acme"] > 0 && refused["bolt"] > 30, "{refused:?}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_refuses_nobody() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let beneath: PathBuf = file.path().join("beneath");
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &settings(&beneath)).await;
    assert!(!service.is_over("edge", &[("tenant", "acme")]).await);
    wait_for("it is counted", async || {
        service.metric("ratelimit_record_dropped_requests_total").await > Some(0.0)
    })
    .await;
    assert!(service.metric("ratelimit_record_errors_total").await > Some(0.0));
    service.stop().await;
}
