//! Making sure that a topic is there and keeps what it confirms, and how many partitions it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::{Metadata, MetadataPartition};
use rdkafka::producer::{FutureProducer, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use tokio::task::JoinSet;

use crate::journal::config::{CreateTopic, KafkaConfig};
use crate::journal::kafka::client;
use crate::journal::kafka::context::Quiet;
use crate::journal::kafka::durability::{Demands, Problem, TopicState, in_sync_needed, problem};
use crate::journal::kafka::placement::{BrokerId, Placement};
use crate::journal::kafka::renewed::Renewed;

/// How long a question to the cluster may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a question may take that finds out whether a broker answers at all.
const REACH_TIMEOUT: Duration = Duration::from_millis(500);
/// What the dead letters' topic takes more than the records': their headers are longer.
pub(super) const DEAD_LETTER_EXTRA_BYTES: u64 = 64 << 10;

/// Settings of a topic that forgets nothing.
const FOREVER: &[(&str, &str)] = &[("retention.ms", "-1"), ("retention.bytes", "-1")];

/// Why a topic cannot be used yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum TopicError {
    #[error("topic '{0}' does not exist; create it, or give journal.kafka.create_topic")]
    Missing(String),
    #[error("topic '{topic}' could not be {action}: {source}")]
    Kafka { topic: String, action: &'static str, source: KafkaError },
    #[error("topic '{topic}' may lose records: {problem}")]
    Unsound { topic: String, problem: Problem },
    #[error("the question was not answered")]
    Ended,
}

/// Asks the cluster about topics, and creates them.
#[derive(Clone)]
pub(super) struct Topics {
    asker: Arc<Renewed<Asker>>,
    create: Option<CreateTopic>,
    demands: Demands,
}

/// Who asks. The client that creates topics and reads their settings hands nobody's token on, so
/// where we log in with one, a producer asks what it can: which partitions and copies there are.
enum Asker {
    Admin(Box<AdminClient<Quiet>>),
    Producer(Box<FutureProducer<Quiet>>),
}

impl Asker {
    fn new(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let (mut client, context) = (client(config), Quiet::new(config));
        client.set("statistics.interval.ms", "0");
        Ok(match config.credentials.security().token_file() {
            None => Self::Admin(Box::new(client.create_with_context(context)?)),
            Some(_) => Self::Producer(Box::new(client.create_with_context(context)?)),
        })
    }

    fn metadata(&self, topic: &str, timeout: Duration) -> KafkaResult<Metadata> {
        match self {
            Self::Admin(admin) => admin.inner().fetch_metadata(Some(topic), timeout),
            Self::Producer(producer) => producer.client().fetch_metadata(Some(topic), timeout),
        }
    }

    /// Whether the leader of a partition says anything, be it a refusal.
    fn leader_answers(&self, topic: &str, partition: i32, timeout: Duration) -> bool {
        let answer = match self {
            Self::Admin(admin) => admin.inner().fetch_watermarks(topic, partition, timeout),
            Self::Producer(producer) => {
                producer.client().fetch_watermarks(topic, partition, timeout)
            }
        };
        let code = answer.err().and_then(|error| error.rdkafka_error_code());
        !matches!(
            code,
            Some(
                RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::RequestTimedOut
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::LeaderNotAvailable
            )
        )
    }
}

impl Topics {
    pub fn new(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let owned = config.clone();
        Ok(Self {
            asker: Arc::new(Renewed::new(config, move || Asker::new(&owned))?),
            create: config.create_topic,
            demands: config.demands(),
        })
    }

    /// The number of partitions of the records' topic, which is created if it may be.
    pub async fn records(&self, topic: &str) -> Result<u32, TopicError> {
        let partitions = self.create.map_or(1, |create| create.partitions);
        let state = self.ensure(topic, partitions, self.demands.message_bytes_max).await?;
        Ok(state.partitions.len() as u32)
    }

    /// The same for somebody who appends: the topic must keep what it confirms. Gives where its
    /// partitions are, and how many copies must be in sync.
    pub async fn durable_records(&self, topic: &str) -> Result<(Vec<Placement>, u64), TopicError> {
        let partitions = self.create.map_or(1, |create| create.partitions);
        let state = self.ensure(topic, partitions, self.demands.message_bytes_max).await?;
        let state = self.sound(topic, state, &self.demands).await?;
        let needed = in_sync_needed(&state, &self.demands);
        Ok((state.partitions, needed))
    }

    /// Looks whether the topic of types still does. One that is gone is not made again: what was in it
    /// must be read anew.
    pub async fn found_types(&self, topic: &str) -> Result<(), TopicError> {
        let state = self.state(topic, TIMEOUT).await?;
        self.sound(topic, state, &Demands { forever: true, ..self.demands }).await.map(drop)
    }

    /// Makes sure of the topic of types, which has one partition and must keep all of it for ever.
    pub async fn durable_types(&self, topic: &str) -> Result<(Vec<Placement>, u64), TopicError> {
        let demands = Demands { forever: true, ..self.demands };
        let state = self.ensure_with(topic, 1, demands.message_bytes_max, FOREVER).await?;
        let state = self.sound(topic, state, &demands).await?;
        let needed = in_sync_needed(&state, &demands);
        Ok((state.partitions, needed))
    }

    async fn sound(
        &self,
        topic: &str,
        mut state: TopicState,
        demands: &Demands,
    ) -> Result<TopicState, TopicError> {
        self.describe(topic, &mut state).await;
        match problem(&state, demands) {
            Some(problem) => Err(TopicError::Unsound { topic: topic.to_owned(), problem }),
            None => Ok(state),
        }
    }

    /// Which of these brokers answer within half a second; each is asked about the partition that it
    /// leads. Only so is a broker asked by name: what concerns no partition goes to the one that the
    /// client talked to last, also where that one is frozen.
    pub async fn answering(
        &self,
        topic: &str,
        led: &BTreeMap<BrokerId, i32>,
    ) -> BTreeSet<BrokerId> {
        let mut asked = JoinSet::new();
        for (&broker, &partition) in led {
            let (asker, topic) = (self.asker.current(), topic.to_owned());
            let ask = move || asker.leader_answers(&topic, partition, REACH_TIMEOUT);
            asked.spawn(async move {
                let answers = tokio::task::spawn_blocking(ask).await;
                answers.unwrap_or(false).then_some(broker)
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// Whether a broker answers within half a second.
    pub async fn reach(&self, topic: &str) -> Result<(), TopicError> {
        // Whatever it answers.
        self.metadata(topic, REACH_TIMEOUT).await.map(drop)
    }

    /// Where the partitions are, if a broker says so within half a second.
    pub async fn placements(&self, topic: &str) -> Result<Vec<Placement>, TopicError> {
        placements(&self.metadata(topic, REACH_TIMEOUT).await?, topic)
    }

    /// Creates the dead letters' topic if it may be.
    pub async fn dead_letters(&self, topic: &str) -> Result<u32, TopicError> {
        let bytes = self.demands.message_bytes_max + DEAD_LETTER_EXTRA_BYTES;
        Ok(self.ensure(topic, 1, bytes).await?.partitions.len() as u32)
    }

    async fn ensure(
        &self,
        topic: &str,
        partitions: i32,
        bytes: u64,
    ) -> Result<TopicState, TopicError> {
        self.ensure_with(topic, partitions, bytes, &[]).await
    }

    async fn ensure_with(
        &self,
        topic: &str,
        partitions: i32,
        bytes: u64,
        settings: &[(&str, &str)],
    ) -> Result<TopicState, TopicError> {
        if let Some(create) = self.create {
            let found = self.state(topic, TIMEOUT).await;
            if matches!(found, Err(TopicError::Missing(_))) {
                let copies = TopicReplication::Fixed(create.replication_factor);
                self.create(NewTopic::new(topic, partitions, copies), bytes, settings).await?;
            }
        }
        self.state(topic, TIMEOUT).await
    }

    /// Adds the settings of a topic, where we may ask for them.
    async fn describe(&self, topic: &str, state: &mut TopicState) {
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let asker = self.asker.current();
        let Asker::Admin(admin) = &*asker else { return };
        let asked = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
        let Some(Ok(settings)) = asked.ok().and_then(|mut all| all.pop()) else {
            tracing::debug!(topic, "the topic's settings cannot be read");
            return;
        };
        let value = |name| settings.get(name).and_then(|entry| entry.value.clone());
        state.cleanup_policy = value("cleanup.policy");
        state.min_in_sync = value("min.insync.replicas").and_then(|text| text.parse().ok());
        state.message_bytes_max = value("max.message.bytes").and_then(|text| text.parse().ok());
        state.retention_ms = value("retention.ms").and_then(|text| text.parse().ok());
        state.retention_bytes = value("retention.bytes").and_then(|text| text.parse().ok());
    }

    async fn metadata(&self, topic: &str, timeout: Duration) -> Result<Metadata, TopicError> {
        let (asker, name) = (self.asker.current(), topic.to_owned());
        let ask = move || asker.metadata(&name, timeout);
        let answer = tokio::task::spawn_blocking(ask).await.map_err(|_| TopicError::Ended)?;
        answer.map_err(|source| not_looked_up(topic, source))
    }

    async fn state(&self, topic: &str, timeout: Duration) -> Result<TopicState, TopicError> {
        let partitions = placements(&self.metadata(topic, timeout).await?, topic)?;
        Ok(TopicState { partitions, ..TopicState::default() })
    }

    async fn create(
        &self,
        new: NewTopic<'_>,
        bytes: u64,
        settings: &[(&str, &str)],
    ) -> Result<(), TopicError> {
        let (topic, partitions) = (new.name, new.num_partitions);
        let bytes = bytes.to_string();
        let in_sync = self.demands.in_sync_min.to_string();
        let new = new
            .set("min.insync.replicas", &in_sync)
            .set("cleanup.policy", "delete")
            .set("max.message.bytes", &bytes)
            .set("unclean.leader.election.enable", "false");
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let options =
            AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
        let failed =
            |source| TopicError::Kafka { topic: topic.to_owned(), action: "created", source };
        let asker = self.asker.current();
        let Asker::Admin(admin) = &*asker else {
            // Refused with the settings.
            return Err(failed(KafkaError::AdminOp(RDKafkaErrorCode::UnsupportedFeature)));
        };
        let created = admin.create_topics([&new], &options).await.map_err(failed)?;
        for result in created {
            match result {
                // Another process of ours was faster.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
            }
        }
        tracing::info!(topic, partitions, "created the topic");
        Ok(())
    }
}

/// Where the partitions of a topic are, by what a broker answered.
pub(super) fn placements(metadata: &Metadata, topic: &str) -> Result<Vec<Placement>, TopicError> {
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.map(|found| (found.error().map(RDKafkaErrorCode::from), found.partitions())) {
        None
        | Some((
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic),
            _,
        ))
        | Some((None, [])) => Err(TopicError::Missing(topic.to_owned())),
        Some((Some(code), _)) => Err(not_looked_up(topic, KafkaError::MetadataFetch(code))),
        Some((None, partitions)) => {
            let placement = |found: &MetadataPartition| Placement {
                partition: found.id(),
                leader: Some(found.leader()).filter(|leader| *leader >= 0),
                copies: found.replicas().len(),
                in_sync: found.isr().to_vec(),
            };
            Ok(partitions.iter().map(placement).collect())
        }
    }
}

fn not_looked_up(topic: &str, source: KafkaError) -> TopicError {
    TopicError::Kafka { topic: topic.to_owned(), action: "looked up", source }
}
