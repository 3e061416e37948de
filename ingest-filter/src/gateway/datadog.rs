//! The intake API of Datadog: `/api/v1/series`, `/api/v2/series`, `/api/beta/sketches`,
//! `/api/v1/check_run` and `/api/v1/validate`, and the two paths of which nothing is stored.
//!
//! The Agent drops what was answered 400 or 413 and sends everything else again, a 404 too. So bad
//! points beside good ones are named in a 202.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde_json::json;

use crate::datadog::{series_protobuf, series_v1, series_v2, service_checks, sketches};
use crate::gateway::admission::Admission;
use crate::gateway::config::GatewayConfig;
use crate::gateway::edge::Edge;
use crate::gateway::inflate::Encoding;
use crate::gateway::influx::reply::json_response;
use crate::gateway::intake::RequestIntake;
use crate::gateway::media_type::MediaType;
use crate::gateway::protocol::{Framing, Head, Outcome, Protocol, ProtocolName};
use crate::gateway::refusal::Refusal;
use crate::gateway::serve::serve;
use crate::intake::Stop;

/// `POST /api/v1/series`.
pub async fn write_v1(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Datadog::JsonV1, request).await
}

/// `POST /api/v2/series`.
pub async fn write_v2(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Datadog::JsonV2, request).await
}

/// `POST /api/beta/sketches`.
pub async fn write_sketches(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Datadog::Sketches, request).await
}

/// `POST /api/v1/check_run`.
pub async fn write_checks(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Datadog::Checks, request).await
}

/// `POST /intake/` and `/api/v1/metadata`: what the Agent says of itself and its host, and events,
/// of which nothing is kept. A 202 would be a lie, and a 404 is sent again for ever: metadata come
/// before metrics in the Agent's queue, so they would take the room of metrics there.
pub async fn not_stored() -> Response {
    errors(StatusCode::BAD_REQUEST, "metadata and events are not stored")
}

/// `GET /api/v1/validate`: whether the key is valid, which it is when ext-authz let the request
/// pass.
pub async fn validate(request: Request) -> Response {
    match Admission::of(request.headers(), SystemTime::now()) {
        Ok(_) => json_response(StatusCode::OK, &json!({"valid": true})),
        Err(refusal) => errors(refusal.status(), &refusal.to_string()),
    }
}

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Datadog {
    JsonV1,
    JsonV2,
    ProtobufV2,
    Sketches,
    Checks,
}

impl Datadog {
    /// What the path of this form takes.
    fn content_types(self) -> &'static str {
        match self {
            Datadog::JsonV1 | Datadog::Checks => "application/json",
            Datadog::JsonV2 | Datadog::ProtobufV2 => "application/json or application/x-protobuf",
            Datadog::Sketches => "application/x-protobuf",
        }
    }
}

impl Protocol for Datadog {
    fn name(&self) -> ProtocolName {
        match self {
            Datadog::JsonV1 => ProtocolName::DatadogV1,
            Datadog::JsonV2 | Datadog::ProtobufV2 => ProtocolName::DatadogV2,
            Datadog::Sketches => ProtocolName::DatadogSketches,
            Datadog::Checks => ProtocolName::DatadogChecks,
        }
    }

    fn parse(&mut self, head: &Parts, _: &GatewayConfig) -> Result<Head, Refusal> {
        let kind = MediaType::of(&head.headers);
        *self = match (*self, kind.essence.as_str()) {
            (Datadog::JsonV1, "" | "application/json") => Datadog::JsonV1,
            (Datadog::JsonV2, "" | "application/json") => Datadog::JsonV2,
            (Datadog::JsonV2, "application/x-protobuf") => Datadog::ProtobufV2,
            (Datadog::Sketches, "application/x-protobuf") => Datadog::Sketches,
            (Datadog::Checks, "" | "application/json") => Datadog::Checks,
            (form, _) => return Err(Refusal::ContentTypeUnsupported(form.content_types())),
        };
        let framing = Framing::Whole(Encoding::of(&head.headers)?);
        Ok(Head { framing, ..Head::default() })
    }

    fn decode(&self, body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
        match self {
            Datadog::JsonV1 => series_v1(body, intake),
            Datadog::JsonV2 => series_v2(body, intake),
            Datadog::ProtobufV2 => series_protobuf(body, intake),
            Datadog::Sketches => sketches(body, intake),
            Datadog::Checks => service_checks(body, intake),
        }
    }

    fn malformed(&self) -> Refusal {
        Refusal::BodyInvalid(match self {
            Datadog::JsonV1 | Datadog::JsonV2 => "the body is not a JSON object of series",
            Datadog::ProtobufV2 => "the body is not a protobuf message of series",
            Datadog::Sketches => "the body is not a protobuf message of sketches",
            Datadog::Checks => "the body is not a JSON list of service checks",
        })
    }

    fn answer(&self, outcome: &Outcome) -> Response {
        let verdict = match outcome {
            Err(refusal) => return errors(refusal.status(), &refusal.to_string()),
            Ok(verdict) => verdict,
        };
        if !verdict.rejected.is_empty() {
            let all_bad = verdict.stored == 0;
            let status = if all_bad { StatusCode::BAD_REQUEST } else { StatusCode::ACCEPTED };
            return errors(status, &verdict.message("point"));
        }
        let body = match self {
            Datadog::JsonV1 | Datadog::Checks => json!({"status": "ok"}),
            Datadog::JsonV2 | Datadog::ProtobufV2 | Datadog::Sketches => json!({"errors": []}),
        };
        json_response(StatusCode::ACCEPTED, &body)
    }

    fn method_not_allowed(&self) -> Response {
        errors(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed, use POST")
    }
}

fn errors(status: StatusCode, message: &str) -> Response {
    json_response(status, &json!({"errors": [message]}))
}
