//! The yardstick: a bare tonic server that decodes a request and answers, and decides nothing. One
//! current-thread runtime and the allocator of the C library, so that it is the same everywhere.
//!
//! Its answers have the shape of a real one: a status for each descriptor, or the headers and the
//! metadata that ext-authz writes.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use proto::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use proto::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use proto::pb::envoy::service::auth::v3::check_response::HttpResponse;
use proto::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit, rate_limit::Unit,
};
use proto::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use proto::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use proto::pb::google::protobuf::value::Kind;
use proto::pb::google::protobuf::{Duration, Struct, Value};
use proto::pb::google::rpc::Status;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Serves until the process ends.
///
/// # Errors
/// When the address cannot be had.
pub fn serve(address: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let check = Check { answer: allowed() };
        Server::builder()
            .add_service(RateLimitServiceServer::new(RateLimitEcho))
            .add_service(AuthorizationServer::new(check))
            .serve_with_incoming(incoming)
            .await
            .context("the echo failed")
    })
}

struct RateLimitEcho;

#[tonic::async_trait]
impl RateLimitService for RateLimitEcho {
    async fn should_rate_limit(
        &self,
        request: tonic::Request<RateLimitRequest>,
    ) -> Result<tonic::Response<RateLimitResponse>, tonic::Status> {
        let status = |_| DescriptorStatus {
            code: Code::Ok.into(),
            current_limit: Some(RateLimit {
                requests_per_unit: 1000,
                unit: Unit::Second.into(),
                ..RateLimit::default()
            }),
            limit_remaining: 999,
            duration_until_reset: Some(Duration { seconds: 1, nanos: 0 }),
            ..DescriptorStatus::default()
        };
        let descriptors = request.into_inner().descriptors;
        Ok(tonic::Response::new(RateLimitResponse {
            overall_code: Code::Ok.into(),
            statuses: descriptors.iter().map(status).collect(),
            ..RateLimitResponse::default()
        }))
    }
}

struct Check {
    answer: CheckResponse,
}

#[tonic::async_trait]
impl Authorization for Check {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        drop(request.into_inner());
        Ok(tonic::Response::new(self.answer.clone()))
    }
}

fn allowed() -> CheckResponse {
    let identity = [
        ("tenant", "tenant-00042"),
        ("key-id", "0aB9xK2mQ7rT"),
        ("priority", "ingest"),
        ("plan", "default"),
        ("scopes", "-"),
    ];
    let header = |(name, value): &(&str, &str)| HeaderValueOption {
        header: Some(HeaderValue {
            key: format!("x-tidegate-{name}"),
            raw_value: value.as_bytes().to_vec(),
            ..HeaderValue::default()
        }),
        ..HeaderValueOption::default()
    };
    let field = |(name, value): &(&str, &str)| {
        let value = Value { kind: Some(Kind::StringValue((*value).to_owned())) };
        ((*name).to_owned(), value)
    };
    CheckResponse {
        status: Some(Status::default()),
        dynamic_metadata: Some(Struct { fields: identity.iter().map(field).collect() }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: identity.iter().map(header).collect(),
            headers_to_remove: ["authorization", "x-api-key", "api-key"].map(str::to_owned).into(),
            ..OkHttpResponse::default()
        })),
    }
}
