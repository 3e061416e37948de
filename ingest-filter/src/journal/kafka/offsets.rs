//! What the brokers know of a topic's partitions: where each ends and begins, and how far the
//! group has come. Blocking; the client is one of its own, so that no answer waits for a poll.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use crate::journal::config::KafkaConfig;
use crate::journal::kafka::client;
use crate::journal::kafka::context::Quiet;
use crate::journal::kafka::renewed::Renewed;

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Offsets by partition.
pub type ByPartition = BTreeMap<i32, i64>;

/// Asks the brokers.
pub struct Offsets {
    consumer: Renewed<BaseConsumer<Quiet>>,
    topic: String,
    group: String,
}

impl Offsets {
    /// Of the records' topic; connects when first used and joins no group.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn new(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let owned = config.clone();
        let build = move || {
            let mut client = client(&owned);
            client
                .set("group.id", &owned.group)
                .set("enable.auto.commit", "false")
                .set("statistics.interval.ms", "0");
            client.create_with_context(Quiet::new(&owned))
        };
        let (topic, group) = (config.topic.clone(), config.group.clone());
        Ok(Self { consumer: Renewed::new(config, build)?, topic, group })
    }

    /// The client. What it asks us, such as a token, it is answered here; it has no records.
    fn consumer(&self) -> Arc<BaseConsumer<Quiet>> {
        let consumer = self.consumer.current();
        drop(consumer.poll(Duration::ZERO));
        consumer
    }

    /// All partitions of the topic.
    ///
    /// # Errors
    /// When no broker says so in time.
    pub fn partitions(&self) -> KafkaResult<Vec<i32>> {
        let metadata = self.consumer().fetch_metadata(Some(&self.topic), TIMEOUT)?;
        let topics = metadata.topics().iter().filter(|topic| topic.name() == self.topic);
        Ok(topics.flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect())
    }

    /// The offset that the next record of each partition will have.
    ///
    /// # Errors
    /// As [`Self::partitions`].
    pub fn ends(&self, partitions: &[i32]) -> KafkaResult<ByPartition> {
        // To the brokers the newest and the oldest record are times of their own.
        self.at(partitions, Offset::End)
    }

    /// The offset of the oldest record that each partition still has.
    ///
    /// # Errors
    /// As [`Self::partitions`].
    pub fn beginnings(&self, partitions: &[i32]) -> KafkaResult<ByPartition> {
        self.at(partitions, Offset::Beginning)
    }

    /// The first record of each partition from this time on; none where there is none.
    ///
    /// # Errors
    /// As [`Self::partitions`].
    pub fn since(&self, partitions: &[i32], at_ms: i64) -> KafkaResult<ByPartition> {
        self.at(partitions, Offset::Offset(at_ms.max(0)))
    }

    /// Up to where the group has committed, where it has.
    ///
    /// # Errors
    /// As [`Self::partitions`].
    pub fn committed(&self, partitions: &[i32]) -> KafkaResult<ByPartition> {
        if partitions.is_empty() {
            return Ok(ByPartition::new());
        }
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        Ok(of(&self.consumer().committed_offsets(list, TIMEOUT)?))
    }

    /// How many writers are in the group.
    ///
    /// # Errors
    /// As [`Self::partitions`].
    pub fn writers(&self) -> KafkaResult<usize> {
        let list = self.consumer().fetch_group_list(Some(&self.group), TIMEOUT)?;
        Ok(list.groups().iter().map(|group| group.members().len()).sum())
    }

    fn at(&self, partitions: &[i32], offset: Offset) -> KafkaResult<ByPartition> {
        // A topic that does not exist yet has none, and librdkafka refuses an empty question.
        if partitions.is_empty() {
            return Ok(ByPartition::new());
        }
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&self.topic, *partition, offset)?;
        }
        Ok(of(&self.consumer().offsets_for_times(list, TIMEOUT)?))
    }
}

/// The offsets of a list that are offsets.
pub(super) fn of(list: &TopicPartitionList) -> ByPartition {
    let elements = list.elements();
    let known = elements.iter().filter(|element| element.error().is_ok());
    known
        .filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        })
        .collect()
}
