//! Making sure that a topic is there, and how many partitions it has.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::journal::config::{CreateTopic, KafkaConfig};
use crate::journal::kafka::client;

/// How long a question to the cluster may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What the dead letters' topic takes more than the records': their headers are longer.
pub(super) const DEAD_LETTER_EXTRA_BYTES: u64 = 64 << 10;

/// Why a topic cannot be used yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum TopicError {
    #[error("topic '{0}' does not exist; create it, or give journal.kafka.create_topic")]
    Missing(String),
    #[error("topic '{topic}' could not be {action}: {source}")]
    Kafka { topic: String, action: &'static str, source: KafkaError },
    #[error("the question was not answered")]
    Ended,
}

/// Asks the cluster about topics, and creates them.
#[derive(Clone)]
pub(super) struct Topics {
    admin: Arc<AdminClient<DefaultClientContext>>,
    create: Option<CreateTopic>,
    message_bytes_max: u64,
}

impl Topics {
    pub fn new(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let mut client = client(config);
        client.set("statistics.interval.ms", "0");
        Ok(Self {
            admin: Arc::new(client.create()?),
            create: config.create_topic,
            message_bytes_max: config.message_bytes_max,
        })
    }

    /// The number of partitions of the records' topic, which is created if it may be.
    pub async fn records(&self, topic: &str) -> Result<u32, TopicError> {
        let partitions = self.create.map_or(1, |create| create.partitions);
        self.ensure(topic, partitions, self.message_bytes_max).await
    }

    /// Creates the dead letters' topic if it may be.
    pub async fn dead_letters(&self, topic: &str) -> Result<u32, TopicError> {
        self.ensure(topic, 1, self.message_bytes_max + DEAD_LETTER_EXTRA_BYTES).await
    }

    async fn ensure(&self, topic: &str, partitions: i32, bytes: u64) -> Result<u32, TopicError> {
        if let Some(create) = self.create {
            let found = self.partitions(topic).await;
            if matches!(found, Err(TopicError::Missing(_))) {
                self.create(topic, partitions, create.replication_factor, bytes).await?;
            }
        }
        self.partitions(topic).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32, TopicError> {
        let (admin, name) = (self.admin.clone(), topic.to_owned());
        let ask = move || admin.inner().fetch_metadata(Some(&name), TIMEOUT);
        let answer = tokio::task::spawn_blocking(ask).await.map_err(|_| TopicError::Ended)?;
        let failed =
            |source| TopicError::Kafka { topic: topic.to_owned(), action: "looked up", source };
        let metadata = answer.map_err(failed)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.map(|found| (found.error().map(RDKafkaErrorCode::from), found.partitions())) {
            None
            | Some((
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic),
                _,
            ))
            | Some((None, [])) => Err(TopicError::Missing(topic.to_owned())),
            Some((Some(code), _)) => Err(failed(KafkaError::MetadataFetch(code))),
            Some((None, partitions)) => Ok(partitions.len() as u32),
        }
    }

    async fn create(
        &self,
        topic: &str,
        partitions: i32,
        copies: i32,
        bytes: u64,
    ) -> Result<(), TopicError> {
        let bytes = bytes.to_string();
        let in_sync = if copies >= 3 { "2" } else { "1" };
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(copies))
            .set("min.insync.replicas", in_sync)
            .set("max.message.bytes", &bytes)
            .set("unclean.leader.election.enable", "false");
        let options =
            AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
        let failed =
            |source| TopicError::Kafka { topic: topic.to_owned(), action: "created", source };
        let created = self.admin.create_topics([&new], &options).await.map_err(failed)?;
        for result in created {
            match result {
                // Another process of ours was faster.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
            }
        }
        tracing::info!(topic, partitions, copies, "created the topic");
        Ok(())
    }
}
