//! `POST /api/v1/write`: Prometheus remote write 1.0.
//!
//! The body is one block of snappy, whose decoded size is known before it is decoded. Bad samples
//! make the answer 400, which Prometheus does not repeat; the good ones are stored first. Version
//! 2.0 is another content type, and is told so with 415.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use prost::Message;
use tracing::{Instrument, info_span};

use crate::gateway::admission::{Admission, traceparent};
use crate::gateway::body::{Received, receive_as};
use crate::gateway::edge::{Converted, Edge, convert};
use crate::gateway::inflate::{BodyCaps, Encoding, RATIO_FREE_BYTES};
use crate::gateway::influx::reply::{POINTS, seconds};
use crate::gateway::metrics::Protocol;
use crate::gateway::refusal::{Cap, Refusal};
use crate::gateway::verdict::{Rejection, Verdict};
use crate::point::Chunker;
use crate::remote_write::{DECODED_PER_BYTE, Item, SeriesOf, TimeSeries};

const MALFORMED: Refusal =
    Refusal::BodyInvalid("the body is not a protobuf message of remote write 1.0");
const NOT_SNAPPY: Refusal = Refusal::BodyInvalid("the body is not a block of snappy");

/// The handler.
pub async fn write(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    if request.method() != Method::POST {
        let mut response =
            text(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed, use POST");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let protocol = Protocol::RemoteWrite;
    let span = info_span!("write", ?protocol);
    chassis::telemetry::continue_trace(&span, traceparent(request.headers()).as_deref());
    let started = std::time::Instant::now();
    let outcome = store(&edge, request).instrument(span).await;
    edge.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
    edge.metrics.answered(protocol, &outcome);
    reply(outcome)
}

async fn store(edge: &Edge, request: Request) -> Result<Verdict, Refusal> {
    let deadline = edge.deadline();
    let (parts, body): (_, Body) = request.into_parts();
    let admission = Admission::of(&parts.headers, SystemTime::now())?;
    check_headers(&parts.headers)?;
    let caps = edge.caps();
    let received =
        receive_as(Encoding::Identity, &parts.headers, body, caps, &edge.budget, deadline).await?;
    let received = unsnap(received, caps)?;
    edge.metrics.received(Protocol::RemoteWrite, received.wire_bytes, received.bytes.len());
    let chunker = edge.chunker(&admission)?;
    let converted = convert(received.bytes.len(), move || points(received, chunker)).await?;
    edge.append(&admission, converted, deadline).await
}

/// `application/x-protobuf`, alone or as `prometheus.WriteRequest`, compressed with snappy.
fn check_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut content_type = text(header::CONTENT_TYPE).split(';').map(str::trim);
    let essence = content_type.next().unwrap_or("");
    let message = content_type.find_map(|parameter| parameter.strip_prefix("proto="));
    if !essence.eq_ignore_ascii_case("application/x-protobuf")
        || message.is_some_and(|message| message != "prometheus.WriteRequest")
    {
        return Err(Refusal::ContentTypeUnsupported);
    }
    match text(header::CONTENT_ENCODING).eq_ignore_ascii_case("snappy") {
        true => Ok(()),
        false => Err(Refusal::EncodingNotSnappy),
    }
}

/// Decompresses the body, after its declared size was held against the caps and the budget.
fn unsnap(received: Received, caps: BodyCaps) -> Result<Received, Refusal> {
    let Received { bytes, mut reservation, wire_bytes } = received;
    let length = snap::raw::decompress_len(&bytes).map_err(|_| NOT_SNAPPY)?;
    if length > caps.decoded {
        return Err(Refusal::BodyTooLarge(Cap::Decoded(caps.decoded)));
    }
    if length > RATIO_FREE_BYTES && length as u64 > (wire_bytes as u64).saturating_mul(caps.ratio) {
        return Err(Refusal::BodyTooLarge(Cap::Ratio(caps.ratio)));
    }
    reservation.grow(length)?;
    let bytes = snap::raw::Decoder::new().decompress_vec(&bytes).map_err(|_| NOT_SNAPPY)?;
    Ok(Received { bytes, reservation, wire_bytes })
}

/// Decodes a request into chunks, a series at a time. Memory is reserved before it is used.
fn points(received: Received, mut chunker: Chunker) -> Result<Converted, Refusal> {
    let Received { bytes, mut reservation, .. } = received;
    // One series is decoded at a time.
    let mut largest = 0;
    for one in SeriesOf::new(&bytes) {
        largest = largest.max(one.map_err(|_| MALFORMED)?.len());
    }
    reservation.grow(largest.saturating_mul(DECODED_PER_BYTE))?;
    let mut verdict = Verdict::default();
    let (mut position, mut reserved) = (0, 0);
    for one in SeriesOf::new(&bytes).flatten() {
        let one = TimeSeries::decode(one).map_err(|_| MALFORMED)?;
        one.visit(|item| {
            position += 1;
            let fault = match item {
                Item::Point(mut point) => chunker.push(&mut point).err(),
                Item::Skipped => None,
                Item::Rejected(fault) => Some(fault),
            };
            if let Some(fault) = fault {
                verdict.reject(fault, || {
                    let detail = chunker.detail(fault);
                    Rejection { position, column: 0, fault, detail, excerpt: String::new() }
                });
            }
            let allocated = chunker.allocated();
            if allocated > reserved {
                reservation.grow(allocated - reserved)?;
                reserved = allocated;
            }
            Ok::<(), Refusal>(())
        })?;
    }
    verdict.stored = chunker.points();
    Ok(Converted { chunks: chunker.finish(), verdict, reservation })
}

fn reply(outcome: Result<Verdict, Refusal>) -> Response {
    let (mut response, stored) = match outcome {
        Ok(verdict) if verdict.rejected.is_empty() => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            (response, verdict.stored)
        }
        Ok(verdict) => (text(StatusCode::BAD_REQUEST, &verdict.message("sample")), verdict.stored),
        Err(refusal) => {
            let mut response = text(refusal.status(), &refusal.to_string());
            if let Some(after) = refusal.retry_after() {
                response.headers_mut().insert(header::RETRY_AFTER, seconds(after));
            }
            (response, 0)
        }
    };
    response.headers_mut().insert(POINTS, HeaderValue::from(stored));
    response
}

/// Prometheus logs the first line of a body as it is.
fn text(status: StatusCode, message: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{message}\n")));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
