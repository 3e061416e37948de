//! Some primaries of a real cluster gone: whose counters answer by policy, and whose go on as if
//! nothing had happened; and that afterwards nothing was counted twice or forgotten.
//!
//! The outcomes are the second table of the outage matrix in REFERENCE.md.

use std::fmt::Write as _;

use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use ratelimit_svc::store::redis::topology::slots::slot_of;

use crate::outage_matrix::{Golden, compare};
use crate::redis_parts::Cluster;
use crate::support::{Service, request, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 8}
";
const LIMIT: usize = 8;
/// What each replica is asked of each class in the outage.
const ASKED: usize = 6;
const CLASSES: [&str; 4] = ["system-node-critical", "platform-core", "ingest", "background"];

struct Row {
    name: &'static str,
    primaries: usize,
    killed: usize,
    /// `cluster-require-full-coverage`
    full_coverage: &'static str,
    /// Whether the others refuse to serve alone, once they have found out.
    all_is_down: bool,
}

const ROWS: [Row; 3] = [
    Row {
        name: "1 of 3 primaries, `cluster-require-full-coverage no`",
        primaries: 3,
        killed: 1,
        full_coverage: "no",
        all_is_down: false,
    },
    Row {
        name: "1 of 3 primaries, `cluster-require-full-coverage yes`",
        primaries: 3,
        killed: 1,
        full_coverage: "yes",
        all_is_down: true,
    },
    Row {
        name: "2 of 4 primaries, which is no majority",
        primaries: 4,
        killed: 2,
        full_coverage: "no",
        all_is_down: true,
    },
];

struct Stage {
    cluster: Cluster,
    replicas: Vec<Service>,
    /// The slots of the primaries that are killed.
    lost: Vec<(u16, u16)>,
}

impl Stage {
    async fn start(row: &Row) -> Self {
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        let coverage = ["--cluster-require-full-coverage", row.full_coverage];
        let cluster =
            Cluster::of(row.primaries, 0, &[&durable[..], &coverage].concat(), None).await;
        let lost = cluster.nodes[..row.killed].iter().flat_map(|(_, node)| {
            let nodes = node.asked(&["cluster", "nodes"]);
            let own = nodes.lines().find(|line| line.contains("myself")).expect("its own line");
            let range = own.split(' ').nth(8).and_then(|range| range.split_once('-'));
            let (first, last) = range.expect("a range of slots");
            Some((first.parse().expect("a slot"), last.parse().expect("a slot")))
        });
        let lost = lost.collect();
        let environment = [
            ("BACKEND_TYPE", "redis".to_owned()),
            ("REDIS_TYPE", "CLUSTER".to_owned()),
            ("REDIS_URL", cluster.url()),
            // No slow machine may look like an outage.
            ("REDIS_CALL_BUDGET", "1s".to_owned()),
        ];
        let mut replicas = Vec::new();
        for _ in 0..2 {
            replicas.push(Service::start_with(&[("a.yaml", QUOTAS)], &environment).await);
        }
        for replica in &replicas {
            wait_for("the replicas know each other", async || {
                replica.metric("ratelimit_share_replicas").await == Some(2.0)
            })
            .await;
        }
        Self { cluster, replicas, lost }
    }

    /// A tenant whose counter is on a primary that is killed, or on one that is not.
    fn tenant(&self, class: &str, lost: bool) -> String {
        let is_lost = |tenant: &str| {
            let slot = slot_of(format!("{{4:edge6:tenant{}:{tenant}}}", tenant.len()).as_bytes());
            self.lost.iter().any(|(first, last)| (*first..=*last).contains(&slot))
        };
        let mut names = (0..1000).map(|n| format!("{class}-{n}"));
        names.find(|tenant| is_lost(tenant) == lost).expect("slots are spread")
    }

    /// What both replicas admit of a class, and whether they say that they are degraded.
    async fn ask(&self, class: &str, lost: bool, times: usize) -> (usize, bool) {
        let tenant = self.tenant(class, lost);
        let (mut admitted, mut degraded) = (0, Vec::new());
        for replica in &self.replicas {
            for _ in 0..times {
                let asked = request("edge", &[&[("tenant", &tenant), ("priority", class)]]);
                let answer = replica.ask(asked).await.expect("never an error for a fault");
                admitted += usize::from(answer.overall_code() == Code::Ok);
                let told = answer.dynamic_metadata.unwrap_or_default();
                degraded.push(told.fields.contains_key("degraded"));
            }
        }
        assert!(degraded.iter().all(|one| *one == degraded[0]), "{class} {lost}: {degraded:?}");
        (admitted, degraded[0])
    }

    /// Waits until a look at a counter of this class is answered so on both replicas.
    async fn wait_until_degraded(&self, lost: bool, expected: bool) {
        let tenant = self.tenant("probe", lost);
        for replica in &self.replicas {
            wait_for(&format!("{lost} counters degraded: {expected}"), async || {
                let asked = request("edge", &[&[("tenant", &tenant), ("priority", "background")]]);
                let answer = replica.ask(asked).await.expect("never an error for a fault");
                let told = answer.dynamic_metadata.unwrap_or_default();
                told.fields.contains_key("degraded") == expected
            })
            .await;
        }
    }
}

async fn run(row: &Row, table: &mut String) {
    let mut stage = Stage::start(row).await;
    for lost in [true, false] {
        stage.wait_until_degraded(lost, false).await;
        for class in CLASSES {
            assert_eq!(stage.ask(class, lost, 1).await, (2, false), "{}", row.name);
        }
    }
    for (_, node) in &mut stage.cluster.nodes[..row.killed] {
        node.kill();
    }
    stage.wait_until_degraded(true, true).await;
    if row.all_is_down {
        // Each finds out for itself, not all in the same moment.
        for (_, node) in &stage.cluster.nodes[row.killed..] {
            wait_for("a node that does not serve alone", async || {
                node.asked(&["cluster", "info"]).contains("cluster_state:fail")
            })
            .await;
        }
        stage.wait_until_degraded(false, true).await;
    }
    let mut during = [[0; 4]; 2];
    for (lost, during) in [true, false].into_iter().zip(&mut during) {
        let mut cells = Vec::new();
        for (class, during) in CLASSES.iter().zip(during) {
            let (admitted, degraded) = stage.ask(class, lost, ASKED).await;
            assert_eq!(degraded, lost || row.all_is_down, "{} {class}", row.name);
            *during = admitted;
            cells.push(match admitted {
                0 => "refused".to_owned(),
                all if all == 2 * ASKED => "passes".to_owned(),
                some => format!("{some} of {LIMIT}"),
            });
        }
        let whose = if lost { "gone" } else { "there" };
        writeln!(table, "| {} | {whose} | {} |", row.name, cells.join(" | ")).expect("written");
    }
    for (_, node) in &mut stage.cluster.nodes[..row.killed] {
        node.restart().await;
    }
    for lost in [true, false] {
        stage.wait_until_degraded(lost, false).await;
    }
    for replica in &stage.replicas {
        wait_for("all is told", async || replica.is_in_reach().await).await;
    }
    for (lost, during) in [true, false].into_iter().zip(during) {
        for (class, during) in CLASSES.iter().zip(during) {
            let left = LIMIT.saturating_sub(2 + during);
            let what = format!("{} {class}: {during} counted in the outage", row.name);
            assert_eq!(stage.ask(class, lost, LIMIT).await, (left, false), "{what}");
        }
    }
    for replica in stage.replicas {
        replica.stop().await;
    }
}

/// Requests that need a counter on each side: the living one is counted as ever, and the lost one is
/// told what passed without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_counter_is_told_though_a_living_one_was_counted() {
    let mut stage = Stage::start(&ROWS[0]).await;
    for lost in [true, false] {
        stage.wait_until_degraded(lost, false).await;
    }
    let (there, gone) = (stage.tenant("ingest", false), stage.tenant("ingest", true));
    let both = async |replica: &Service| {
        let asked = request("edge", &[&[("tenant", &there)], &[("tenant", &gone)]]);
        let answer = replica.ask(asked).await.expect("never an error for a fault");
        let left = answer.statuses.iter().map(|status| status.limit_remaining).collect::<Vec<_>>();
        (answer.overall_code() == Code::Ok, left)
    };
    assert_eq!(both(&stage.replicas[0]).await, (true, vec![7, 7]));
    stage.cluster.nodes[0].1.kill();
    stage.wait_until_degraded(true, true).await;
    // Half of the 7 that are left, rounded down, for this replica; the other counter knows better.
    for left in [(6, 2), (5, 1), (4, 0)] {
        assert_eq!(both(&stage.replicas[0]).await, (true, vec![left.0, left.1]));
    }
    assert!(!both(&stage.replicas[0]).await.0, "its share is used");
    stage.cluster.nodes[0].1.restart().await;
    stage.wait_until_degraded(true, false).await;
    for replica in &stage.replicas {
        wait_for("all is told", async || replica.is_in_reach().await).await;
    }
    // One before, three meanwhile; the refused fourth counts where it was counted.
    assert_eq!(both(&stage.replicas[1]).await, (true, vec![2, 3]));
    for replica in stage.replicas {
        replica.stop().await;
    }
}

impl Stage {
    /// Asks for counters of the nodes that are there until those that are not are given up, and a
    /// while longer: none of these requests is degraded.
    async fn the_others_are_counted_as_ever(&self, meanwhile: &str) {
        self.wait_until_degraded(true, true).await;
        for _ in 0..300 {
            assert!(!self.ask("unknown", false, 1).await.1, "{meanwhile}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        for replica in &self.replicas {
            assert_eq!(replica.metric("ratelimit_breaker_open").await, Some(0.0), "{meanwhile}");
            let opened = replica.metric("ratelimit_breaker_opened_total").await;
            assert_eq!(opened, Some(0.0), "{meanwhile}");
        }
    }
}

/// A node that answers, and refuses; and one that takes whatever it is sent and is silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_or_is_silent_costs_its_own_counters_alone() {
    let stage = Stage::start(&ROWS[0]).await;
    for lost in [true, false] {
        stage.wait_until_degraded(lost, false).await;
    }
    let node = &stage.cluster.nodes[0].1;
    let policy = ["CONFIG", "SET", "maxmemory-policy", "noeviction"];
    node.commands(&[&policy, &["CONFIG", "SET", "maxmemory", "1"]]).await;
    stage.the_others_are_counted_as_ever("out of memory").await;
    node.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    stage.wait_until_degraded(true, false).await;
    node.signal("STOP");
    stage.the_others_are_counted_as_ever("silent").await;
    node.signal("CONT");
    stage.wait_until_degraded(true, false).await;
    for replica in stage.replicas {
        replica.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_cluster_goes_on() {
    let mut table = String::from("| gone | counters that are | ");
    table += &CLASSES.map(|class| format!("`{class}`")).join(" | ");
    table += " |\n|---|---|---|---|---|---|\n";
    for row in &ROWS {
        run(row, &mut table).await;
    }
    compare(&table, &Golden::CLUSTER);
}
