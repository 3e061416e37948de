//! Bounds of the writer's settings.

use std::path::Path;
use std::time::Duration;

use chassis::config::{ConfigError, DurationText, Spanned};

/// A duration between two bounds.
pub(super) fn duration(
    path: &Path,
    key: &str,
    given: &Spanned<DurationText>,
    min_seconds: u64,
    max_seconds: u64,
) -> Result<Duration, ConfigError> {
    let bound = |seconds| DurationText(Duration::from_secs(seconds));
    let (min, max) = (bound(min_seconds), bound(max_seconds));
    within(path, key, given, min, max, given.value, |d| format!("{}s", d.0.as_secs()))?;
    Ok(given.value.0)
}

/// Says where a value is out of bounds.
pub(super) fn within<S, T: PartialOrd>(
    path: &Path,
    key: &str,
    place: &Spanned<S>,
    min: T,
    max: T,
    value: T,
    show: impl Fn(&T) -> String,
) -> Result<(), ConfigError> {
    if value >= min && value <= max {
        return Ok(());
    }
    let message = format!("writer.{key} must be between {} and {}", show(&min), show(&max));
    Err(ConfigError::at(path, place, message))
}
