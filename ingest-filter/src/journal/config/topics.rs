//! The topics of the Kafka journal: their names, and how they are created.

use std::path::Path;

use chassis::config::{ConfigError, Spanned};
use serde::Deserialize;

use super::bounds::is_topic_name;
use super::security::Security;
use super::{DEAD_LETTER_SUFFIX, LOGS_SUFFIX, RawKafkaJournal, TOPIC, TRACES_SUFFIX, TYPES_SUFFIX};

/// `journal.kafka.create_topic:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCreateTopic {
    /// Partitions of the records' topic.
    pub partitions: Spanned<u32>,
    /// Copies of each partition.
    pub replication_factor: Spanned<u32>,
}

/// How topics are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// Partitions of the records' topic.
    pub partitions: i32,
    /// Copies of each partition.
    pub replication_factor: i32,
}

/// The names, which all differ.
pub(super) struct Topics {
    pub records: String,
    /// Where logs are apart.
    pub logs: Option<String>,
    /// Where traces are apart.
    pub traces: Option<String>,
    pub dead_letters: String,
    pub types: String,
}

/// Checks the names that the user gave, and makes the others.
pub(super) fn topics(path: &Path, raw: &RawKafkaJournal) -> Result<Topics, ConfigError> {
    for (key, name) in [
        ("topic", &raw.topic),
        ("logs_topic", &raw.logs_topic),
        ("traces_topic", &raw.traces_topic),
        ("dead_letter_topic", &raw.dead_letter_topic),
        ("types_topic", &raw.types_topic),
    ] {
        if let Some(bad) = name.as_ref().filter(|name| !is_topic_name(&name.value)) {
            let message =
                format!("journal.kafka.{key} is not a topic name: 1-249 of [a-zA-Z0-9._-]");
            return Err(ConfigError::at(path, bad, message));
        }
    }
    let named = |value: &Option<Spanned<String>>, default: &str| {
        value.as_ref().map_or(default.to_owned(), |value| value.value.clone())
    };
    let records = named(&raw.topic, TOPIC);
    let dead_letters = named(&raw.dead_letter_topic, &format!("{records}{DEAD_LETTER_SUFFIX}"));
    if let Some(bad) = raw.dead_letter_topic.as_ref().filter(|name| name.value == records) {
        let message = "journal.kafka.dead_letter_topic must not be the topic of the records";
        return Err(ConfigError::at(path, bad, message));
    }
    let types = named(&raw.types_topic, &format!("{records}{TYPES_SUFFIX}"));
    let taken = |name: &&Spanned<String>| name.value == records || name.value == dead_letters;
    if let Some(bad) = raw.types_topic.as_ref().filter(taken) {
        let message = "journal.kafka.types_topic must be a topic of its own";
        return Err(ConfigError::at(path, bad, message));
    }
    let apart = |value: &Option<Spanned<String>>, suffix| {
        Some(named(value, &format!("{records}{suffix}"))).filter(|name| *name != records)
    };
    let logs = apart(&raw.logs_topic, LOGS_SUFFIX);
    let traces = apart(&raw.traces_topic, TRACES_SUFFIX);
    let all = Topics { records, logs, traces, dead_letters, types };
    all.differ().map_err(|message| {
        let given = [&raw.logs_topic, &raw.traces_topic, &raw.dead_letter_topic, &raw.types_topic];
        let at = given.into_iter().flatten().chain(&raw.topic).next();
        ConfigError::at(path, at.unwrap_or(&raw.brokers), message)
    })?;
    Ok(all)
}

impl Topics {
    /// Whether each topic has a name of its own, the dead letters of each included, and one that
    /// Kafka takes.
    fn differ(&self) -> Result<(), String> {
        let mut streams: Vec<&String> = self.logs.iter().chain(&self.traces).collect();
        streams.dedup();
        let mut all = vec![self.records.clone(), self.dead_letters.clone(), self.types.clone()];
        all.extend(streams.iter().map(|name| name.to_string()));
        all.extend(streams.iter().map(|name| format!("{name}{DEAD_LETTER_SUFFIX}")));
        if let Some(long) = all.iter().find(|name| !is_topic_name(name)) {
            return Err(format!("journal.kafka: the topic '{long}' would have too long a name"));
        }
        all.sort();
        match all.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("journal.kafka: the topic '{}' is there twice", pair[0])),
            None => Ok(()),
        }
    }
}

/// Checks how topics are to be created.
pub(super) fn create_topic(
    path: &Path,
    raw: Option<&RawCreateTopic>,
) -> Result<Option<CreateTopic>, ConfigError> {
    let Some(raw) = raw else { return Ok(None) };
    let bounded = |key: &str, value: &Spanned<u32>, max: i32| {
        i32::try_from(value.value).ok().filter(|number| (1..=max).contains(number)).ok_or_else(
            || {
                let message =
                    format!("journal.kafka.create_topic.{key} must be between 1 and {max}");
                ConfigError::at(path, value, message)
            },
        )
    };
    Ok(Some(CreateTopic {
        partitions: bounded("partitions", &raw.partitions, 10_000)?,
        replication_factor: bounded("replication_factor", &raw.replication_factor, 100)?,
    }))
}

/// Whether topics can be created with that login.
///
/// # Errors
/// With a token: the client library asks nobody for one on behalf of what creates topics.
pub(super) fn creatable(
    path: &Path,
    raw: &RawKafkaJournal,
    security: &Security,
) -> Result<(), ConfigError> {
    match (&raw.create_topic, security.token_file()) {
        (Some(create), Some(_)) => {
            let message = "journal.kafka.create_topic cannot be used with OAUTHBEARER: create the \
                           topics by other means";
            Err(ConfigError::at(path, &create.partitions, message))
        }
        _ => Ok(()),
    }
}
