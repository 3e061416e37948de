//! `POST /api/v1/write`: Prometheus remote write, 1.0 and 2.0.
//!
//! The content type says which. Bad samples make the answer 400, which Prometheus does not
//! repeat; the good ones are stored first, and 2.0 is told in headers how many those were.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::gateway::config::GatewayConfig;
use crate::gateway::edge::Edge;
use crate::gateway::inflate::Encoding;
use crate::gateway::intake::RequestIntake;
use crate::gateway::media_type::MediaType;
use crate::gateway::protocol::{Framing, Head, Outcome, Protocol, ProtocolName};
use crate::gateway::refusal::Refusal;
use crate::gateway::serve::serve;
use crate::intake::{Kind, Stop};
use crate::remote_write::{Version, for_each_item};

/// Headers of 2.0 that say how much of each kind is in the journal.
const WRITTEN: [(HeaderName, Kind); 3] = [
    (HeaderName::from_static("x-prometheus-remote-write-samples-written"), Kind::Sample),
    (HeaderName::from_static("x-prometheus-remote-write-histograms-written"), Kind::Histogram),
    (HeaderName::from_static("x-prometheus-remote-write-exemplars-written"), Kind::Exemplar),
];

/// What names the two messages.
const CONTENT_TYPES: &str = "application/x-protobuf, alone or with proto=prometheus.WriteRequest or \
                             proto=io.prometheus.write.v2.Request";

/// The handler.
pub async fn write(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, RemoteWrite { version: Version::V1 }, request).await
}

#[derive(Clone, Copy, Debug)]
struct RemoteWrite {
    version: Version,
}

impl Protocol for RemoteWrite {
    fn name(&self) -> ProtocolName {
        match self.version {
            Version::V1 => ProtocolName::RemoteWrite,
            Version::V2 => ProtocolName::RemoteWriteV2,
        }
    }

    /// `application/x-protobuf`, with the name of the message or without, compressed with snappy; or
    /// 1.0 with zstd, which is what vmagent tries first.
    fn parse(&mut self, head: &Parts, _: &GatewayConfig) -> Result<Head, Refusal> {
        let kind = MediaType::of(&head.headers);
        if kind.essence != "application/x-protobuf" {
            return Err(Refusal::ContentTypeUnsupported(CONTENT_TYPES));
        }
        self.version = match kind.parameter("proto") {
            None | Some("prometheus.WriteRequest") => Version::V1,
            Some("io.prometheus.write.v2.Request") => Version::V2,
            Some(_) => return Err(Refusal::ContentTypeUnsupported(CONTENT_TYPES)),
        };
        let encoding = head.headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let is = |name: &str| encoding.is_some_and(|e| e.eq_ignore_ascii_case(name.as_bytes()));
        let framing = match self.version {
            _ if is("snappy") => Framing::Whole(Encoding::SnappyBlock),
            Version::V1 if is("zstd") => Framing::Whole(Encoding::Zstd),
            Version::V1 => return Err(Refusal::RemoteWriteEncoding("snappy or zstd")),
            Version::V2 => return Err(Refusal::RemoteWriteEncoding("snappy")),
        };
        Ok(Head { framing, ..Head::default() })
    }

    fn decode(&self, body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
        for_each_item(body, self.version, intake)
    }

    fn malformed(&self) -> Refusal {
        Refusal::BodyInvalid(match self.version {
            Version::V1 => "the body is not a protobuf message of remote write 1.0",
            Version::V2 => "the body is not a protobuf message of remote write 2.0",
        })
    }

    fn answer(&self, outcome: &Outcome) -> Response {
        let mut response = match outcome {
            Ok(verdict) if verdict.rejected.is_empty() => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            Ok(verdict) => text(StatusCode::BAD_REQUEST, &verdict.message("sample")),
            Err(refusal) => text(refusal.status(), &refusal.to_string()),
        };
        if self.version == Version::V2 {
            for (name, kind) in WRITTEN {
                let written = outcome.as_ref().map_or(0, |verdict| verdict.stored_of(kind));
                response.headers_mut().insert(name, HeaderValue::from(written));
            }
        }
        response
    }

    fn method_not_allowed(&self) -> Response {
        text(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed, use POST")
    }
}

/// Prometheus logs the first line of a body as it is.
fn text(status: StatusCode, message: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{message}\n")));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
