//! A record of a newer version in a topic, as after a rollback: it is held, not thrown away.

use ingest_filter::journal::config::{JournalConfig, KafkaConfig};
use ingest_filter::writer::config::TargetConfig;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::kafka_mock::cluster;
use crate::support::{STORED_WITHIN, append, appender, record, wait_for};
use crate::writer_file::{Running, get, writer_config};

/// Puts a message of a version that this program does not know at the end of a partition.
fn send_newer(config: &KafkaConfig, partition: i32) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap();
    let version = Header { key: "tg-version", value: Some(&b"99"[..]) };
    let newer = BaseRecord::<str, str>::to("points")
        .partition(partition)
        .headers(OwnedHeaders::new().insert(version))
        .payload("a body that only a newer writer reads");
    producer.send(newer).map_err(|(error, _)| error).unwrap();
    producer.flush(STORED_WITHIN).unwrap();
}

/// How many messages are in a partition.
fn messages(config: &KafkaConfig, topic: &str, partition: i32) -> usize {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap();
    let (low, high) = consumer.fetch_watermarks(topic, partition, STORED_WITHIN).unwrap();
    usize::try_from(high - low).unwrap()
}

/// Nothing passes it in its partition, it is no dead letter, and the next writer finds it where it
/// was; other partitions go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_version_holds_its_partition_alone() {
    let (_mock, config) = cluster();
    let journal = JournalConfig::Kafka(config.clone());
    let appended = appender(&journal);
    for partition in [0, 1] {
        send_newer(&config, partition);
    }
    // A tenant's shards are spread over all three.
    for number in 0..60 {
        append(&appended, vec![record("acme", (number % 6) as u32, number)]).await;
    }
    let free = messages(&config, "points", 2);
    assert!((1..60).contains(&free), "{free}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("points.lp");
    let written = || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("m,")).count()
    };
    for _ in 0..2 {
        let target = writer_config(TargetConfig::File(path.clone()));
        let running = Running::start(&journal, target).await;
        wait_for("the alarm, and what is not behind it", || async {
            let metrics = get(running.admin, "/metrics").await;
            let blockers = running.readiness.blockers().join("");
            let is_held = metrics.contains("ingest_writer_held_partitions 2\n");
            (is_held && blockers.contains("newer version") && written() >= free).then_some(())
        })
        .await;
        running.stop().await;
        assert_eq!(written(), free, "once, and nothing of the partitions that are held");
        assert_eq!(messages(&config, "points-dead-letter", 0), 0);
    }
}
