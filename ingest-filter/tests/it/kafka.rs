//! The Kafka journal on a real broker: the contract, a broker that crashes, writers that come
//! and go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chassis::readiness::Readiness;
use ingest_filter::journal::config::{CreateTopic, JournalConfig, KafkaConfig};
use ingest_filter::journal::{Journal, open_appender, open_dead_letters};
use ingest_filter::writer::config::TargetConfig;
use prometheus_client::registry::Registry;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::contract;
use crate::kafka_broker::Broker;
use crate::support::{STORED_WITHIN, append, appender, read_until, reader, record, wait_for};
use crate::writer_file::{Running, writer_config};

pub fn topic(broker: &Broker, name: &str) -> KafkaConfig {
    KafkaConfig {
        topic: name.to_owned(),
        group: format!("{name}-writer"),
        dead_letter_topic: format!("{name}-dead-letter"),
        types_topic: format!("{name}-types"),
        create_topic: Some(CreateTopic { partitions: 4, replication_factor: 1 }),
        delivery_timeout: STORED_WITHIN,
        session_timeout: Duration::from_secs(6),
        logs_topic: None,
        traces_topic: None,
        ..KafkaConfig::new(broker.address())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let broker = Broker::start().await;
    let config = |name| JournalConfig::Kafka(topic(&broker, name));
    contract::nothing_is_changed(&config("unchanged")).await;
    contract::order_is_kept(&config("order")).await;
    contract::confirmed_is_stored(&config("confirmed")).await;
    contract::reading_resumes(&config("resume")).await;
    a_missing_topic_is_named(&broker).await;
    letters_are_kept_though_their_topic_was_removed(&broker).await;
}

/// Whoever empties the dead letters by removing their topic must not hold up the writers for good.
async fn letters_are_kept_though_their_topic_was_removed(broker: &Broker) {
    let config = topic(broker, "emptied");
    let name = config.dead_letter_topic.clone();
    let letters = open_dead_letters(&JournalConfig::Kafka(config)).unwrap();
    let store = async || letters.mark_replayed(vec!["0:0".to_owned()]).await.ok();
    wait_for("the first", store).await;
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", broker.address()).create().unwrap();
    admin.delete_topics(&[&name], &AdminOptions::new()).await.unwrap();
    wait_for("the end of the topic", || async {
        let all = admin.inner().fetch_metadata(None, Duration::from_secs(5)).ok()?;
        all.topics().iter().all(|topic| topic.name() != name).then_some(())
    })
    .await;
    wait_for("the next", store).await;
}

async fn a_missing_topic_is_named(broker: &Broker) {
    let config = KafkaConfig { create_topic: None, ..topic(broker, "absent") };
    let readiness = Readiness::new();
    let config = JournalConfig::Kafka(config);
    let journal = open_appender(&config, &readiness, &mut Registry::default()).unwrap();
    wait_for("the reason", || async {
        let blockers = readiness.blockers().join(" ");
        blockers.contains("topic 'absent' does not exist").then_some(())
    })
    .await;
    assert!(journal.append(vec![record("a", 0, 0)]).await.is_err());
}

/// A cluster that creates topics by itself, with one partition and one copy: ours does not appear
/// that way, and one that would lose records keeps the gateway from being ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_would_lose_records_is_not_used() {
    let broker = Broker::start_with("auto.create.topics.enable=true\n").await;
    a_missing_topic_is_named(&broker).await;
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", broker.address()).create().unwrap();
    let options = AdminOptions::new();
    let cases = [
        ("compacted", "cleanup.policy", "compact", "compaction would drop records"),
        ("small", "max.message.bytes", "1000", "its max.message.bytes is 1000, less than"),
    ];
    for (name, key, value, expected) in cases {
        let new = NewTopic::new(name, 1, TopicReplication::Fixed(1)).set(key, value);
        admin.create_topics([&new], &options).await.unwrap();
        let readiness = Readiness::new();
        let config = JournalConfig::Kafka(topic(&broker, name));
        let journal = open_appender(&config, &readiness, &mut Registry::default()).unwrap();
        wait_for(expected, || async {
            readiness.blockers().join(" ").contains(expected).then_some(())
        })
        .await;
        assert!(journal.append(vec![record("a", 0, 0)]).await.is_err(), "{name}");
    }
    let two = KafkaConfig { replication_factor_min: 2, ..topic(&broker, "two-copies") };
    let readiness = Readiness::new();
    let config = JournalConfig::Kafka(two);
    let _journal = open_appender(&config, &readiness, &mut Registry::default()).unwrap();
    wait_for("the copies that are missing", || async {
        readiness.blockers().join(" ").contains("has 1 copies of 2").then_some(())
    })
    .await;
}

/// Appends from many tasks until told to stop; gives the bodies that were confirmed.
fn appending(
    journal: &Arc<dyn Journal>,
    confirmed: &Arc<AtomicU64>,
    stop: &CancellationToken,
) -> JoinSet<BTreeSet<Bytes>> {
    let mut tasks = JoinSet::new();
    for task in 0..8_u64 {
        let (journal, confirmed, stop) = (journal.clone(), confirmed.clone(), stop.clone());
        tasks.spawn(async move {
            let mut mine = BTreeSet::new();
            for number in task * 1_000_000 + 1.. {
                if stop.is_cancelled() {
                    break;
                }
                let record = record(&format!("t{task}"), (number % 64) as u32, number);
                match journal.append(vec![record.clone()]).await {
                    Ok(()) => {
                        mine.insert(record.body);
                        confirmed.fetch_add(1, Ordering::Relaxed);
                    }
                    // Not sent again: only what was confirmed is owed.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
            mine
        });
    }
    tasks
}

async fn reaches(confirmed: &AtomicU64, count: u64) {
    wait_for("appends", || async { (confirmed.load(Ordering::Relaxed) >= count).then_some(()) })
        .await;
}

async fn all_are_stored(config: &JournalConfig, owed: &BTreeSet<Bytes>) {
    let mut missing = owed.clone();
    let mut looked_at = 0;
    read_until(reader(config).reader, true, |all| {
        for (_, delivery) in &all[looked_at..] {
            missing.remove(&delivery.content.as_ref().expect("a record").body);
        }
        looked_at = all.len();
        missing.is_empty()
    })
    .await;
}

/// The promise of the whole edge: what was confirmed is there, whatever the broker does.
#[tokio::test(flavor = "multi_thread")]
async fn confirmed_survives_a_broker_that_is_killed() {
    let mut broker = Broker::start().await;
    let config = JournalConfig::Kafka(topic(&broker, "killed"));
    let journal = appender(&config);
    append(&journal, vec![record("a", 0, 0)]).await;
    let confirmed = Arc::new(AtomicU64::new(0));
    let stop = CancellationToken::new();
    let tasks = appending(&journal, &confirmed, &stop);
    for at in [500, 1200] {
        reaches(&confirmed, at).await;
        broker.kill();
        broker.restart().await;
    }
    reaches(&confirmed, confirmed.load(Ordering::Relaxed) + 500).await;
    stop.cancel();
    let owed: BTreeSet<_> = tasks.join_all().await.into_iter().flatten().collect();
    all_are_stored(&config, &owed).await;
}

/// Of three brokers one may be dead at any time: appends go on, and nothing confirmed is lost.
#[tokio::test(flavor = "multi_thread")]
async fn appends_go_on_while_one_broker_of_three_is_dead() {
    let mut brokers = Broker::cluster(3).await;
    let addresses: Vec<String> = brokers.iter().map(Broker::address).collect();
    let config = JournalConfig::Kafka(KafkaConfig {
        brokers: addresses.join(","),
        create_topic: Some(CreateTopic { partitions: 6, replication_factor: 3 }),
        ..topic(&brokers[0], "replicated")
    });
    let journal = appender(&config);
    append(&journal, vec![record("a", 0, 0)]).await;
    let confirmed = Arc::new(AtomicU64::new(0));
    let stop = CancellationToken::new();
    let tasks = appending(&journal, &confirmed, &stop);
    for (index, at) in [500, 1500].into_iter().enumerate() {
        reaches(&confirmed, at).await;
        brokers[index].kill();
        // While it is dead, so that leaders have moved.
        reaches(&confirmed, confirmed.load(Ordering::Relaxed) + 500).await;
        brokers[index].restart().await;
    }
    reaches(&confirmed, confirmed.load(Ordering::Relaxed) + 500).await;
    stop.cancel();
    let owed: BTreeSet<_> = tasks.join_all().await.into_iter().flatten().collect();
    all_are_stored(&config, &owed).await;
}

/// Partitions move between writers while points flow; every point arrives.
#[tokio::test(flavor = "multi_thread")]
async fn writers_come_and_go() {
    let broker = Broker::start().await;
    let config = JournalConfig::Kafka(topic(&broker, "moving"));
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let start = |name: &str| {
        let config = config.clone();
        let path = path(name);
        async move { Running::start(&config, writer_config(TargetConfig::File(path))).await }
    };
    let read = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(path(name)).unwrap_or_default();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let journal = appender(&config);
    let first = start("first").await;
    let mut owed = BTreeSet::new();
    let send = async |range: std::ops::Range<u64>, owed: &mut BTreeSet<String>| {
        for number in range {
            let record = record(&format!("t{}", number % 20), (number % 64) as u32, number);
            owed.insert(String::from_utf8(record.body.to_vec()).unwrap().trim_end().to_owned());
            append(&journal, vec![record]).await;
        }
    };
    send(0..200, &mut owed).await;
    wait_for("the first writer", || async { (read("first").len() >= 50).then_some(()) }).await;
    let second = start("second").await;
    // With points going on, the second writer gets its share.
    let mut number = 200;
    while read("second").is_empty() {
        send(number..number + 20, &mut owed).await;
        number += 20;
        assert!(number < 40_000, "the second writer gets no partition");
    }
    first.stop().await;
    send(number..number + 200, &mut owed).await;
    wait_for("all points", || async {
        let got: BTreeSet<_> = read("first").into_iter().chain(read("second")).collect();
        owed.is_subset(&got).then_some(())
    })
    .await;
    second.stop().await;
    let written = read("first").len() + read("second").len();
    // Orderly hand-overs repeat at most what was in flight.
    assert!(written < owed.len() * 2, "{written} lines for {} points", owed.len());
}

/// A writer as a process that can be killed; killed with the test, whatever happens.
struct Writer(std::process::Child);

impl Writer {
    fn start(directory: &std::path::Path, name: &str, journal: &str) -> Self {
        let config = directory.join(format!("{name}.yaml"));
        let points = directory.join(name);
        let text = format!(
            "{journal}writer: {{admin_listen: '127.0.0.1:0', file: {{path: '{}'}}}}\n",
            points.display()
        );
        std::fs::write(&config, text).unwrap();
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_ingest-filter"))
            .args(["writer", "--config", config.to_str().unwrap()])
            .stdout(std::process::Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With the default session timeout: the partitions of a writer that was killed with -9 go to
/// another one, which writes what was not committed. How long that took is printed.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writers_partitions_are_read_by_another() {
    let broker = Broker::start().await;
    let directory = tempfile::tempdir().unwrap();
    let address = broker.address();
    let text = format!("journal: {{kafka: {{brokers: '{address}', topic: killed-writer}}}}\n");
    let config = JournalConfig::Kafka(KafkaConfig {
        topic: "killed-writer".to_owned(),
        create_topic: Some(CreateTopic { partitions: 4, replication_factor: 1 }),
        logs_topic: None,
        traces_topic: None,
        ..KafkaConfig::new(address)
    });
    let journal = appender(&config);
    let send = async |numbers: std::ops::Range<u64>| {
        for number in numbers {
            append(&journal, vec![record(&format!("t{}", number % 20), 0, number)]).await;
        }
    };
    let arrived = async |name: &str, tenants: std::ops::Range<u64>| {
        let path = directory.path().join(name);
        wait_for("the points", || async {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let has = |number: u64| text.contains(&format!(" v={number}i "));
            tenants.clone().all(has).then_some(())
        })
        .await;
    };
    send(0..100).await;
    let first = Writer::start(directory.path(), "first", &text);
    arrived("first", 0..100).await;
    drop(first);
    let killed = std::time::Instant::now();
    let _second = Writer::start(directory.path(), "second", &text);
    send(100..200).await;
    arrived("second", 100..200).await;
    println!("read again {:?} after kill -9", killed.elapsed());
}
