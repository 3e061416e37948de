//! The gateway's side of the Kafka journal.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chassis::readiness::Readiness;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::journal::config::{KafkaConfig, RECORD_EXTRA_BYTES};
use crate::journal::drain_rate::{DrainRate, RETRY_AFTER_MIN};
use crate::journal::kafka::fault::Fault;
use crate::journal::kafka::partition::partition;
use crate::journal::kafka::producer::{Message, Observer, Producer, SendError};
use crate::journal::kafka::progress::Hold;
use crate::journal::kafka::standing::Standing;
use crate::journal::kafka::taking::Intake;
use crate::journal::kafka::ticket::{Tickets, Wait};
use crate::journal::kafka::topic::Topics;
use crate::journal::metrics::JournalMetrics;
use crate::journal::room::Room;
use crate::journal::{Append, AppendError, Boxed, Journal, OpenError, envelope};
use crate::record::Record;
use crate::signal::{Signal, Signals};

mod upkeep;

/// Partitions that confirm nothing are given at most one of so many parts of the queue meanwhile.
const SLOW_PART: u64 = 2;
/// How long readiness is held back after a refusal that lasts, at first.
const LASTING_HOLD: Duration = Duration::from_secs(1);

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
    rate: Mutex<DrainRate>,
    /// How many partitions are held, so that their records are refused.
    refused_partitions: Gauge,
    metrics: JournalMetrics,
    standing: Standing,
    /// Something failed that may need a new producer or a person, or for which a broker may be silent.
    look: Notify,
    /// The producer has no connection to any broker.
    no_connection: Arc<Notify>,
    lasting: Mutex<Option<String>>,
    /// How long readiness is held back after the next refusal that lasts, while no record was
    /// confirmed since the last one.
    lasting_hold: Mutex<Duration>,
    intake: Intake,
    tickets: Tickets,
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
        let no_connection = Arc::new(Notify::new());
        let seen = Observer { metrics: metrics.clone(), brokers_down: no_connection.clone() };
        let producer = Producer::new(&config.topic, config, bytes_max, Some(seen));
        let shared = Arc::new(Shared {
            producer: producer.map_err(OpenError::Kafka)?,
            topics: Topics::new(config).map_err(OpenError::Kafka)?,
            config: config.clone(),
            partitions: AtomicU32::new(0),
            rate: Mutex::new(DrainRate::new(Instant::now())),
            intake: Intake::new(metrics.open()),
            refused_partitions: metrics.refused_partitions(),
            metrics,
            standing: Standing::new(signals, readiness),
            look: Notify::new(),
            no_connection,
            lasting: Mutex::new(None),
            lasting_hold: Mutex::new(LASTING_HOLD),
            tickets: Tickets::new(Some(Room::new(config.queue_bytes_max / SLOW_PART, u64::MAX))),
        });
        let upkeep = tokio::spawn(upkeep::run(shared.clone(), readiness.vital("journal upkeep")));
        let (credentials, readiness) = (config.credentials.clone(), readiness.clone());
        let refused = shared.metrics.files_refused.clone();
        let following = async move {
            let _vital = readiness.vital("following the files for Kafka");
            credentials.follow(&readiness, &refused).await;
        };
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
        let waits_for: Vec<Wait> = messages.iter().map(wait).collect();
        let tickets = self.tickets.take(&waits_for).map_err(|hold| self.held(&hold))?;
        for (message, ticket) in messages.iter_mut().zip(tickets) {
            message.ticket = Some(ticket);
        }
        let began = Instant::now();
        let sent = tokio::select! {
            biased;
            reason = self.intake.given_up() => {
                return Err(AppendError::unavailable(reason, self.retry_after(0)));
            }
            sent = self.producer.send(messages) => sent,
            hold = self.tickets.given_up(&waits_for) => return Err(self.held(&hold)),
        };
        match sent {
            Ok(_) => {
                *self.lasting_hold.lock().unwrap_or_else(PoisonError::into_inner) = LASTING_HOLD;
                self.metrics.appended_records.inc_by(count);
                self.metrics.appended_bytes.inc_by(bytes);
                let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
                rate.confirmed(bytes, began.elapsed(), Instant::now());
                Ok(())
            }
            Err(error) => Err(self.refuse(error, self.producer.queued_bytes() + bytes)),
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
            ticket: None,
        })
    }

    fn held(&self, hold: &Hold) -> AppendError {
        AppendError::unavailable(hold.to_string(), self.retry_after(0))
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
            // Perhaps a broker is silent: the sooner it is asked, the sooner that is known.
            Fault::Passing => self.look.notify_one(),
            Fault::QueueFull => {}
        }
        AppendError::unavailable(error.reason, self.retry_after(queued))
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
}

fn wait(message: &Message) -> Wait {
    Wait {
        partition: message.partition.unwrap_or(0).unsigned_abs(),
        bytes: message.body.len() as u64,
        tenant: message.key.clone(),
    }
}
