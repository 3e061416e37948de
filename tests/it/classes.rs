//! Priority classes of an operator's own: Envoy goes by their outage policy and knows no names.

use anyhow::{Context, Result, ensure};
use tests::edge::{Options, Parts, Service};
use tests::http::{Http, Reply};

use crate::stage::Stage;
use crate::stand_in::StandIn;

/// No class here is treated as one of its name among those that ship; `golden` begins as `gold` does.
const QUOTAS: &str = "
domain: edge
priority_classes:
  gold: {rank: 9, outage: bypass}
  system-node-critical: {rank: 8, outage: local}
  golden: {rank: 7}
  background: {rank: 6, outage: local, default: true}
  bulk: {rank: 5, outage: deny}
  no: {rank: 4, outage: deny}
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 1000000}
";
const LOCAL: [&str; 3] = ["system-node-critical", "golden", "background"];
const DENY: [&str; 2] = ["bulk", "no"];
const POINT: &str = "classes f=1";
const REQUESTS_MAX: u32 = 2;

async fn with_quotas(quotas: &str, change: impl FnOnce(&mut Options)) -> Result<Stage> {
    let quotas = quotas.to_owned();
    Stage::with(Parts::Embedded, |options| {
        options.quotas = quotas;
        change(options);
    })
    .await
}

async fn issue(stage: &Stage, classes: &[&str]) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for class in classes {
        keys.push(stage.edge.issue_live_key(class, class).await?);
    }
    Ok(keys)
}

async fn deny_percent(stage: &Stage, value: u8) -> Result<()> {
    let admin = stage.edge.at.envoy_admin;
    let url = format!("http://{admin}/runtime_modify?tidegate.ratelimit.deny_percent={value}");
    let reply = stage.http.post(&url, &[], "").await?;
    ensure!(reply.status == 200, "{}", reply.text());
    Ok(())
}

fn assert_refused(reply: &Reply) {
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(reply.header("retry-after"), Some("1"), "{:?}", reply.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ratelimit_svc_own_classes_are_answered_by_their_outage_policy() -> Result<()> {
    let mut stage = with_quotas(QUOTAS, |_| ()).await?;
    let gold = issue(&stage, &["gold"]).await?.remove(0);
    let (local, deny) = (issue(&stage, &LOCAL).await?, issue(&stage, &DENY).await?);
    for key in local.iter().chain(&deny).chain([&gold]) {
        assert_eq!(stage.write(key, POINT).await?.status, 204);
    }

    stage.edge.kill(Service::Ratelimit);
    assert_eq!(stage.write(&gold, POINT).await?.status, 204);
    for key in local.iter().chain(&deny) {
        assert_refused(&stage.write(key, POINT).await?);
    }
    deny_percent(&stage, 0).await?;
    for key in local.iter().chain([&gold]) {
        assert_eq!(stage.write(key, POINT).await?.status, 204);
    }
    for key in &deny {
        assert_refused(&stage.write(key, POINT).await?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_class_that_bypasses_has_the_pool_that_others_cannot_fill() -> Result<()> {
    let small = |options: &mut Options| options.proxy.limits.gateway_requests_max = REQUESTS_MAX;
    let mut stage = with_quotas(QUOTAS, small).await?;
    let keys = issue(&stage, &["gold", "golden", "system-node-critical", "bulk"]).await?;
    let [gold, others @ ..] = &keys[..] else { anyhow::bail!("four keys") };
    let gateway = StandIn::take_over(&mut stage).await?;
    gateway.hold(Some("golden"));
    let (url, token) = (stage.edge.url("/write"), format!("Token {}", others[0]));
    let waiting: Vec<_> = (0..REQUESTS_MAX)
        .map(|_| {
            let (url, token) = (url.clone(), token.clone());
            tokio::spawn(async move {
                Http::new().post(&url, &[("authorization", &token)], POINT).await
            })
        })
        .collect();
    gateway.wait_for(waiting.len()).await?;

    for key in others {
        assert_refused(&stage.write(key, POINT).await?);
    }
    assert_eq!(stage.write(gold, POINT).await?.status, 204);
    stage.edge.kill(Service::Ratelimit);
    assert_eq!(stage.write(gold, POINT).await?.status, 204);

    gateway.hold(None);
    for waiting in waiting {
        assert_eq!(waiting.await??.status, 204);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_may_all_be_local() -> Result<()> {
    let quotas = "
domain: edge
priority_classes:
  only: {rank: 1, outage: local, default: true}
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 1000000}
";
    let mut stage = with_quotas(quotas, |_| ()).await?;
    let only = issue(&stage, &["only"]).await?.remove(0);
    assert_eq!(stage.write(&only, POINT).await?.status, 204);
    stage.edge.kill(Service::Ratelimit);
    assert_refused(&stage.write(&only, POINT).await?);
    deny_percent(&stage, 0).await?;
    assert_eq!(stage.write(&only, POINT).await?.status, 204);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_would_break_out_of_the_expression_starts_nothing() -> Result<()> {
    let quotas = QUOTAS.replace("  gold:", "  'gold|.*':");
    let error = with_quotas(&quotas, |_| ()).await.err().context("it started")?.to_string();
    let expected =
        "priority class \"gold|.*\" must be 1 to 63 lower-case letters, digits, '-' or '_'";
    assert!(error.starts_with(expected), "{error}");
    Ok(())
}
