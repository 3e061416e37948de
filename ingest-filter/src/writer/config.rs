//! Settings of the writer role.

use serde::Deserialize;

/// `writer:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawWriter {}
