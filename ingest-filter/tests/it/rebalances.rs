//! Writers that come, go, die and lose their place in the group, with both ways of sharing
//! partitions out: in the end the database holds every point with its newest value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ingest_filter::journal::Journal;
use ingest_filter::journal::config::member::Assignment;
use ingest_filter::journal::config::{JournalConfig, KafkaConfig};
use ingest_filter::record::Record;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::influxd::Influxd;
use crate::kafka::topic;
use crate::kafka_broker::Broker;
use crate::support::{STORED_WITHIN, append, appender, record, wait_for};
use crate::writer_file::{Running, get};
use crate::writer_influxdb::influxdb;

/// Series of each tenant, each in a shard of its own.
const SERIES: u64 = 8;
/// Times at which a series has points: later values of one time replace earlier ones.
const TIMES: u64 = 10;
const TENANTS: u64 = 6;

/// What was acknowledged: the newest value by tenant, series and time.
#[derive(Default)]
struct Model {
    newest: BTreeMap<(u64, u64, u64), u64>,
    next: u64,
}

impl Model {
    /// Appends so many records of one point each. Most overwrite an earlier point, so one that is
    /// written late, or out of order, is seen.
    async fn append(&mut self, journal: &Arc<dyn Journal>, records: u64) {
        for _ in 0..records {
            let number = self.next;
            self.next += 1;
            let (tenant, series) = (number % TENANTS, number / TENANTS % SERIES);
            let time = number / TENANTS / SERIES % TIMES;
            let body = format!("m,k={series} v={number}i {}\n", 1_000_000 + time);
            let one = Record {
                shard: series as u32,
                body: Bytes::from(body),
                ..record(&format!("t{tenant}"), 0, number)
            };
            append(journal, vec![one]).await;
            self.newest.insert((tenant, series, time), number);
        }
    }

    /// Waits until the database holds just that.
    async fn is_stored(&self, server: &Influxd) {
        wait_for("the newest value of every point", || async {
            let mut stored = BTreeMap::new();
            for tenant in 0..TENANTS {
                let database = format!("t{tenant}__default");
                for row in server.rows_of(&database, "select v, k from m").await {
                    let series = row[2].as_str()?.parse().ok()?;
                    let time = row[0].as_u64()? - 1_000_000;
                    stored.insert((tenant, series, time), row[1].as_u64()?);
                }
            }
            (stored == self.newest).then_some(())
        })
        .await;
    }
}

/// Nothing waits in the journal, by the count of all these writers.
async fn caught_up(writers: &[&Running]) {
    wait_for("no lag", || async {
        let mut lag = 0.0;
        for writer in writers {
            let metrics = get(writer.admin, "/metrics").await;
            lag += gauge(&metrics, "ingest_journal_lag_records")?;
        }
        (lag == 0.0).then_some(())
    })
    .await;
}

fn gauge(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| line.split([' ', '{']).next() == Some(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// A second writer comes and goes, one of them is killed, the only broker, which is the group's
/// coordinator and the leader of all partitions, dies and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn rebalances_change_nothing_in_the_database() {
    let mut broker = Broker::start().await;
    for assignment in [Assignment::CooperativeSticky, Assignment::Range] {
        let server = Influxd::start().await;
        let config = KafkaConfig { assignment, ..topic(&broker, assignment.name()) };
        let config = JournalConfig::Kafka(config);
        let journal = appender(&config);
        let start = async || Running::start(&config, influxdb(server.url())).await;
        let shares = async |one: &Running, other: &Running| {
            wait_for("both have partitions", || async {
                let lanes = async |it: &Running| {
                    gauge(&get(it.admin, "/metrics").await, "ingest_journal_lanes")
                };
                (lanes(one).await? > 0.0 && lanes(other).await? > 0.0).then_some(())
            })
            .await;
        };
        let mut model = Model::default();
        let first = start().await;
        model.append(&journal, 300).await;
        let second = start().await;
        model.append(&journal, 300).await;
        shares(&first, &second).await;
        first.stop().await;
        model.append(&journal, 300).await;
        let third = start().await;
        shares(&second, &third).await;
        model.append(&journal, 300).await;
        second.abort().await;
        model.append(&journal, 300).await;
        broker.kill();
        tokio::time::sleep(Duration::from_millis(500)).await;
        broker.restart().await;
        model.append(&journal, 300).await;
        model.is_stored(&server).await;
        caught_up(&[&third]).await;
        third.stop().await;
    }
}

/// The group has forgotten the writer: its partitions are lost, nothing of theirs is committed,
/// and they come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_membership_loses_no_point() {
    let mock = MockCluster::new(1).unwrap();
    for assignment in [Assignment::CooperativeSticky, Assignment::Range] {
        let server = Influxd::start().await;
        mock.create_topic(assignment.name(), 3, 1).unwrap();
        let config = JournalConfig::Kafka(KafkaConfig {
            topic: assignment.name().to_owned(),
            group: assignment.name().to_owned(),
            delivery_timeout: STORED_WITHIN,
            session_timeout: Duration::from_secs(6),
            assignment,
            logs_topic: None,
            traces_topic: None,
            ..KafkaConfig::new(mock.bootstrap_servers())
        });
        let journal = appender(&config);
        let running = Running::start(&config, influxdb(server.url())).await;
        let mut model = Model::default();
        model.append(&journal, 200).await;
        for error in [
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
        ] {
            mock.request_errors(RDKafkaApiKey::Heartbeat, &[error]);
            mock.request_errors(RDKafkaApiKey::OffsetCommit, &[error]);
            model.append(&journal, 200).await;
            model.is_stored(&server).await;
        }
        caught_up(&[&running]).await;
        running.stop().await;
    }
}
