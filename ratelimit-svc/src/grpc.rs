//! The wire: `envoy.service.ratelimit.v3` over gRPC. Translates and decides nothing.
//!
//! ```text
//! HTTP/2 ─► unary ─► message ─► limiter ─► answer ─► unary ─► HTTP/2
//!          framing   protobuf             protobuf  framing
//! ```

pub mod answer;
pub mod message;
mod retry_info;
mod unary;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tracing::Instrument;

use crate::decide::decision::Decision;
use crate::decide::request::RequestError;
use crate::limiter::Limiter;

/// The largest request; beyond it the transport refuses.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The only method.
const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// The gRPC service.
#[derive(Clone)]
pub struct Service {
    limiter: Arc<Limiter>,
    /// Requests that bring no trace may become spans, too.
    begins_traces: bool,
}

impl Service {
    /// The service over a limiter. Where it `begins_traces`, requests without a trace are sampled as well.
    pub fn new(limiter: Arc<Limiter>, begins_traces: bool) -> Self {
        Self { limiter, begins_traces }
    }

    async fn should_rate_limit(self, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let traceparent = request.headers().get("traceparent").and_then(|v| v.to_str().ok());
        // Only what may be exported pays for a span.
        let span = (self.begins_traces || traceparent.is_some()).then(|| {
            let span = tracing::info_span!("should_rate_limit", otel.kind = "server");
            chassis::telemetry::continue_trace(&span, traceparent);
            span
        });
        let bytes = unary::read(request, MESSAGE_BYTES_MAX).await?;
        let decide = self.decide(&bytes);
        let decided = match span {
            Some(span) => decide.instrument(span).await,
            None => decide.await,
        };
        let decision = decided?;
        Ok(unary::answer(|out| answer::write(decision, out)))
    }

    async fn decide(&self, bytes: &[u8]) -> Result<Decision, RequestError> {
        match message::read(bytes) {
            Ok(request) => self.limiter.decide(&request).await,
            Err(error) => {
                self.limiter.metrics.request_error(error);
                Err(error)
            }
        }
    }
}

impl NamedService for Service {
    const NAME: &'static str = "envoy.service.ratelimit.v3.RateLimitService";
}

impl tonic::codegen::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let answer = match request.uri().path() {
                SHOULD_RATE_LIMIT => service.should_rate_limit(request).await,
                _ => Err(Status::unimplemented("no such method")),
            };
            Ok(answer.unwrap_or_else(Status::into_http))
        })
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
