//! The Kafka journal against the client library's own mock cluster: the errors that a real
//! broker does not make on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis::readiness::Readiness;
use ingest_filter::journal::config::{JournalConfig, KafkaConfig};
use ingest_filter::journal::{AppendError, Journal, Original, open_appender};
use ingest_filter::writer::config::TargetConfig;
use prometheus_client::registry::Registry;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::watch;

use crate::fake_influxdb::{FakeInfluxdb, Reply};
use crate::support::{
    STORED_WITHIN, append, appender, read_until, reader, record, records, wait_for,
};
use crate::writer_file::{Running, get, writer_config};
use crate::writer_influxdb::{influxdb, with_body};

pub type Mock = MockCluster<'static, DefaultProducerContext>;

pub fn cluster() -> (Mock, KafkaConfig) {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("points", 3, 1).unwrap();
    mock.create_topic("points-dead-letter", 1, 1).unwrap();
    let config = KafkaConfig {
        topic: "points".to_owned(),
        dead_letter_topic: "points-dead-letter".to_owned(),
        delivery_timeout: STORED_WITHIN,
        session_timeout: Duration::from_secs(6),
        logs_topic: None,
        traces_topic: None,
        ..KafkaConfig::new(mock.bootstrap_servers())
    };
    (mock, config)
}

/// Waits until readiness is another than when it was subscribed to; it may be back before anybody looks.
async fn was_lost(ready: &watch::Receiver<bool>) {
    wait_for("readiness to be lost", || async { ready.has_changed().unwrap().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_errors_are_retried_inside() {
    let (mock, config) = cluster();
    let config = JournalConfig::Kafka(config);
    let journal = appender(&config);
    append(&journal, vec![record("a", 0, 0)]).await;
    mock.request_errors(
        RDKafkaApiKey::Produce,
        &[
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
        ],
    );
    journal.append(vec![record("a", 0, 1)]).await.expect("delivered in the end");
    let read = read_until(reader(&config).reader, true, |all| all.len() >= 2).await;
    assert_eq!(records(&read).len(), 2, "an idempotent producer repeats nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_error_replaces_the_producer() {
    let (mock, config) = cluster();
    let (readiness, mut registry) = (Readiness::new(), Registry::default());
    let journal = open_appender(&JournalConfig::Kafka(config), &readiness, &mut registry).unwrap();
    append(&journal, vec![record("a", 0, 0)]).await;
    assert!(readiness.is_ready(), "{:?}", readiness.blockers());
    let ready = readiness.subscribe();
    mock.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
    );
    assert!(journal.append(vec![record("a", 0, 1)]).await.is_err());
    was_lost(&ready).await;
    append(&journal, vec![record("a", 0, 1)]).await;
    wait_for("readiness", || async { readiness.is_ready().then_some(()) }).await;
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &registry).unwrap();
    assert!(
        metrics.contains("ingest_journal_producer_rebuilds_total{signal=\"all\"} 1"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_refusal_takes_readiness() {
    let (mock, config) = cluster();
    let readiness = Readiness::new();
    let config = JournalConfig::Kafka(config);
    let journal = open_appender(&config, &readiness, &mut Registry::default()).unwrap();
    append(&journal, vec![record("a", 0, 0)]).await;
    let ready = readiness.subscribe();
    mock.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED],
    );
    assert!(journal.append(vec![record("a", 0, 1)]).await.is_err());
    was_lost(&ready).await;
    wait_for("readiness", || async { readiness.is_ready().then_some(()) }).await;
    append(&journal, vec![record("a", 0, 1)]).await;
}

/// A record was given up, and none came since: the partition stays in doubt, and what befalls the topic
/// meanwhile is seen all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_goes_while_a_partition_is_in_doubt_is_missed() {
    let (mock, config) = cluster();
    let readiness = Readiness::new();
    let config = JournalConfig::Kafka(config);
    let journal = open_appender(&config, &readiness, &mut Registry::default()).unwrap();
    append(&journal, vec![record("a", 0, 0)]).await;
    let slow = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1000];
    mock.request_errors(RDKafkaApiKey::Produce, &slow);
    journal.append(vec![record("a", 0, 1)]).await.expect_err("confirms nothing");
    let missing = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    mock.topic_error("points", missing).unwrap();
    wait_for("the blocker", || async {
        let blockers = readiness.blockers();
        blockers.iter().any(|one| one.contains("topic 'points'")).then_some(())
    })
    .await;
}

/// A record is refused by a broker that is slower than we ask, but connected: it is asked as often as
/// at any other time. After three questions its partitions are held; Kafka would be taken for away,
/// and the producer's queue thrown away, after five.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_fails_does_not_make_a_slow_broker_one_that_is_away() {
    let (mock, config) = cluster();
    let mut registry = Registry::default();
    let config = JournalConfig::Kafka(config);
    let journal = open_appender(&config, &Readiness::new(), &mut registry).unwrap();
    append(&journal, vec![record("a", 0, 0)]).await;
    mock.broker_round_trip_time(1, Duration::from_millis(700)).unwrap();
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS];
    mock.request_errors(RDKafkaApiKey::Produce, &refused);
    journal.append(vec![record("a", 0, 1)]).await.expect_err("refused");
    wait_for("three questions", || async {
        let mut metrics = String::new();
        prometheus_client::encoding::text::encode(&mut metrics, &registry).unwrap();
        (gauge(&metrics, "ingest_journal_refused_partitions") > 0).then_some(())
    })
    .await;
    mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    append(&journal, vec![record("a", 0, 2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_down_are_an_answer_and_not_a_hang() {
    let (mock, config) = cluster();
    let journal = appender(&JournalConfig::Kafka(config));
    append(&journal, vec![record("a", 0, 0)]).await;
    mock.broker_down(1).unwrap();
    let error = journal.append(vec![record("a", 0, 1)]).await.expect_err("no broker");
    assert!(error.retry_after() >= Duration::from_secs(1));
    // Once that is known, nobody waits for a delivery to time out.
    wait_for("a refusal at once", || async {
        let error = journal.append(vec![record("a", 0, 1)]).await.expect_err("no broker");
        error.to_string().contains("no broker answers").then_some(())
    })
    .await;
    mock.broker_up(1).unwrap();
    append(&journal, vec![record("a", 0, 1)]).await;
}

/// No gateway has more of Kafka than another, so nobody is taken out of service for it; but whoever looks
/// at `/readyz` must not read that all is well.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_away_are_a_warning_beside_readiness() {
    let (mock, config) = cluster();
    let (config, readiness) = (JournalConfig::Kafka(config), Readiness::new());
    let journal = open_appender(&config, &readiness, &mut Registry::default()).expect("open");
    append(&journal, vec![record("a", 0, 0)]).await;
    assert!(readiness.is_ready() && readiness.warnings().is_empty());
    mock.broker_down(1).unwrap();
    wait_for("a warning", || async {
        let is_named = |warning: &String| warning.starts_with("journal: no broker answers");
        readiness.warnings().iter().any(is_named).then_some(())
    })
    .await;
    assert!(readiness.is_ready());
    mock.broker_up(1).unwrap();
    wait_for("no warning", || async { readiness.warnings().is_empty().then_some(()) }).await;
}

/// A record that waits for a broker is refused long before its delivery times out, and is not
/// delivered later: its points, sent again, might get other times.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_under_way_is_refused_and_stays_away_when_the_brokers_are() {
    let (mock, config) = cluster();
    let hour = KafkaConfig { delivery_timeout: Duration::from_secs(3600), ..config };
    let config = JournalConfig::Kafka(hour);
    let journal = appender(&config);
    append(&journal, vec![record("a", 0, 0)]).await;
    mock.broker_down(1).unwrap();
    // Whichever is seen first: that brokers are away, or that nothing is decided any more.
    let error = journal.append(vec![record("a", 0, 1)]).await.expect_err("no broker");
    assert!(error.to_string().contains("no broker answers"), "{error}");
    let refusing = journal.refusing().await;
    assert!(refusing.to_string().contains("no broker answers"), "{refusing}");
    mock.broker_up(1).unwrap();
    append(&journal, vec![record("a", 0, 2)]).await;
    let last = record("a", 0, 2).body;
    let read = read_until(reader(&config).reader, true, |all| {
        all.iter().any(|(_, one)| one.content.as_ref().is_ok_and(|found| found.body == last))
    })
    .await;
    let bodies: Vec<_> = records(&read).into_iter().map(|record| record.body).collect();
    assert!(!bodies.contains(&record("a", 0, 1).body), "{bodies:?}");
}

/// Of several messages of a request one is refused: the answer comes when all are decided.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_waits_for_every_message() {
    let (mock, config) = cluster();
    let config = JournalConfig::Kafka(KafkaConfig { partitions_per_tenant: 3, ..config });
    let journal = appender(&config);
    append(&journal, vec![record("a", 0, 0)]).await;
    // The one is refused for good, the others are confirmed behind it.
    let large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    mock.request_errors(RDKafkaApiKey::Produce, &[large]);
    let spread: Vec<_> = (0..64).map(|shard| record("a", shard, u64::from(shard) + 1)).collect();
    journal.append(spread).await.expect_err("one is refused");
    let read = read_until(reader(&config).reader, true, |all| all.len() > 1).await;
    assert!(records(&read).len() > 1, "the others are stored when the answer is given");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once() {
    let (mock, config) = cluster();
    let config = KafkaConfig { queue_bytes_max: 1 << 20, ..config };
    let journal = appender(&JournalConfig::Kafka(config));
    append(&journal, vec![record("a", 0, 0)]).await;
    mock.broker_round_trip_time(1, Duration::from_millis(1500)).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let journal: Arc<dyn Journal> = journal.clone();
        tasks.spawn(async move {
            let mut record = record("a", 0, number);
            record.body = vec![b'x'; 100 << 10].into();
            journal.append(vec![record]).await.map_err(|error| error.to_string())
        });
    }
    let answers = tasks.join_all().await;
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.clone().any(|reason| reason.contains("part of the queue")), "{answers:?}");
    assert!(refused.count() < 40, "some had room");
}

/// One tenant sends more than brokers take that are slow, again and again; what others send is never
/// refused for it, whichever partition it is for.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_fills_the_queue_costs_no_other() {
    let (mock, config) = cluster();
    let config = KafkaConfig { queue_bytes_max: 1 << 20, partitions_per_tenant: 1, ..config };
    let journal = appender(&JournalConfig::Kafka(config));
    append(&journal, vec![record("greedy", 0, 0)]).await;
    mock.broker_round_trip_time(1, Duration::from_millis(1000)).unwrap();
    let (refused, mut greedy) = (Arc::new(AtomicBool::new(false)), tokio::task::JoinSet::new());
    for number in 0..40 {
        let (journal, refused): (Arc<dyn Journal>, _) = (journal.clone(), refused.clone());
        greedy.spawn(async move {
            let mut record = record("greedy", 0, number);
            record.body = vec![b'x'; 100 << 10].into();
            loop {
                if let Err(error) = journal.append(vec![record.clone()]).await {
                    let is_full = error.to_string().contains("the queue");
                    refused.fetch_or(is_full, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    wait_for("a full queue", || async { refused.load(Ordering::Relaxed).then_some(()) }).await;
    for tenant in 0..8 {
        let (name, number) = (format!("tenant-{tenant}"), 100 + tenant);
        wait_for("a record of another tenant", || async {
            let stored = journal.append(vec![record(&name, 0, number)]).await;
            // On a machine that pauses a partition may be held, which is no matter of the queue.
            let reason = stored.as_ref().err().map(ToString::to_string).unwrap_or_default();
            assert!(!reason.to_lowercase().contains("queue"), "{name}: {reason}");
            stored.ok()
        })
        .await;
    }
    greedy.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_beyond_the_topics_bound_is_refused() {
    let (_mock, config) = cluster();
    let config = KafkaConfig { message_bytes_max: 64 << 10, ..config };
    let journal = appender(&JournalConfig::Kafka(config.clone()));
    append(&journal, vec![record("a", 0, 0)]).await;
    let mut large = record("a", 0, 1);
    large.body = vec![b'x'; 64 << 10].into();
    let error = journal.append(vec![large]).await.expect_err("too large");
    assert!(matches!(error, AppendError::TooLarge { .. }), "not to be tried again: {error}");
    let mut fits = record("a", 0, 2);
    fits.body = vec![b'x'; JournalConfig::Kafka(config).record_bytes_max()].into();
    journal.append(vec![fits]).await.expect("the largest record that the gateway makes");
}

/// Foreign messages in the topic are dead letters; the records around them are written.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_message_becomes_a_dead_letter() {
    let (_mock, config) = cluster();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap();
    // One of them nearly a record.
    let headers = || {
        let null = Header { key: "origin", value: None::<&[u8]> };
        let bytes = Header { key: "bytes", value: Some(&[0xff_u8, 0][..]) };
        let version = Header { key: "tg-version", value: Some(&b"2"[..]) };
        let tenant = Header { key: "tg-tenant", value: Some(&b"acme"[..]) };
        OwnedHeaders::new().insert(null).insert(bytes).insert(version).insert(tenant)
    };
    for partition in 0..3 {
        let foreign = BaseRecord::<str, str>::to("points")
            .partition(partition)
            .key("whose")
            .headers(headers())
            .payload("hello");
        producer.send(foreign).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
    let journal = JournalConfig::Kafka(config.clone());
    append(&appender(&journal), vec![record("a", 0, 1)]).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("points.lp");
    let running = Running::start(&journal, writer_config(TargetConfig::File(path.clone()))).await;
    wait_for("the point", || async {
        std::fs::read_to_string(&path).is_ok_and(|text| !text.is_empty()).then_some(())
    })
    .await;
    let letters = JournalConfig::Kafka(KafkaConfig {
        topic: "points-dead-letter".to_owned(),
        dead_letter_topic: "nowhere".to_owned(),
        group: "letters".to_owned(),
        ..config
    });
    let read = read_until(reader(&letters).reader, true, |all| all.len() >= 3).await;
    for (_, delivery) in read {
        let malformed = delivery.content.expect_err("never a record, wherever it is read");
        assert_eq!(&malformed.body[..], b"hello");
        let Original { key, headers } = malformed.original;
        assert_eq!(key.as_deref(), Some(&b"whose"[..]));
        let header = |name: &str| {
            let found = headers.iter().find(|(key, _)| key == name);
            found.unwrap_or_else(|| panic!("header {name}")).1.as_deref()
        };
        assert_eq!((header("origin"), header("bytes")), (None, Some(&[0xff, 0][..])));
        assert_eq!(
            (header("tg-version"), header("tg-tenant")),
            (Some(&b"2"[..]), Some(&b"acme"[..]))
        );
        assert_eq!(header("tg-cause"), Some(&b"malformed"[..]));
        assert_eq!(header("tg-source-topic"), Some(&b"points"[..]));
    }
    running.stop().await;
}

/// The target is away while far more comes in than is read ahead: partitions are paused, the
/// group is kept, memory is bounded, and in the end every point is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_pauses_the_partitions() {
    let (_mock, config) = cluster();
    let config = KafkaConfig { read_ahead_bytes: 1 << 20, ..config };
    let journal = JournalConfig::Kafka(config);
    let appender = appender(&journal);
    let mut owed = std::collections::BTreeSet::new();
    for number in 0..100 {
        let mut large = record(&format!("t{}", number % 10), (number % 64) as u32, number);
        let line = format!("m,n={number} v=\"{}\" {number}\n", "x".repeat(50 << 10));
        owed.insert(line.trim_end().to_owned());
        large.body = line.into();
        append(&appender, vec![large]).await;
    }
    let away = Arc::new(AtomicBool::new(true));
    let is_away = away.clone();
    let fake = FakeInfluxdb::start(move |_| match is_away.load(Ordering::Relaxed) {
        true => Reply::Status(503, None, ""),
        false => Reply::Status(204, None, ""),
    })
    .await;
    let mut writer = influxdb(fake.url());
    writer.batches_bytes_max = 1 << 20;
    let running = Running::start(&journal, writer).await;
    wait_for("a pause", || async {
        let metrics = get(running.admin, "/metrics").await;
        let held = gauge(&metrics, "ingest_writer_batches_bytes");
        assert!(held <= 1 << 20, "{held} bytes of batches");
        (held > 0
            && metrics.contains("class=\"busy\"")
            && metrics.contains("ingest_journal_paused_lanes{signal=\"all\"} ")
            && !metrics.contains("ingest_journal_paused_lanes{signal=\"all\"} 0"))
        .then_some(())
    })
    .await;
    away.store(false, Ordering::Relaxed);
    wait_for("all points", || async { owed.is_subset(&fake.lines()).then_some(()) }).await;
    running.stop().await;
}

fn gauge(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find(|line| line.split([' ', '{']).next() == Some(name));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} in {metrics}"))
}

/// The target is away: what waits is counted from the first second on, by the next writer too,
/// although nothing was ever written and partitions that are paused fetch nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_lag_is_true_while_the_target_is_away() {
    let (_mock, config) = cluster();
    let config = KafkaConfig { read_ahead_bytes: 1 << 20, ..config };
    let journal = JournalConfig::Kafka(config);
    let appender = appender(&journal);
    let send = async |range: std::ops::Range<u64>| {
        for number in range {
            let mut large = record(&format!("t{}", number % 10), (number % 64) as u32, number);
            large.body = format!("m v=\"{}\" {number}\n", "x".repeat(50 << 10)).into();
            append(&appender, vec![large]).await;
        }
    };
    let away = Arc::new(AtomicBool::new(true));
    let is_away = away.clone();
    let fake = FakeInfluxdb::start(move |_| match is_away.load(Ordering::Relaxed) {
        true => Reply::Status(503, None, ""),
        false => Reply::Status(204, None, ""),
    })
    .await;
    let lag = async |running: &Running, records: u64| {
        wait_for("the lag", || async {
            let metrics = get(running.admin, "/metrics").await;
            (gauge(&metrics, "ingest_journal_lag_records") == records).then_some(())
        })
        .await;
    };
    send(0..60).await;
    let running = Running::start(&journal, influxdb(fake.url())).await;
    lag(&running, 60).await;
    send(60..100).await;
    lag(&running, 100).await;
    running.stop().await;
    let running = Running::start(&journal, influxdb(fake.url())).await;
    lag(&running, 100).await;
    away.store(false, Ordering::Relaxed);
    lag(&running, 0).await;
    running.stop().await;
}

/// The journal's retention has passed what no writer had read: that is counted, not silent.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_gone_before_they_were_read_are_counted() {
    let (_mock, config) = cluster();
    let journal = JournalConfig::Kafka(config);
    let appender = appender(&journal);
    let fake = FakeInfluxdb::start(|_| Reply::Status(204, None, "")).await;
    let written = async |running: &Running, line: &str| {
        wait_for("the point", || async { fake.lines().contains(line).then_some(()) }).await;
        get(running.admin, "/metrics").await
    };
    append(&appender, vec![record("a", 0, 1)]).await;
    let running = Running::start(&journal, influxdb(fake.url())).await;
    let first = "m,tenant=a v=1i 1700000000000000001";
    let metrics = written(&running, first).await;
    assert_eq!(gauge(&metrics, "ingest_journal_missing_records_total"), 0);
    running.stop().await;
    // The mock cluster keeps 5 MiB of a partition. Nothing that compresses well.
    let mut random = 1_u64;
    for number in 2..32 {
        let mut text = String::new();
        while text.len() < 700 << 10 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push_str(&format!("{:016x}", random.rotate_left(17) ^ (random >> 7)));
        }
        let mut large = record("a", 0, number);
        large.body = format!("m v=\"{text}\" {number}\n").into();
        append(&appender, vec![large]).await;
    }
    append(&appender, vec![record("a", 0, 32)]).await;
    let running = Running::start(&journal, influxdb(fake.url())).await;
    let metrics = written(&running, "m,tenant=a v=32i 1700000000000000032").await;
    let missing = gauge(&metrics, "ingest_journal_missing_records_total");
    let arrived = fake.lines().len() as u64;
    assert!(missing > 0 && missing + arrived == 32, "{missing} missing, {arrived} arrived");
    running.stop().await;
}

/// A request that holds more than may wait in memory goes piece by piece; refusing it would be for
/// ever.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_queue_holds_is_stored_piece_by_piece() {
    let (_mock, config) = cluster();
    let config = JournalConfig::Kafka(KafkaConfig { queue_bytes_max: 1 << 20, ..config });
    let journal = appender(&config);
    append(&journal, vec![record("acme", 0, 0)]).await;
    let long = "x".repeat(200_000);
    let all = (1..=20).map(|number| with_body(number, format!("m v=\"{long}\" {number}\n")));
    journal.append(all.collect()).await.expect("four times the queue");
    let read = read_until(reader(&config).reader, true, |all| all.len() >= 21).await;
    assert_eq!(records(&read).len(), 21);
}
