//! Answers of OTLP: over HTTP in the encoding of the request, over gRPC with trailers.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use prost::Message;
use serde_json::json;

use crate::gateway::influx::reply::json_response;
use crate::gateway::media_type::MediaType;
use crate::gateway::protocol::Outcome;
use crate::gateway::refusal::Refusal;
use crate::gateway::verdict::Verdict;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The encoding of a request over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
    /// Anything else; answered in protobuf.
    Other,
}

impl Encoding {
    /// Reads `Content-Type`.
    pub fn of(headers: &HeaderMap) -> Self {
        match MediaType::of(headers).essence.as_str() {
            "application/x-protobuf" => Encoding::Protobuf,
            "application/json" => Encoding::Json,
            _ => Encoding::Other,
        }
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// A gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For the person who runs the client.
    #[prost(string, tag = "2")]
    pub message: String,
    /// At most one [`RetryInfo`].
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// The type of the value.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub struct RetryInfo {
    /// When to try again.
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
pub struct ProtoDuration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// And nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// The answer over HTTP in protobuf.
pub fn http(item: &str, outcome: &Outcome) -> Response {
    let (code, body) = match outcome {
        Ok(verdict) => (StatusCode::OK, success(item, verdict).encode_to_vec()),
        Err(refusal) => (refusal.status(), status(*refusal).encode_to_vec()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, PROTOBUF);
    response
}

/// The answer over HTTP in JSON; `rejected` is the field that counts what was refused.
pub fn json(item: &str, rejected: &str, outcome: &Outcome) -> Response {
    match outcome {
        Ok(verdict) if verdict.rejected_count() == 0 => json_response(StatusCode::OK, &json!({})),
        Ok(verdict) => {
            // JSON of protobuf writes 64 bits as text.
            let count = verdict.rejected_count().to_string();
            let partial = json!({rejected: count, "errorMessage": verdict.message(item)});
            json_response(StatusCode::OK, &json!({"partialSuccess": partial}))
        }
        Err(refusal) => {
            let mut body = json!({"code": refusal.grpc_code(), "message": refusal.to_string()});
            if let Some(after) = refusal.retry_after() {
                body["details"] = json!([{"@type": RETRY_INFO, "retryDelay": seconds(after)}]);
            }
            json_response(refusal.status(), &body)
        }
    }
}

/// A duration in JSON of protobuf, which has nine digits of a second at most: readers refuse more.
fn seconds(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        nanos => format!("{}.{nanos:09}s", duration.as_secs()),
    }
}

/// The answer over gRPC.
pub fn grpc(item: &str, outcome: &Outcome) -> Response {
    let verdict = match outcome {
        Ok(verdict) => verdict,
        Err(refusal) => return trailers_only(*refusal),
    };
    let message = success(item, verdict);
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    // An answer describes at most 100 points, far from 4 GiB.
    frame.put_u32(message.encoded_len() as u32);
    message.encode(&mut frame).expect("the buffer grows");
    let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from(0))]);
    let body = Full::new(frame.freeze()).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

fn trailers_only(refusal: Refusal) -> Response {
    let status = status(refusal);
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(GRPC_STATUS, HeaderValue::from(status.code));
    // Our messages are plain ASCII without percent signs.
    if let Ok(message) = HeaderValue::from_str(&status.message) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if !status.details.is_empty() {
        let details = STANDARD_NO_PAD.encode(status.encode_to_vec());
        if let Ok(details) = HeaderValue::from_str(&details) {
            headers.insert(GRPC_DETAILS, details);
        }
    }
    if refusal == Refusal::ContentEncodingUnsupported {
        let accepted = HeaderValue::from_static("identity,deflate,gzip,snappy,zstd");
        headers.insert(GRPC_ACCEPT_ENCODING, accepted);
    }
    response
}

/// The answer to a request of another method than POST over HTTP.
pub fn method_not_allowed() -> Response {
    let status = Status {
        code: 12,
        message: "the method is not allowed, use POST".to_owned(),
        details: Vec::new(),
    };
    let mut response = Response::new(Body::from(status.encode_to_vec()));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(header::CONTENT_TYPE, PROTOBUF);
    response
}

/// A status without a body: the answer to a request on a path of gRPC that is none.
pub fn alone(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The answers for metrics, logs and traces have the same fields.
fn success(item: &str, verdict: &Verdict) -> ExportMetricsServiceResponse {
    // Unset when all is well, as the specification asks.
    let partial_success = (verdict.rejected_count() > 0).then(|| ExportMetricsPartialSuccess {
        rejected_data_points: i64::try_from(verdict.rejected_count()).unwrap_or(i64::MAX),
        error_message: verdict.message(item),
    });
    ExportMetricsServiceResponse { partial_success }
}

fn status(refusal: Refusal) -> Status {
    let info = |after: Duration| {
        let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
        let retry_delay = Some(ProtoDuration { seconds, nanos: after.subsec_nanos() as i32 });
        let value = RetryInfo { retry_delay }.encode_to_vec();
        Any { type_url: RETRY_INFO.to_owned(), value }
    };
    Status {
        code: refusal.grpc_code(),
        message: refusal.to_string(),
        details: refusal.retry_after().map(info).into_iter().collect(),
    }
}
