//! What a producer's error means for the gateway.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This one failed; the next may well succeed.
    Passing,
    /// Nothing succeeds until somebody changes the cluster's settings.
    Lasting,
    /// The producer is of no more use; a new one is.
    Fatal,
    /// The queue of the client is full.
    QueueFull,
    /// The record is larger than the topic takes: it was split wrongly.
    TooLarge,
}

/// Sorts an error of the producer.
pub fn classify(error: &KafkaError) -> Fault {
    match error.rdkafka_error_code() {
        Some(Code::Fatal | Code::OutOfOrderSequenceNumber) => Fault::Fatal,
        Some(
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::InvalidTopic,
        ) => Fault::Lasting,
        Some(Code::QueueFull) => Fault::QueueFull,
        Some(Code::MessageSizeTooLarge | Code::PolicyViolation | Code::InvalidRecord) => {
            Fault::TooLarge
        }
        _ => Fault::Passing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_told_apart() {
        let cases = [
            (Code::MessageTimedOut, Fault::Passing),
            (Code::InvalidProducerEpoch, Fault::Passing),
            (Code::NotEnoughReplicas, Fault::Passing),
            (Code::PurgeQueue, Fault::Passing),
            (Code::TopicAuthorizationFailed, Fault::Lasting),
            (Code::UnknownTopicOrPartition, Fault::Lasting),
            (Code::ClusterAuthorizationFailed, Fault::Lasting),
            (Code::OutOfOrderSequenceNumber, Fault::Fatal),
            (Code::Fatal, Fault::Fatal),
            (Code::QueueFull, Fault::QueueFull),
            (Code::MessageSizeTooLarge, Fault::TooLarge),
        ];
        for (code, expected) in cases {
            assert_eq!(classify(&KafkaError::MessageProduction(code)), expected, "{code:?}");
        }
    }
}
