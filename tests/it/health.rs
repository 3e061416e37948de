//! Health as orchestrators ask for it: over HTTP and over gRPC, while up and while draining.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use rustix::process::Signal;
use tests::wait::{DEADLINE, wait_for};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::stage::Stage;

async fn grpc_health(address: SocketAddr, service: &str) -> Result<ServingStatus> {
    let channel = Endpoint::try_from(format!("http://{address}"))?.connect().await?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel).check(request).await?;
    Ok(answer.into_inner().status())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_answers_over_http_and_grpc() -> Result<()> {
    let stage = Stage::embedded().await?;
    let edge = &stage.edge;
    for (address, service) in [
        (edge.authz[0].listen, ""),
        (edge.authz[0].listen, "envoy.service.auth.v3.Authorization"),
        (edge.ratelimit[0].listen, ""),
        (edge.ratelimit[0].listen, "ratelimit"),
        (edge.gateway[0].listen, ""),
        (edge.authz[0].admin, ""),
        (edge.ratelimit[0].admin, ""),
        (edge.gateway[0].admin, ""),
        (edge.writer[0].admin, ""),
    ] {
        let status = grpc_health(address, service).await;
        let status = status.with_context(|| format!("{address} '{service}'"))?;
        assert_eq!(status, ServingStatus::Serving, "{address} '{service}'");
    }
    for admin in
        [edge.authz[0].admin, edge.ratelimit[0].admin, edge.gateway[0].admin, edge.writer[0].admin]
    {
        for path in ["/livez", "/readyz", "/metrics", "/config"] {
            let reply = stage.admin(admin, path).await?;
            assert!(reply.status == 200 && !reply.body.is_empty(), "{admin}{path}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_process_says_so_and_still_serves() -> Result<()> {
    let stage = Stage::draining_slowly().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let edge = &stage.edge;
    for (child, admin) in [
        (&edge.authz[0].child, edge.authz[0].admin),
        (&edge.ratelimit[0].child, edge.ratelimit[0].admin),
        (&edge.gateway[0].child, edge.gateway[0].admin),
    ] {
        child.as_ref().context("the process runs")?.signal(Signal::TERM)?;
        let readyz = wait_for("draining to be said", DEADLINE, async || {
            let reply = stage.admin(admin, "/readyz").await.ok()?;
            (reply.status == 503).then_some(reply)
        })
        .await?;
        assert_eq!(readyz.text().trim(), "draining");
        wait_for("gRPC health to say so too", DEADLINE, async || {
            let status = grpc_health(admin, "").await.ok()?;
            (status == ServingStatus::NotServing).then_some(())
        })
        .await?;
        assert_eq!(stage.admin(admin, "/livez").await?.status, 200);
    }
    assert_eq!(stage.write(&key, "draining f=1").await?.status, 204);
    Ok(())
}
