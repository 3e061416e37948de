//! A member of the writers' group: what the client library calls back for as partitions come and
//! go, and the settings that it reads with.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use crate::journal::config::KafkaConfig;
use crate::journal::kafka::context::Login;
use crate::journal::kafka::lanes::{Flow, Lanes};
use crate::journal::kafka::offsets;
use crate::journal::kafka::{client, log, report};
use crate::journal::metrics::JournalMetrics;

/// How long a revoked lane may finish its write. The group waits for it; heartbeats go on.
const REVOKE_PATIENCE: Duration = Duration::from_secs(15);
/// How long the question may take where the group has come to.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes what the client calls back for, all of it on the polling thread but statistics.
#[derive(Clone)]
pub(super) struct Context {
    pub lanes: Arc<Mutex<Lanes>>,
    pub metrics: JournalMetrics,
    pub topic: String,
    pub login: Login,
}

impl Context {
    pub fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops lanes and keeps how far they came.
    pub fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        // Of what is lost nothing may be committed any more, so there is nothing to wait for.
        let lost = consumer.assignment_lost();
        let patience = if lost { Duration::ZERO } else { REVOKE_PATIENCE };
        let acked = self.lanes().revoke(partitions, patience);
        tracing::info!(?partitions, lost, "partitions left");
        if acked.is_empty() || lost || consumer.assignment_lost() {
            return;
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in acked {
            let next = Offset::Offset(offset + 1);
            if let Err(error) = offsets.add_partition_offset(&self.topic, partition, next) {
                tracing::warn!(%error, partition, "an offset cannot be committed");
            }
        }
        if let Err(error) = consumer.commit(&offsets, CommitMode::Sync) {
            tracing::warn!(%error, "offsets were not committed, their records come again");
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report("consumer", &error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.login.token()
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(_) => {}
            Rebalance::Revoke(list) => self.revoke(consumer, &partitions_of(list)),
            Rebalance::Error(error) => {
                tracing::warn!(%error, "a rebalance failed");
                let all = self.lanes().partitions();
                self.revoke(consumer, &all);
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut lanes = self.lanes();
        if let Rebalance::Assign(list) = rebalance {
            let partitions = partitions_of(list);
            tracing::info!(?partitions, "partitions came");
            let committed = committed(consumer, list);
            for partition in partitions {
                lanes.assign(partition, committed.get(&partition).copied());
            }
            apply(consumer, &self.topic, lanes.paused().into_iter().map(Flow::Pause).collect());
        }
        self.metrics.lanes.set(lanes.partitions().len() as i64);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        match result {
            Ok(())
            | Err(KafkaError::ConsumerCommit(rdkafka::types::RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => tracing::warn!(%error, "offsets were not committed, trying again"),
        }
    }
}

/// Where the group has come to, to see what is missing; nothing when that is not known in time.
fn committed(consumer: &BaseConsumer<Context>, list: &TopicPartitionList) -> BTreeMap<i32, i64> {
    match consumer.committed_offsets(list.clone(), COMMITTED_TIMEOUT) {
        Ok(list) => offsets::of(&list),
        Err(error) => {
            tracing::warn!(%error, "where the group has come to is not known");
            BTreeMap::new()
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|element| element.partition()).collect()
}

/// Does to the consumer what the lanes ask for.
pub(super) fn apply(consumer: &BaseConsumer<Context>, topic: &str, flows: Vec<Flow>) {
    let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
    for flow in flows {
        match flow {
            Flow::Pause(partition) => drop(pause.add_partition(topic, partition)),
            Flow::Resume(partition) => drop(resume.add_partition(topic, partition)),
            Flow::Store(partition, offset) => {
                applied(consumer.store_offset(topic, partition, offset));
            }
        }
    }
    if pause.count() > 0 {
        applied(consumer.pause(&pause));
    }
    if resume.count() > 0 {
        applied(consumer.resume(&resume));
    }
}

/// A partition may be leaving: then none of this matters any more.
fn applied(result: KafkaResult<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "not applied");
    }
}

/// A consumer that has not joined yet.
pub(super) fn consumer(
    config: &KafkaConfig,
    context: Context,
) -> Result<BaseConsumer<Context>, KafkaError> {
    let message_max = config.message_bytes_max;
    // A quarter of the bound is for what the client has fetched, the rest for the lanes: what was
    // fetched is thrown away and fetched again whenever a partition is paused.
    let fetched = (config.read_ahead_bytes / 4).max(message_max);
    let fetch_max = fetched.clamp(message_max, 64 << 20);
    let mut client = client(config);
    client
        .set("group.id", &config.group)
        .set("partition.assignment.strategy", config.assignment.name())
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("max.poll.interval.ms", "300000")
        .set("session.timeout.ms", config.session_timeout.as_millis().to_string())
        .set("heartbeat.interval.ms", (config.session_timeout / 4).as_millis().to_string())
        // The lag is asked of the brokers.
        .set("statistics.interval.ms", "0")
        .set("check.crcs", "true")
        .set("message.max.bytes", message_max.min(1_000_000_000).to_string())
        .set("fetch.max.bytes", fetch_max.to_string())
        .set("queued.max.messages.kbytes", (fetched >> 10).min(2_097_151).to_string());
    if let Some(id) = &config.group_instance_id {
        client.set("group.instance.id", id);
    }
    client.create_with_context(context)
}
