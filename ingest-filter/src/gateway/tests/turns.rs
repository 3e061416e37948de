//! Tests of `gateway`: one tenant's flood of requests, and the single request of another. What is
//! counted is whose records come first, not how long that takes.

use super::frames::{self, Peer, streams};
use super::*;
use crate::gateway::turns::Turns;

/// Requests of the flood.
const FLOOD: u32 = 1000;

impl Running {
    /// A request of another tenant than `acme`.
    async fn post_of_another(&self) -> Answer {
        let request = Request::post(format!("http://{}/write", self.address))
            .header("x-tidegate-tenant", "other")
            .body("m f=1i 1\n".into());
        self.send(request.expect("a request")).await
    }

    /// Waits until requests and answers hold this much memory.
    async fn holds(&self, is_reached: impl Fn(i64) -> bool) {
        while !is_reached(self.budget.in_flight()) {
            tokio::task::yield_now().await;
        }
    }
}

/// How many records of the flood were journalled before that of another tenant, which comes when
/// the flood is being worked on.
async fn flooded(at_once: usize) -> usize {
    let change = |config: &mut GatewayConfig| config.streams_max = FLOOD;
    let gateway = start_changed(change, |edge| edge.turns = Turns::new(at_once)).await;
    let mut flood = Peer::connect(&gateway, 1 << 16).await;
    flood.send(&streams(FLOOD).flat_map(frames::write).collect::<Vec<_>>()).await;
    let all = i64::from(FLOOD) * body::REQUEST_BYTES as i64;
    gateway.holds(|bytes| bytes >= all).await;
    // The other's connection is there already.
    assert_eq!(gateway.get("/ping").await.status, StatusCode::NO_CONTENT);
    let bodies = streams(FLOOD).flat_map(|stream| frames::body(stream, b"m f=1i 1\n"));
    flood.send(&bodies.collect::<Vec<_>>()).await;
    let mut begun = gateway.journal.waiting.subscribe();
    begun.wait_for(|begun| *begun > 0).await.expect("alive");
    assert_eq!(gateway.post_of_another().await.status, StatusCode::NO_CONTENT);
    begun.wait_for(|begun| *begun > FLOOD as usize).await.expect("alive");
    assert_eq!(flood.heads(FLOOD as usize).await.len(), FLOOD as usize);
    let records = gateway.journal.records();
    records.iter().position(|record| record.tenant == "other").expect("it is stored")
}

#[tokio::test]
async fn a_flood_of_one_tenant_does_not_come_before_the_request_of_another() {
    // The runtime of the test looks for what has arrived after each 61 tasks, and a request takes
    // a few such looks.
    let before = flooded(2).await;
    assert!(before < FLOOD as usize / 2, "{before} of {FLOOD}");
}

#[tokio::test]
async fn without_turns_it_would() {
    let before = flooded(usize::MAX).await;
    assert!(before > FLOOD as usize * 3 / 4, "{before} of {FLOOD}");
}

#[tokio::test]
async fn a_tenant_takes_all_its_turns_while_its_requests_wait_for_the_journal() {
    let gateway = start_changed(|_| {}, |edge| edge.turns = Turns::new(1)).await;
    gateway.journal.hold();
    let gateway = Arc::new(gateway);
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..8 {
        let gateway = gateway.clone();
        let body = format!("m f={number}i 1\n");
        requests.spawn(async move { gateway.post("/write", body).await.status });
    }
    // All are decoded and handed on, though the first is not answered.
    let mut waiting = gateway.journal.waiting.subscribe();
    waiting.wait_for(|waiting| *waiting == 8).await.expect("alive");
    gateway.journal.release();
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.expect("no panic"), StatusCode::NO_CONTENT);
    }
}

/// A peer that reads no body: its answers are held against its tenant, and once that has no room
/// left, and few of its answers have a body all the same, they are heads that wait for nobody.
#[tokio::test]
async fn answers_that_nobody_reads_are_counted_and_bounded() {
    const MEMORY: usize = 4 << 20;
    let refused = answers::UNCOUNTED_MAX as u32 + (MEMORY / 2 / answers::PLACE_BYTES) as u32 + 100;
    let gateway = start_with(|config| {
        (config.memory_bytes_max, config.streams_max) = (MEMORY, refused);
    })
    .await;
    let mut peer = Peer::connect(&gateway, 0).await;
    let write = |stream| [frames::write(stream), frames::body(stream, b"bad\n")].concat();
    peer.send(&streams(refused).flat_map(write).collect::<Vec<_>>()).await;
    let heads = peer.heads(refused as usize).await;
    let alone = heads.iter().filter(|flags| **flags & frames::END_STREAM != 0).count();
    assert!(alone >= 100, "{alone} of {refused}");
    // The others hold the tenant's share, but for what one more would need.
    let held = gateway.budget.in_flight();
    let share = (MEMORY / 2) as i64;
    assert!((share - 2 * answers::PLACE_BYTES as i64..=share).contains(&held), "{held} of {share}");
    assert_eq!(gateway.post_of_another().await.status, StatusCode::NO_CONTENT);
    drop(peer);
    gateway.holds(|bytes| bytes == 0).await;
}
