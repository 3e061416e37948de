//! A topic of six partitions on real brokers, and an appender to it of which each partition can be
//! tried by itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chassis::readiness::Readiness;
use ingest_filter::journal::config::{CreateTopic, JournalConfig, KafkaConfig};
use ingest_filter::journal::kafka::partition::partition;
use ingest_filter::journal::{Journal, open_appender};
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;

use crate::kafka::topic;
use crate::kafka_broker::Broker;
use crate::support::{read_until, reader, record, wait_for};

pub const PARTITIONS: u32 = 6;

/// A topic, and an appender to it.
pub struct Stream {
    pub config: JournalConfig,
    pub journal: Arc<dyn Journal>,
    pub readiness: Readiness,
    registry: Registry,
    number: Mutex<u64>,
    owed: Mutex<BTreeSet<Bytes>>,
}

impl Stream {
    /// With so many copies of each partition; a tenant has one partition.
    pub fn open(brokers: &[Broker], name: &str, copies: i32) -> Self {
        let addresses: Vec<String> = brokers.iter().map(Broker::address).collect();
        let partitions = PARTITIONS as i32;
        let config = JournalConfig::Kafka(KafkaConfig {
            brokers: addresses.join(","),
            create_topic: Some(CreateTopic { partitions, replication_factor: copies }),
            partitions_per_tenant: 1,
            delivery_timeout: Duration::from_secs(8),
            ..topic(&brokers[0], name)
        });
        let (readiness, mut registry) = (Readiness::new(), Registry::default());
        let journal = open_appender(&config, &readiness, &mut registry).unwrap();
        let (number, owed) = (Mutex::new(0), Mutex::default());
        Self { config, journal, registry, readiness, number, owed }
    }

    /// Appends one record to a partition, or says why not.
    pub async fn write(&self, number: u32) -> Result<(), String> {
        self.write_long(number, 0).await
    }

    /// The same with so many bytes more that do not get fewer by compression.
    pub async fn write_long(&self, number: u32, bytes: usize) -> Result<(), String> {
        let mut tenants = (0..).map(|tenant| format!("t{tenant}"));
        let tenant = tenants.find(|tenant| partition(tenant, 0, PARTITIONS, 1) == number).unwrap();
        let value = {
            let mut last = self.number.lock().await;
            *last += 1;
            *last
        };
        let mut record = record(&tenant, 0, value);
        if bytes > 0 {
            record.body = format!("m v=\"{}\" {value}\n", noise(value, bytes)).into();
        }
        let appended = self.journal.append(vec![record.clone()]).await;
        if appended.is_ok() {
            self.owed.lock().await.insert(record.body);
        }
        appended.map_err(|error| error.to_string())
    }

    pub async fn is_taken(&self, number: u32) {
        wait_for("a record that is taken", || async { self.write(number).await.ok() }).await;
    }

    /// Waits until a record of the partition is refused for this reason.
    pub async fn is_refused(&self, number: u32, because: &str) {
        wait_for(because, || async {
            self.write(number).await.err().filter(|reason| reason.contains(because))
        })
        .await;
    }

    pub fn gauge(&self, name: &str) -> i64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let name = format!("ingest_journal_{name}{{");
        let line = text.lines().find(|line| line.starts_with(&name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub async fn shows(&self, name: &str, value: i64) {
        wait_for(&format!("{name} {value}"), || async {
            (self.gauge(name) == value).then_some(())
        })
        .await;
    }

    /// The lines that were taken.
    pub async fn written(&self) -> Vec<String> {
        let owed = self.owed.lock().await;
        owed.iter().map(|body| String::from_utf8(body.trim_ascii().to_vec()).unwrap()).collect()
    }

    /// Reads the topic to the end, beside whoever else does.
    pub async fn all_are_stored(&self) {
        let JournalConfig::Kafka(kafka) = self.config.clone() else { unreachable!("it is Kafka") };
        let config = JournalConfig::Kafka(KafkaConfig { group: "books".to_owned(), ..kafka });
        let mut missing = self.owed.lock().await.clone();
        let mut looked_at = 0;
        read_until(reader(&config).reader, true, |all| {
            for (_, delivery) in &all[looked_at..] {
                missing.remove(&delivery.content.as_ref().expect("a record").body);
            }
            looked_at = all.len();
            missing.is_empty()
        })
        .await;
    }
}

/// Text that is another one for each seed.
fn noise(seed: u64, bytes: usize) -> String {
    let (mut random, mut text) = (seed, String::new());
    while text.len() < bytes {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&format!("{:016x}", random.rotate_left(17) ^ (random >> 7)));
    }
    text
}
