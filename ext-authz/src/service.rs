//! Envoy's `Authorization` service: translates, asks the decision, translates back.
//!
//! A bad key is never a gRPC error: Envoy reads any gRPC status as an outage of this service.

mod failure_buckets;
mod log_budget;
pub mod request;
pub mod response;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::pb::envoy::service::auth::v3::authorization_server::Authorization;
use proto::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tonic::{Request, Response, Status};
use tracing::field::{Empty, display};

use self::failure_buckets::FailureBuckets;
use self::log_budget::LogBudget;
use crate::check::decide::{Decision, Reason, Refusal, Trouble, decide};
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::timestamp::Timestamp;

/// The gRPC service's full name, for health.
pub const SERVICE_NAME: &str = "envoy.service.auth.v3.Authorization";

/// The most characters of an unknown profile's name in the log.
const PROFILE_NAME_LOGGED_MAX: usize = 64;

/// Answers checks with the keys in force.
pub struct AuthorizationService {
    keys: Arc<Keys>,
    metrics: Arc<Metrics>,
    retry_after_seconds: u64,
    log_budget: LogBudget,
    failures: FailureBuckets,
    started: Instant,
}

impl AuthorizationService {
    /// `retry_after` is what callers are told to wait when keys cannot be checked.
    pub fn new(keys: Arc<Keys>, metrics: Arc<Metrics>, retry_after: Duration) -> Self {
        // Rounded up: a caller who comes a little late does no harm.
        let retry_after_seconds = retry_after.as_secs_f64().ceil() as u64;
        let (log_budget, failures) = (LogBudget::default(), FailureBuckets::default());
        Self { keys, metrics, retry_after_seconds, log_budget, failures, started: Instant::now() }
    }

    fn answer(&self, request: &CheckRequest) -> CheckResponse {
        let began = Instant::now();
        let keys = self.keys.in_force();
        let check = request;
        let request = request::view(check);
        let now = Timestamp::now();
        let decision = decide(now, keys.as_deref(), request.as_ref());
        let client = request.as_ref().and_then(|request| request.client);
        let decision = self.throttled(decision, client, now);
        let response = response::respond(&decision, request.as_ref(), self.retry_after_seconds);
        self.log(&decision, check);
        let profile = request.map(|request| request.profile);
        self.metrics.checked(&decision, profile, began.elapsed());
        response
    }

    /// The decision, or for a key that is not good, "wait" where there were too many of those.
    fn throttled<'s>(
        &self,
        decision: Decision<'s>,
        client: Option<IpAddr>,
        now: Timestamp,
    ) -> Decision<'s> {
        match decision {
            Decision::Deny { reason, key_id } if reason.refusal() == Refusal::BadCredential => {
                let known_key = key_id.filter(|_| reason.is_of_a_known_key());
                let reason = match self.failures.charge(client, known_key, now) {
                    true => reason,
                    false => Reason::Throttled,
                };
                Decision::Deny { reason, key_id }
            }
            other => other,
        }
    }

    fn log(&self, decision: &Decision<'_>, check: &CheckRequest) {
        let span = tracing::Span::current();
        match decision {
            Decision::Allow { key, .. } => {
                span.record("decision", "allow");
                span.record("key_id", display(key.id));
                span.record("tenant", &*key.tenant);
            }
            Decision::Deny { reason, key_id } => {
                span.record("decision", "deny");
                span.record("reason", reason.as_str());
                if let Some(key_id) = key_id {
                    span.record("key_id", display(key_id));
                }
                self.log_denial(*reason, key_id.as_ref().map(|id| id.as_str()));
            }
            Decision::Unavailable(trouble) => {
                span.record("decision", "unavailable");
                span.record("reason", trouble.as_str());
                if *trouble == Trouble::UnknownProfile {
                    self.log_unknown_profile(check);
                }
            }
        }
    }

    /// Only a change of Envoy's configuration, or of this program, helps.
    fn log_unknown_profile(&self, check: &CheckRequest) {
        if self.log_budget.take(self.started.elapsed().as_secs()) {
            let profile = request::profile_name(check).unwrap_or_default();
            let profile: String = profile.chars().take(PROFILE_NAME_LOGGED_MAX).collect();
            tracing::error!(
                profile,
                "a route names a profile that there is not, and is answered 503"
            );
        } else {
            self.metrics.unlogged();
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
        let mut check = request.into_inner();
        let response = span.in_scope(|| self.answer(&check));
        request::forget(&mut check);
        Ok(Response::new(response))
    }
}
