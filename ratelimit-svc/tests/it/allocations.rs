//! How often a decision allocates, with counters in memory: from the bytes of a request to the
//! bytes of its answer, on one thread, without what HTTP/2 takes around it.
//!
//! What may allocate for each descriptor is the name of its counter. The lists of a request
//! (descriptors, what is to be counted, statuses and the like) are allocated once, whatever is in
//! them; they are given their length at the start, but for the descriptors, which are read one by
//! one into a list that doubles.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use prometheus_client::registry::Registry;
use prost::Message;
use proto::pb::envoy::service::ratelimit::v3::RateLimitResponse;
use ratelimit_svc::clock::Clock;
use ratelimit_svc::decide::settings::Settings;
use ratelimit_svc::grpc::{answer, message};
use ratelimit_svc::limiter::{Counters, Limiter};
use ratelimit_svc::limits::quotas::Library;
use ratelimit_svc::metrics::Metrics;
use ratelimit_svc::store::memory::Memory;

use crate::support::{descriptor, request};

/// Rules as they are met: by the key alone, named, with a floor for a class, below a pattern.
const QUOTAS: &str = "
domain: edge
descriptors:
  - {key: plain, rate_limit: {unit: year, requests_per_unit: 1000000}}
  - {key: named, rate_limit: {name: per-tenant, unit: year, requests_per_unit: 1000000}}
  - {key: floored, rate_limit: {unit: year, requests_per_unit: 1000000, floor: {background: 0.02}}}
  - {key: bucket, rate_limit: {unit: year, requests_per_unit: 1000000, algorithm: token_bucket}}
  - key: outer
    descriptors:
      - {key: path, value: /api/*, rate_limit: {unit: year, requests_per_unit: 1000000}}
";

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn limiter() -> Limiter {
    let contents = BTreeMap::from([(PathBuf::from("a.yaml"), Ok(QUOTAS.as_bytes().to_vec()))]);
    let update = Library::new(false).update(&contents);
    assert!(update.errors.is_empty(), "{:?}", update.errors);
    let metrics = Arc::new(Metrics::new(&mut Registry::default()));
    let clock = Clock::new(|| NOW, metrics.clock_skew.clone(), metrics.clock_skews.clone());
    Limiter {
        quotas: Arc::new(ArcSwapOption::from_pointee(update.quotas)),
        counters: Counters::Memory,
        leases: None,
        clock: Arc::new(clock),
        memory: Memory::default(),
        live: Arc::default(),
        recorder: None,
        view: None,
        settings: Settings::default(),
        metrics,
    }
}

/// The bytes of the answer.
fn decide(limiter: &Limiter, asked: &[u8]) -> Vec<u8> {
    let request = message::read(asked).expect("a request");
    let decided = limiter.decide(&request).now_or_never();
    let mut answer = Vec::new();
    answer::write(decided.expect("memory does not wait").expect("an answer"), &mut answer);
    answer
}

/// Allocations of one decision about so many descriptors, each for a tenant of its own.
fn allocations(limiter: &Limiter, key: &str, class: Option<&str>, descriptors: usize) -> u64 {
    let tenants: Vec<String> = (0..descriptors).map(|n| format!("tenant-{n:05}")).collect();
    let entries = tenants.iter().map(|tenant| {
        let path = (key == "outer").then_some(("path", "/api/v2/write"));
        let class = class.map(|class| ("priority", class));
        [(key, tenant.as_str())].into_iter().chain(path).chain(class).collect::<Vec<_>>()
    });
    let mut asked = request("edge", &[]);
    asked.descriptors = entries.map(|entries| descriptor(&entries)).collect();
    let asked = asked.encode_to_vec();
    // The first decision makes the counters, and the way from each rule to its metrics.
    let answer = RateLimitResponse::decode(&*decide(limiter, &asked)).expect("an answer");
    assert_eq!(answer.statuses.len(), descriptors);
    assert!(answer.statuses.iter().all(|status| status.limit_remaining > 0), "{answer:?}");
    let mut answered = Vec::new();
    let counted = allocation_counter::measure(|| answered = decide(limiter, &asked));
    assert!(!answered.is_empty());
    counted.count_total
}

#[test]
fn a_descriptor_allocates_the_name_of_its_counter() {
    let limiter = limiter();
    for class in [None, Some("ingest"), Some("background")] {
        for (key, each) in [
            ("plain", 1),
            // The name of the limit is the answer's own copy.
            ("named", 2),
            ("floored", 1),
            ("bucket", 1),
            ("outer", 1),
        ] {
            let of = |descriptors| allocations(&limiter, key, class, descriptors);
            let counted = [1, 2, 4].map(of);
            let one = counted[0];
            assert_eq!(one, LISTS + each, "{key} {class:?}");
            assert_eq!(counted, [one, one + each, one + 3 * each], "{key} {class:?}");
            // Beyond four, what is kept on the stack for each of them moves into lists.
            let (eight, nine) = (of(8), of(9));
            assert!(eight <= LISTS_OF_MANY + 8 * each, "{key} {class:?}: {eight}");
            assert!(nine - eight <= each + LISTS_THAT_DOUBLE, "{key} {class:?}: {nine}");
        }
    }
}

/// Lists of a request with up to four descriptors, the bytes of the answer among them.
const LISTS: u64 = 7;
/// The same with more.
const LISTS_OF_MANY: u64 = 20;
/// Lists that are not given their length at the start.
const LISTS_THAT_DOUBLE: u64 = 2;
