//! Tests of `gateway`: one tenant's flood of requests, and the single request of another. What is
//! counted is whose records come first, not how long that takes.

use futures_util::FutureExt;
use prost::Message;

use super::frames::{self, Peer, streams};
use super::*;
use crate::gateway::turns::Turns;
use crate::remote_write::tests::RequestV1;

/// The end of a wait for what will not come any more.
const HELD_WITHIN: Duration = Duration::from_secs(120);

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
        let reaching = async {
            while !is_reached(self.budget.in_flight()) {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(HELD_WITHIN, reaching).await;
        reached.unwrap_or_else(|_| panic!("waited in vain: {} bytes", self.budget.in_flight()));
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

/// A gateway in which the tenant has no turn to decode a long body before what comes with it is dropped.
async fn without_turns_to_decode() -> (Arc<Running>, Option<conversions::Turn>) {
    let mut held = None;
    let change = |edge: &mut Edge| {
        edge.conversions = Conversions::new(2);
        held = edge.conversions.turn("acme").now_or_never();
    };
    let gateway = start_changed(|_| {}, change).await;
    assert!(held.is_some());
    (Arc::new(gateway), held)
}

/// It is decoded in one go, however long that takes, so not by a thread that serves others too.
#[tokio::test]
async fn a_long_block_of_snappy_is_decoded_in_a_turn_of_its_own() {
    let (gateway, held) = without_turns_to_decode().await;
    let series = remote_write::up("a", &[(1.0, 1_000); 100]);
    let decoded = RequestV1 { timeseries: vec![series; 1000] }.encode_to_vec();
    let block = snappy_block(&decoded);
    assert!(block.len() < decoded.len() / 2, "{}", block.len());
    let wire = (block.len() + body::REQUEST_BYTES) as i64;
    let writing = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.remote_write(remote_write::KIND, "snappy", block).await }
    });
    gateway.holds(|bytes| bytes >= wire).await;
    for _ in 0..10 {
        assert_eq!(gateway.post_of_another().await.status, StatusCode::NO_CONTENT);
    }
    let peak = gateway.budget.peak();
    assert!(peak < decoded.len() as i64, "as it came: {peak} of {}", decoded.len());
    drop(held);
    let answer = writing.await.expect("no panic");
    let points = answer.header("x-tidegate-points");
    assert_eq!((answer.status, points), (StatusCode::NO_CONTENT, "100000"));
}

/// A short body whose items share a long tag takes as long as one of many times its size.
#[tokio::test]
async fn a_body_whose_items_are_multiplied_is_decoded_in_a_turn_of_its_own() {
    let (gateway, held) = without_turns_to_decode().await;
    let point = r#"{"asInt":1}"#;
    let body = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"a","value":{{"stringValue":"{}"}}}}]}},"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[{}]}}}}]}}]}}]}}"#,
        "x".repeat(6000),
        [point; 300].join(",")
    );
    assert!((9 << 10..16 << 10).contains(&body.len()), "{}", body.len());
    let request = gateway.request(Method::POST, "/v1/metrics");
    let request = request.header("content-type", "application/json").body(body.into());
    let writing = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.send(request.expect("a request")).await }
    });
    gateway.holds(|bytes| bytes > body::REQUEST_BYTES as i64).await;
    for _ in 0..10 {
        assert_eq!(gateway.post_of_another().await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(gateway.journal.records().len(), 10, "of the other only");
    drop(held);
    let answer = writing.await.expect("no panic");
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::OK, "300"));
}

/// A journal keeps the order in which it is asked, so it is asked for no more than a part of what one
/// tenant sends: here the tenant has its part already, and the writes of another do not wait for it.
#[tokio::test]
async fn the_journal_is_given_a_part_of_what_one_tenant_sends() {
    const PART: u32 = 1 << 20;
    const WRITES: usize = 8;
    let mut held = None;
    let change = |edge: &mut Edge| {
        edge.appending = Shares::new(PART);
        held = edge.appending.take("acme", PART).now_or_never();
    };
    let gateway = Arc::new(start_changed(|_| {}, change).await);
    assert!(held.is_some());
    let mut writes = tokio::task::JoinSet::new();
    for number in 0..WRITES {
        let (gateway, body) = (gateway.clone(), format!("m f={number}i 1\n"));
        writes.spawn(async move { gateway.post("/write", body).await.status });
    }
    gateway.holds(|bytes| bytes >= (WRITES * answers::PLACE_BYTES) as i64).await;
    for _ in 0..10 {
        assert_eq!(gateway.post_of_another().await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(gateway.journal.records().len(), 10, "of the other only");
    assert_eq!(writes.try_join_next().map(|status| status.expect("no panic")), None);
    drop(held);
    while let Some(status) = writes.join_next().await {
        assert_eq!(status.expect("no panic"), StatusCode::NO_CONTENT);
    }
    assert_eq!(gateway.journal.records().len(), 10 + WRITES);
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
    let needed = (body::REQUEST_BYTES + answers::PLACE_BYTES) as i64;
    // An eighth is for requests that have begun.
    assert!((share * 7 / 8 - needed..=share).contains(&held), "{held} of {share}");
    assert_eq!(gateway.post_of_another().await.status, StatusCode::NO_CONTENT);
    drop(peer);
    gateway.holds(|bytes| bytes == 0).await;
}
