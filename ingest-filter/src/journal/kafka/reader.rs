//! The writer's side of the Kafka journal: one thread polls the consumer and does nothing else
//! that takes long, so rebalances are answered even while the database is away.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chassis::readiness::{Readiness, Vital};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::journal::config::KafkaConfig;
use crate::journal::kafka::context::Login;
use crate::journal::kafka::lag::LagGauge;
use crate::journal::kafka::lanes::{Delivered, Lanes, Order, PartitionLane};
use crate::journal::kafka::member::{Context, apply, consumer};
use crate::journal::kafka::offsets::Offsets;
use crate::journal::kafka::renewed::Renewal;
use crate::journal::kafka::standing::Standing;
use crate::journal::kafka::topic::Topics;
use crate::journal::metrics::JournalMetrics;
use crate::journal::{
    Boxed, Delivery, Lane, Malformed, OpenError, Original, Position, ReadError, Reader, envelope,
};
use crate::signal::{Signal, Signals};

/// How long one poll waits for a message.
const POLL: Duration = Duration::from_millis(100);
/// The same while a lane waits to be resumed.
const POLL_PAUSED: Duration = Duration::from_millis(10);
/// How often acknowledgements are passed on.
const FLOW_PERIOD: Duration = Duration::from_millis(20);
/// How often a topic that is not there is looked for.
const TOPIC_PERIOD: Duration = Duration::from_secs(1);
/// How long leaving the group may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads one topic as a member of a group.
pub struct KafkaReader {
    lanes: mpsc::UnboundedReceiver<PartitionLane>,
    closing: CancellationToken,
    thread: Option<JoinHandle<()>>,
    following: Option<tokio::task::JoinHandle<()>>,
}

impl KafkaReader {
    /// Joins the group as soon as the topic is there; readiness is held back until then.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn open(
        config: &KafkaConfig,
        signals: Signals,
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
            _vital: readiness.vital("measuring the lag"),
        };
        lag.spawn().map_err(unnamed)?;
        let (credentials, readiness_of_files) = (config.credentials.clone(), readiness.clone());
        let refused = metrics.files_refused.clone();
        let following = async move {
            let _vital = readiness_of_files.vital("following the files for Kafka");
            credentials.follow(&readiness_of_files, &refused).await;
        };
        let login = Login::new(config);
        let context = Context { lanes, metrics, topic: config.topic.clone(), login };
        let polling = Polling {
            consumer: consumer(config, context).map_err(OpenError::Kafka)?,
            topics: Topics::new(config).map_err(OpenError::Kafka)?,
            topic: config.topic.clone(),
            config: config.clone(),
            renewal: Renewal::new(config),
            has_joined: false,
            standing: Standing::new(signals, readiness),
            closing: closing.clone(),
            runtime: Handle::current(),
            _vital: readiness.vital("reading the journal"),
        };
        let thread = std::thread::Builder::new()
            .name("journal-read".to_owned())
            .spawn(move || polling.run())
            .map_err(unnamed)?;
        // All streams have the same files.
        let following = signals.has(Signal::Metrics).then(|| tokio::spawn(following));
        Ok(Self { lanes: new_lanes, closing, thread: Some(thread), following })
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
        if let Some(following) = &self.following {
            following.abort();
        }
    }
}

/// The polling thread.
struct Polling {
    consumer: BaseConsumer<Context>,
    topics: Topics,
    topic: String,
    config: KafkaConfig,
    renewal: Renewal,
    has_joined: bool,
    standing: Standing,
    closing: CancellationToken,
    runtime: Handle,
    _vital: Vital,
}

impl Polling {
    fn run(mut self) {
        if !self.join() {
            return;
        }
        let mut flow_at = Instant::now();
        while !self.closing.is_cancelled() {
            self.renew();
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
    fn join(&mut self) -> bool {
        while !self.closing.is_cancelled() {
            self.renew();
            match self.runtime.block_on(self.topics.records(&self.topic)) {
                Ok(_) => match self.consumer.subscribe(&[&self.topic]) {
                    Ok(()) => {
                        self.has_joined = true;
                        self.standing.met();
                        return true;
                    }
                    Err(error) => self.standing.lost(error.to_string()),
                },
                Err(error) => self.standing.lost(error.to_string()),
            }
            std::thread::sleep(TOPIC_PERIOD);
        }
        false
    }

    /// With new files for its login: leaves the group with what was written, and a new member joins.
    fn renew(&mut self) {
        if !self.renewal.is_due(Instant::now()) {
            return;
        }
        let renewed = consumer(&self.config, Context::clone(self.consumer.context()));
        let renewed = renewed.and_then(|new| {
            let all = self.consumer.context().lanes().partitions();
            self.consumer.context().revoke(&self.consumer, &all);
            // The old one leaves the group as it is dropped.
            self.consumer = new;
            if self.has_joined { self.consumer.subscribe(&[&self.topic]) } else { Ok(()) }
        });
        match renewed {
            Ok(()) => {
                self.renewal.done();
                tracing::info!("the consumer logs in with new files");
            }
            Err(error) => self.renewal.failed(&error, Instant::now()),
        }
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
