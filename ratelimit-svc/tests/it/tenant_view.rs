//! The tenant's view of its quotas on a real cluster: its limits are counters of several nodes.

use axum::http::{Request, StatusCode};
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use serde_json::Value as Json;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::transport::{Channel, Endpoint};

use crate::redis_parts::Cluster;
use crate::support::{Service, request, url, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 5}}
  - {key: tenant_points, rate_limit: {unit: year, requests_per_unit: 1000, overdraft: true}}
";

/// As Envoy asks for a tenant: over HTTP/2, where it asks everything else.
async fn look(channel: &Channel, tenant: &str) -> (StatusCode, Json) {
    let mut channel = channel.clone();
    let request = Request::get("/api/v1/quota")
        .header("x-tidegate-tenant", tenant)
        .header("x-tidegate-priority", "ingest")
        .body(Body::empty())
        .expect("a request");
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.expect("connected");
    let answer = channel.call(request).await.expect("answered");
    let status = answer.status();
    let body = axum::body::Body::new(answer.into_body());
    let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    (status, serde_json::from_slice(&bytes).expect("JSON"))
}

async fn is_admitted(service: &Service, tenant: &str) -> bool {
    let asked = request("edge", &[&[("tenant", tenant), ("priority", "ingest")]]);
    let answer = service.ask(asked).await.expect("never an error for a fault");
    let told = answer.dynamic_metadata.clone().unwrap_or_default();
    assert!(!told.fields.contains_key("degraded"), "the cluster is in reach");
    answer.overall_code() == Code::Ok
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_sees_its_limits_on_every_node_of_a_cluster() {
    let mut cluster = Cluster::of(3, 0, &[], None).await;
    let environment = [
        ("BACKEND_TYPE", "redis".to_owned()),
        ("REDIS_TYPE", "CLUSTER".to_owned()),
        ("REDIS_URL", cluster.url()),
        // No slow machine may look like an outage.
        ("REDIS_CALL_BUDGET", "1s".to_owned()),
        ("QUOTA_VIEW_DOMAIN", "edge".to_owned()),
    ];
    let service = Service::start_with(&[("a.yaml", QUOTAS)], &environment).await;
    let endpoint = Endpoint::from_shared(url(&service.addresses.grpc)).expect("an address");
    let channel = endpoint.connect().await.expect("connected");
    wait_for("the cluster is in use", async || service.is_whole().await).await;

    // Six tenants have counters on all nodes.
    let tenants: Vec<String> = (0..6).map(|n| format!("tenant-{n}")).collect();
    for (n, tenant) in tenants.iter().enumerate() {
        for _ in 0..n {
            is_admitted(&service, tenant).await;
        }
        let (status, seen) = look(&channel, tenant).await;
        assert_eq!((status, &seen["tenant"]), (StatusCode::OK, &tenant.as_str().into()));
        let (requests, points) = (&seen["limits"][0], &seen["limits"][1]);
        assert_eq!((&requests["used"], &requests["left"]), (&n.into(), &(5 - n).into()), "{seen}");
        assert_eq!((&points["used"], &points["limit"]), (&0.into(), &"1000 per year".into()));
    }
    // What is refused is told to the node of the limit, and looking took nothing.
    for _ in 0..2 {
        assert!(!is_admitted(&service, &tenants[5]).await);
    }
    wait_for("refusals are told", async || {
        let (_, seen) = look(&channel, &tenants[5]).await;
        seen["limits"][0]["used"] == 5 && seen["limits"][0]["refused_last_hour"] == 2
    })
    .await;

    // Without the node of one of its counters nothing is said of the tenant.
    cluster.owner("{4:edge6:tenant8:tenant-5}").kill();
    wait_for("the node is missed", async || {
        look(&channel, &tenants[5]).await.0 == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    service.stop().await;
}
