//! The gateway's side of the Kafka journal.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chassis::readiness::Readiness;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::journal::config::{KafkaConfig, RECORD_EXTRA_BYTES};
use crate::journal::drain_rate::{DrainRate, RETRY_AFTER_MIN};
use crate::journal::kafka::fault::Fault;
use crate::journal::kafka::partition::partition;
use crate::journal::kafka::producer::{Message, Observer, Producer, SendError};
use crate::journal::kafka::standing::Standing;
use crate::journal::kafka::taking::{Intake, Taking};
use crate::journal::kafka::topic::{TopicError, Topics};
use crate::journal::metrics::JournalMetrics;
use crate::journal::{Append, AppendError, Boxed, Journal, OpenError, envelope};
use crate::record::Record;
use crate::signal::{Signal, Signals};

/// How often the producer's health is looked at.
const HEALTH_PERIOD: Duration = Duration::from_secs(1);
/// How often brokers that do not answer are asked again.
const AWAY_PERIOD: Duration = Duration::from_millis(250);
/// How often a topic that cannot be used is tried again.
const TOPIC_PERIOD: Duration = Duration::from_secs(1);
/// The longest that readiness is held back after a refusal that lasts.
const LASTING_HOLD_MAX: Duration = Duration::from_secs(60);
/// After so many questions in a row that no broker answered, records that come anew are refused: one
/// broker of several may be silent alone.
const REFUSE_AFTER: u32 = 2;
/// After so many, what is under way is given up too. A pause of a second or two is waited for, as it
/// stays open whether what is given up was stored.
const GIVE_UP_AFTER: u32 = 4;
/// After so many healthy looks the topic is checked again.
const CHECK_EVERY: u32 = 5;

/// Appends to one topic.
pub struct KafkaAppender {
    shared: Arc<Shared>,
    upkeep: JoinHandle<()>,
    following: Option<JoinHandle<()>>,
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
    standing: Standing,
    /// Something failed that may need a new producer or a person, or Kafka seems to be away.
    look: Arc<Notify>,
    lasting: Mutex<Option<String>>,
    /// How long readiness is held back after the next refusal that lasts, while no record was
    /// confirmed since the last one.
    lasting_hold: Mutex<Duration>,
    intake: Intake,
    /// How many appends were decided so far.
    decided: AtomicU64,
}

impl KafkaAppender {
    /// Begins to connect; readiness is held back until the topic was found.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn open(
        config: &KafkaConfig,
        signals: Signals,
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
            intake: Intake::new(metrics.open()),
            metrics,
            standing: Standing::new(signals, readiness),
            look,
            lasting: Mutex::new(None),
            lasting_hold: Mutex::new(TOPIC_PERIOD),
            decided: AtomicU64::new(0),
        });
        let upkeep = tokio::spawn(upkeep(shared.clone()));
        let (credentials, readiness) = (config.credentials.clone(), readiness.clone());
        let refused = shared.metrics.files_refused.clone();
        let following = async move { credentials.follow(&readiness, &refused).await };
        // All streams have the same files.
        let following = signals.has(Signal::Metrics).then(|| tokio::spawn(following));
        Ok(Self { shared, upkeep, following })
    }
}

impl Drop for KafkaAppender {
    fn drop(&mut self) {
        self.upkeep.abort();
        if let Some(following) = &self.following {
            following.abort();
        }
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

    fn refusing(&self) -> Boxed<'_, AppendError> {
        Box::pin(self.shared.refusing())
    }
}

impl Shared {
    async fn append(&self, records: Vec<Record>) -> Result<(), AppendError> {
        let partitions = self.partitions.load(Ordering::Relaxed);
        if partitions == 0 {
            return Err(AppendError::unavailable("the topic is not known yet", RETRY_AFTER_MIN));
        }
        let count = records.len() as u64;
        let bytes: u64 = records.iter().map(|record| record.body.len() as u64).sum();
        let mut messages = Vec::with_capacity(records.len());
        for record in records {
            messages.push(self.message(record, partitions)?);
        }
        if let Some(reason) = self.intake.refuses() {
            return Err(AppendError::unavailable(reason, self.retry_after(0)));
        }
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let _sent = OnDrop(|| {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.decided.fetch_add(1, Ordering::Relaxed);
        });
        let began = Instant::now();
        let sent = tokio::select! {
            biased;
            reason = self.intake.given_up() => {
                return Err(AppendError::unavailable(reason, self.retry_after(0)));
            }
            sent = self.producer.send(messages) => sent,
        };
        match sent {
            Ok(_) => {
                *self.lasting_hold.lock().unwrap_or_else(PoisonError::into_inner) = TOPIC_PERIOD;
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
        AppendError::unavailable(error.reason, self.retry_after(queued))
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
                    self.standing.lost(error.to_string());
                    self.intake.set(Taking::Nothing(error.to_string()));
                    tokio::time::sleep(TOPIC_PERIOD).await;
                }
            }
        }
    }

    /// Ends at once when no record is taken that comes now, else when those under way are given up.
    async fn refusing(&self) -> AppendError {
        let reason = match self.intake.refuses() {
            Some(reason) => reason,
            None => self.intake.given_up().await,
        };
        AppendError::unavailable(reason, self.retry_after(0))
    }

    fn retry_after(&self, queued: u64) -> Duration {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.spread_retry_after(queued)
    }

    fn open(&self, partitions: u32) {
        self.partitions.store(partitions, Ordering::Relaxed);
        self.intake.set(Taking::All);
        self.standing.met();
    }

    /// While no broker answers, records are refused at once, also those that wait already, and
    /// nothing of them stays in the client: sent again, they would be stored twice. Readiness
    /// stays, as other gateways have no more of Kafka than this one.
    async fn wait_while_away(&self) {
        while let Err(error) = self.topics.reach(&self.config.topic).await {
            let reason = format!("no broker answers: {error}");
            let before = self.intake.set(Taking::Nothing(reason.clone()));
            if !matches!(before, Taking::Nothing(_)) {
                tracing::error!(reason, "Kafka is away, records are refused until it is back");
                self.replace_producer();
            }
            tokio::time::sleep(AWAY_PERIOD).await;
        }
        if self.intake.set(Taking::All) != Taking::All {
            tracing::info!("Kafka is back");
        }
    }

    /// Brokers that are frozen, or cut off, report nothing: those of which nothing was heard for a
    /// second are asked whether they are there, also while nobody writes. So the first to write learns
    /// at once that they are away.
    async fn ask_the_silent(&self) {
        let mut unanswered = 0;
        while let Err(error) = self.topics.reach(&self.config.topic).await {
            unanswered += 1;
            if unanswered >= GIVE_UP_AFTER {
                return self.wait_while_away().await;
            }
            if unanswered == REFUSE_AFTER {
                let reason = format!("brokers are silent: {error}");
                tracing::warn!(reason, "no broker answers, new records are refused meanwhile");
                self.intake.set(Taking::UnderWay(reason));
            }
        }
        if unanswered > 0 {
            self.intake.set(Taking::All);
        }
    }

    fn replace_producer(&self) {
        if let Err(error) = self.producer.replace() {
            tracing::error!(%error, "no new Kafka producer could be created");
        }
    }

    /// What keeps records out until a person or a new producer mends it; `None` when all is well.
    /// Gives how long readiness is held back at least, so that a fault that lasts is seen as one
    /// and not as many: where we may not produce, only a record can find that out.
    fn mend(&self) -> Option<Duration> {
        let lasting = self.lasting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reason) = lasting {
            tracing::error!(reason, "the journal refuses records");
            self.standing.lost(reason);
            let mut hold = self.lasting_hold.lock().unwrap_or_else(PoisonError::into_inner);
            let now = *hold;
            *hold = (now * 2).min(LASTING_HOLD_MAX);
            return Some(now);
        }
        let reason = self.producer.fatal_error()?;
        tracing::error!(reason, "the Kafka producer failed for good, replacing it");
        self.standing.lost(reason);
        self.replace_producer();
        Some(TOPIC_PERIOD)
    }
}

async fn upkeep(shared: Arc<Shared>) {
    shared.find_topic().await;
    let (mut healthy, mut decided) = (0, 0);
    loop {
        tokio::select! {
            () = shared.look.notified() => shared.wait_while_away().await,
            () = tokio::time::sleep(HEALTH_PERIOD) => {}
        }
        let before = std::mem::replace(&mut decided, shared.decided.load(Ordering::Relaxed));
        if before == decided {
            shared.ask_the_silent().await;
        }
        if let Some(hold) = shared.mend() {
            tokio::time::sleep(hold).await;
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
