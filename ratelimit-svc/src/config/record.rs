//! What is recorded of requests: the `RECORD_` variables.

use chassis::config::ByteSize;
use chassis::process::UsageError;

use super::Vars;
use crate::record::RecordSettings;
use crate::record::hashed::HashedKeys;

/// Bounds of `RECORD_BYTES_MAX`.
const BYTES: std::ops::RangeInclusive<u64> = (1 << 20)..=(1 << 50);
/// Bounds of `RECORD_SHAPES_MAX`; a shape takes some 500 bytes.
const SHAPES: std::ops::RangeInclusive<usize> = 64..=4_194_304;

impl Vars<'_> {
    pub(super) fn record(&self) -> Result<Option<RecordSettings>, UsageError> {
        let bytes_max = self.parse::<ByteSize>("RECORD_BYTES_MAX")?.0;
        if !BYTES.contains(&bytes_max) {
            return Err(self.bad("RECORD_BYTES_MAX", "must be from 1MiB to 1048576GiB"));
        }
        let shapes_max = self.number("RECORD_SHAPES_MAX")?;
        if !SHAPES.contains(&shapes_max) {
            let message = format!("must be from {} to {}", SHAPES.start(), SHAPES.end());
            return Err(self.bad("RECORD_SHAPES_MAX", message));
        }
        let keys = self.text("RECORD_HASH_KEYS");
        let keys = keys.split(',').map(str::trim).filter(|key| !key.is_empty());
        let hashed = HashedKeys::try_new(keys.map(str::to_owned), self.text("RECORD_HASH_SALT"))
            // The salt itself is never shown.
            .map_err(|error| UsageError(format!("RECORD_HASH_SALT: RECORD_HASH_KEYS {error}")))?;
        let dir = self.text("RECORD_DIR");
        let settings = RecordSettings { dir: dir.into(), bytes_max, shapes_max, hashed };
        Ok(Some(settings).filter(|settings| !settings.dir.as_os_str().is_empty()))
    }
}
