//! Answers in the three dialects of InfluxDB.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::gateway::metrics::Protocol;
use crate::gateway::refusal::Refusal;
use crate::gateway::verdict::Verdict;

/// How many points of the request are in the journal.
pub const POINTS: HeaderName = HeaderName::from_static("x-tidegate-points");
const ERROR_V1: HeaderName = HeaderName::from_static("x-influxdb-error");

/// The longest `X-Influxdb-Error`; the body has the whole message.
const ERROR_HEADER_BYTES_MAX: usize = 1024;

/// The answer to a write.
pub fn of(protocol: Protocol, outcome: Result<Verdict, Refusal>) -> Response {
    let verdict = match outcome {
        Err(refusal) => return refused(protocol, refusal),
        Ok(verdict) => verdict,
    };
    let mut response = if verdict.rejected.is_empty() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        let kind = if verdict.stored > 0 { "partial write" } else { "unable to parse" };
        let message = format!("{kind}: {}", verdict.message("line"));
        match protocol {
            Protocol::InfluxV3 => {
                let body = json!({"error": message, "data": described(&verdict)});
                json_response(StatusCode::BAD_REQUEST, &body)
            }
            _ => error(protocol, StatusCode::BAD_REQUEST, &message),
        }
    };
    response.headers_mut().insert(POINTS, HeaderValue::from(verdict.stored));
    response
}

/// The answer to a request of another method than POST.
pub fn method_not_allowed(protocol: Protocol) -> Response {
    let mut response =
        error(protocol, StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed, use POST");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

fn refused(protocol: Protocol, refusal: Refusal) -> Response {
    let mut response = error(protocol, refusal.status(), &refusal.to_string());
    if let Some(after) = refusal.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds(after));
    }
    response.headers_mut().insert(POINTS, HeaderValue::from(0));
    response
}

/// Whole seconds, rounded up.
pub fn seconds(duration: std::time::Duration) -> HeaderValue {
    HeaderValue::from(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

/// An error in the words of the protocol.
pub fn error(protocol: Protocol, status: StatusCode, message: &str) -> Response {
    match protocol {
        Protocol::InfluxV2 => {
            json_response(status, &json!({"code": code_v2(status), "message": message}))
        }
        _ => {
            let mut response = json_response(status, &json!({"error": message}));
            let end = message.floor_char_boundary(ERROR_HEADER_BYTES_MAX);
            if let Ok(value) = HeaderValue::from_str(&message[..end]) {
                response.headers_mut().insert(ERROR_V1, value);
            }
            response
        }
    }
}

fn code_v2(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::METHOD_NOT_ALLOWED => "method not allowed",
        StatusCode::PAYLOAD_TOO_LARGE => "request too large",
        StatusCode::UNPROCESSABLE_ENTITY => "unprocessable entity",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported media type",
        StatusCode::REQUEST_TIMEOUT => "request timeout",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        _ => "invalid",
    }
}

fn described(verdict: &Verdict) -> Vec<Value> {
    let item = |rejection: &crate::gateway::verdict::Rejection| {
        json!({
            "original_line": rejection.excerpt,
            "line_number": rejection.position,
            "error_message": rejection.reason(),
        })
    };
    verdict.described.iter().map(item).collect()
}

/// A JSON body with its status.
pub fn json_response(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(format!("{body}\n")));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
