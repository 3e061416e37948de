//! All records that a disk journal still has, read beside its writer. Blocking.

use std::ops::ControlFlow;
use std::time::Instant;

use prometheus_client::registry::Registry;

use crate::journal::config::DiskConfig;
use crate::journal::disk::tail::{Step, Tail};
use crate::journal::disk::{position, segments};
use crate::journal::metrics::JournalMetrics;
use crate::journal::{ScanError, StoredRecord};

/// Hands out every record, oldest first, until told to stop.
///
/// # Errors
/// When a file cannot be read.
pub fn read(
    config: &DiskConfig,
    each: &mut dyn FnMut(StoredRecord) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let directory = &config.directory;
    let failed = |source| ScanError::File { path: directory.display().to_string(), source };
    let done_to = position::load(directory).map_err(failed)?;
    let found = segments(directory).map_err(failed)?;
    let (Some(first), Some(last)) = (found.first(), found.last()) else { return Ok(()) };
    let end = last.base + last.bytes;
    let metrics = JournalMetrics::register(&mut Registry::default());
    let mut tail = Tail::new(directory.clone(), first.base, metrics);
    while tail.cursor() < end {
        let begins = tail.cursor();
        match tail.step(Instant::now())? {
            Step::Frame { content, .. } => {
                let position = tail.cursor();
                let done = position <= done_to;
                let record = StoredRecord { partition: 0, position, begins, done, content };
                if each(record).is_break() {
                    break;
                }
            }
            Step::Moved => {}
            Step::Idle => break,
        }
    }
    Ok(())
}
