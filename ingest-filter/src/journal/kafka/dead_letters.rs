//! Dead letters as messages of a topic of their own.
//!
//! A letter of points has the headers of a record; a letter of something else has the key and the
//! headers it came with, so that it is no record wherever it is read. Both have headers of their
//! own that say why they are letters.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::journal::config::KafkaConfig;
use crate::journal::dead_letter::{DeadLetter, DeadLetters};
use crate::journal::kafka::offsets::Offsets;
use crate::journal::kafka::producer::{Message, Producer};
use crate::journal::kafka::scan::{Range, scan};
use crate::journal::kafka::topic::{DEAD_LETTER_EXTRA_BYTES, Topics};
use crate::journal::stored_letter::{self, Entry, REPLAYS};
use crate::journal::{Append, AppendError, OpenError, Original, ScanError, envelope};
use crate::record::Record;

/// When a failed append is worth trying again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Appends to the dead letters' topic.
pub struct KafkaDeadLetters {
    producer: Producer,
    topics: Topics,
    topic: String,
    records_topic: String,
    found: AtomicBool,
}

impl KafkaDeadLetters {
    /// Connects when first used.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn open(config: &KafkaConfig) -> Result<Self, OpenError> {
        let bytes_max = config.message_bytes_max + DEAD_LETTER_EXTRA_BYTES;
        let producer = Producer::new(&config.dead_letter_topic, config, bytes_max, None);
        Ok(Self {
            producer: producer.map_err(OpenError::Kafka)?,
            topics: Topics::new(config).map_err(OpenError::Kafka)?,
            topic: config.dead_letter_topic.clone(),
            records_topic: config.topic.clone(),
            found: AtomicBool::new(false),
        })
    }

    async fn store(&self, messages: Vec<Message>) -> Result<(), AppendError> {
        let unavailable = |error: &dyn std::fmt::Display| {
            AppendError::unavailable(error.to_string(), RETRY_AFTER)
        };
        if !self.found.load(Ordering::Relaxed) {
            self.topics.dead_letters(&self.topic).await.map_err(|error| unavailable(&error))?;
            self.found.store(true, Ordering::Relaxed);
        }
        let sent = self.producer.send(messages).await;
        if sent.is_err() {
            // Somebody may have removed the topic: it is looked for, and made if it may be, before the next
            // try.
            self.found.store(false, Ordering::Relaxed);
            if self.producer.fatal_error().is_some() {
                self.producer.replace().map_err(|error| unavailable(&error))?;
            }
        }
        sent.map(|_| ()).map_err(|error| unavailable(&error))
    }

    fn message(&self, letter: DeadLetter) -> Message {
        let mut why = vec![
            ("tg-cause", letter.cause.name().to_owned()),
            ("tg-status", letter.status.to_string()),
            ("tg-message", letter.message),
            ("tg-attempts", letter.attempts.to_string()),
            ("tg-source-topic", self.records_topic.clone()),
            ("tg-source-partition", letter.partition.to_string()),
            ("tg-source-offset", letter.position.to_string()),
        ];
        if let Some(original) = letter.original {
            let Original { key, headers: foreign_headers } = original;
            return Message {
                partition: None,
                key,
                foreign_headers,
                headers: why,
                body: letter.body,
                ticket: None,
            };
        }
        let record = Record {
            tenant: letter.tenant,
            database: letter.database,
            shard: letter.shard,
            points: letter.points,
            admitted_at_ns: letter.admitted_at_ns,
            request_id: letter.request_id,
            traceparent: letter.traceparent,
            body: letter.body,
        };
        let mut headers = envelope::headers(&record);
        headers.append(&mut why);
        let key = Some(Bytes::from(record.tenant));
        Message {
            partition: None,
            key,
            foreign_headers: Vec::new(),
            headers,
            body: record.body,
            ticket: None,
        }
    }
}

impl DeadLetters for KafkaDeadLetters {
    fn append(&self, letters: Vec<DeadLetter>) -> Append<'_> {
        Box::pin(self.store(letters.into_iter().map(|letter| self.message(letter)).collect()))
    }

    fn mark_replayed(&self, ids: Vec<String>) -> Append<'_> {
        let mark = |id: String| Message {
            partition: None,
            key: None,
            foreign_headers: Vec::new(),
            headers: vec![(REPLAYS, id)],
            body: Bytes::new(),
            ticket: None,
        };
        Box::pin(self.store(ids.into_iter().map(mark).collect()))
    }
}

/// Reads the topic as it is now, until told to stop. What is no letter is passed over.
///
/// # Errors
/// When the brokers do not give it.
pub fn read(
    config: &KafkaConfig,
    since_ms: Option<i64>,
    each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let letters = KafkaConfig { topic: config.dead_letter_topic.clone(), ..config.clone() };
    let range = Range::of(&Offsets::new(&letters)?, since_ms)?;
    scan(&letters, &range, |found| {
        let id = format!("{}:{}", found.partition(), found.offset());
        let body = Bytes::copy_from_slice(found.body());
        match stored_letter::of_headers(id, found.at_ms(), found.headers(), body) {
            Some(entry) => each(entry),
            None => ControlFlow::Continue(()),
        }
    })
}
