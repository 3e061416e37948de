//! Quotas as a tenant meets them.

use anyhow::Result;
use tests::edge::{Encryption, Parts};

use crate::stage::{Stage, now_ns};

#[tokio::test(flavor = "multi_thread")]
async fn over_quota_is_429_and_the_point_is_not_stored() -> Result<()> {
    // In clear text, as with `TLS=off`: nothing of it depends on encryption.
    let clear = |options: &mut tests::edge::Options| options.encryption = Encryption::Off;
    let stage = Stage::with(Parts::Real, clear).await?;
    let small = stage.edge.issue_live_key("small", "ingest").await?;
    let acme = stage.edge.issue_live_key("acme", "ingest").await?;
    let point = |n: i64| format!("quota n={n}i {}", now_ns());
    for n in 0..3 {
        let reply = stage.write(&small, point(n)).await?;
        assert_eq!(reply.status, 204, "{}", reply.text());
        assert_eq!(reply.header("x-ratelimit-limit"), Some("3, 3;w=31536000"));
        assert_eq!(reply.header("x-ratelimit-remaining"), Some((2 - n).to_string().as_str()));
    }
    for n in 3..6 {
        let reply = stage.write(&small, point(n)).await?;
        assert_eq!(reply.status, 429);
        let retry_after: u64 = reply.header("retry-after").unwrap_or("0").parse()?;
        assert!((1..=31_536_000).contains(&retry_after));
        assert_eq!(reply.header("x-ratelimit-remaining"), Some("0"));
        assert!(reply.header("x-ratelimit-reset").is_some());
    }
    // A neighbour is untouched, and what it writes last is stored after all of the above.
    assert_eq!(stage.write(&acme, point(100)).await?.status, 204);
    stage.rows("acme__default", "SELECT n FROM quota", 1).await?;
    let rows = stage.rows("small__default", "SELECT n FROM quota", 3).await?;
    let stored: Vec<i64> = rows.iter().filter_map(|row| row[1].as_i64()).collect();
    assert_eq!(stored, [0, 1, 2]);
    Ok(())
}

/// Some agents drop what they hold on 429, so their routes say 503. Both name the time to come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_is_503_where_agents_take_429_for_final() -> Result<()> {
    let stage = Stage::embedded().await?;
    let small = stage.edge.issue_live_key("small", "ingest").await?;
    for _ in 0..3 {
        assert_eq!(stage.write(&small, "quota f=1").await?.status, 204);
    }
    let token = format!("Bearer {small}");
    for (path, status) in [
        ("/write", 503),
        ("/write?db=telegraf", 503),
        ("/query?q=CREATE%20DATABASE%20telegraf", 503),
        ("/api/v1/write", 503),
        ("/api/v2/write?bucket=b", 429),
        ("/api/v3/write_lp?db=d", 429),
        ("/v1/metrics", 503),
        ("/write/more", 429),
    ] {
        let reply = stage.post(path, &[("authorization", &token)], "quota f=1").await?;
        assert_eq!(reply.status, status, "{path}");
        let retry_after: u64 = reply.header("retry-after").unwrap_or("0").parse()?;
        assert!((1..=31_536_000).contains(&retry_after), "{path}: {retry_after}");
        assert_eq!(reply.header("x-ratelimit-remaining"), Some("0"), "{path}");
    }
    Ok(())
}
