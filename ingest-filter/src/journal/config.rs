//! Settings of the journal, the same for gateway and writer.

use serde::Deserialize;

/// `journal:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct RawJournal {}
