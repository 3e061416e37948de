//! What single values of the journal's settings may be.

use std::path::Path;
use std::time::Duration;

use chassis::config::{ByteSize, ConfigError, DurationText, Spanned};

use super::{JournalConfig, RawJournal};

impl RawJournal {
    /// Whether the user says how much waits in memory for the journal.
    pub fn bounds_its_queue(&self) -> bool {
        let disk = self.disk.as_ref().is_some_and(|disk| disk.value.queue_bytes_max.is_some());
        disk || self.kafka.as_ref().is_some_and(|kafka| kafka.value.queue_bytes_max.is_some())
    }
}

impl JournalConfig {
    /// How much waits in memory for the journal at most, bytes.
    pub fn set_queue_bytes_max(&mut self, bytes: u64) {
        match self {
            Self::Disk(disk) => disk.queue_bytes_max = bytes,
            Self::Kafka(kafka) => kafka.queue_bytes_max = bytes,
        }
    }
}

/// A size between `min` and 1 TiB.
pub(super) fn size_of(
    path: &Path,
    section: &str,
    key: &str,
    value: &Option<Spanned<ByteSize>>,
    default: u64,
    min: u64,
) -> Result<u64, ConfigError> {
    // Kafka's own settings of this kind are 32-bit numbers of KiB.
    let max = 1_u64 << 40;
    match value {
        None => Ok(default),
        Some(size) if (min..=max).contains(&size.value.0) => Ok(size.value.0),
        Some(size) => {
            let message = format!("{section}.{key} must be between {} KiB and 1024GiB", min >> 10);
            Err(ConfigError::at(path, size, message))
        }
    }
}

/// A duration of so many seconds.
pub(super) fn duration_of(
    path: &Path,
    key: &str,
    value: &Option<Spanned<DurationText>>,
    default: Duration,
    seconds: std::ops::RangeInclusive<u64>,
) -> Result<Duration, ConfigError> {
    let bounds = Duration::from_secs(*seconds.start())..=Duration::from_secs(*seconds.end());
    match value {
        None => Ok(default),
        Some(given) if bounds.contains(&given.value.0) => Ok(given.value.0),
        Some(given) => {
            let (min, max) = (seconds.start(), seconds.end());
            let message = format!("journal.kafka.{key} must be between {min}s and {max}s");
            Err(ConfigError::at(path, given, message))
        }
    }
}

/// `host:port`.
pub(super) fn is_host_and_port(broker: &str) -> bool {
    broker.trim().rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

/// What Kafka takes for the name of a topic.
pub(super) fn is_topic_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(legal) && name != "." && name != ".."
}
