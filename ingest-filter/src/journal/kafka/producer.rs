//! A producer that confirms every message or says why not, within a deadline of our own, and
//! that is replaced when it fails for good.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rdkafka::ClientContext;
use rdkafka::Statistics;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::{Notify, oneshot};

use crate::journal::config::KafkaConfig;
use crate::journal::envelope;
use crate::journal::kafka::context::Login;
use crate::journal::kafka::fault::{Fault, classify};
use crate::journal::kafka::placement::Placement;
use crate::journal::kafka::renewed::Renewed;
use crate::journal::kafka::ticket::Ticket;
use crate::journal::kafka::topic::placements;
use crate::journal::kafka::{client, log, report};
use crate::journal::metrics::JournalMetrics;
use crate::journal::room::{Held, Room};

/// How long after `delivery_timeout` we stop waiting: with all brokers down the client's own
/// time-out comes late.
const GRACE: Duration = Duration::from_secs(1);
/// Messages the client queues at most, whatever their size.
const QUEUE_MESSAGES_MAX: u64 = 100_000;

/// One message to be sent.
pub(super) struct Message {
    pub partition: Option<i32>,
    /// The tenant of a record.
    pub key: Option<Bytes>,
    /// Headers of somebody else, in front of ours.
    pub foreign_headers: Vec<(String, Option<Bytes>)>,
    pub headers: Vec<envelope::Header>,
    pub body: Bytes,
    /// Its place among those under way to the partition, where these are counted.
    pub ticket: Option<Ticket>,
}

/// Why messages were not confirmed.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct SendError {
    pub fault: Fault,
    pub reason: String,
}

/// Sends messages to one topic.
pub(super) struct Producer {
    topic: String,
    delivery_timeout: Duration,
    observer: Option<Observer>,
    client: Renewed<Client>,
}

/// A client of the library, and the room of the queue in it.
struct Client {
    producer: ThreadedProducer<Context>,
    /// Where the queue is shared among keys.
    room: Option<Room>,
}

/// What the client gives back with the delivery report of a message, however late that comes.
struct Sent {
    answer: oneshot::Sender<Result<i64, KafkaError>>,
    _held: Option<Held>,
}

/// Who is told what the client says of itself.
#[derive(Clone)]
pub(super) struct Observer {
    pub metrics: JournalMetrics,
    /// Notified when no broker is connected.
    pub brokers_down: Arc<Notify>,
}

/// Takes what the client says of itself.
struct Context {
    observer: Option<Observer>,
    login: Login,
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn stats(&self, statistics: Statistics) {
        if let Some(Observer { metrics, .. }) = &self.observer {
            metrics.queue_bytes.set(i64::try_from(statistics.msg_size).unwrap_or(i64::MAX));
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report("producer", &error, reason);
        let down = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if let Some(observer) = self.observer.as_ref().filter(|_| down) {
            observer.brokers_down.notify_one();
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.login.token()
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let stored = result.as_ref().map(|message| message.offset());
        // Perhaps nobody waits for it any more.
        let _ = sent.answer.send(stored.map_err(|(error, _)| error.clone()));
    }
}

impl Producer {
    /// One whose queue all messages share, or one with an observer: its queue is shared among keys,
    /// which are tenants.
    pub fn new(
        topic: &str,
        config: &KafkaConfig,
        message_bytes_max: u64,
        observer: Option<Observer>,
    ) -> Result<Self, KafkaError> {
        let (owned, for_clients) = (config.clone(), observer.clone());
        let build = move || {
            let producer = create(&owned, message_bytes_max, for_clients.clone())?;
            let room = || Room::new(owned.queue_bytes_max, QUEUE_MESSAGES_MAX);
            Ok(Client { producer, room: for_clients.as_ref().map(|_| room()) })
        };
        Ok(Self {
            topic: topic.to_owned(),
            delivery_timeout: config.delivery_timeout,
            observer,
            client: Renewed::new(config, build)?,
        })
    }

    /// Where messages go.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Sends all messages and waits until it is known of each whether it was stored: after an
    /// error none of them is still under way, but for what a deadline cut off. Gives the highest
    /// offset.
    pub async fn send(&self, messages: Vec<Message>) -> Result<i64, SendError> {
        let deadline = self.delivery_timeout + GRACE;
        let sent = tokio::time::timeout(deadline, self.send_all(messages)).await;
        sent.unwrap_or_else(|_| {
            let reason = format!("no confirmation within {} s", deadline.as_secs_f64());
            Err(SendError { fault: Fault::Passing, reason })
        })
    }

    async fn send_all(&self, messages: Vec<Message>) -> Result<i64, SendError> {
        let client = self.client.current();
        let (mut deliveries, mut highest) = (FuturesUnordered::new(), Ok(-1));
        // The client has a copy of what it took, and one is enough.
        for mut message in messages {
            loop {
                match self.enqueue(&client, &message) {
                    Ok(delivery) => deliveries.push(confirmed(delivery, message.ticket.take())),
                    // More than the queue holds: the rest goes as what is ours in it is stored.
                    Err(SendError { fault: Fault::QueueFull, .. }) if !deliveries.is_empty() => {
                        if let Some(stored) = deliveries.next().await {
                            highest = later(highest, stored);
                        }
                        if highest.is_ok() {
                            continue;
                        }
                    }
                    Err(error) => highest = highest.and(Err(error)),
                }
                break;
            }
            if highest.is_err() {
                break;
            }
        }
        while let Some(stored) = deliveries.next().await {
            highest = later(highest, stored);
        }
        highest
    }

    /// Where the partitions are. The client learns it too, so what it sends goes to the new leader of
    /// a partition; by itself it asks only when a broker has refused it or hung up.
    pub async fn placements(&self, timeout: Duration) -> Option<Vec<Placement>> {
        let (client, topic) = (self.client.current(), self.topic.clone());
        let ask = move || client.producer.client().fetch_metadata(Some(&topic), timeout);
        let metadata = tokio::task::spawn_blocking(ask).await.ok()?.ok()?;
        placements(&metadata, &self.topic).ok()
    }

    /// What went wrong for good with the producer in use, if something did.
    pub fn fatal_error(&self) -> Option<String> {
        let (code, reason) = self.client.current().producer.client().fatal_error()?;
        Some(format!("{code}: {reason}"))
    }

    /// Puts a new producer in the place of one that failed for good. What nobody waits for any more
    /// is thrown away with the old one.
    pub fn replace(&self) -> Result<(), KafkaError> {
        // At once, as brokers may be back before the old client is gone.
        self.client.current().producer.purge(PurgeConfig::default().queue().inflight());
        self.client.replace()?;
        if let Some(Observer { metrics, .. }) = &self.observer {
            metrics.producer_rebuilds.inc();
        }
        Ok(())
    }

    /// What the queue holds, where it is shared among keys: bytes.
    pub fn queued_bytes(&self) -> u64 {
        self.client.current().room.as_ref().map_or(0, Room::taken)
    }

    fn enqueue(&self, client: &Client, message: &Message) -> Result<Delivery, SendError> {
        let held = match (&client.room, &message.key) {
            (Some(room), Some(key)) => {
                let held = room.take(key, message.body.len() as u64);
                Some(held.ok_or_else(|| SendError {
                    fault: Fault::QueueFull,
                    reason: "the tenant has its part of the queue".to_owned(),
                })?)
            }
            _ => None,
        };
        let count = message.foreign_headers.len() + message.headers.len();
        let mut headers = OwnedHeaders::new_with_capacity(count);
        for (key, value) in &message.foreign_headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: Some(value.as_bytes()) });
        }
        let (answer, delivery) = oneshot::channel();
        let sent = Box::new(Sent { answer, _held: held });
        let mut record: BaseRecord<'_, [u8], [u8], _> =
            BaseRecord::with_opaque_to(&self.topic, sent)
                .payload(&message.body[..])
                .headers(headers);
        if let Some(key) = &message.key {
            record = record.key(&key[..]);
        }
        if let Some(partition) = message.partition {
            record = record.partition(partition);
        }
        match client.producer.send(record) {
            Ok(()) => Ok(delivery),
            Err((error, _)) => Err(failed(&error)),
        }
    }
}

/// The offset of a message, once the client knows it, or why there is none.
type Delivery = oneshot::Receiver<Result<i64, KafkaError>>;

/// The later of two offsets; the first error counts.
fn later(so_far: Result<i64, SendError>, next: Result<i64, SendError>) -> Result<i64, SendError> {
    let so_far = so_far?;
    next.map(|offset| offset.max(so_far))
}

/// The offset of a message that was stored.
async fn confirmed(delivery: Delivery, ticket: Option<Ticket>) -> Result<i64, SendError> {
    match delivery.await {
        Ok(Ok(offset)) => {
            ticket.into_iter().for_each(Ticket::confirmed);
            Ok(offset)
        }
        Ok(Err(error)) => Err(failed(&error)),
        // The producer was replaced under us.
        Err(_) => Err(failed(&KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue))),
    }
}

fn failed(error: &KafkaError) -> SendError {
    SendError { fault: classify(error), reason: error.to_string() }
}

fn create(
    config: &KafkaConfig,
    message_bytes_max: u64,
    observer: Option<Observer>,
) -> Result<ThreadedProducer<Context>, KafkaError> {
    let queue_kib = (config.queue_bytes_max >> 10).clamp(1, i32::MAX as u64);
    client(config)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("delivery.timeout.ms", config.delivery_timeout.as_millis().to_string())
        .set("queue.buffering.max.kbytes", queue_kib.to_string())
        .set("queue.buffering.max.messages", QUEUE_MESSAGES_MAX.to_string())
        // Records are batches already: waiting longer would only add latency.
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "10000")
        .set("compression.type", "zstd")
        .set("compression.level", "1")
        .set("message.max.bytes", message_bytes_max.min(1_000_000_000).to_string())
        // For messages without a partition of their own: where a Java client would put them.
        .set("partitioner", "murmur2_random")
        .create_with_context(Context { observer, login: Login::new(config) })
}
