//! What an operator switches for every request alike.

use crate::decide::key::KeyFormat;

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
    pub headers: Option<HeaderNames>,
    /// `RESPONSE_DYNAMIC_METADATA`.
    pub dynamic_metadata: bool,
    /// `RESPONSE_RETRY_INFO`.
    pub retry_info: bool,
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
            retry_info: false,
            key_format: KeyFormat::Tidegate,
        }
    }
}

/// What the three headers are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderNames {
    /// `LIMIT_LIMIT_HEADER`
    pub limit: String,
    /// `LIMIT_REMAINING_HEADER`
    pub remaining: String,
    /// `LIMIT_RESET_HEADER`
    pub reset: String,
}

impl Default for HeaderNames {
    fn default() -> Self {
        Self {
            limit: "RateLimit-Limit".to_owned(),
            remaining: "RateLimit-Remaining".to_owned(),
            reset: "RateLimit-Reset".to_owned(),
        }
    }
}
