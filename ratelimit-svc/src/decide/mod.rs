//! What to answer, as values in and values out. Pure: no I/O, no clock, no transport.
//!
//! ```text
//! request ─► plan ─► hits to count ─┐
//!              │                    │ the store settles them by their algorithm
//!              └────► conclude ◄────┘ counts
//!                        │
//!                        ▼
//!                     decision
//! ```

pub mod algorithm;
pub mod conclude;
pub mod headers;
pub mod metadata;
pub mod plan;
pub mod request;
pub mod reserve;
pub mod settle;

use crate::store::key::KeyFormat;

/// Switches that hold for every request.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `SHADOW_MODE`: nothing is refused, statuses still say what would have been.
    pub shadow_mode: bool,
    /// `QUOTA_MODE`: every limit behaves as if it said `quota_mode: true`.
    pub quota_mode: bool,
    /// `STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT`: a refused request consumes nothing.
    pub all_or_nothing: bool,
    /// `NEAR_LIMIT_RATIO`.
    pub near_limit_ratio: f32,
    /// `LIMIT_RESPONSE_HEADERS_ENABLED` with the three names.
    pub headers: Option<headers::HeaderNames>,
    /// `RESPONSE_DYNAMIC_METADATA`.
    pub dynamic_metadata: bool,
    /// `REDIS_KEY_FORMAT`.
    pub key_format: KeyFormat,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shadow_mode: false,
            quota_mode: false,
            all_or_nothing: false,
            near_limit_ratio: 0.8,
            headers: None,
            dynamic_metadata: false,
            key_format: KeyFormat::Tidegate,
        }
    }
}
