//! Answers in the three dialects of InfluxDB.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::gateway::protocol::{Outcome, ProtocolName};
use crate::gateway::verdict::Verdict;

const ERROR: HeaderName = HeaderName::from_static("x-influxdb-error");

/// The longest `X-Influxdb-Error`; the body has the whole message.
const ERROR_HEADER_BYTES_MAX: usize = 1024;

/// The answer to a write.
pub fn of(protocol: ProtocolName, outcome: &Outcome) -> Response {
    let verdict = match outcome {
        Err(refusal) => return error(protocol, refusal.status(), &refusal.to_string()),
        Ok(verdict) => verdict,
    };
    if verdict.rejected.is_empty() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    }
    let kind = if verdict.stored > 0 { "partial write" } else { "unable to parse" };
    let message = format!("{kind}: {}", verdict.message("line"));
    match protocol {
        ProtocolName::InfluxV3 => {
            let body = json!({"error": message, "data": described(verdict)});
            with_error_header(json_response(StatusCode::BAD_REQUEST, &body), &message)
        }
        _ => error(protocol, StatusCode::BAD_REQUEST, &message),
    }
}

/// The answer to a request of another method than POST.
pub fn method_not_allowed(protocol: ProtocolName) -> Response {
    error(protocol, StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed, use POST")
}

/// An error in the words of the protocol.
pub fn error(protocol: ProtocolName, status: StatusCode, message: &str) -> Response {
    match protocol {
        ProtocolName::InfluxV2 => {
            json_response(status, &json!({"code": code_v2(status), "message": message}))
        }
        _ => with_error_header(json_response(status, &json!({"error": message})), message),
    }
}

/// The answer with its message in the header that clients of versions 1 and 3 read.
fn with_error_header(mut response: Response, message: &str) -> Response {
    let end = message.floor_char_boundary(ERROR_HEADER_BYTES_MAX);
    if let Ok(value) = HeaderValue::from_str(&message[..end]) {
        response.headers_mut().insert(ERROR, value);
    }
    response
}

fn code_v2(status: StatusCode) -> &'static str {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => "method not allowed",
        StatusCode::PAYLOAD_TOO_LARGE => "request too large",
        StatusCode::UNPROCESSABLE_ENTITY => "unprocessable entity",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported media type",
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
