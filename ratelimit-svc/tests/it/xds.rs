//! Quotas from a control plane: in force, refused, lost and found again.

use std::net::SocketAddr;

use proto::pb::google::protobuf::value::Kind;
use proto::pb::ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
};
use ratelimit_svc::xds::{NACK_BYTES_MAX, TYPE_URL};
use serde_json::Value as Json;

use crate::control_plane::ControlPlane;
use crate::redis_parts::free_port;
use crate::reload::limit;
use crate::support::{Service, request, wait_for};

fn quotas(domain: &str, unit: RateLimitUnit, requests_per_unit: u32) -> RateLimitConfig {
    let rate_limit =
        RateLimitPolicy { unit: unit.into(), requests_per_unit, ..RateLimitPolicy::default() };
    RateLimitConfig {
        name: format!("{domain}-limits"),
        domain: domain.to_owned(),
        descriptors: vec![RateLimitDescriptor {
            key: "tenant".to_owned(),
            rate_limit: Some(rate_limit),
            ..RateLimitDescriptor::default()
        }],
    }
}

pub fn good(requests_per_unit: u32) -> RateLimitConfig {
    quotas("a", RateLimitUnit::Year, requests_per_unit)
}

fn bad() -> RateLimitConfig {
    quotas("a", RateLimitUnit::Unknown, 9)
}

async fn start(control_plane: SocketAddr) -> Service {
    start_with(control_plane, &[]).await
}

pub async fn start_with(
    control_plane: SocketAddr,
    even_more: &[(&'static str, String)],
) -> Service {
    let mut more = vec![
        ("CONFIG_TYPE", "GRPC_XDS_SOTW".to_owned()),
        ("CONFIG_GRPC_XDS_SERVER_URL", control_plane.to_string()),
        ("CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL", "20ms".to_owned()),
        ("CONFIG_GRPC_XDS_NODE_ID", "edge-1".to_owned()),
        ("CONFIG_GRPC_XDS_NODE_METADATA", "zone:a".to_owned()),
        ("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS", "x-token:secret".to_owned()),
        ("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", "10ms".to_owned()),
        ("XDS_CLIENT_BACKOFF_MAX_INTERVAL", "50ms".to_owned()),
    ];
    more.extend(even_more.iter().cloned());
    Service::start_with(&[], &more).await
}

async fn config(service: &Service) -> Json {
    serde_json::from_str(&service.admin("/config").await.1).expect("JSON")
}

#[tokio::test]
async fn responses_are_acked_or_change_nothing() {
    let plane = ControlPlane::start().await;
    plane.publish("1", &[good(3)]);
    let service = start(plane.address).await;
    let (headers, first) = plane.asked().await;
    assert_eq!(headers.get("x-token").expect("sent"), "secret");
    let node = first.node.expect("told");
    assert_eq!((node.id.as_str(), first.type_url.as_str()), ("edge-1", TYPE_URL));
    let zone = node.metadata.expect("told").fields["zone"].kind.clone();
    assert_eq!(zone, Some(Kind::StringValue("a".to_owned())));
    assert_eq!((first.version_info.as_str(), first.response_nonce.as_str()), ("", ""));
    let (_, ack) = plane.asked().await;
    assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str()), ("1", "nonce of 1"));
    assert_eq!(ack.error_detail, None);
    assert!(service.readiness.is_ready());
    assert_eq!(limit(&service, "a").await, Some(3));

    plane.publish("2", &[good(6), quotas("b", RateLimitUnit::Week, 1)]);
    assert_eq!(plane.asked().await.1.version_info, "2");
    assert_eq!((limit(&service, "a").await, limit(&service, "b").await), (Some(6), Some(1)));

    // One bad resource keeps its whole response out.
    plane.publish("3", &[bad(), quotas("b", RateLimitUnit::Week, 5)]);
    let (_, nack) = plane.asked().await;
    assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("2", "nonce of 3"));
    let detail = nack.error_detail.expect("a reason");
    assert_eq!(detail.code, i32::from(tonic::Code::InvalidArgument));
    assert_eq!(detail.message, "a-limits: invalid rate limit unit 'UNKNOWN'");
    assert_eq!((limit(&service, "a").await, limit(&service, "b").await), (Some(6), Some(1)));
    assert!(service.readiness.is_ready(), "a bad change costs no readiness");
    assert_eq!(config(&service).await["quotas"]["last_error"], detail.message);
    assert_eq!(service.metric("ratelimit_config_errors").await, Some(1.0));

    plane.publish("4", &[]);
    let detail = plane.asked().await.1.error_detail.expect("a reason");
    assert_eq!(detail.message, "no rate limit configuration in the response");
    assert_eq!(limit(&service, "a").await, Some(6), "emptying takes nothing away");

    plane.publish("5", &[good(6), quotas("b", RateLimitUnit::Week, 1)]);
    let (_, ack) = plane.asked().await;
    assert_eq!((ack.version_info.as_str(), ack.error_detail), ("5", None));
    let shown = config(&service).await;
    assert_eq!(shown["errors"], serde_json::json!([]));
    assert_eq!(shown["quotas"]["last_error"], Json::Null);
    assert_eq!(shown["quotas"]["version"], 2, "the same quotas are no new version");
    assert_eq!(service.metric("ratelimit_config_errors").await, Some(0.0));

    plane.publish("6", &[good(7)]);
    assert_eq!(plane.asked().await.1.version_info, "6");
    assert_eq!((limit(&service, "a").await, limit(&service, "b").await), (Some(7), None));
    service.stop().await;
}

#[tokio::test]
async fn a_lost_stream_is_opened_again() {
    let plane = ControlPlane::start().await;
    plane.publish("1", &[good(3)]);
    let service = start(plane.address).await;
    plane.asked().await;
    assert_eq!(plane.asked().await.1.version_info, "1");
    for round in 0..3 {
        plane.cut();
        let (headers, again) = plane.asked().await;
        assert_eq!(headers.get("x-token").expect("sent"), "secret");
        assert_eq!((again.version_info.as_str(), again.response_nonce.as_str()), ("1", ""));
        assert_eq!(plane.asked().await.1.response_nonce, "nonce of 1", "round {round}");
    }
    assert_eq!(limit(&service, "a").await, Some(3));
    plane.publish("2", &[good(4)]);
    assert_eq!(plane.asked().await.1.version_info, "2");
    assert_eq!(limit(&service, "a").await, Some(4));

    assert_eq!(service.metric("ratelimit_config_source_lost").await, Some(0.0));
    let address = plane.address;
    drop(plane);
    wait_for("the loss is shown", async || {
        let error = config(&service).await["source_error"].clone();
        error.as_str().is_some_and(|error| error.starts_with(&format!("xDS server {address}: ")))
    })
    .await;
    assert_eq!(service.metric("ratelimit_config_source_lost").await, Some(1.0));
    assert!(service.readiness.is_ready(), "what is in force stays");
    assert_eq!(limit(&service, "a").await, Some(4));

    // One that is back and has nothing new to say is no loss.
    let plane = ControlPlane::start_at(address).await;
    plane.be_silent();
    assert_eq!(plane.asked().await.1.version_info, "2");
    wait_for("the control plane is back", async || {
        service.metric("ratelimit_config_source_lost").await == Some(0.0)
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn without_a_control_plane_the_port_is_open_and_says_so() {
    // Nobody listens there yet.
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let service = start(address).await;
    let asked = || request("a", &[&[("tenant", "x")]]);
    let error = service.ask(asked()).await.expect_err("nothing loaded");
    assert_eq!(error.message(), "no rate limit configuration loaded");
    wait_for("the reason", async || {
        let (status, text) = service.admin("/readyz").await;
        status == 503 && text.contains(&format!("xDS server {address}: cannot connect: "))
    })
    .await;

    let plane = ControlPlane::start_at(address).await;
    plane.publish("1", &[bad()]);
    plane.asked().await;
    assert!(plane.asked().await.1.error_detail.is_some());
    let (status, text) = service.admin("/readyz").await;
    assert!(status == 503 && text.contains("invalid rate limit unit 'UNKNOWN'"), "{text}");
    plane.publish("2", &[good(1)]);
    wait_for("ready", async || service.readiness.is_ready()).await;
    service.ask(asked()).await.expect("loaded");
    service.stop().await;
}

#[tokio::test]
async fn responses_and_reasons_are_bounded() {
    let plane = ControlPlane::start().await;
    let bound = [("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", "20000".to_owned())];
    let service = start_with(plane.address, &bound).await;
    plane.asked().await;
    plane.publish("1", &[RateLimitConfig { name: "ä".repeat(5000), ..bad() }]);
    let reason = plane.asked().await.1.error_detail.expect("a reason").message;
    assert_eq!((reason.len(), reason.chars().next()), (NACK_BYTES_MAX, Some('ä')));

    plane.publish("2", &[RateLimitConfig { name: "x".repeat(20_000), ..good(3) }]);
    wait_for("the refusal", async || {
        let error = config(&service).await["source_error"].to_string();
        error.contains("OutOfRange")
    })
    .await;
    plane.publish("3", &[good(4)]);
    wait_for("the next response", async || limit_or_none(&service).await == Some(4)).await;
    service.stop().await;
}

async fn limit_or_none(service: &Service) -> Option<u32> {
    match service.readiness.is_ready() {
        true => limit(service, "a").await,
        false => None,
    }
}
