//! Settings of the journal, the same for gateway and writer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::config::{ByteSize, ConfigError, DurationText, Spanned};
use chassis::process::UsageError;
use chassis::tls::client::RawClientTls;
use serde::Deserialize;

use crate::journal::credentials::Credentials;
use crate::journal::disk::frame::PAYLOAD_BYTES_MAX;
use crate::journal::kafka::durability::Demands;

mod bounds;
pub mod member;
pub mod security;
mod streams;
mod topics;

use bounds::{duration_of, is_host_and_port, size_of};
use member::{Assignment, group_instance_id};
use security::{RawSasl, Security};
pub use streams::{LOGS_SUFFIX, Stream, TRACES_SUFFIX};
pub use topics::{CreateTopic, RawCreateTopic};
use topics::{Topics, creatable, create_topic, topics};

/// `journal:` as written by the user; exactly one kind is given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct RawJournal {
    /// Segments in a directory of this machine.
    pub disk: Option<Spanned<RawDiskJournal>>,
    /// A topic of Apache Kafka.
    pub kafka: Option<Spanned<RawKafkaJournal>>,
}

/// `journal.disk:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDiskJournal {
    /// Where the segments are; created when missing.
    pub directory: Spanned<PathBuf>,
    /// A segment is closed at this size.
    pub segment_bytes: Option<Spanned<ByteSize>>,
    /// All segments together hold at most this much.
    pub bytes_max: Option<Spanned<ByteSize>>,
    /// Bytes of appends that may wait in memory for the disk.
    pub queue_bytes_max: Option<Spanned<ByteSize>>,
    /// Bytes of records a writer reads ahead.
    pub read_ahead_bytes: Option<Spanned<ByteSize>>,
    /// The file of dead letters holds at most this much.
    pub dead_letter_bytes_max: Option<Spanned<ByteSize>>,
}

/// `journal.kafka:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawKafkaJournal {
    /// `host:port` of some brokers, separated by commas.
    pub brokers: Spanned<String>,
    /// TLS to the brokers.
    pub tls: Option<RawClientTls>,
    /// The login at the brokers.
    pub sasl: Option<RawSasl>,
    /// The topic of the metrics.
    pub topic: Option<Spanned<String>>,
    /// The topic of the logs.
    pub logs_topic: Option<Spanned<String>>,
    /// The topic of the traces.
    pub traces_topic: Option<Spanned<String>>,
    /// The writers' consumer group.
    pub group: Option<Spanned<String>>,
    /// This writer's name in the group, the same after a restart: a pod's name.
    pub group_instance_id: Option<Spanned<String>>,
    /// The topic of the dead letters.
    pub dead_letter_topic: Option<Spanned<String>>,
    /// The topic of the types of fields.
    pub types_topic: Option<Spanned<String>>,
    /// Creates the topics at start when they are missing.
    pub create_topic: Option<RawCreateTopic>,
    /// Copies each partition of the records' topic must have.
    pub replication_factor_min: Option<Spanned<u32>>,
    /// How many partitions the records of one tenant are spread over.
    pub partitions_per_tenant: Option<Spanned<u32>>,
    /// How long a record may take to be confirmed.
    pub delivery_timeout: Option<Spanned<DurationText>>,
    /// Bytes of records that may wait in memory for the brokers.
    pub queue_bytes_max: Option<Spanned<ByteSize>>,
    /// The largest message the topic takes, its `max.message.bytes`.
    pub message_bytes_max: Option<Spanned<ByteSize>>,
    /// Bytes of records a writer reads ahead, all partitions together.
    pub read_ahead_bytes: Option<Spanned<ByteSize>>,
    /// After this silence the group gives a writer's partitions to others.
    pub session_timeout: Option<Spanned<DurationText>>,
    /// How the group shares the partitions out.
    pub assignment: Option<Assignment>,
}

/// `segment_bytes` when absent.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// `bytes_max` when absent.
pub const BYTES_MAX: u64 = 8 << 30;
/// `queue_bytes_max` of both kinds when absent.
pub const QUEUE_BYTES_MAX: u64 = 256 << 20;
/// `read_ahead_bytes` of both kinds when absent.
pub const READ_AHEAD_BYTES: u64 = 64 << 20;
/// `dead_letter_bytes_max` when absent.
pub const DEAD_LETTER_BYTES_MAX: u64 = 1 << 30;
/// `topic` when absent.
pub const TOPIC: &str = "tidegate-points";
/// `group` when absent.
pub const GROUP: &str = "tidegate-writer";
/// What `dead_letter_topic` appends to the topic when absent.
pub const DEAD_LETTER_SUFFIX: &str = "-dead-letter";
/// What `types_topic` appends to the topic when absent.
pub const TYPES_SUFFIX: &str = "-types";
/// `partitions_per_tenant` when absent.
pub const PARTITIONS_PER_TENANT: u32 = 4;
/// `delivery_timeout` when absent: below the 15 s of Envoy's route.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(8);
/// `message_bytes_max` when absent, Kafka's own default.
pub const MESSAGE_BYTES_MAX: u64 = 1_048_588;
/// `session_timeout` when absent: the partitions of a writer that was killed are read again within
/// ten seconds.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(8);

/// The journal's settings, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a process has a handful of them")]
pub enum JournalConfig {
    /// Segments in a directory.
    Disk(DiskConfig),
    /// A Kafka topic.
    Kafka(KafkaConfig),
}

/// Settings of the disk journal, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Where the segments are.
    pub directory: PathBuf,
    /// A segment is closed at this size.
    pub segment_bytes: u64,
    /// All segments together hold at most this much.
    pub bytes_max: u64,
    /// Bytes of appends that may wait in memory.
    pub queue_bytes_max: u64,
    /// Bytes of records read ahead.
    pub read_ahead_bytes: u64,
    /// The file of dead letters holds at most this much.
    pub dead_letter_bytes_max: u64,
}

/// Settings of the Kafka journal, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port` of some brokers, separated by commas.
    pub brokers: String,
    /// TLS and login.
    pub credentials: Credentials,
    /// The topic of the metrics.
    pub topic: String,
    /// The topic of the logs, where it is another one.
    pub logs_topic: Option<String>,
    /// The topic of the traces, where it is another one.
    pub traces_topic: Option<String>,
    /// The writers' consumer group.
    pub group: String,
    /// This writer's lasting name in the group.
    pub group_instance_id: Option<String>,
    /// The topic of the dead letters.
    pub dead_letter_topic: String,
    /// The topic of the types of fields.
    pub types_topic: String,
    /// Creates the topics when they are missing.
    pub create_topic: Option<CreateTopic>,
    /// How many copies each partition of the records' topic must have.
    pub replication_factor_min: u32,
    /// How many partitions one tenant uses.
    pub partitions_per_tenant: u32,
    /// How long a record may take to be confirmed.
    pub delivery_timeout: Duration,
    /// Bytes of records that may wait in memory.
    pub queue_bytes_max: u64,
    /// The largest message the topic takes.
    pub message_bytes_max: u64,
    /// Bytes of records read ahead, all partitions together.
    pub read_ahead_bytes: u64,
    /// Silence after which partitions go to others.
    pub session_timeout: Duration,
    /// How the group shares the partitions out.
    pub assignment: Assignment,
}

/// What tenant, database, identifiers and framing add to the body of a record at most.
pub const RECORD_EXTRA_BYTES: usize = 4 << 10;

impl JournalConfig {
    /// The largest body that a record may have and still be stored.
    pub fn record_bytes_max(&self) -> usize {
        let whole = match self {
            Self::Disk(_) => PAYLOAD_BYTES_MAX,
            Self::Kafka(kafka) => usize::try_from(kafka.message_bytes_max).unwrap_or(usize::MAX),
        };
        whole.saturating_sub(RECORD_EXTRA_BYTES)
    }

    /// Checks what the user wrote in the file at `path`.
    ///
    /// # Errors
    /// Naming the first key that cannot work.
    pub fn from_raw(path: &Path, raw: &RawJournal) -> Result<Self, ConfigError> {
        match (&raw.disk, &raw.kafka) {
            (Some(disk), None) => disk_config(path, &disk.value).map(Self::Disk),
            (None, Some(kafka)) => kafka_config(path, &kafka.value).map(Self::Kafka),
            (Some(_), Some(kafka)) => Err(ConfigError::at(
                path,
                kafka,
                "journal has both 'disk' and 'kafka', give exactly one",
            )),
            (None, None) => Err(ConfigError::file(path, "journal needs 'disk' or 'kafka'")),
        }
    }
}

impl JournalConfig {
    /// Whether the files that the settings name can be used.
    ///
    /// # Errors
    /// When they cannot; the first of them is named.
    pub fn check_files(&self) -> Result<(), UsageError> {
        match self {
            Self::Disk(_) => Ok(()),
            Self::Kafka(kafka) => kafka.credentials.read_files(),
        }
    }
}

impl DiskConfig {
    /// The defaults, in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            segment_bytes: SEGMENT_BYTES,
            bytes_max: BYTES_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            read_ahead_bytes: READ_AHEAD_BYTES,
            dead_letter_bytes_max: DEAD_LETTER_BYTES_MAX,
        }
    }
}

impl KafkaConfig {
    /// The defaults, on these brokers.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            credentials: Credentials::default(),
            topic: TOPIC.to_owned(),
            logs_topic: Some(format!("{TOPIC}{LOGS_SUFFIX}")),
            traces_topic: Some(format!("{TOPIC}{TRACES_SUFFIX}")),
            group: GROUP.to_owned(),
            group_instance_id: None,
            dead_letter_topic: format!("{TOPIC}{DEAD_LETTER_SUFFIX}"),
            types_topic: format!("{TOPIC}{TYPES_SUFFIX}"),
            create_topic: None,
            replication_factor_min: 1,
            partitions_per_tenant: PARTITIONS_PER_TENANT,
            delivery_timeout: DELIVERY_TIMEOUT,
            queue_bytes_max: QUEUE_BYTES_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
            read_ahead_bytes: READ_AHEAD_BYTES,
            session_timeout: SESSION_TIMEOUT,
            assignment: Assignment::default(),
        }
    }

    /// What must be true of the records' topic.
    pub fn demands(&self) -> Demands {
        let created = self.create_topic.map_or(1, |create| create.replication_factor);
        let copies = self.replication_factor_min.max(created.unsigned_abs());
        Demands {
            replication_factor_min: self.replication_factor_min as usize,
            in_sync_min: if copies >= 3 { 2 } else { 1 },
            message_bytes_max: self.message_bytes_max,
            forever: false,
        }
    }
}

fn disk_config(path: &Path, raw: &RawDiskJournal) -> Result<DiskConfig, ConfigError> {
    let size = |key, value: &Option<Spanned<ByteSize>>, default, min| {
        size_of(path, "journal.disk", key, value, default, min)
    };
    if raw.directory.value.as_os_str().is_empty() {
        return Err(ConfigError::at(path, &raw.directory, "journal.disk.directory is empty"));
    }
    let config = DiskConfig {
        directory: raw.directory.value.clone(),
        segment_bytes: size("segment_bytes", &raw.segment_bytes, SEGMENT_BYTES, 64 << 10)?,
        bytes_max: size("bytes_max", &raw.bytes_max, BYTES_MAX, 256 << 10)?,
        queue_bytes_max: size("queue_bytes_max", &raw.queue_bytes_max, QUEUE_BYTES_MAX, 64 << 10)?,
        read_ahead_bytes: size(
            "read_ahead_bytes",
            &raw.read_ahead_bytes,
            READ_AHEAD_BYTES,
            64 << 10,
        )?,
        dead_letter_bytes_max: size(
            "dead_letter_bytes_max",
            &raw.dead_letter_bytes_max,
            DEAD_LETTER_BYTES_MAX,
            64 << 10,
        )?,
    };
    if config.bytes_max < config.segment_bytes.saturating_mul(4) {
        let message = "journal.disk.bytes_max must be at least four times segment_bytes";
        let place = raw.bytes_max.as_ref().or(raw.segment_bytes.as_ref());
        return Err(match place {
            Some(value) => ConfigError::at(path, value, message),
            None => ConfigError::file(path, message),
        });
    }
    Ok(config)
}

fn kafka_config(path: &Path, raw: &RawKafkaJournal) -> Result<KafkaConfig, ConfigError> {
    let defaults = KafkaConfig::new(raw.brokers.value.trim());
    let named = |value: &Option<Spanned<String>>, default: &str| {
        value.as_ref().map_or(default.to_owned(), |value| value.value.clone())
    };
    if defaults.brokers.is_empty() || !defaults.brokers.split(',').all(is_host_and_port) {
        let message = "journal.kafka.brokers must be 'host:port', or several separated by commas";
        return Err(ConfigError::at(path, &raw.brokers, message));
    }
    let Topics { records, logs, traces, dead_letters, types } = topics(path, raw)?;
    let size = |key, value: &Option<Spanned<ByteSize>>, default, min| {
        size_of(path, "journal.kafka", key, value, default, min)
    };
    let create_topic = create_topic(path, raw.create_topic.as_ref())?;
    let security = Security::from_raw(path, raw.tls.as_ref(), raw.sasl.as_ref())?;
    creatable(path, raw, &security)?;
    Ok(KafkaConfig {
        credentials: Credentials::new(security),
        group: named(&raw.group, GROUP),
        group_instance_id: group_instance_id(path, raw.group_instance_id.as_ref())?,
        create_topic,
        replication_factor_min: match &raw.replication_factor_min {
            Some(given) if !(1..=100).contains(&given.value) => {
                let message = "journal.kafka.replication_factor_min must be between 1 and 100";
                return Err(ConfigError::at(path, given, message));
            }
            Some(given) => given.value,
            None => create_topic.map_or(1, |create| create.replication_factor.unsigned_abs()),
        },
        partitions_per_tenant: match &raw.partitions_per_tenant {
            Some(zero) if zero.value == 0 => {
                let message = "journal.kafka.partitions_per_tenant must be at least 1";
                return Err(ConfigError::at(path, zero, message));
            }
            given => given.as_ref().map_or(PARTITIONS_PER_TENANT, |given| given.value),
        },
        delivery_timeout: duration_of(
            path,
            "delivery_timeout",
            &raw.delivery_timeout,
            DELIVERY_TIMEOUT,
            1..=60,
        )?,
        session_timeout: duration_of(
            path,
            "session_timeout",
            &raw.session_timeout,
            SESSION_TIMEOUT,
            6..=300,
        )?,
        queue_bytes_max: size("queue_bytes_max", &raw.queue_bytes_max, QUEUE_BYTES_MAX, 1 << 20)?,
        message_bytes_max: size(
            "message_bytes_max",
            &raw.message_bytes_max,
            MESSAGE_BYTES_MAX,
            64 << 10,
        )?,
        read_ahead_bytes: size(
            "read_ahead_bytes",
            &raw.read_ahead_bytes,
            READ_AHEAD_BYTES,
            1 << 20,
        )?,
        assignment: raw.assignment.unwrap_or_default(),
        topic: records,
        logs_topic: logs,
        traces_topic: traces,
        dead_letter_topic: dead_letters,
        types_topic: types,
        ..defaults
    })
}

#[cfg(test)]
mod tests {
    use chassis::config::parse_yaml;

    use super::*;

    fn parse(text: &str) -> Result<JournalConfig, String> {
        let path = Path::new("i.yaml");
        let raw = parse_yaml(path, text.as_bytes()).map_err(|error| error.to_string())?;
        JournalConfig::from_raw(path, &raw).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_constants() {
        assert_eq!(
            parse("disk:\n  directory: /var/j\n"),
            Ok(JournalConfig::Disk(DiskConfig::new("/var/j")))
        );
        assert_eq!(
            parse("kafka:\n  brokers: a:1,b:2\n"),
            Ok(JournalConfig::Kafka(KafkaConfig::new("a:1,b:2")))
        );
        let Ok(JournalConfig::Kafka(config)) = parse("kafka: {brokers: 'a:1', topic: t}") else {
            panic!("valid");
        };
        assert_eq!(config.dead_letter_topic, "t-dead-letter");
        assert_eq!(config.types_topic, "t-types");
        let own = [config.logs_topic.as_deref(), config.traces_topic.as_deref()];
        assert_eq!(own, [Some("t-logs"), Some("t-traces")]);
        let Ok(JournalConfig::Kafka(config)) =
            parse("kafka: {brokers: 'a:1', topic: t, logs_topic: t, traces_topic: x}")
        else {
            panic!("valid");
        };
        let own = [config.logs_topic.as_deref(), config.traces_topic.as_deref()];
        assert_eq!(own, [None, Some("x")]);
        assert_eq!(config.assignment, Assignment::CooperativeSticky);
        let range = KafkaConfig { assignment: Assignment::Range, ..KafkaConfig::new("a:1") };
        let parsed = parse("kafka: {brokers: 'a:1', assignment: range}");
        assert_eq!(parsed, Ok(JournalConfig::Kafka(range)));
    }

    #[test]
    fn one_file_names_every_member_of_the_group() {
        let id = |text: &str| {
            let text = format!("kafka: {{brokers: 'a:1', group_instance_id: '{text}'}}");
            let Ok(JournalConfig::Kafka(config)) = parse(&text) else { panic!("valid") };
            config.group_instance_id.expect("a name")
        };
        assert_eq!(id("writer-0"), "writer-0");
        let ours = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
        assert_eq!(id("w-{hostname}"), format!("w-{}", ours.trim()));
    }

    #[test]
    fn what_cannot_work_is_named_with_its_place() {
        let cases = [
            ("{}\n", "i.yaml: journal needs 'disk' or 'kafka'"),
            ("disk: {directory: d}\nkafka: {brokers: 'a:1'}\n", "i.yaml:2:"),
            ("disk: {directory: ''}\n", "directory is empty"),
            ("disk:\n  directory: d\n  segment_bytes: 1B\n", "i.yaml:3:18: journal.disk.segment_"),
            ("disk:\n  directory: d\n  bytes_max: 1MiB\n", "i.yaml:3:14: journal.disk.bytes_max"),
            ("disk:\n  directory: d\n  sise: 1\n", "i.yaml:3:3"),
            ("kafka:\n  brokers: a\n", "i.yaml:2:12: journal.kafka.brokers"),
            ("kafka: {brokers: 'a:1', topic: 'a b'}\n", "journal.kafka.topic"),
            ("kafka: {brokers: 'a:1', topic: t, dead_letter_topic: t}\n", "must not be"),
            ("kafka: {brokers: 'a:1', types_topic: tidegate-points}\n", "a topic of its own"),
            ("kafka: {brokers: 'a:1', logs_topic: 'a b'}\n", "journal.kafka.logs_topic is not"),
            ("kafka: {brokers: 'a:1', logs_topic: tidegate-points-types}\n", "is there twice"),
            (
                "kafka: {brokers: 'a:1', traces_topic: x, dead_letter_topic: x-dead-letter}\n",
                "'x-dead-letter' is there twice",
            ),
            ("kafka: {brokers: 'a:1', delivery_timeout: 1ms}\n", "between 1s and 60s"),
            ("kafka: {brokers: 'a:1', partitions_per_tenant: 0}\n", "at least 1"),
            ("kafka: {brokers: 'a:1', tls: {server_name: a}}\n", "brokers have names of their own"),
            ("kafka: {brokers: 'a:1', tls: {key_file: k}}\n", "needs 'certificate_file'"),
            (
                "kafka: {brokers: 'a:1', sasl: {mechanism: PLAIN, username: u, password_file: p}}\n",
                "in clear text",
            ),
            (
                "kafka: {brokers: 'a:1', sasl: {mechanism: SCRAM-SHA-512, username: '', password_file: p}}\n",
                "username is empty",
            ),
            (
                "kafka: {brokers: 'a:1', sasl: {mechanism: OAUTHBEARER, token_file: t}}\n",
                "in clear text",
            ),
            (
                "kafka: {brokers: 'a:1', tls: {}, sasl: {mechanism: OAUTHBEARER}}\n",
                "token_file is needed for OAUTHBEARER",
            ),
            (
                "kafka: {brokers: 'a:1', tls: {}, sasl: {mechanism: OAUTHBEARER, username: u, token_file: t}}\n",
                "no username and no password with OAUTHBEARER",
            ),
            (
                "kafka: {brokers: 'a:1', tls: {}, sasl: {mechanism: PLAIN, username: u, password_file: p, token_file: t}}\n",
                "token_file is for OAUTHBEARER alone",
            ),
            (
                "kafka: {brokers: 'a:1', sasl: {mechanism: SCRAM-SHA-256, username: u}}\n",
                "needs username and password_file for SCRAM-SHA-256",
            ),
            (
                "kafka: {brokers: 'a:1', tls: {}, sasl: {mechanism: OAUTHBEARER, token_file: t}, create_topic: {partitions: 1, replication_factor: 1}}\n",
                "cannot be used with OAUTHBEARER",
            ),
            (
                "kafka: {brokers: 'a:1', create_topic: {partitions: 0, replication_factor: 1}}\n",
                "create_topic.partitions",
            ),
        ];
        for (text, expected) in cases {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
