//! One primary of a real cluster comes back empty: its counters are told what was claimed of them,
//! and those of the others go on as if nothing had happened.

use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use ratelimit_svc::store::redis::topology::slots::slot_of;

use crate::redis_parts::Cluster;
use crate::support::{Service, request, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: hot
    rate_limit: {unit: year, requests_per_unit: 1200, mode: lease, reserve: none}
";
const LIMIT: usize = 1200;

/// A value of `hot` whose counter has a slot from `first` to `last`.
fn tenant((first, last): (u16, u16)) -> String {
    let slot = |name: &str| slot_of(format!("{{4:edge3:hot{}:{name}}}", name.len()).as_bytes());
    let mut names = (0..1000).map(|n| format!("tenant-{n}"));
    names.find(|name| (first..=last).contains(&slot(name))).expect("slots are spread")
}

fn slots(cluster: &Cluster, node: usize) -> (u16, u16) {
    let nodes = cluster.nodes[node].1.asked(&["cluster", "nodes"]);
    let own = nodes.lines().find(|line| line.contains("myself")).expect("its own line");
    let range = own.split(' ').nth(8).and_then(|range| range.split_once('-'));
    let (first, last) = range.expect("a range of slots");
    (first.parse().expect("a slot"), last.parse().expect("a slot"))
}

/// Whether one of the lowest class is admitted, and whether the answer is no more than a policy.
async fn ask(service: &Service, tenant: &str) -> (bool, bool) {
    let asked = request("edge", &[&[("hot", tenant), ("priority", "background")]]);
    let answer = service.ask(asked).await.expect("never an error for a fault");
    let is_admitted = answer.overall_code() == Code::Ok;
    let told = answer.dynamic_metadata.unwrap_or_default();
    (is_admitted, told.fields.contains_key("degraded"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_forgot_is_told_and_no_other() {
    let coverage = ["--cluster-require-full-coverage", "no"];
    let mut cluster = Cluster::of(3, 0, &coverage, None).await;
    let (lost, kept) = (tenant(slots(&cluster, 0)), tenant(slots(&cluster, 1)));
    let environment = [
        ("BACKEND_TYPE", "redis".to_owned()),
        ("REDIS_TYPE", "CLUSTER".to_owned()),
        ("REDIS_URL", cluster.url()),
        ("LOCAL_SHARE_REPLICAS", "2".to_owned()),
        // No slow machine may look like an outage.
        ("REDIS_CALL_BUDGET", "1s".to_owned()),
    ];
    let mut services = Vec::new();
    for _ in 0..2 {
        services.push(Service::start_with(&[("a.yaml", QUOTAS)], &environment).await);
    }
    for service in &services {
        for tenant in [&lost, &kept] {
            // The data of servers that have just begun are young.
            wait_for("the counters are claimed from", async || {
                ask(service, tenant).await == (true, false)
            })
            .await;
        }
    }
    let (mut of_lost, mut of_kept) = (services.len(), services.len());
    for _ in 0..100 {
        for service in &services {
            of_lost += usize::from(ask(service, &lost).await.0);
        }
    }
    assert!(of_lost >= 200, "{of_lost}");
    cluster.nodes[0].1.kill();
    for service in &services {
        wait_for("tokens are spent, and the outage is known", async || {
            let (admitted, degraded) = ask(service, &lost).await;
            of_lost += usize::from(admitted);
            degraded
        })
        .await;
    }
    cluster.nodes[0].1.restart().await;
    for service in &services {
        let told = "ratelimit_lease_restored_total{result=\"restored\"}";
        wait_for("the primary is told", async || {
            let (admitted, degraded) = ask(service, &kept).await;
            assert!(admitted && !degraded, "the others are held back for nothing");
            of_kept += 1;
            service.metric(told).await >= Some(1.0)
        })
        .await;
        assert_eq!(service.metric("ratelimit_lease_losses_total").await, Some(1.0));
    }
    for (tenant, admitted) in [(&lost, &mut of_lost), (&kept, &mut of_kept)] {
        for service in &services {
            wait_for("all of the limit is used", async || {
                loop {
                    let (is_admitted, degraded) = ask(service, tenant).await;
                    if !is_admitted {
                        return !degraded;
                    }
                    *admitted += 1;
                }
            })
            .await;
        }
        assert!(*admitted <= LIMIT, "{tenant}: {admitted} of {LIMIT}");
    }
    assert_eq!((of_lost, of_kept), (LIMIT, LIMIT), "all of it and no more");
    for service in services {
        service.stop().await;
    }
}
