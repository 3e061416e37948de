//! The wire: `envoy.service.ratelimit.v3` over gRPC. Translates and decides nothing.

use std::sync::Arc;

use proto::pb::envoy::config::core::v3::HeaderValue;
use proto::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit as WireUnit;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit,
};
use proto::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use proto::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use proto::pb::google::protobuf::{Duration, ListValue, Struct, Value, value::Kind};
use tonic::{Response, Status};
use tracing::Instrument;

use crate::decide::conclude::{self, Decision};
use crate::decide::request::{Descriptor, Override, Request, RequestError};
use crate::limiter::Limiter;
use crate::limits::unit::Unit;

/// The gRPC service.
#[derive(Clone)]
pub struct Service {
    limiter: Arc<Limiter>,
}

impl Service {
    /// The service over a limiter.
    pub fn new(limiter: Arc<Limiter>) -> Self {
        Self { limiter }
    }
}

#[tonic::async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(
        &self,
        request: tonic::Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let traceparent = request.metadata().get("traceparent").and_then(|v| v.to_str().ok());
        // Spans are exported only where the caller traces, so only those pay for one.
        let span = traceparent.map(|traceparent| {
            let span = tracing::info_span!("should_rate_limit", otel.kind = "server");
            chassis::telemetry::continue_trace(&span, Some(traceparent));
            span
        });
        let wire = request.get_ref();
        let decide = async {
            let request = from_wire(wire);
            self.limiter.decide(&request).await
        };
        let decided = match span {
            Some(span) => decide.instrument(span).await,
            None => decide.await,
        };
        Ok(Response::new(to_wire(decided?)))
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        match error.is_invalid_argument() {
            true => Status::invalid_argument(error.to_string()),
            // The reference answers its own errors so.
            false => Status::unknown(error.to_string()),
        }
    }
}

/// The request, borrowed from the message.
pub fn from_wire(wire: &RateLimitRequest) -> Request<'_> {
    Request {
        domain: &wire.domain,
        descriptors: wire.descriptors.iter().map(descriptor).collect(),
        hits_addend: wire.hits_addend,
    }
}

fn descriptor(wire: &RateLimitDescriptor) -> Descriptor<'_> {
    Descriptor {
        entries: wire.entries.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect(),
        limit_override: wire.limit.map(|limit| Override {
            requests_per_unit: limit.requests_per_unit,
            // The override's enum has no week, and otherwise the same numbers.
            unit: match limit.unit {
                1 => Some(Unit::Second),
                2 => Some(Unit::Minute),
                3 => Some(Unit::Hour),
                4 => Some(Unit::Day),
                5 => Some(Unit::Month),
                6 => Some(Unit::Year),
                _ => None,
            },
        }),
        hits_addend: wire.hits_addend.map(|hits| hits.value),
        is_negative_hits: wire.is_negative_hits,
    }
}

/// The answer as a message.
pub fn to_wire(decision: Decision) -> RateLimitResponse {
    let header = |header: crate::decide::headers::Header| HeaderValue {
        key: header.name,
        value: header.value,
        ..HeaderValue::default()
    };
    RateLimitResponse {
        overall_code: code(decision.over_limit),
        statuses: decision.statuses.into_iter().map(status).collect(),
        response_headers_to_add: decision.headers.into_iter().map(header).collect(),
        dynamic_metadata: decision.metadata.map(|metadata| match to_value(metadata).kind {
            Some(Kind::StructValue(fields)) => fields,
            _ => Struct::default(),
        }),
        ..RateLimitResponse::default()
    }
}

fn status(status: conclude::Status) -> DescriptorStatus {
    DescriptorStatus {
        code: code(status.over_limit),
        current_limit: status.current_limit.map(|(limit, name)| RateLimit {
            name,
            requests_per_unit: limit.requests_per_unit,
            // A unit that is not the true period would be a lie; Envoy then shows no window.
            unit: limit.period.unit().map_or(WireUnit::Unknown, unit).into(),
        }),
        limit_remaining: status.limit_remaining,
        duration_until_reset: status.reset_seconds.map(|seconds| Duration {
            seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
            nanos: 0,
        }),
        quota: None,
    }
}

fn code(over_limit: bool) -> i32 {
    if over_limit { Code::OverLimit.into() } else { Code::Ok.into() }
}

fn unit(unit: Unit) -> WireUnit {
    match unit {
        Unit::Second => WireUnit::Second,
        Unit::Minute => WireUnit::Minute,
        Unit::Hour => WireUnit::Hour,
        Unit::Day => WireUnit::Day,
        Unit::Week => WireUnit::Week,
        Unit::Month => WireUnit::Month,
        Unit::Year => WireUnit::Year,
    }
}

fn to_value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(0.0)),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(to_value).collect() })
        }
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(key, value)| (key, to_value(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}
