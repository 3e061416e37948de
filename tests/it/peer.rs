//! A running server beside ours in the benchmarks: found by program and port, measured by process and
//! by the commands of its Redis. Our own program stands in for the peer.

use std::time::Duration;

use tests::edge::service;
use tests::load::bench::peer::{self, PeerAt};
use tests::load::bench::rig::{self, LEASE, Store};
use tests::load::scenario::quotas;
use tests::load::schedule::Pace;

#[tokio::test]
async fn a_peer_is_measured_by_its_processes_and_its_redis() {
    let dir = tempfile::tempdir().unwrap();
    let redis = rig::redis(dir.path(), "redis").await.unwrap();
    let store = Store::Patient(&redis, LEASE);
    let server = rig::rls(dir.path(), "rls", &quotas(LEASE.key), store, 1).await.unwrap();
    let program = service("ratelimit-svc").unwrap();
    let at = PeerAt {
        program: program.clone(),
        port: server.address.port(),
        redis_port: Some(redis.address.port()),
    };
    assert_eq!(at.processes().unwrap(), [server.child.pid()]);
    let mut cells = peer::cells(std::slice::from_ref(&at)).unwrap();
    let names: Vec<_> = cells.iter().map(|cell| cell.name.clone()).collect();
    let name = |workload: &str| format!("peer ratelimit-svc:{}/{workload}", at.port);
    assert_eq!(names, [name("w1"), name("w2"), name("w3")]);
    for cell in &mut cells {
        cell.slice(Pace::Closed, Duration::from_millis(300)).unwrap();
        let sample = cell.samples[0];
        assert!(sample.server_us > 0.0 && sample.redis_us > 0.0, "{sample:?}");
        assert!(sample.commands > 0.0 && sample.admitted > 0.0, "{sample:?}");
    }
    // The limit of w1 holds, and is met.
    assert!((1..=1000).contains(&cells[0].samples[0].sure_most), "{:?}", cells[0].samples);

    let other = PeerAt { program: service("tidegate-load").unwrap(), ..at.clone() };
    let error = format!("{:#}", other.processes().expect_err("another program"));
    assert!(error.contains("is served by"), "{error}");
    drop((server, redis));
    let error = format!("{:#}", at.processes().expect_err("nobody listens"));
    assert!(error.contains("listens on port"), "{error}");
}
