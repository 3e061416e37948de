//! Replicas whose own clocks differ count in the same windows.

use std::time::Duration;

use ratelimit_svc::clock::wall;

use crate::support::{RedisServer, Service, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: second, requests_per_unit: 3}
";

fn ahead() -> Duration {
    wall() + Duration::from_secs(1)
}

fn behind() -> Duration {
    wall() - Duration::from_secs(1)
}

/// The second that Redis is in, and how far in it, in microseconds.
fn time(server: &RedisServer) -> (u64, u64) {
    let text = server.asked(&["time"]);
    let mut numbers = text.lines().map(|line| line.parse().expect("a number"));
    (numbers.next().expect("seconds"), numbers.next().expect("microseconds"))
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_two_seconds_apart_agree() {
    let server = RedisServer::start().await;
    let (files, environment) = ([("a.yaml", QUOTAS)], server.environment());
    let replicas = [
        Service::start_at(&files, &environment, ahead).await,
        Service::start_at(&files, &environment, behind).await,
    ];
    for (replica, expected) in replicas.iter().zip([-1.0, 1.0]) {
        // Redis is asked every second; an answer that comes late tells less.
        wait_for("the time of redis", async || {
            let skew = replica.metric("ratelimit_clock_skew_seconds").await.expect("told");
            replica.metric("ratelimit_breaker_open").await == Some(0.0)
                && (skew - expected).abs() < 0.5
        })
        .await;
        assert!(replica.metric("ratelimit_clock_skews_total").await >= Some(1.0));
    }
    let mut round = 0;
    wait_for("a second long enough", async || {
        round += 1;
        let tenant = format!("t{round}");
        let entries = [("tenant", &*tenant)];
        let before = time(&server);
        let mut over = Vec::new();
        for replica in [0, 1, 0, 1] {
            over.push(replicas[replica].is_over("edge", &entries).await);
        }
        let after = time(&server);
        // Within one second, and so far from its ends that the clocks need not be exact.
        let inside = |(_, micros): (u64, u64)| (100_000..900_000).contains(&micros);
        if before.0 != after.0 || !inside(before) || !inside(after) {
            return false;
        }
        assert_eq!(over, [false, false, false, true]);
        let key = format!("{{4:edge6:tenant{}:{tenant}}}|s{}", tenant.len(), before.0);
        assert_eq!(server.asked(&["get", &key]).trim(), "4", "{}", server.asked(&["keys", "*"]));
        true
    })
    .await;
    for replica in replicas {
        replica.stop().await;
    }
}
