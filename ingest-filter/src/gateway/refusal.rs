//! Why a whole request is refused, before any dialect has a word for it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::gateway::budget::Denied;
use crate::gateway::hold_time::RETRY_AFTER_MIN;

/// Promises Envoy that nothing of the request was stored and that another replica may take it.
const TRY_ANOTHER: HeaderName = HeaderName::from_static("x-tidegate-try-another");

/// A request of which nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The edge did not say whose request it is.
    #[error("the request carries no tenant")]
    TenantMissing,
    /// The `Content-Type` is not one of the path's, which are named.
    #[error("the content type is not supported, use {0}")]
    ContentTypeUnsupported(&'static str),
    /// The `Content-Encoding` is not gzip, deflate, zstd, snappy or identity.
    #[error("the content encoding is not supported, use gzip, deflate, zstd, snappy or identity")]
    ContentEncodingUnsupported,
    /// The `Content-Encoding` is none of this version of remote write, which are named.
    #[error("the content encoding is not supported, use {0}")]
    RemoteWriteEncoding(&'static str),
    /// A query parameter that cannot be understood.
    #[error("{0}")]
    ParameterInvalid(&'static str),
    /// The tenant has as many databases as it may, and the request names another.
    #[error("the tenant writes to {0} databases already, which is the most, and this is another")]
    DatabasesTooMany(usize),
    /// A body that is not what its headers say.
    #[error("{0}")]
    BodyInvalid(&'static str),
    /// A body above one of the caps.
    #[error("the body is larger than {0}")]
    BodyTooLarge(Cap),
    /// The body did not come in time.
    #[error("the body did not arrive in time")]
    BodyTimeout {
        /// When to try again.
        retry_after: Duration,
    },
    /// The client went away, or broke the protocol, within the body.
    #[error("the body broke off")]
    BodyBroken,
    /// All requests together hold as much as they may.
    #[error("the service is out of memory for requests, try again")]
    MemoryExhausted {
        /// When to try again.
        retry_after: Duration,
    },
    /// The deadline passed before the journal was asked.
    #[error("the service could not read the request in time, try again")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The journal takes no record as large as one of the request's.
    #[error("the points are larger than can be stored")]
    RecordTooLarge,
    /// Another request gave one of the new fields another type at the same moment.
    #[error("the type of a new field was decided by another request, try again")]
    TypeUndecided {
        /// When to try again.
        retry_after: Duration,
    },
    /// The journal did not confirm.
    #[error("the points could not be stored now, try again")]
    JournalUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
}

/// Which cap a body is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// `body_bytes_max`, in bytes.
    Wire(usize),
    /// `decoded_bytes_max`, or the tenant's `request_bytes_max`, in bytes.
    Decoded(usize),
    /// `ratio_max`.
    Ratio(u64),
    /// Half of `memory_bytes_max`, in bytes.
    Memory(usize),
    /// [`EXPANSION_MAX`](super::intake::EXPANSION_MAX).
    Expansion(u64),
}

impl std::fmt::Display for Cap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cap::Wire(bytes) => write!(f, "{bytes} bytes on the wire"),
            Cap::Decoded(bytes) => write!(f, "{bytes} bytes after decompression"),
            Cap::Ratio(times) => write!(f, "{times} times its compressed size"),
            Cap::Expansion(times) => {
                write!(f, "allowed: its points take {times} times its size, tags included")
            }
            Cap::Memory(bytes) => write!(f, "what decodes into {bytes} bytes of memory"),
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Exhausted { retry_after } => Refusal::MemoryExhausted { retry_after },
            Denied::BeyondShare(bytes) => Refusal::BodyTooLarge(Cap::Memory(bytes)),
        }
    }
}

impl Refusal {
    /// The HTTP status, unless a dialect has another. What is not the client's fault is 503: agents
    /// drop what was answered 401 or 408.
    pub fn status(self) -> http::StatusCode {
        use http::StatusCode as Status;
        match self {
            Refusal::ContentTypeUnsupported(_)
            | Refusal::ContentEncodingUnsupported
            | Refusal::RemoteWriteEncoding(_) => Status::UNSUPPORTED_MEDIA_TYPE,
            Refusal::ParameterInvalid(_) | Refusal::BodyInvalid(_) | Refusal::BodyBroken => {
                Status::BAD_REQUEST
            }
            Refusal::DatabasesTooMany(_) => Status::UNPROCESSABLE_ENTITY,
            Refusal::BodyTooLarge(_) | Refusal::RecordTooLarge => Status::PAYLOAD_TOO_LARGE,
            Refusal::TenantMissing
            | Refusal::BodyTimeout { .. }
            | Refusal::MemoryExhausted { .. }
            | Refusal::Overloaded { .. }
            | Refusal::TypeUndecided { .. }
            | Refusal::JournalUnavailable { .. } => Status::SERVICE_UNAVAILABLE,
        }
    }

    /// When to try again, where waiting helps; at least one second.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            // A fault of our own wiring: there is nothing better to say.
            Refusal::TenantMissing => Some(RETRY_AFTER_MIN),
            Refusal::BodyTimeout { retry_after }
            | Refusal::MemoryExhausted { retry_after }
            | Refusal::Overloaded { retry_after }
            | Refusal::TypeUndecided { retry_after }
            | Refusal::JournalUnavailable { retry_after } => Some(retry_after.max(RETRY_AFTER_MIN)),
            _ => None,
        }
    }

    /// What every dialect says in headers: when to try again, and whether another replica may.
    pub fn write_to(self, headers: &mut HeaderMap) {
        if let Some(after) = self.retry_after() {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.is_of_this_replica() {
            headers.insert(TRY_ANOTHER, HeaderValue::from_static("replica"));
        }
    }

    /// Whether another replica may take the request: this one stored nothing of it, and what stood
    /// in the way is its own.
    fn is_of_this_replica(self) -> bool {
        matches!(self, Refusal::MemoryExhausted { .. })
    }

    /// The gRPC code of `google.rpc.Status`.
    pub fn grpc_code(self) -> i32 {
        match self {
            Refusal::ContentTypeUnsupported(_)
            | Refusal::ContentEncodingUnsupported
            | Refusal::RemoteWriteEncoding(_) => 12,
            Refusal::ParameterInvalid(_) | Refusal::BodyInvalid(_) | Refusal::BodyBroken => 3,
            Refusal::DatabasesTooMany(_) => 9,
            // Not OUT_OF_RANGE, which OTLP senders retry for ever.
            Refusal::BodyTooLarge(_) | Refusal::RecordTooLarge => 8,
            Refusal::TenantMissing
            | Refusal::BodyTimeout { .. }
            | Refusal::MemoryExhausted { .. }
            | Refusal::Overloaded { .. }
            | Refusal::TypeUndecided { .. }
            | Refusal::JournalUnavailable { .. } => 14,
        }
    }

    /// The refusal as the value of a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::TenantMissing => "tenant_missing",
            Refusal::ContentTypeUnsupported(_) => "content_type_unsupported",
            Refusal::ContentEncodingUnsupported | Refusal::RemoteWriteEncoding(_) => {
                "content_encoding_unsupported"
            }
            Refusal::DatabasesTooMany(_) => "databases_too_many",
            Refusal::ParameterInvalid(_) => "parameter_invalid",
            Refusal::BodyInvalid(_) => "body_invalid",
            Refusal::BodyTooLarge(_) => "body_too_large",
            Refusal::RecordTooLarge => "record_too_large",
            Refusal::BodyTimeout { .. } => "body_timeout",
            Refusal::BodyBroken => "body_broken",
            Refusal::MemoryExhausted { .. } => "memory_exhausted",
            Refusal::Overloaded { .. } => "overloaded",
            Refusal::TypeUndecided { .. } => "type_undecided",
            Refusal::JournalUnavailable { .. } => "journal_unavailable",
        }
    }
}
