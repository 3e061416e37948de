//! Quotas in points and in bytes, through the real Envoy.

use anyhow::Result;
use tests::edge::Parts;

use crate::stage::{Stage, now_ns};

/// Years, so that no window ends during a test.
const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant_points
    value: metered
    rate_limit: {unit: year, requests_per_unit: 10, overdraft: true}
  - key: tenant_bytes
    value: heavy
    rate_limit: {unit: year, requests_per_unit: 1000}
  - key: tenant_bytes
    value: streaming
    rate_limit: {unit: year, requests_per_unit: 1000, overdraft: true}
";

async fn stage(parts: Parts) -> Result<Stage> {
    Stage::with(parts, |options| options.quotas = QUOTAS.to_owned()).await
}

/// So many points with times of their own.
fn points(count: i64) -> String {
    let base = now_ns();
    (0..count).map(|n| format!("points n={n}i {}\n", base + n)).collect()
}

async fn points_are_charged_as_stored(stage: &Stage) -> Result<()> {
    const RULE: &str = "tenant_points_metered";
    let metered = stage.edge.issue_live_key("metered", "ingest").await?;
    let reply = stage.write(&metered, points(4)).await?;
    assert_eq!((reply.status.as_u16(), reply.header("x-tidegate-points")), (204, Some("4")));
    stage.wait_for_hits(RULE, 4).await?;
    // Of a request with a bad line, what is stored is charged.
    let reply = stage.write(&metered, points(3) + "bad line\n").await?;
    assert_eq!((reply.status.as_u16(), reply.header("x-tidegate-points")), (400, Some("3")));
    stage.wait_for_hits(RULE, 7).await?;
    // What is not stored is not.
    let token = format!("Token {metered}");
    let page = [("authorization", token.as_str()), ("content-type", "text/html")];
    assert_eq!(stage.post("/write", &page, points(2)).await?.status, 415);

    // Three are left, but nobody knows before it is read that this is twenty.
    assert_eq!(stage.write(&metered, points(20)).await?.status, 204);
    stage.wait_for_hits(RULE, 27).await?;
    for _ in 0..3 {
        let reply = stage.write(&metered, points(1)).await?;
        assert_eq!(reply.status, 429, "{}", reply.text());
        let retry_after: u64 = reply.header("retry-after").unwrap_or("0").parse()?;
        assert!((1..=31_536_000).contains(&retry_after));
        assert_eq!(reply.header("x-ratelimit-remaining"), Some("0"));
    }
    // A neighbour is untouched, and its charge comes after all those above.
    let acme = stage.edge.issue_live_key("acme", "ingest").await?;
    assert_eq!(stage.write(&acme, points(30)).await?.status, 204);
    assert_eq!(stage.write(&acme, points(30)).await?.status, 204);
    assert_eq!(stage.hits(RULE).await?, 27, "what was refused is not charged");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_in_points_is_charged_with_what_was_stored_in_memory() -> Result<()> {
    points_are_charged_as_stored(&stage(Parts::Embedded).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_in_points_is_charged_with_what_was_stored_in_redis() -> Result<()> {
    points_are_charged_as_stored(&stage(Parts::Real).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_in_bytes_is_charged_with_the_announced_length() -> Result<()> {
    let stage = stage(Parts::Embedded).await?;
    let heavy = stage.edge.issue_live_key("heavy", "ingest").await?;
    let body = |bytes: usize| format!("{:\n<bytes$}", "bytes f=1");
    assert_eq!(stage.write(&heavy, body(400)).await?.status, 204);
    assert_eq!(stage.write(&heavy, body(400)).await?.status, 204);
    // What does not fit is refused before it is read, and what fits still passes.
    assert_eq!(stage.write(&heavy, body(400)).await?.status, 429);
    assert_eq!(stage.write(&heavy, body(200)).await?.status, 204);
    assert_eq!(stage.write(&heavy, body(20)).await?.status, 429);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_is_charged_once_it_has_passed() -> Result<()> {
    // With an overdraft and without: what has happened counts whatever the rule says.
    for parts in [Parts::Embedded, Parts::Real] {
        let stage = stage(parts).await?;
        charged_once_it_has_passed(&stage, "streaming").await?;
        charged_once_it_has_passed(&stage, "heavy").await?;
    }
    Ok(())
}

async fn charged_once_it_has_passed(stage: &Stage, tenant: &str) -> Result<()> {
    let rule = format!("tenant_bytes_{tenant}");
    let key = stage.edge.issue_live_key(tenant, "ingest").await?;
    let chunked = |bytes: usize| {
        let body = format!("{:\n<bytes$}", "bytes f=1");
        format!(
            "POST /write HTTP/1.1\r\nhost: edge\r\nauthorization: Token {key}\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n{bytes:x}\r\n{body}\r\n0\r\n\r\n"
        )
    };
    let answer = stage.raw(&chunked(900)).await?;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    // One hit before, when nothing was known, and the bytes afterwards.
    stage.wait_for_hits(&rule, 901).await?;
    let answer = stage.raw(&chunked(900)).await?;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    stage.wait_for_hits(&rule, 1802).await?;
    let answer = stage.raw(&chunked(20)).await?;
    // The route of agents that take 429 for final.
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(stage.write(&key, "announced f=1").await?.status, 429);
    Ok(())
}
