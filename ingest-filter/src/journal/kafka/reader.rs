//! The writer's side of the Kafka journal: one thread polls the consumer and does nothing else
//! that takes long, so rebalances are answered even while the database is away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chassis::readiness::{Condition, Readiness};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::journal::config::KafkaConfig;
use crate::journal::kafka::lag::LagGauge;
use crate::journal::kafka::lanes::{Delivered, Flow, Lanes, Order, PartitionLane};
use crate::journal::kafka::offsets::{self, Offsets};
use crate::journal::kafka::topic::Topics;
use crate::journal::kafka::{client, log, report};
use crate::journal::metrics::JournalMetrics;
use crate::journal::{
    Boxed, Delivery, Lane, Malformed, OpenError, Original, Position, ReadError, Reader, envelope,
};

/// How long one poll waits for a message.
const POLL: Duration = Duration::from_millis(100);
/// The same while a lane waits to be resumed.
const POLL_PAUSED: Duration = Duration::from_millis(10);
/// How often acknowledgements are passed on.
const FLOW_PERIOD: Duration = Duration::from_millis(20);
/// How often a topic that is not there is looked for.
const TOPIC_PERIOD: Duration = Duration::from_secs(1);
/// How long a revoked lane may finish its write. The group waits for it; heartbeats go on.
const REVOKE_PATIENCE: Duration = Duration::from_secs(15);
/// How long the question may take where the group has come to.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(5);
/// How long leaving the group may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads one topic as a member of a group.
pub struct KafkaReader {
    lanes: mpsc::UnboundedReceiver<PartitionLane>,
    closing: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl KafkaReader {
    /// Joins the group as soon as the topic is there; readiness is held back until then.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn open(
        config: &KafkaConfig,
        readiness: &Readiness,
        metrics: JournalMetrics,
    ) -> Result<Self, OpenError> {
        let (lanes, new_lanes) = Lanes::new(config.read_ahead_bytes / 4 * 3);
        let lanes = Arc::new(Mutex::new(lanes));
        let closing = CancellationToken::new();
        let unnamed = |source| OpenError::File {
            path: config.topic.clone(),
            action: "served by a thread",
            source,
        };
        let lag = LagGauge {
            offsets: Offsets::new(config).map_err(OpenError::Kafka)?,
            lanes: lanes.clone(),
            metrics: metrics.clone(),
            closing: closing.clone(),
            runtime: Handle::current(),
        };
        lag.spawn().map_err(unnamed)?;
        let context = Context { lanes, metrics, topic: config.topic.clone() };
        let polling = Polling {
            consumer: consumer(config, context).map_err(OpenError::Kafka)?,
            topics: Topics::new(config).map_err(OpenError::Kafka)?,
            topic: config.topic.clone(),
            condition: readiness.condition("journal", "the topic is not known yet"),
            closing: closing.clone(),
            runtime: Handle::current(),
        };
        let thread = std::thread::Builder::new()
            .name("journal-read".to_owned())
            .spawn(move || polling.run())
            .map_err(unnamed)?;
        Ok(Self { lanes: new_lanes, closing, thread: Some(thread) })
    }
}

impl Reader for KafkaReader {
    fn next_lane(&mut self) -> Boxed<'_, Result<Box<dyn Lane>, ReadError>> {
        Box::pin(async move {
            match self.lanes.recv().await {
                Some(lane) => Ok(Box::new(lane) as Box<dyn Lane>),
                None => Err(ReadError::Ended),
            }
        })
    }

    fn close(mut self: Box<Self>) -> Boxed<'static, ()> {
        self.closing.cancel();
        // Lanes that nobody took are let go.
        self.lanes.close();
        while self.lanes.try_recv().is_ok() {}
        let thread = self.thread.take();
        Box::pin(async move {
            let join = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join));
            if tokio::time::timeout(CLOSE_TIMEOUT, join).await.is_err() {
                tracing::warn!("the consumer group could not be left in time");
            }
        })
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Takes what the client calls back for, all of it on the polling thread but statistics.
struct Context {
    lanes: Arc<Mutex<Lanes>>,
    metrics: JournalMetrics,
    topic: String,
}

impl Context {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops lanes and keeps how far they came.
    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
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
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report("consumer", &error, reason);
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

/// The polling thread.
struct Polling {
    consumer: BaseConsumer<Context>,
    topics: Topics,
    topic: String,
    condition: Condition,
    closing: CancellationToken,
    runtime: Handle,
}

impl Polling {
    fn run(self) {
        if !self.join() {
            return;
        }
        let mut flow_at = Instant::now();
        while !self.closing.is_cancelled() {
            let paused = self.consumer.context().lanes().any_paused();
            match self.consumer.poll(if paused { POLL_PAUSED } else { POLL }) {
                Some(Ok(message)) => self.deliver(&message),
                // The client tries again by itself.
                Some(Err(error)) => tracing::warn!(%error, "reading the topic failed"),
                None => {}
            }
            let now = Instant::now();
            if now >= flow_at {
                self.pass_on();
                flow_at = now + FLOW_PERIOD;
            }
        }
        let all = self.consumer.context().lanes().partitions();
        self.consumer.context().revoke(&self.consumer, &all);
        // Dropping the consumer leaves the group.
    }

    /// Waits for the topic and joins the group; `false` when closing.
    fn join(&self) -> bool {
        while !self.closing.is_cancelled() {
            match self.runtime.block_on(self.topics.records(&self.topic)) {
                Ok(_) => match self.consumer.subscribe(&[&self.topic]) {
                    Ok(()) => {
                        self.condition.met();
                        return true;
                    }
                    Err(error) => self.condition.lost(error.to_string()),
                },
                Err(error) => self.condition.lost(error.to_string()),
            }
            std::thread::sleep(TOPIC_PERIOD);
        }
        false
    }

    fn deliver(&self, message: &BorrowedMessage<'_>) {
        let body = message.payload().map_or_else(Bytes::new, Bytes::copy_from_slice);
        let bytes = body.len() as u64 + 1024;
        let headers = || {
            let headers = message.headers().into_iter();
            headers.flat_map(|headers| headers.iter().map(|header| (header.key, header.value)))
        };
        let content = envelope::record(headers(), body).map_err(|malformed| {
            let owned = |(key, value): (&str, Option<&[u8]>)| {
                (key.to_owned(), value.map(Bytes::copy_from_slice))
            };
            let key = message.key().map(Bytes::copy_from_slice);
            let original = Original { key, headers: headers().map(owned).collect() };
            Malformed { original, ..malformed }
        });
        let position = Position(u64::try_from(message.offset()).unwrap_or(0));
        let delivery = Delivery { position, content };
        let (partition, offset) = (message.partition(), message.offset());
        let delivered = self.consumer.context().lanes().deliver(partition, delivery, bytes);
        let Some(Delivered { flows, order }) = delivered else { return };
        match order {
            Order::Next => {}
            Order::Missing(records) => {
                self.consumer.context().metrics.missing_records.inc_by(records);
                tracing::error!(
                    partition,
                    offset,
                    records,
                    "records are gone before they were read: the journal's retention has passed them"
                );
            }
            Order::Backwards => {
                self.consumer.context().metrics.missing_records.inc();
                tracing::error!(
                    partition,
                    offset,
                    "the partition begins anew, below what was read"
                );
            }
        }
        apply(&self.consumer, &self.topic, flows);
    }

    fn pass_on(&self) {
        let context = self.consumer.context();
        let (flows, paused) = {
            let mut lanes = context.lanes();
            (lanes.flows(), lanes.paused().len())
        };
        context.metrics.paused_lanes.set(paused as i64);
        apply(&self.consumer, &self.topic, flows);
    }
}

fn apply(consumer: &BaseConsumer<Context>, topic: &str, flows: Vec<Flow>) {
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

fn consumer(config: &KafkaConfig, context: Context) -> Result<BaseConsumer<Context>, KafkaError> {
    let message_max = config.message_bytes_max;
    // A quarter of the bound is for what the client has fetched, the rest for the lanes: what was
    // fetched is thrown away and fetched again whenever a partition is paused.
    let fetched = (config.read_ahead_bytes / 4).max(message_max);
    let fetch_max = fetched.clamp(message_max, 64 << 20);
    let mut client = client(config);
    client
        .set("group.id", &config.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
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
