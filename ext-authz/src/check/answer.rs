//! What a refused caller reads: status, headers and body, in the dialect of its protocol.
//!
//! The status decides what an agent does next, so it differs by dialect: the Datadog Agent keeps
//! a 401 in its queue for ever and drops a 403. Our own trouble is always 503 with `retry-after`,
//! which every agent takes as "come again".

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::decide::Refusal;
use super::extract::Request;
use super::profile::{Dialect, Profile};

/// The longest body of a refusal, in bytes.
pub const BODY_BYTES_MAX: usize = 1024;

/// A refusal as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Headers; a name may come twice.
    pub headers: Vec<(&'static str, String)>,
    /// The body, at most [`BODY_BYTES_MAX`].
    pub body: String,
}

impl Dialect {
    /// The dialect of a request's client.
    pub fn of(request: &Request<'_>) -> Self {
        let content_type = request.header("content-type").unwrap_or("");
        let starts = |with: &str| {
            content_type.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
        };
        if starts("application/grpc") {
            return Dialect::Grpc;
        }
        match request.profile.map(|profile| profile.row().dialect) {
            Ok(Dialect::OtlpProtobuf) if starts("application/json") => Dialect::OtlpJson,
            Ok(dialect) => dialect,
            Err(_) => Dialect::Problem,
        }
    }

    /// Whether the client may be waiting to be asked for Basic credentials.
    fn knows_basic(self) -> bool {
        matches!(self, Dialect::Influx | Dialect::Text | Dialect::Problem | Dialect::Elastic)
    }
}

/// Words a refusal for clients of a profile. `retry_after_seconds` is used where waiting helps.
pub fn answer(
    refusal: Refusal,
    profile: Profile,
    dialect: Dialect,
    retry_after_seconds: u64,
) -> Answer {
    let status = status(refusal, profile, dialect);
    let mut headers = vec![("cache-control", "no-store".to_owned())];
    if let Some(content_type) = content_type(dialect) {
        headers.push(("content-type", content_type.to_owned()));
    }
    let mut challenge = |text: &str| headers.push(("www-authenticate", text.to_owned()));
    match refusal {
        Refusal::NoCredential if status == 401 => challenge("Bearer realm=\"tidegate\""),
        Refusal::BadCredential if status == 401 => {
            challenge("Bearer realm=\"tidegate\", error=\"invalid_token\"");
        }
        Refusal::Forbidden => {
            challenge("Bearer realm=\"tidegate\", error=\"insufficient_scope\"");
        }
        _ => {}
    }
    if status == 401 && dialect.knows_basic() {
        challenge("Basic realm=\"tidegate\", charset=\"UTF-8\"");
    }
    let waits = matches!(refusal, Refusal::Unavailable | Refusal::Throttled);
    let wait = waits.then_some(retry_after_seconds);
    if let Some(seconds) = wait {
        headers.push(("retry-after", seconds.to_string()));
    }
    if dialect == Dialect::Grpc && waits {
        // gRPC clients look for the time to come back nowhere else.
        let details = rpc_status(grpc_code(status), message(refusal), wait);
        headers.push(("grpc-status-details-bin", STANDARD_NO_PAD.encode(details)));
        // Nor exporters of Python but here.
        let info = retry_info(retry_after_seconds);
        headers.push(("google.rpc.retryinfo-bin", STANDARD_NO_PAD.encode(info)));
    }
    Answer { status, headers, body: body(refusal, dialect, status, wait) }
}

/// Envoy makes gRPC codes of HTTP statuses, and those agree in all profiles.
fn status(refusal: Refusal, profile: Profile, dialect: Dialect) -> u16 {
    let row = match dialect {
        Dialect::Grpc => Profile::Default.row(),
        _ => profile.row(),
    };
    match refusal {
        Refusal::NoCredential => row.missing_status,
        Refusal::BadCredential => row.bad_key_status,
        Refusal::InvalidRequest => 400,
        Refusal::Forbidden => 403,
        Refusal::Throttled => row.throttled_status,
        Refusal::Unavailable => 503,
    }
}

/// The canonical gRPC code beside an HTTP status of [`answer`].
pub fn grpc_code(status: u16) -> i32 {
    match status {
        400 => 3,
        403 => 7,
        429 | 503 => 14,
        _ => 16,
    }
}

fn content_type(dialect: Dialect) -> Option<&'static str> {
    match dialect {
        Dialect::Problem => Some("application/problem+json"),
        Dialect::Influx
        | Dialect::OtlpJson
        | Dialect::Datadog
        | Dialect::Splunk
        | Dialect::Elastic => Some("application/json"),
        Dialect::OtlpProtobuf => Some("application/x-protobuf"),
        Dialect::Text => Some("text/plain; charset=utf-8"),
        Dialect::Grpc => None,
    }
}

/// What a person should read. Plain ASCII without quotes, so that it needs no escaping anywhere.
fn message(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoCredential => "an API key is required",
        Refusal::BadCredential => "the API key is not valid",
        Refusal::InvalidRequest => "the request must carry exactly one API key, once",
        Refusal::Forbidden => "the API key does not permit this",
        Refusal::Throttled => "too many requests with API keys that are not valid, please wait",
        Refusal::Unavailable => "API keys cannot be checked at the moment, please retry",
    }
}

/// `wait` is what the client is told to wait, in seconds, where that helps.
fn body(refusal: Refusal, dialect: Dialect, status: u16, wait: Option<u64>) -> String {
    let message = message(refusal);
    match dialect {
        Dialect::Problem => {
            let (slug, title) = match refusal {
                Refusal::NoCredential | Refusal::BadCredential => ("unauthorized", "Unauthorized"),
                Refusal::InvalidRequest => ("invalid-request", "Bad Request"),
                Refusal::Forbidden => ("forbidden", "Forbidden"),
                Refusal::Throttled => ("throttled", "Too Many Requests"),
                Refusal::Unavailable => ("unavailable", "Service Unavailable"),
            };
            format!(
                r#"{{"type":"urn:tidegate:problem:{slug}","title":"{title}","status":{status},"detail":"{message}"}}"#
            )
        }
        Dialect::Influx => {
            let code = match refusal {
                Refusal::NoCredential | Refusal::BadCredential => "unauthorized",
                Refusal::InvalidRequest => "invalid",
                Refusal::Forbidden => "forbidden",
                Refusal::Throttled => "too many requests",
                Refusal::Unavailable => "unavailable",
            };
            format!(r#"{{"code":"{code}","message":"{message}"}}"#)
        }
        Dialect::OtlpJson => {
            let details = wait.map_or(String::new(), |seconds| {
                format!(r#","details":[{{"@type":"{RETRY_INFO}","retryDelay":"{seconds}s"}}]"#)
            });
            format!(r#"{{"code":{},"message":"{message}"{details}}}"#, grpc_code(status))
        }
        Dialect::OtlpProtobuf => {
            // Envoy takes a body as text, of which every byte must be ASCII: a wait of more than 127
            // seconds stands in the header alone.
            let ascii = |wait| String::from_utf8(rpc_status(grpc_code(status), message, wait)).ok();
            ascii(wait).filter(|body| body.is_ascii()).or_else(|| ascii(None)).unwrap_or_default()
        }
        Dialect::Text => format!("{message}\n"),
        Dialect::Datadog => {
            let error = if status == 403 { "Forbidden" } else { message };
            format!(r#"{{"errors":["{error}"]}}"#)
        }
        Dialect::Splunk => splunk(refusal),
        Dialect::Elastic => {
            let kind = match refusal {
                Refusal::InvalidRequest => "illegal_argument_exception",
                Refusal::Throttled => "es_rejected_execution_exception",
                Refusal::Unavailable => "unavailable_exception",
                _ => "security_exception",
            };
            let cause = format!(r#""type":"{kind}","reason":"{message}""#);
            format!(r#"{{"error":{{"root_cause":[{{{cause}}}],{cause}}},"status":{status}}}"#)
        }
        Dialect::Grpc => message.to_owned(),
    }
}

/// The texts and codes that Splunk documents for its event collector.
fn splunk(refusal: Refusal) -> String {
    let (text, code) = match refusal {
        Refusal::NoCredential => ("Token is required", 2),
        Refusal::BadCredential => ("Invalid token", 4),
        Refusal::InvalidRequest => ("Invalid authorization", 3),
        Refusal::Forbidden => ("Token disabled", 1),
        Refusal::Throttled | Refusal::Unavailable => ("Server is busy", 9),
    };
    format!(r#"{{"text":"{text}","code":{code}}}"#)
}

/// The type of the detail that says when to come back.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `google.rpc.Status{code = 1, message = 2, details = 3}` on the wire, with
/// [`retry_info`] as its one detail.
fn rpc_status(code: i32, message: &str, wait: Option<u64>) -> Vec<u8> {
    let detail = wait.map(|seconds| {
        field(3, &[field(1, RETRY_INFO.as_bytes()), field(2, &retry_info(seconds))].concat())
    });
    let code = number(1, code.unsigned_abs().into());
    [code, field(2, message.as_bytes()), detail.unwrap_or_default()].concat()
}

/// `RetryInfo{retry_delay = 1: Duration{seconds = 1}}`.
fn retry_info(seconds: u64) -> Vec<u8> {
    field(1, &number(1, seconds))
}

/// A number of protobuf with its tag.
fn number(tag: u8, value: u64) -> Vec<u8> {
    let mut out = vec![tag << 3];
    write_varint(value, &mut out);
    out
}

/// A text or message of protobuf with its tag.
fn field(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag << 3 | 2];
    write_varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

/// Seven bits in a byte, the lowest first.
fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
#[path = "answer/tests.rs"]
mod tests;
