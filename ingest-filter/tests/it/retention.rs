//! A model through what Kafka itself may do to it: every leader is lost in turn, and the topic's
//! retention passes records that no writer had read. The database holds the model without the
//! records that are gone, and just those are counted and told.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use ingest_filter::journal::config::{CreateTopic, JournalConfig, KafkaConfig};
use ingest_filter::journal::{Journal, read_records};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::config::ClientConfig;
use rdkafka::{Offset, TopicPartitionList};

use crate::influxd::Influxd;
use crate::kafka::topic;
use crate::kafka_broker::Broker;
use crate::support::{append, appender, record, wait_for};
use crate::writer_file::{Running, get};
use crate::writer_influxdb::influxdb;

const PARTITIONS: i32 = 6;
/// Tenants, which spread over all partitions.
const TENANTS: u64 = 24;

/// The numbers that were acknowledged and must be stored, each once.
type Model = BTreeSet<u64>;

async fn send(journal: &Arc<dyn Journal>, numbers: Range<u64>, model: &mut Model) {
    for number in numbers {
        append(journal, vec![record(&format!("t{}", number % TENANTS), 0, number)]).await;
        model.insert(number);
    }
}

async fn is_stored(server: &Influxd, model: &Model) {
    wait_for("the model", || async {
        let mut stored = Vec::new();
        for tenant in 0..TENANTS {
            let rows = server.rows_of(&format!("t{tenant}__default"), "select v from m").await;
            stored.extend(rows.iter().filter_map(|row| row[1].as_u64()));
        }
        let count = stored.len();
        let stored: Model = stored.into_iter().collect();
        (stored == *model && count == model.len()).then_some(())
    })
    .await;
}

/// Waits until the writer has counted so many missing records, and nothing is left to write.
async fn missing(running: &Running, records: u64) {
    wait_for(&format!("{records} missing records and no lag"), || async {
        let metrics = get(running.admin, "/metrics").await;
        let says = |line: &str| metrics.contains(line);
        (says(&format!("ingest_journal_missing_records_total{{signal=\"all\"}} {records}\n"))
            && says("ingest_journal_lag_records{signal=\"all\"} 0\n"))
        .then_some(())
    })
    .await;
}

/// Numbers by partition, with the offset of each.
async fn placed(config: &JournalConfig) -> BTreeMap<i32, Vec<(u64, u64)>> {
    let config = config.clone();
    let read = move || {
        let mut all: BTreeMap<i32, Vec<(u64, u64)>> = BTreeMap::new();
        read_records(&config, None, |stored| {
            let body = stored.content.expect("a record").body;
            let text = std::str::from_utf8(&body).unwrap();
            let number = text.split(['=', 'i']).nth(2).unwrap().parse().unwrap();
            all.entry(stored.partition).or_default().push((stored.position, number));
            ControlFlow::Continue(())
        })
        .expect("a journal that can be read");
        all
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// What is at these offsets and before is deleted, as by retention.
async fn delete(brokers: &str, topic: &str, up_to: &[(i32, u64)]) {
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    for (partition, last) in up_to {
        let next = Offset::Offset(*last as i64 + 1);
        offsets.add_partition_offset(topic, *partition, next).unwrap();
    }
    let deleted = admin.delete_records(&offsets, &AdminOptions::new()).await.unwrap();
    for element in deleted.elements() {
        element.error().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_costs_nothing_and_what_retention_passed_is_counted() {
    let mut brokers = Broker::cluster(3).await;
    let server = Influxd::start().await;
    let addresses = brokers.iter().map(Broker::address).collect::<Vec<_>>().join(",");
    let kafka = KafkaConfig {
        brokers: addresses.clone(),
        create_topic: Some(CreateTopic { partitions: PARTITIONS, replication_factor: 3 }),
        ..topic(&brokers[0], "model")
    };
    let config = JournalConfig::Kafka(kafka);
    let journal = appender(&config);
    let mut model = Model::new();
    let running = Running::start(&config, influxdb(server.url())).await;
    send(&journal, 0..100, &mut model).await;
    // Each of them leads some partitions, and one is the group's coordinator.
    for (broker, first) in brokers.iter_mut().zip([100, 200, 300]) {
        broker.kill();
        send(&journal, first..first + 50, &mut model).await;
        is_stored(&server, &model).await;
        broker.restart().await;
        send(&journal, first + 50..first + 100, &mut model).await;
        is_stored(&server, &model).await;
    }
    missing(&running, 0).await;
    running.stop().await;

    // Nobody reads. Then some partitions lose a part of that, and one loses all it had.
    send(&journal, 400..600, &mut model).await;
    let unread: Vec<(i32, Vec<(u64, u64)>)> = placed(&config)
        .await
        .into_iter()
        .map(|(partition, all)| (partition, all.into_iter().filter(|(_, n)| *n >= 400).collect()))
        .filter(|(_, unread): &(i32, Vec<_>)| unread.len() > 4)
        .collect();
    assert!(unread.len() >= 3, "{unread:?}");
    let mut up_to = Vec::new();
    for (index, (partition, unread)) in unread.iter().enumerate().take(3) {
        let gone = if index == 0 { unread.len() } else { index + 1 };
        up_to.push((*partition, unread[gone - 1].0));
        model.retain(|number| unread[..gone].iter().all(|(_, gone)| gone != number));
    }
    let gone = 600 - model.len() as u64;
    delete(&addresses, "model", &up_to).await;
    let running = Running::start(&config, influxdb(server.url())).await;
    is_stored(&server, &model).await;
    missing(&running, gone).await;
    running.stop().await;

    // Told once: whoever comes next begins behind it.
    let running = Running::start(&config, influxdb(server.url())).await;
    send(&journal, 600..700, &mut model).await;
    is_stored(&server, &model).await;
    missing(&running, 0).await;
    running.stop().await;
}
