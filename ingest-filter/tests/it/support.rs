//! What several tests need: waiting for a condition, records, and reading a journal to the end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chassis::readiness::Readiness;
use ingest_filter::journal::config::JournalConfig;
use ingest_filter::journal::{Delivery, Journal, Opened, Reader, open_appender, open_reader};
use ingest_filter::record::Record;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Long enough for a machine that eight others use as well, short enough to notice a hang.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// How long Kafka may take to store a record where a test counts records: one that was given up on a busy
/// machine and stored all the same is sent again, and is there twice.
pub const STORED_WITHIN: Duration = Duration::from_secs(60);

/// Polls `condition` until it gives something.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let until = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A record of one point whose value is `number`.
pub fn record(tenant: &str, shard: u32, number: u64) -> Record {
    Record {
        tenant: tenant.to_owned(),
        database: String::new(),
        shard,
        points: 1,
        admitted_at_ns: 1_700_000_000_000_000_000 + number as i64,
        request_id: Some(format!("request-{number}")),
        traceparent: None,
        body: Bytes::from(format!(
            "m,tenant={tenant} v={number}i {}\n",
            1_700_000_000_000_000_000 + number
        )),
    }
}

pub fn appender(config: &JournalConfig) -> Arc<dyn Journal> {
    open_appender(config, &Readiness::new(), &mut Registry::default()).expect("an open journal")
}

pub fn reader(config: &JournalConfig) -> Opened {
    open_reader(config, &Readiness::new(), &mut Registry::default()).expect("an open journal")
}

/// Appends until it is confirmed, as a client that sends its points again would.
pub async fn append(journal: &Arc<dyn Journal>, records: Vec<Record>) {
    wait_for("an append", || async { journal.append(records.clone()).await.ok() }).await;
}

/// Reads until `enough` says so, acknowledging everything or nothing, and closes the reader.
pub async fn read_until(
    mut reader: Box<dyn Reader>,
    acknowledge: bool,
    mut enough: impl FnMut(&[(i32, Delivery)]) -> bool,
) -> Vec<(i32, Delivery)> {
    let (sender, mut received) = mpsc::channel(1024);
    let stop = CancellationToken::new();
    let mut lanes = JoinSet::new();
    let mut all = Vec::new();
    let until = tokio::time::Instant::now() + DEADLINE;
    while !enough(&all) {
        tokio::select! {
            lane = reader.next_lane() => {
                let mut lane = lane.expect("a lane");
                let (sender, stop) = (sender.clone(), stop.clone());
                lanes.spawn(async move {
                    let partition = lane.partition();
                    loop {
                        let delivery = tokio::select! {
                            delivery = lane.next() => delivery,
                            () = stop.cancelled() => return,
                        };
                        let Some(delivery) = delivery else { return };
                        let position = delivery.position;
                        if acknowledge {
                            lane.ack(position).await.expect("an acknowledgement");
                        }
                        if sender.send((partition, delivery)).await.is_err() {
                            return;
                        }
                    }
                });
            }
            Some(delivery) = received.recv() => all.push(delivery),
            () = tokio::time::sleep_until(until) => panic!("only {} deliveries came", all.len()),
        }
    }
    stop.cancel();
    while let Some(ended) = lanes.join_next().await {
        ended.expect("no panic");
    }
    // What was acknowledged meanwhile belongs to what was seen.
    while let Ok(delivery) = received.try_recv() {
        all.push(delivery);
    }
    reader.close().await;
    all
}

/// The records among deliveries.
pub fn records(deliveries: &[(i32, Delivery)]) -> Vec<Record> {
    let sound = deliveries.iter().filter_map(|(_, delivery)| delivery.content.clone().ok());
    sound.collect()
}
