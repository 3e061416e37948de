//! All topics of the journal at once: made where they are missing, and looked at. What a job does
//! before the roles run, so that they need no right to make topics.

use crate::journal::OpenError;
use crate::journal::config::JournalConfig;
use crate::journal::kafka::placement::Placement;
use crate::journal::kafka::topic::{TopicError, Topics};
use crate::signal::Signal;

/// A topic as it was found, or why it cannot be used.
#[derive(Debug)]
pub struct Provisioned {
    /// Its name.
    pub topic: String,
    /// How many partitions it has, or what is wrong, in words for a person.
    pub partitions: Result<u32, String>,
}

/// Makes the topics of all streams that are missing, where `create_topic` allows it, and holds those
/// that keep what is acknowledged to what gateways demand of them.
///
/// # Errors
/// When the client refuses its settings.
pub async fn provision(journal: &JournalConfig) -> Result<Vec<Provisioned>, OpenError> {
    let mut all = Vec::new();
    let found = |topic: &str, partitions: Result<u32, TopicError>| Provisioned {
        topic: topic.to_owned(),
        partitions: partitions.map_err(|error| error.to_string()),
    };
    for stream in journal.streams() {
        let JournalConfig::Kafka(config) = &stream.journal else { continue };
        let topics = Topics::new(config).map_err(OpenError::Kafka)?;
        let (records, letters) = (&config.topic, &config.dead_letter_topic);
        let count = |(all, _): (Vec<Placement>, u64)| all.len() as u32;
        all.push(found(records, topics.durable_records(records).await.map(count)));
        all.push(found(letters, topics.dead_letters(letters).await));
        if stream.signals.has(Signal::Metrics) {
            let types = &config.types_topic;
            all.push(found(types, topics.durable_types(types).await.map(count)));
        }
    }
    Ok(all)
}
