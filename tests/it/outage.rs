//! Four outages, each with the answer that `envoy-config` and the quota file promise.

use anyhow::{Context, Result};
use rustix::process::Signal;
use tests::edge::{Parts, Service};
use tests::http::Reply;
use tests::wait::{DEADLINE, wait_for};

use crate::stage::Stage;

const POINT: &str = "outage f=1";

fn assert_outage(reply: &Reply) {
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.header("retry-after").is_some(), "{:?}", reply.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn ratelimit_svc_down_lets_the_critical_class_pass_alone() -> Result<()> {
    let mut stage = Stage::embedded().await?;
    let critical = stage.edge.issue_live_key("node", "system-node-critical").await?;
    let ingest = stage.edge.issue_live_key("acme", "ingest").await?;
    let background = stage.edge.issue_live_key("batch", "background").await?;
    assert_eq!(stage.write(&ingest, POINT).await?.status, 204);

    stage.edge.kill(Service::Ratelimit);
    for _ in 0..3 {
        assert_eq!(stage.write(&critical, POINT).await?.status, 204);
        assert_outage(&stage.write(&ingest, POINT).await?);
        assert_outage(&stage.write(&background, POINT).await?);
    }

    // The operator's switch: with deny_percent 0 those pass whose outage policy is local.
    let admin = stage.edge.at.envoy_admin;
    let modify = |value: u8| {
        format!("http://{admin}/runtime_modify?tidegate.ratelimit.deny_percent={value}")
    };
    stage.http.post(&modify(0), &[], "").await?;
    assert_eq!(stage.write(&ingest, POINT).await?.status, 204);
    assert_outage(&stage.write(&background, POINT).await?);
    stage.http.post(&modify(100), &[], "").await?;
    assert_outage(&stage.write(&ingest, POINT).await?);

    stage.edge.start_service(Service::Ratelimit).await?;
    stage.write_until(&ingest, POINT, 204).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ratelimit_svc_envoy_may_limit_each_tenant_itself() -> Result<()> {
    let slow = |options: &mut tests::edge::Options| options.proxy.limits.local_limit = 1;
    let mut stage = Stage::with(Parts::Embedded, slow).await?;
    let critical = stage.edge.issue_live_key("node", "system-node-critical").await?;
    let ingest = stage.edge.issue_live_key("acme", "ingest").await?;
    let other = stage.edge.issue_live_key("neighbour", "platform-core").await?;
    let at_once = async |key: &str| {
        futures_util::future::try_join_all((0..10).map(|_| stage.write(key, POINT))).await
    };
    // While ratelimit-svc answers, its quota alone counts.
    assert!(at_once(&ingest).await?.iter().all(|reply| reply.status == 204));
    let admin = stage.edge.at.envoy_admin;
    let url = format!("http://{admin}/runtime_modify?tidegate.ratelimit.deny_percent=0");
    stage.http.post(&url, &[], "").await?;
    assert!(at_once(&ingest).await?.iter().all(|reply| reply.status == 204));

    stage.edge.kill(Service::Ratelimit);
    let at_once = async |key: &str| {
        futures_util::future::try_join_all((0..10).map(|_| stage.write(key, POINT))).await
    };
    let limited = wait_for("a tenant to pass its local limit", DEADLINE, async || {
        let replies = at_once(&ingest).await.ok()?;
        replies.into_iter().find(|reply| reply.status == 429)
    })
    .await?;
    assert_eq!(limited.header("retry-after"), Some("1"));
    assert_eq!(stage.write(&other, POINT).await?.status, 204, "a neighbour has its own");
    assert!(at_once(&critical).await?.iter().all(|reply| reply.status == 204));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ratelimit_svc_hanging_is_the_same_outage() -> Result<()> {
    let stage = Stage::embedded().await?;
    let critical = stage.edge.issue_live_key("node", "system-node-critical").await?;
    let ingest = stage.edge.issue_live_key("acme", "ingest").await?;
    let ratelimit = stage.edge.ratelimit[0].child.as_ref().context("ratelimit-svc runs")?;
    ratelimit.signal(Signal::STOP)?;
    assert_eq!(stage.write(&critical, POINT).await?.status, 204);
    assert_outage(&stage.write(&ingest, POINT).await?);
    ratelimit.signal(Signal::CONT)?;
    stage.write_until(&ingest, POINT, 204).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ext_authz_down_is_503_for_all_and_nothing_passes() -> Result<()> {
    let mut stage = Stage::embedded().await?;
    let critical = stage.edge.issue_live_key("node", "system-node-critical").await?;
    let ingest = stage.edge.issue_live_key("acme", "ingest").await?;
    assert_eq!(stage.write(&ingest, "before f=1").await?.status, 204);

    stage.edge.kill(Service::Authz);
    for key in [&critical, &ingest, &"wrong".to_owned()] {
        assert_outage(&stage.write(key, "during f=1").await?);
    }
    // A client that claims what ext-authz would have said gets no further.
    let forged = [("x-tidegate-tenant", "acme"), ("x-tidegate-priority", "ingest")];
    assert_outage(&stage.post("/write", &forged, "during f=1").await?);

    stage.edge.start_service(Service::Authz).await?;
    stage.write_until(&ingest, "after f=1", 204).await?;
    let lines = stage.lines(|lines| lines.iter().any(|line| line.starts_with("after"))).await?;
    assert!(lines.iter().any(|line| line.starts_with("before")));
    assert!(!lines.iter().any(|line| line.starts_with("during")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_down_is_503_and_recovers() -> Result<()> {
    let mut stage = Stage::embedded().await?;
    let ingest = stage.edge.issue_live_key("acme", "ingest").await?;
    assert_eq!(stage.write(&ingest, POINT).await?.status, 204);
    stage.edge.kill(Service::Gateway);
    assert_outage(&stage.write(&ingest, POINT).await?);
    stage.edge.start_service(Service::Gateway).await?;
    stage.write_until(&ingest, POINT, 204).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_down_is_decided_by_class_and_never_an_error() -> Result<()> {
    let mut stage = Stage::real().await?;
    let critical = stage.edge.issue_live_key("node", "system-node-critical").await?;
    let small = stage.edge.issue_live_key("small", "ingest").await?;
    let background = stage.edge.issue_live_key("batch", "background").await?;
    assert_eq!(stage.write(&small, POINT).await?.status, 204);
    assert_eq!(stage.write(&background, POINT).await?.status, 204);

    let redis = stage.edge.redis.as_mut().context("Redis runs")?;
    redis.child.signal(Signal::KILL)?;
    redis.child.wait(DEADLINE).await?;
    // bypass: passes. deny: refused. local: this replica's share of what was left, here all of it.
    for _ in 0..5 {
        assert_eq!(stage.write(&critical, POINT).await?.status, 204);
        assert_eq!(stage.write(&background, POINT).await?.status, 429);
    }
    let mut admitted = 0;
    for _ in 0..6 {
        let reply = stage.write(&small, POINT).await?;
        assert!([204, 429].contains(&reply.status.as_u16()), "{}", reply.status);
        admitted += u32::from(reply.status == 204);
    }
    // It goes on from what Redis had counted: one.
    assert_eq!(admitted, 2);
    let metrics = stage.admin(stage.edge.ratelimit[0].admin, "/metrics").await?.text();
    let degraded = metrics
        .lines()
        .any(|line| line.starts_with("ratelimit_decisions_total") && line.contains("degraded"));
    assert!(degraded, "{metrics}");

    stage.edge.restart_redis().await?;
    stage.write_until(&background, POINT, 204).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn influxdb_down_loses_nothing_and_kafka_down_is_503() -> Result<()> {
    let mut stage = Stage::real().await?;
    let ingest = stage.edge.issue_live_key("acme", "ingest").await?;
    let influxdb = stage.edge.influxdb.as_mut().context("InfluxDB runs")?;
    influxdb.child.signal(Signal::TERM)?;
    influxdb.child.wait(DEADLINE).await?;
    let base = crate::stage::now_ns();
    for n in 0..20 {
        let line = format!("away n={n}i {}", base + n);
        assert_eq!(stage.write(&ingest, line).await?.status, 204);
    }
    stage.edge.restart_influxdb().await?;
    let rows = stage.rows("acme__default", "SELECT n FROM away", 20).await?;
    assert_eq!(rows.len(), 20);

    let kafka = stage.edge.kafka.as_mut().context("Kafka runs")?;
    kafka.child.signal(Signal::KILL)?;
    kafka.child.wait(DEADLINE).await?;
    assert_outage(&stage.write(&ingest, POINT).await?);
    let kafka = stage.edge.kafka.as_mut().context("Kafka runs")?;
    kafka.restart().await?;
    wait_for("writes to be stored again", DEADLINE, async || {
        let reply = stage.write(&ingest, POINT).await.ok()?;
        (reply.status == 204).then_some(())
    })
    .await?;
    stage.rows("acme__default", "SELECT f FROM outage", 1).await?;
    Ok(())
}
