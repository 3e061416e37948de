//! The lasting name of a writer in its consumer group.

use std::path::Path;

use chassis::config::{ConfigError, Spanned};

/// What stands for the machine's name.
const HOSTNAME: &str = "{hostname}";

/// The name in the group, with the machine's name (in a pod, the pod's) in the place of
/// [`HOSTNAME`], so that one file serves all pods.
pub(super) fn group_instance_id(
    path: &Path,
    raw: Option<&Spanned<String>>,
) -> Result<Option<String>, ConfigError> {
    let Some(raw) = raw else { return Ok(None) };
    if !raw.value.contains(HOSTNAME) {
        return Ok(Some(raw.value.clone()));
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(|error| {
        let message = format!("journal.kafka.group_instance_id: the host's name: {error}");
        ConfigError::at(path, raw, message)
    })?;
    Ok(Some(raw.value.replace(HOSTNAME, name.trim())))
}
