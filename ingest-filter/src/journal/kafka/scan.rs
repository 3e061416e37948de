//! Reading a topic from one end to the other, outside of any group: what it holds now, and no
//! further. Blocking.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::journal::ScanError;
use crate::journal::config::KafkaConfig;
use crate::journal::kafka::client;
use crate::journal::kafka::context::Quiet;
use crate::journal::kafka::offsets::{ByPartition, Offsets};

/// How long the brokers may be silent before a scan is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// One message.
pub struct Found<'a> {
    message: &'a BorrowedMessage<'a>,
}

impl<'a> Found<'a> {
    /// Its partition.
    pub fn partition(&self) -> i32 {
        self.message.partition()
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.message.offset()
    }

    /// When it was stored, milliseconds since 1970.
    pub fn at_ms(&self) -> i64 {
        self.message.timestamp().to_millis().unwrap_or(0)
    }

    /// Its headers.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let headers = self.message.headers().into_iter();
        headers.flat_map(|headers| headers.iter().map(|header| (header.key, header.value)))
    }

    /// Its bytes.
    pub fn body(&self) -> &'a [u8] {
        self.message.payload().unwrap_or_default()
    }
}

/// Where a scan begins and ends.
pub struct Range {
    /// The first offset of each partition.
    pub from: ByPartition,
    /// The offset behind the last one.
    pub to: ByPartition,
}

impl Range {
    /// Everything, or what was stored from `since_ms` on.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub fn of(offsets: &Offsets, since_ms: Option<i64>) -> Result<Self, ScanError> {
        let partitions = offsets.partitions()?;
        let to = offsets.ends(&partitions)?;
        let mut from = offsets.beginnings(&partitions)?;
        if let Some(since) = since_ms {
            let found = offsets.since(&partitions, since)?;
            // Nothing since then: from the end on.
            from.extend(to.iter().map(|(partition, end)| {
                (*partition, found.get(partition).copied().unwrap_or(*end))
            }));
        }
        Ok(Self { from, to })
    }

    /// How many records there are at most.
    pub fn records(&self) -> u64 {
        let of = |(partition, to): (&i32, &i64)| {
            to.saturating_sub(self.from.get(partition).copied().unwrap_or(*to)).max(0) as u64
        };
        self.to.iter().map(of).sum()
    }
}

/// Hands out every message of the range, until told to stop.
///
/// # Errors
/// When the brokers do not answer for half a minute.
pub fn scan(
    config: &KafkaConfig,
    range: &Range,
    mut each: impl FnMut(Found<'_>) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let mut left: ByPartition = range.to.clone();
    left.retain(|partition, to| range.from.get(partition).is_some_and(|from| from < to));
    if left.is_empty() {
        return Ok(());
    }
    let mut client = client(config);
    client
        .set("group.id", format!("{}-scan", config.group))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("statistics.interval.ms", "0")
        .set("queued.max.messages.kbytes", "16384");
    let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet::new(config))?;
    let mut list = TopicPartitionList::new();
    for partition in left.keys() {
        let from = range.from.get(partition).copied().unwrap_or(0);
        list.add_partition_offset(&config.topic, *partition, Offset::Offset(from))?;
    }
    consumer.assign(&list)?;
    let mut heard = Instant::now();
    while !left.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let (partition, offset) = (message.partition(), message.offset());
                let Some(to) = left.get(&partition).copied() else { continue };
                if offset < to && each(Found { message: &message }).is_break() {
                    return Ok(());
                }
                if offset + 1 >= to {
                    left.remove(&partition);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = Instant::now();
                left.remove(&partition);
            }
            Some(Err(error)) if heard.elapsed() >= SILENCE_MAX => return Err(error.into()),
            None if heard.elapsed() >= SILENCE_MAX => return Err(ScanError::Silence),
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}
