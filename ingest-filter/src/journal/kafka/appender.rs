//! The gateway's side of the Kafka journal.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chassis::readiness::{Condition, Readiness};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::journal::config::{KafkaConfig, RECORD_EXTRA_BYTES};
use crate::journal::drain_rate::{DrainRate, RETRY_AFTER_MIN};
use crate::journal::kafka::fault::Fault;
use crate::journal::kafka::partition::partition;
use crate::journal::kafka::producer::{Message, Observer, Producer, SendError};
use crate::journal::kafka::topic::{TopicError, Topics};
use crate::journal::metrics::JournalMetrics;
use crate::journal::{Append, AppendError, Journal, OpenError, envelope};
use crate::record::Record;

/// How often the producer's health is looked at.
const HEALTH_PERIOD: Duration = Duration::from_secs(1);
/// How often brokers that do not answer are asked again.
const AWAY_PERIOD: Duration = Duration::from_millis(250);
/// How often a topic that cannot be used is tried again.
const TOPIC_PERIOD: Duration = Duration::from_secs(1);
/// After so many healthy looks the topic is checked again.
const CHECK_EVERY: u32 = 5;

/// Appends to one topic.
pub struct KafkaAppender {
    shared: Arc<Shared>,
    upkeep: JoinHandle<()>,
}

struct Shared {
    producer: Producer,
    config: KafkaConfig,
    topics: Topics,
    /// 0 until the topic was found.
    partitions: AtomicU32,
    queued_bytes: AtomicU64,
    rate: Mutex<DrainRate>,
    metrics: JournalMetrics,
    condition: Condition,
    /// Something failed that may need a new producer or a person, or Kafka seems to be away.
    look: Arc<Notify>,
    lasting: Mutex<Option<String>>,
    /// Why no record is taken at present: nobody waits for what is known to fail.
    closed: Mutex<Option<String>>,
}

impl KafkaAppender {
    /// Begins to connect; readiness is held back until the topic was found.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn open(
        config: &KafkaConfig,
        readiness: &Readiness,
        metrics: JournalMetrics,
    ) -> Result<Self, OpenError> {
        let bytes_max = config.message_bytes_max;
        let look = Arc::new(Notify::new());
        let seen = Observer { metrics: metrics.clone(), brokers_down: look.clone() };
        let producer = Producer::new(&config.topic, config, bytes_max, Some(seen));
        let shared = Arc::new(Shared {
            producer: producer.map_err(OpenError::Kafka)?,
            topics: Topics::new(config).map_err(OpenError::Kafka)?,
            config: config.clone(),
            partitions: AtomicU32::new(0),
            queued_bytes: AtomicU64::new(0),
            rate: Mutex::new(DrainRate::new(Instant::now())),
            metrics,
            condition: readiness.condition("journal", "the topic is not known yet"),
            look,
            lasting: Mutex::new(None),
            closed: Mutex::new(None),
        });
        let upkeep = tokio::spawn(upkeep(shared.clone()));
        Ok(Self { shared, upkeep })
    }
}

impl Drop for KafkaAppender {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

impl Journal for KafkaAppender {
    fn append(&self, records: Vec<Record>) -> Append<'_> {
        Box::pin(async move {
            let began = Instant::now();
            let result = self.shared.append(records).await;
            let metrics = &self.shared.metrics;
            metrics.append_duration_seconds.observe(began.elapsed().as_secs_f64());
            if result.is_err() {
                metrics.append_failures.inc();
            }
            result
        })
    }
}

impl Shared {
    async fn append(&self, records: Vec<Record>) -> Result<(), AppendError> {
        let partitions = self.partitions.load(Ordering::Relaxed);
        if partitions == 0 {
            return Err(AppendError::unavailable("the topic is not known yet", RETRY_AFTER_MIN));
        }
        if let Some(reason) = self.closed().clone() {
            return Err(AppendError::unavailable(reason, RETRY_AFTER_MIN));
        }
        let count = records.len() as u64;
        let bytes: u64 = records.iter().map(|record| record.body.len() as u64).sum();
        let mut messages = Vec::with_capacity(records.len());
        for record in records {
            messages.push(self.message(record, partitions)?);
        }
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let _sent = OnDrop(|| {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        });
        let began = Instant::now();
        match self.producer.send(messages).await {
            Ok(()) => {
                self.metrics.appended_records.inc_by(count);
                self.metrics.appended_bytes.inc_by(bytes);
                let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
                rate.confirmed(bytes, began.elapsed(), Instant::now());
                Ok(())
            }
            Err(error) => Err(self.refuse(error, queued)),
        }
    }

    fn message(&self, record: Record, partitions: u32) -> Result<Message, AppendError> {
        let bytes = record.body.len() + RECORD_EXTRA_BYTES;
        if bytes as u64 > self.config.message_bytes_max {
            let max = self.config.message_bytes_max;
            tracing::error!(bytes, max, "a record is larger than journal.kafka.message_bytes_max");
            let reason = "a record is larger than a message may be".to_owned();
            return Err(AppendError::TooLarge { reason });
        }
        let chosen =
            partition(&record.tenant, record.shard, partitions, self.config.partitions_per_tenant);
        Ok(Message {
            partition: Some(i32::try_from(chosen).unwrap_or(i32::MAX)),
            foreign_headers: Vec::new(),
            headers: envelope::headers(&record),
            key: Some(record.tenant.into()),
            body: record.body,
        })
    }

    fn refuse(&self, error: SendError, queued: u64) -> AppendError {
        match error.fault {
            Fault::Fatal => self.look.notify_one(),
            Fault::Lasting => {
                let mut lasting = self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
                *lasting = Some(error.reason.clone());
                self.look.notify_one();
            }
            Fault::TooLarge => {
                tracing::error!(reason = error.reason, "the topic refuses a record");
                self.look.notify_one();
                return AppendError::TooLarge { reason: error.reason };
            }
            // Perhaps Kafka is away: whoever comes next need not wait to find that out.
            Fault::Passing => self.look.notify_one(),
            Fault::QueueFull => {}
        }
        let rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        AppendError::unavailable(error.reason, rate.retry_after(queued))
    }

    /// Waits until the topic can be used, and says so.
    async fn find_topic(&self) {
        loop {
            match self.topics.durable_records(&self.config.topic).await {
                Ok(partitions) => {
                    self.open(partitions);
                    return;
                }
                Err(error) => {
                    self.condition.lost(error.to_string());
                    *self.closed() = Some(error.to_string());
                    tokio::time::sleep(TOPIC_PERIOD).await;
                }
            }
        }
    }

    fn closed(&self) -> MutexGuard<'_, Option<String>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, partitions: u32) {
        self.partitions.store(partitions, Ordering::Relaxed);
        *self.closed() = None;
        self.condition.met();
    }

    /// While no broker answers, records are refused at once; readiness stays, as other gateways
    /// have no more of Kafka than this one.
    async fn wait_while_away(&self) {
        while let Err(error) = self.topics.reach(&self.config.topic).await {
            let reason = format!("no broker answers: {error}");
            if self.closed().replace(reason.clone()).is_none() {
                tracing::error!(reason, "Kafka is away, records are refused until it is back");
            }
            tokio::time::sleep(AWAY_PERIOD).await;
        }
        if self.closed().take().is_some() {
            tracing::info!("Kafka is back");
        }
    }

    /// Replaces a producer that is of no more use; `false` when all is well.
    fn mend(&self) -> bool {
        let lasting = self.lasting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reason) = lasting {
            tracing::error!(reason, "the journal refuses records");
            self.condition.lost(reason);
            return true;
        }
        let Some(reason) = self.producer.fatal_error() else { return false };
        tracing::error!(reason, "the Kafka producer failed for good, replacing it");
        self.condition.lost(reason);
        if let Err(error) = self.producer.replace() {
            tracing::error!(%error, "no new Kafka producer could be created");
        }
        true
    }
}

async fn upkeep(shared: Arc<Shared>) {
    shared.find_topic().await;
    let mut healthy = 0;
    loop {
        tokio::select! {
            () = shared.look.notified() => shared.wait_while_away().await,
            () = tokio::time::sleep(HEALTH_PERIOD) => {}
        }
        if shared.mend() {
            // Not ready for at least this long, so that a fault that lasts is seen as one.
            tokio::time::sleep(TOPIC_PERIOD).await;
            shared.find_topic().await;
            continue;
        }
        healthy += 1;
        if healthy % CHECK_EVERY == 0 {
            match shared.topics.durable_records(&shared.config.topic).await {
                Ok(partitions) => shared.open(partitions),
                Err(error @ (TopicError::Unsound { .. } | TopicError::Missing(_))) => {
                    tracing::error!(%error, "the journal's topic does not do");
                    shared.find_topic().await;
                }
                Err(_) => shared.wait_while_away().await,
            }
        }
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
