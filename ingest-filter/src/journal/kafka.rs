//! The journal as a topic of Apache Kafka, for any number of gateways and writers.
//!
//! A record is one message; which partition it goes to is ours to say ([`partition`]), so that a
//! series keeps its order and a tenant its share of the partitions. A writer stores an offset
//! only when everything before it is written.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use crate::journal::config::KafkaConfig;

pub mod appender;
mod brokers;
mod context;
pub mod dead_letters;
pub mod durability;
pub mod fault;
mod lag;
mod lanes;
mod member;
pub mod offsets;
pub mod partition;
pub mod pins;
mod placement;
mod producer;
mod progress;
pub mod provision;
pub mod reader;
pub mod records;
mod renewed;
pub mod scan;
mod security;
mod standing;
mod taking;
mod ticket;
mod topic;

/// What every client of ours begins with.
fn client(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", "tidegate-ingest")
        // A broker that is dead or moved is noticed well before a delivery times out.
        .set("socket.timeout.ms", "10000")
        .set("reconnect.backoff.max.ms", "2000")
        // A topic that appears by itself has the brokers' defaults, perhaps one copy. A producer
        // asks for that unless it is told not to.
        .set("allow.auto.create.topics", "false")
        .set("statistics.interval.ms", "5000");
    security::apply(&mut client, &config.credentials);
    client
}

/// What a client reports as an error, into our own log; a refused login at most once a minute.
fn report(client: &str, error: &KafkaError, reason: &str) {
    if !security::is_refusal(reason) || security::may_be_said() {
        tracing::warn!(%error, reason, client, "a Kafka client reports an error");
    }
}

/// What the client library says of itself, into our own log.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        // Producers obey this setting, and warn that it is one for consumers.
        _ if security::is_refusal(message) && !security::may_be_said() => {}
        _ if facility == "CONFWARN" && message.contains("allow.auto.create.topics") => {}
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => {
            tracing::warn!(facility, message, "the Kafka client warns");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, message, "the Kafka client tells");
        }
    }
}
