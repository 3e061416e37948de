//! The streams of a journal: one topic of Kafka may carry all signals or each its own, and every
//! topic has its own readers, dead letters and bounds. A disk has one stream for all, since one
//! machine's gateway and writer share one fsync and one bound.
//!
//! ```text
//!                 topic                group            dead letters
//! metrics         points               writer           points-dead-letter
//! logs            points-logs          writer-logs      points-logs-dead-letter
//! traces          points-traces        writer-traces    points-traces-dead-letter
//! ```

use crate::signal::{Signal, Signals};

use super::{DEAD_LETTER_SUFFIX, JournalConfig, KafkaConfig};

/// What `logs_topic` appends to the topic when absent.
pub const LOGS_SUFFIX: &str = "-logs";
/// What `traces_topic` appends to the topic when absent.
pub const TRACES_SUFFIX: &str = "-traces";
/// The least that a stream gets of the bytes that wait for the brokers.
const QUEUE_BYTES_MIN: u64 = 1 << 20;
/// The least that a stream gets of the bytes that are read ahead.
const READ_AHEAD_BYTES_MIN: u64 = 1 << 20;

/// One stream of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// What it carries.
    pub signals: Signals,
    /// Its own settings: a journal that has this stream alone.
    pub journal: JournalConfig,
}

impl JournalConfig {
    /// All streams, that of the metrics first. The bytes that may wait are shared out evenly.
    pub fn streams(&self) -> Vec<Stream> {
        match self {
            Self::Disk(_) => vec![Stream { signals: Signals::ALL, journal: self.clone() }],
            Self::Kafka(kafka) => kafka.streams(),
        }
    }

    /// The stream of one signal.
    pub fn stream_of(&self, signal: Signal) -> Stream {
        let mut streams = self.streams();
        let at = streams.iter().position(|stream| stream.signals.has(signal)).unwrap_or(0);
        streams.swap_remove(at)
    }
}

impl KafkaConfig {
    /// The topic of a signal.
    pub fn topic_of(&self, signal: Signal) -> &str {
        let own = match signal {
            Signal::Metrics => None,
            Signal::Logs => self.logs_topic.as_deref(),
            Signal::Traces => self.traces_topic.as_deref(),
        };
        own.unwrap_or(&self.topic)
    }

    fn streams(&self) -> Vec<Stream> {
        let mut topics: Vec<(&str, Signals)> = Vec::new();
        for signal in Signal::ALL {
            let topic = self.topic_of(signal);
            match topics.iter_mut().find(|(other, _)| *other == topic) {
                Some((_, signals)) => *signals = signals.with(signal),
                None => topics.push((topic, Signals::only(signal))),
            }
        }
        let count = topics.len() as u64;
        let stream = |(topic, signals): (&str, Signals)| Stream {
            signals,
            journal: JournalConfig::Kafka(self.stream(topic, signals, count)),
        };
        topics.into_iter().map(stream).collect()
    }

    fn stream(&self, topic: &str, signals: Signals, count: u64) -> Self {
        let mut own = Self {
            logs_topic: None,
            traces_topic: None,
            queue_bytes_max: (self.queue_bytes_max / count).max(QUEUE_BYTES_MIN),
            read_ahead_bytes: (self.read_ahead_bytes / count).max(READ_AHEAD_BYTES_MIN),
            ..self.clone()
        };
        if topic != self.topic {
            own.topic = topic.to_owned();
            own.group = format!("{}-{}", self.group, signals.first().name());
            own.dead_letter_topic = format!("{topic}{DEAD_LETTER_SUFFIX}");
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka(stream: &Stream) -> &KafkaConfig {
        let JournalConfig::Kafka(kafka) = &stream.journal else { panic!("on Kafka") };
        kafka
    }

    #[test]
    fn each_topic_is_a_stream_with_its_share() {
        let config = KafkaConfig::new("a:1");
        let streams = JournalConfig::Kafka(config.clone()).streams();
        let found: Vec<_> = streams
            .iter()
            .map(|stream| {
                let own = kafka(stream);
                (stream.signals.name(), &*own.topic, &*own.group, &*own.dead_letter_topic)
            })
            .collect();
        assert_eq!(
            found,
            [
                ("metrics", "tidegate-points", "tidegate-writer", "tidegate-points-dead-letter"),
                (
                    "logs",
                    "tidegate-points-logs",
                    "tidegate-writer-logs",
                    "tidegate-points-logs-dead-letter"
                ),
                (
                    "traces",
                    "tidegate-points-traces",
                    "tidegate-writer-traces",
                    "tidegate-points-traces-dead-letter"
                ),
            ]
        );
        let sum = |of: fn(&KafkaConfig) -> u64| streams.iter().map(|s| of(kafka(s))).sum::<u64>();
        assert!(sum(|own| own.queue_bytes_max) <= config.queue_bytes_max);
        assert!(sum(|own| own.read_ahead_bytes) <= config.read_ahead_bytes);
        assert!(streams.iter().all(|stream| kafka(stream).types_topic == config.types_topic));
        assert!(streams.iter().all(|stream| stream.journal.streams().len() == 1), "alone");
    }

    #[test]
    fn signals_may_share_a_topic() {
        let one = KafkaConfig { logs_topic: None, traces_topic: None, ..KafkaConfig::new("a:1") };
        let streams = JournalConfig::Kafka(one.clone()).streams();
        let [all] = &streams[..] else { panic!("one stream: {streams:?}") };
        assert_eq!((all.signals, kafka(all)), (Signals::ALL, &one), "and everything is its own");
        let events = Some("events".to_owned());
        let two = KafkaConfig { logs_topic: events.clone(), traces_topic: events, ..one };
        let two = JournalConfig::Kafka(two);
        let names: Vec<_> = two.streams().iter().map(|stream| stream.signals.name()).collect();
        assert_eq!(names, ["metrics", "logs+traces"]);
        let traces = two.stream_of(Signal::Traces);
        assert_eq!(kafka(&traces).group, "tidegate-writer-logs");
        let disk = JournalConfig::Disk(super::super::DiskConfig::new("/var/j"));
        assert_eq!(disk.stream_of(Signal::Logs).journal, disk);
    }
}
