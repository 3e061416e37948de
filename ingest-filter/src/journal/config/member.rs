//! A writer as a member of its consumer group: its lasting name, and how partitions are shared out.

use std::path::Path;

use chassis::config::{ConfigError, Spanned};
use serde::Deserialize;

/// How a group shares its partitions out among its members; all of them must agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assignment {
    /// Only partitions that move stop for it.
    #[default]
    CooperativeSticky,
    /// Every partition stops whenever a writer comes or goes, as clients do that know no better.
    Range,
}

impl Assignment {
    /// The name that brokers know.
    pub fn name(self) -> &'static str {
        match self {
            Self::CooperativeSticky => "cooperative-sticky",
            Self::Range => "range",
        }
    }
}

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
