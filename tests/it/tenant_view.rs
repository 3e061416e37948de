//! A tenant looks at its own quota, through the real Envoy.

use anyhow::{Context, Result};
use chassis::tls::client::ClientSettings;
use serde_json::Value;
use tests::edge::encryption::{ENVOY, LISTENER};
use tests::edge::{Encryption, Parts};
use tests::http::Reply;
use tests::wait::{DEADLINE, wait_for};

use crate::stage::Stage;
use crate::tls_client;

/// Years, so that no window ends during a test.
const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 100000, mode: exact}
  - key: tenant
    value: small
    rate_limit: {unit: year, requests_per_unit: 3, name: writes}
  - key: tenant_points
    rate_limit: {unit: year, requests_per_unit: 1000, overdraft: true}
";
const PATH: &str = "/api/v1/quota";

async fn look(stage: &Stage, key: &str, accept: &str) -> Result<Reply> {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("accept", accept)];
    let url = stage.edge.url(PATH);
    // A page for people: five a second are enough for them, and here others wait for their turn.
    wait_for("a turn to look", DEADLINE, async || {
        let reply = stage.http.get_with(&url, &headers).await.ok()?;
        (reply.status != 429).then_some(reply)
    })
    .await
}

async fn limits(stage: &Stage, key: &str) -> Result<Value> {
    let reply = look(stage, key, "*/*").await?;
    anyhow::ensure!(reply.status == 200, "{}: {}", reply.status, reply.text());
    anyhow::ensure!(reply.header("content-type") == Some("application/json"));
    anyhow::ensure!(reply.header("x-ratelimit-limit").is_none(), "no quota was asked");
    Ok(serde_json::from_str(&reply.text())?)
}

async fn a_tenant_sees_its_own(stage: &Stage) -> Result<()> {
    let small = stage.edge.issue_live_key("small", "ingest").await?;
    let acme = stage.edge.issue_live_key("acme", "background").await?;
    let first = limits(stage, &small).await?;
    assert_eq!((&first["tenant"], &first["class"]), (&"small".into(), &"ingest".into()));
    let shown = &first["limits"][0];
    assert_eq!((&shown["name"], &shown["limit"]), (&"writes".into(), &"3 per year".into()));
    let before = shown["used"].as_u64().context("a number")?;
    // Looking took nothing; writing does.
    assert_eq!(limits(stage, &small).await?["limits"][0]["used"], before);
    for _ in before..3 {
        assert_eq!(stage.write(&small, "m f=1").await?.status, 204);
    }
    assert_eq!(stage.write(&small, "m f=1").await?.status, 429);
    assert_eq!(stage.write(&small, "m f=1").await?.status, 429);
    let told = wait_for("refusals are told", DEADLINE, async || {
        let shown = limits(stage, &small).await.ok()?["limits"][0].clone();
        (shown["refused_last_hour"] == 2).then_some(shown)
    });
    let shown = told.await?;
    assert_eq!((&shown["used"], &shown["left"]), (&3.into(), &0.into()));
    let resets = shown["resets_in_seconds"].as_u64().context("a number")?;
    assert!((1..=31_536_000).contains(&resets));

    // Another sees itself, and nothing of its neighbour.
    let other = limits(stage, &acme).await?;
    assert_eq!((&other["tenant"], &other["class"]), (&"acme".into(), &"background".into()));
    assert_eq!(other["limits"][0]["refused_last_hour"], 0);
    assert!(!other.to_string().contains("small"), "{other}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_quota_and_no_other() -> Result<()> {
    let stage = Stage::with(Parts::Embedded, |options| options.quotas = QUOTAS.to_owned()).await?;
    a_tenant_sees_its_own(&stage).await?;
    // For a browser it is a page that loads and sends nothing.
    let key = stage.edge.issue_live_key("bolt", "ingest").await?;
    let page = look(&stage, &key, "text/html,application/xhtml+xml,*/*;q=0.8").await?;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").context("a policy")?;
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let text = page.text();
    assert!(text.contains("100000 per year") && !text.contains("://"));

    // Without a key there is nothing to see, and a browser asks for one.
    let url = stage.edge.url(PATH);
    let none = wait_for("a turn to look", DEADLINE, async || {
        let reply = stage.http.get(&url).await.ok()?;
        (reply.status != 429).then_some(reply)
    });
    let none = none.await?;
    assert_eq!(none.status, 401);
    assert!(none.header("www-authenticate").is_some());
    // What a client says of itself is not believed.
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("x-tidegate-tenant", "small")];
    let forged = wait_for("a turn to look", DEADLINE, async || {
        let reply = stage.http.get_with(&url, &headers).await.ok()?;
        (reply.status != 429).then_some(reply)
    });
    assert!(!forged.await?.text().contains("small"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_is_the_same_on_redis() -> Result<()> {
    let stage = Stage::with(Parts::Real, |options| options.quotas = QUOTAS.to_owned()).await?;
    a_tenant_sees_its_own(&stage).await
}

/// Every hop encrypted: a client asks over TLS, and who is not Envoy cannot say who the tenant is.
#[tokio::test(flavor = "multi_thread")]
async fn on_an_encrypted_edge_only_envoy_says_whose_quota_it_is() -> Result<()> {
    let stage = Stage::with(Parts::Embedded, |options| {
        options.quotas = QUOTAS.to_owned();
        options.encryption = Encryption::On;
    })
    .await?;
    a_tenant_sees_its_own(&stage).await?;
    let pki = stage.edge.pki.as_ref().context("the edge is encrypted")?;
    let key = stage.edge.issue_live_key("bolt", "ingest").await?;
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str())];
    let client = ClientSettings { identity: None, ..pki.client(LISTENER) };
    let seen = wait_for("a turn to look", DEADLINE, async || {
        let reply = tls_client::get(stage.edge.at.edge_tls, &client, PATH, &headers).await.ok()?;
        (reply.status != 429).then_some(reply)
    });
    let seen = seen.await?;
    anyhow::ensure!(seen.status == 200, "{}: {}", seen.status, seen.text());
    assert_eq!(serde_json::from_str::<Value>(&seen.text())?["tenant"], "bolt");

    // Beside Envoy: in clear text, without a certificate, with that of another service.
    let beside = stage.edge.ratelimit[0].listen;
    let forged = [("x-tidegate-tenant", "small"), ("x-tidegate-priority", "ingest")];
    let clear = format!("http://{beside}{PATH}");
    stage.http.get_with(&clear, &forged).await.expect_err("clear text");
    let nobody = ClientSettings { identity: None, ..pki.client(ENVOY) };
    tls_client::get(beside, &nobody, PATH, &forged).await.expect_err("no certificate");
    let other = pki.client("writer");
    tls_client::get(beside, &other, PATH, &forged).await.expect_err("not Envoy's certificate");
    let envoy = tls_client::get(beside, &pki.client(ENVOY), PATH, &forged).await?;
    assert_eq!(serde_json::from_str::<Value>(&envoy.text())?["tenant"], "small");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_may_not_look_without_end() -> Result<()> {
    let stage = Stage::with(Parts::Embedded, |options| options.quotas = QUOTAS.to_owned()).await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let authorization = format!("Bearer {key}");
    let url = stage.edge.url(PATH);
    let mut refused = None;
    for _ in 0..2000 {
        let headers = [("authorization", authorization.as_str())];
        let reply = stage.http.get_with(&url, &headers).await?;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
        assert_eq!(reply.status, 200);
    }
    let refused = refused.context("an end")?;
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Its writes have the large bucket.
    assert_eq!(stage.write(&key, "m f=1").await?.status, 204);
    Ok(())
}
