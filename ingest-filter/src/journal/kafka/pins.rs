//! The log of pins as a topic of one partition that forgets nothing. Every gateway reads all of
//! it; a pin counts as stored when this gateway has read it back, and with it all that came
//! before.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chassis::readiness::{Condition, Readiness, Vital};
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::journal::config::KafkaConfig;
use crate::journal::kafka::brokers::{Brokers, PERIOD};
use crate::journal::kafka::client;
use crate::journal::kafka::context::Quiet;
use crate::journal::kafka::producer::{Message, Producer};
use crate::journal::kafka::progress::Hold;
use crate::journal::kafka::renewed::Renewal;
use crate::journal::kafka::ticket::{Tickets, Wait};
use crate::journal::kafka::topic::{TopicError, Topics};
use crate::journal::pins::PinLog;
use crate::journal::{Append, AppendError, OpenError};
use crate::types::{Pin, Types};

/// The one partition that is used: order decides.
const PARTITION: i32 = 0;
/// Lines are put together to messages of this size.
const MESSAGE_BYTES: usize = 32 << 10;
/// How long it may take to read back what was confirmed.
const READ_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// When a failed append is worth trying again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How often a topic that cannot be used is tried again.
const TOPIC_PERIOD: Duration = Duration::from_secs(1);
/// How often it is looked whether the topic still does.
const CHECK_PERIOD: Duration = Duration::from_secs(5);

/// Appends to the topic and reads it.
pub struct KafkaPins {
    producer: Arc<Producer>,
    /// Of the one partition.
    tickets: Tickets,
    state: Arc<State>,
    reader: JoinHandle<()>,
    looking: JoinHandle<()>,
}

/// How far the topic is read.
#[derive(Default)]
struct State {
    /// Everything before this offset was handed to the types.
    read: watch::Sender<i64>,
    /// Why nothing is stored at present.
    refusal: Mutex<Option<String>>,
}

impl KafkaPins {
    /// Begins to read; readiness is held back until everything there is was read.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn open(
        config: &KafkaConfig,
        types: Arc<Types>,
        readiness: &Readiness,
    ) -> Result<Self, OpenError> {
        let topic = &config.types_topic;
        let producer = Producer::new(topic, config, config.message_bytes_max, None);
        let producer = Arc::new(producer.map_err(OpenError::Kafka)?);
        let topics = Topics::new(config).map_err(OpenError::Kafka)?;
        let tickets = Tickets::new(None);
        let vital = readiness.vital("looking at the brokers of the types");
        let looking = look(topics.clone(), producer.clone(), tickets.clone(), vital);
        let looking = tokio::spawn(looking);
        let state = Arc::<State>::default();
        let reader = Reader {
            topics,
            producer: producer.clone(),
            consumer: consumer(config).map_err(OpenError::Kafka)?,
            config: config.clone(),
            topic: topic.clone(),
            types,
            condition: readiness.condition("field types", "the topic of types is not read yet"),
            state: state.clone(),
        };
        let reader = tokio::spawn(reader.run(readiness.vital("reading the types of fields")));
        Ok(Self { producer, tickets, state, reader, looking })
    }

    async fn store(&self, pins: &[Pin]) -> Result<(), AppendError> {
        let unavailable = |reason: String| AppendError::unavailable(reason, RETRY_AFTER);
        if let Some(reason) = self.state.refusal() {
            return Err(unavailable(reason));
        }
        let before = *self.state.read.borrow();
        let mut messages = messages(pins);
        let wait = |message: &Message| Wait {
            partition: PARTITION.unsigned_abs(),
            bytes: message.body.len() as u64,
            tenant: None,
        };
        let waits_for: Vec<Wait> = messages.iter().map(wait).collect();
        let held = |hold: Hold| unavailable(hold.to_string());
        let tickets = self.tickets.take(&waits_for).map_err(held)?;
        for (message, ticket) in messages.iter_mut().zip(tickets) {
            message.ticket = Some(ticket);
        }
        let sent = tokio::select! {
            sent = self.producer.send(messages) => sent,
            hold = self.tickets.given_up(&waits_for) => return Err(held(hold)),
        };
        if sent.is_err() && self.producer.fatal_error().is_some() {
            self.producer.replace().map_err(|error| unavailable(error.to_string()))?;
        }
        let last = sent.map_err(|error| unavailable(error.reason))?;
        if last < before {
            // The topic was made again, and is read from its beginning.
            self.state.read.send_if_modified(|read| {
                let is_of_the_old = *read >= before;
                *read = if is_of_the_old { 0 } else { *read };
                is_of_the_old
            });
        }
        let mut read = self.state.read.subscribe();
        let reached = read.wait_for(|read| *read > last);
        match tokio::time::timeout(READ_BACK_TIMEOUT, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(unavailable("the types of fields were not read back".to_owned())),
        }
    }
}

impl State {
    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refuse(&self, reason: Option<String>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

impl PinLog for KafkaPins {
    fn append(&self, pins: Vec<Pin>) -> Append<'_> {
        Box::pin(async move {
            let stored = self.store(&pins).await;
            if let Err(error) = &stored {
                tracing::warn!(%error, "the types of fields were not kept");
            }
            stored
        })
    }
}

impl Drop for KafkaPins {
    fn drop(&mut self) {
        self.reader.abort();
        self.looking.abort();
    }
}

/// Whether the brokers of the topic answer; never ends. While they do not, nobody waits for them.
async fn look(topics: Topics, producer: Arc<Producer>, tickets: Tickets, _vital: Vital) {
    let topic = producer.topic();
    let mut brokers = loop {
        match topics.durable_types(topic).await {
            Ok((placements, in_sync_min)) => break Brokers::new(placements, in_sync_min),
            // The reader says why.
            Err(_) => tokio::time::sleep(TOPIC_PERIOD).await,
        }
    };
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        brokers.look(&topics, &producer, &tickets).await;
    }
}

/// Several lines a message.
fn messages(pins: &[Pin]) -> Vec<Message> {
    let mut bodies = vec![Vec::new()];
    for pin in pins {
        if bodies.last().is_some_and(|body: &Vec<u8>| body.len() >= MESSAGE_BYTES) {
            bodies.push(Vec::new());
        }
        if let Some(body) = bodies.last_mut() {
            pin.write_line(body);
        }
    }
    let message = |body: Vec<u8>| Message {
        partition: Some(PARTITION),
        key: None,
        headers: Vec::new(),
        foreign_headers: Vec::new(),
        body: body.into(),
        ticket: None,
    };
    bodies.into_iter().map(message).collect()
}

fn consumer(config: &KafkaConfig) -> Result<StreamConsumer<Quiet>, KafkaError> {
    client(config)
        // A name is demanded; the partition is assigned by hand and no offset is ever stored.
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("statistics.interval.ms", "0")
        .create_with_context(Quiet::new(config))
}

struct Reader {
    topics: Topics,
    producer: Arc<Producer>,
    consumer: StreamConsumer<Quiet>,
    config: KafkaConfig,
    topic: String,
    types: Arc<Types>,
    condition: Condition,
    state: Arc<State>,
}

impl Reader {
    /// Never ends.
    async fn run(mut self, _vital: Vital) {
        let mut renewal = Renewal::new(&self.config);
        self.find_topic().await;
        loop {
            let lost = match self.assign() {
                Ok(()) => tokio::select! {
                    never = self.follow() => match never {},
                    reason = self.unfit() => Some(reason),
                    // With new files for its login another client reads on.
                    () = renewal.due() => None,
                },
                Err(error) => Some(error.to_string()),
            };
            if let Some(reason) = lost {
                self.lose(reason);
                self.find_topic().await;
            }
            match consumer(&self.config) {
                Ok(consumer) => {
                    renewal.done();
                    self.consumer = consumer;
                }
                Err(error) => renewal.failed(&error, Instant::now()),
            }
        }
    }

    /// Waits until the topic can be used.
    async fn find_topic(&self) {
        while let Err(error) = self.topics.durable_types(&self.topic).await {
            self.condition.lost(error.to_string());
            tokio::time::sleep(TOPIC_PERIOD).await;
        }
        self.state.refuse(None);
    }

    /// Waits until the topic is gone or may lose what it has. That brokers are away is no such thing.
    async fn unfit(&self) -> String {
        loop {
            tokio::time::sleep(CHECK_PERIOD).await;
            let found = self.topics.found_types(&self.topic).await;
            if let Err(error @ (TopicError::Unsound { .. } | TopicError::Missing(_))) = found {
                return error.to_string();
            }
        }
    }

    /// Stores nothing until the topic is found again, which is then read from its beginning: it may
    /// be another one of the same name. What was pinned stays pinned.
    fn lose(&self, reason: String) {
        tracing::error!(reason, "the topic of types does not do");
        self.condition.lost(reason.clone());
        self.state.refuse(Some(reason));
        self.state.read.send_replace(0);
        if let Err(error) = self.producer.replace() {
            tracing::error!(%error, "no new Kafka producer could be created");
        }
    }

    /// Reads from where it has come to.
    fn assign(&self) -> KafkaResult<()> {
        let from = match *self.state.read.borrow() {
            0 => Offset::Beginning,
            next => Offset::Offset(next),
        };
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(&self.topic, PARTITION, from)?;
        self.consumer.assign(&all)
    }

    async fn follow(&self) -> Infallible {
        loop {
            match self.consumer.recv().await {
                Ok(message) => {
                    self.restore(message.payload().unwrap_or_default());
                    self.state.read.send_replace(message.offset() + 1);
                }
                Err(KafkaError::PartitionEOF(_)) => self.condition.met(),
                Err(error) => tracing::warn!(%error, "the topic of types is not read at present"),
            }
        }
    }

    fn restore(&self, body: &[u8]) {
        for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match Pin::from_line(line) {
                Some(pin) => _ = self.types.restore(&pin),
                None => tracing::error!("a line of the topic of types holds no type of a field"),
            }
        }
    }
}
