//! What a disk journal holds that is not written yet, read beside its writer. Blocking.

use std::time::Instant;

use prometheus_client::registry::Registry;

use crate::journal::ReadError;
use crate::journal::config::DiskConfig;
use crate::journal::disk::tail::{Step, Tail};
use crate::journal::disk::{position, segments};
use crate::journal::metrics::JournalMetrics;

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Up to where the writer has come.
    pub position: u64,
    /// Where the journal ends.
    pub end: u64,
    /// Records behind the position.
    pub records: u64,
    /// Their points.
    pub points: u64,
    /// When the oldest was admitted, nanoseconds since 1970.
    pub oldest_admitted_at_ns: Option<i64>,
    /// Records of a newer version, which hold the writer up.
    pub newer: bool,
}

/// Reads on from where the writer is, to the end.
///
/// # Errors
/// When a file cannot be read.
pub fn waiting(config: &DiskConfig) -> Result<Waiting, ReadError> {
    let directory = &config.directory;
    let failed = |action| {
        let path = directory.display().to_string();
        move |source| ReadError::File { path, action, source }
    };
    let position = position::load(directory).map_err(failed("read"))?;
    let found = segments(directory).map_err(failed("listed"))?;
    let end = found.last().map_or(position, |last| last.base + last.bytes);
    let mut waiting = Waiting { position, end, ..Waiting::default() };
    let metrics = JournalMetrics::register(&mut Registry::default());
    let mut tail = Tail::new(directory.clone(), position, metrics);
    while tail.cursor() < end {
        match tail.step(Instant::now())? {
            Step::Frame { content: Ok(record), .. } => {
                waiting.records += 1;
                waiting.points += u64::from(record.points);
                let at = record.admitted_at_ns;
                waiting.oldest_admitted_at_ns =
                    Some(waiting.oldest_admitted_at_ns.map_or(at, |oldest| oldest.min(at)));
            }
            Step::Frame { content: Err(malformed), .. } => {
                waiting.records += 1;
                waiting.newer |= malformed.is_newer();
            }
            Step::Moved => {}
            Step::Idle => break,
        }
    }
    Ok(waiting)
}
