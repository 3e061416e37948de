//! Settings of the gateway role.

use serde::Deserialize;

/// `gateway:` as written by the user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGateway {}
