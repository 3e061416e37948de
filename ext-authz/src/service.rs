//! Envoy's `Authorization` service: translates, asks the decision, translates back.
//!
//! A bad key is never a gRPC error: Envoy reads any gRPC status as an outage of this service.

mod log_budget;
pub mod request;
pub mod response;

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::pb::envoy::service::auth::v3::authorization_server::Authorization;
use proto::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tonic::{Request, Response, Status};
use tracing::field::{Empty, display};

use self::log_budget::LogBudget;
use crate::check::answer::Dialect;
use crate::check::decide::{Decision, Reason, decide};
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::timestamp::Timestamp;

/// The gRPC service's full name, for health.
pub const SERVICE_NAME: &str = "envoy.service.auth.v3.Authorization";

/// Answers checks with the keys in force.
pub struct AuthorizationService {
    keys: Arc<Keys>,
    metrics: Arc<Metrics>,
    retry_after_seconds: u64,
    log_budget: LogBudget,
    started: Instant,
}

impl AuthorizationService {
    /// `retry_after` is what callers are told to wait when keys cannot be checked.
    pub fn new(keys: Arc<Keys>, metrics: Arc<Metrics>, retry_after: Duration) -> Self {
        // Rounded up: a caller who comes a little late does no harm.
        let retry_after_seconds = retry_after.as_secs_f64().ceil() as u64;
        let log_budget = LogBudget::default();
        Self { keys, metrics, retry_after_seconds, log_budget, started: Instant::now() }
    }

    fn answer(&self, request: &CheckRequest) -> CheckResponse {
        let began = Instant::now();
        let keys = self.keys.in_force();
        let request = request::view(request);
        let decision = decide(Timestamp::now(), keys.as_deref(), request.as_ref());
        let dialect = request.as_ref().map_or(Dialect::Problem, Dialect::of);
        let profile = request.as_ref().map(|request| request.profile);
        let response = match profile {
            Some(profile) => {
                response::respond(&decision, profile, dialect, self.retry_after_seconds)
            }
            None => response::respond_to_nothing(&decision, self.retry_after_seconds),
        };
        self.log(&decision);
        self.metrics.checked(&decision, profile, began.elapsed());
        response
    }

    fn log(&self, decision: &Decision<'_>) {
        let span = tracing::Span::current();
        match decision {
            Decision::Allow { key, .. } => {
                span.record("decision", "allow");
                span.record("key_id", display(key.id));
                span.record("tenant", &key.tenant);
            }
            Decision::Deny { reason, key_id } => {
                span.record("decision", "deny");
                span.record("reason", reason.as_str());
                if let Some(key_id) = key_id {
                    span.record("key_id", display(key_id));
                }
                self.log_denial(*reason, key_id.as_ref().map(|id| id.as_str()));
            }
            Decision::Unavailable => {
                span.record("decision", "unavailable");
            }
        }
    }

    fn log_denial(&self, reason: Reason, key_id: Option<&str>) {
        if self.log_budget.take(self.started.elapsed().as_secs()) {
            tracing::info!(reason = reason.as_str(), key_id, "denied");
        } else {
            self.metrics.unlogged();
        }
    }
}

#[tonic::async_trait]
impl Authorization for AuthorizationService {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let span = tracing::info_span!(
            "check",
            decision = Empty,
            reason = Empty,
            key_id = Empty,
            tenant = Empty
        );
        let called_in = request.metadata().get("traceparent").and_then(|text| text.to_str().ok());
        // The call's own context is nearer than the one the client's request came with.
        let traceparent = called_in.or_else(|| request::traceparent(request.get_ref()));
        chassis::telemetry::continue_trace(&span, traceparent);
        Ok(Response::new(span.in_scope(|| self.answer(request.get_ref()))))
    }
}
