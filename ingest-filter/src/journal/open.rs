//! Opening and reading a journal of whichever kind the settings name: all streams of it, or one.

use std::ops::ControlFlow;
use std::sync::Arc;

use chassis::readiness::Readiness;
use prometheus_client::registry::Registry;

use crate::journal::config::{JournalConfig, Stream};
use crate::journal::dead_letter::DeadLetters;
use crate::journal::metrics::{JournalFamilies, JournalMetrics};
use crate::journal::pins::PinLog;
use crate::journal::stored_letter::Entry;
use crate::journal::{Journal, OpenError, Reader, ScanError, StoredRecord, disk, kafka};
use crate::signal::{Signal, Signals};
use crate::types::Types;

/// The gateway's side of all streams: where the records of each signal go.
#[derive(Clone)]
pub struct Journals {
    metrics: Arc<dyn Journal>,
    logs: Arc<dyn Journal>,
    traces: Arc<dyn Journal>,
}

impl Journals {
    /// The journal of a signal.
    pub fn of(&self, signal: Signal) -> &Arc<dyn Journal> {
        match signal {
            Signal::Metrics => &self.metrics,
            Signal::Logs => &self.logs,
            Signal::Traces => &self.traces,
        }
    }
}

impl<J: Journal> From<Arc<J>> for Journals {
    /// One for all of them.
    fn from(one: Arc<J>) -> Self {
        Self { metrics: one.clone(), logs: one.clone(), traces: one }
    }
}

/// Opens the gateway's side of all streams. Must run inside a tokio runtime. What is not there yet
/// (a broker, a topic) holds readiness back and is waited for; appends to it fail until then.
///
/// # Errors
/// When a journal cannot be opened by this process whatever happens later.
pub fn open_appenders(
    config: &JournalConfig,
    readiness: &Readiness,
    registry: &mut Registry,
) -> Result<Journals, OpenError> {
    let families = JournalFamilies::register(registry);
    let mut opened = Vec::new();
    for stream in config.streams() {
        let journal = append_to(&stream, readiness, families.of(stream.signals))?;
        opened.push((stream.signals, journal));
    }
    let of = |signal| {
        let found = opened.iter().find(|(signals, _)| signals.has(signal));
        found.map(|(_, journal)| journal.clone()).expect("every signal has its stream")
    };
    Ok(Journals {
        metrics: of(Signal::Metrics),
        logs: of(Signal::Logs),
        traces: of(Signal::Traces),
    })
}

/// Opens the gateway's side of the stream of metrics, for whoever has records of no other.
///
/// # Errors
/// As [`open_appenders`].
pub fn open_appender(
    config: &JournalConfig,
    readiness: &Readiness,
    registry: &mut Registry,
) -> Result<Arc<dyn Journal>, OpenError> {
    let stream = Stream { signals: Signals::ALL, journal: config.clone() };
    append_to(&stream, readiness, JournalMetrics::register(registry))
}

fn append_to(
    stream: &Stream,
    readiness: &Readiness,
    metrics: JournalMetrics,
) -> Result<Arc<dyn Journal>, OpenError> {
    Ok(match &stream.journal {
        JournalConfig::Disk(config) => {
            Arc::new(disk::appender::DiskAppender::open(config, readiness, metrics)?)
        }
        JournalConfig::Kafka(config) => Arc::new(kafka::appender::KafkaAppender::open(
            config,
            stream.signals,
            readiness,
            metrics,
        )?),
    })
}

/// Opens the log of pins beside the journal, and hands what is in it to `types`; until then the
/// gateway is not ready. Must run inside a tokio runtime, after the journal was opened.
///
/// # Errors
/// When it cannot be opened by this process whatever happens later.
pub fn open_pins(
    config: &JournalConfig,
    types: Arc<Types>,
    readiness: &Readiness,
) -> Result<Arc<dyn PinLog>, OpenError> {
    Ok(match config {
        JournalConfig::Disk(config) => Arc::new(disk::pins::DiskPins::open(config, types)?),
        JournalConfig::Kafka(config) => {
            Arc::new(kafka::pins::KafkaPins::open(config, types, readiness)?)
        }
    })
}

/// Reads all records that the stream of metrics still has, oldest first within a partition, until told to
/// stop. With `since_ms` what was stored before may be left out.
///
/// # Errors
/// When they cannot be read.
pub fn read_records(
    config: &JournalConfig,
    since_ms: Option<i64>,
    mut each: impl FnMut(StoredRecord) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    match config {
        JournalConfig::Disk(config) => disk::records::read(config, &mut each),
        JournalConfig::Kafka(config) => kafka::records::read(config, since_ms, &mut each),
    }
}

/// Reads all dead letters and marks of the stream of metrics, oldest first within a partition, until told to stop. With
/// `since_ms` what was stored before may be left out.
///
/// # Errors
/// When they cannot be read.
pub fn read_letters(
    config: &JournalConfig,
    since_ms: Option<i64>,
    mut each: impl FnMut(Entry) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    match config {
        JournalConfig::Disk(config) => disk::dead_letters::read(config, &mut each),
        JournalConfig::Kafka(config) => kafka::dead_letters::read(config, since_ms, &mut each),
    }
}

/// Opens the dead letters of a journal without its records. Must run inside a tokio runtime.
///
/// # Errors
/// As [`open_appender`].
pub fn open_dead_letters(config: &JournalConfig) -> Result<Arc<dyn DeadLetters>, OpenError> {
    Ok(match config {
        JournalConfig::Disk(config) => Arc::new(disk::dead_letters::DiskDeadLetters::open(config)?),
        JournalConfig::Kafka(config) => {
            Arc::new(kafka::dead_letters::KafkaDeadLetters::open(config)?)
        }
    })
}

/// The writer's side of one stream, as opened: where records come from, and where those go that no
/// database takes.
pub struct Opened {
    /// What the stream carries.
    pub signals: Signals,
    /// The lanes.
    pub reader: Box<dyn Reader>,
    /// The dead letters.
    pub dead_letters: Arc<dyn DeadLetters>,
}

/// Opens the writer's side of all streams, at least one. Must run inside a tokio runtime.
///
/// # Errors
/// As [`open_appenders`].
pub fn open_readers(
    config: &JournalConfig,
    readiness: &Readiness,
    registry: &mut Registry,
) -> Result<Vec<Opened>, OpenError> {
    let families = JournalFamilies::register(registry);
    let open = |stream: Stream| {
        let metrics = families.of(stream.signals);
        read_from(&stream, readiness, metrics)
    };
    config.streams().into_iter().map(open).collect()
}

/// Opens the writer's side of the stream of metrics.
///
/// # Errors
/// As [`open_appenders`].
pub fn open_reader(
    config: &JournalConfig,
    readiness: &Readiness,
    registry: &mut Registry,
) -> Result<Opened, OpenError> {
    let stream = Stream { signals: Signals::ALL, journal: config.clone() };
    read_from(&stream, readiness, JournalMetrics::register(registry))
}

fn read_from(
    stream: &Stream,
    readiness: &Readiness,
    metrics: JournalMetrics,
) -> Result<Opened, OpenError> {
    let signals = stream.signals;
    Ok(match &stream.journal {
        JournalConfig::Disk(config) => Opened {
            signals,
            reader: Box::new(disk::reader::DiskReader::open(config, readiness, metrics)?),
            dead_letters: Arc::new(disk::dead_letters::DiskDeadLetters::open(config)?),
        },
        JournalConfig::Kafka(config) => Opened {
            signals,
            dead_letters: Arc::new(kafka::dead_letters::KafkaDeadLetters::open(config)?),
            reader: Box::new(kafka::reader::KafkaReader::open(
                config, signals, readiness, metrics,
            )?),
        },
    })
}
