//! All records that the topic still has, read outside of the writers' group. Blocking.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::journal::config::KafkaConfig;
use crate::journal::kafka::offsets::Offsets;
use crate::journal::kafka::scan::{Range, scan};
use crate::journal::{ScanError, StoredRecord, envelope};

/// Hands out every record, or those stored from `since_ms` on, until told to stop.
///
/// # Errors
/// When the brokers do not give them.
pub fn read(
    config: &KafkaConfig,
    since_ms: Option<i64>,
    each: &mut dyn FnMut(StoredRecord) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let offsets = Offsets::new(config)?;
    let range = Range::of(&offsets, since_ms)?;
    let partitions: Vec<i32> = range.to.keys().copied().collect();
    let committed = offsets.committed(&partitions)?;
    scan(config, &range, |found| {
        let (partition, offset) = (found.partition(), found.offset());
        let done = committed.get(&partition).is_some_and(|next| offset < *next);
        let body = Bytes::copy_from_slice(found.body());
        let content = envelope::record(found.headers(), body);
        let position = u64::try_from(offset).unwrap_or(0);
        each(StoredRecord { partition, position, begins: position, done, content })
    })
}
