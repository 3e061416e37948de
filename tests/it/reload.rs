//! Quotas and keys change while requests pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result};
use tests::wait::{DEADLINE, wait_for};

use crate::stage::{QUOTAS, Stage};

const POINT: &str = "reload f=1";

async fn version(stage: &Stage, admin: std::net::SocketAddr) -> Option<u64> {
    let config: serde_json::Value =
        serde_json::from_slice(&stage.admin(admin, "/config").await.ok()?.body).ok()?;
    find(&config, "version")?.as_u64()
}

/// The first value under a key, at any depth.
fn find<'a>(json: &'a serde_json::Value, key: &str) -> Option<&'a serde_json::Value> {
    match json {
        serde_json::Value::Object(map) => {
            map.get(key).or_else(|| map.values().find_map(|value| find(value, key)))
        }
        serde_json::Value::Array(list) => list.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_swapped_under_load_loses_no_request() -> Result<()> {
    let stage = Arc::new(Stage::embedded().await?);
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let mut load = Vec::new();
    for _ in 0..4 {
        let (stage, key) = (Arc::clone(&stage), key.clone());
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        load.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let reply = stage.write(&key, POINT).await?;
                anyhow::ensure!(reply.status == 204, "{} {}", reply.status, reply.text());
                sent.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    let (quota_file, ratelimit) = (stage.edge.quota_file(), stage.edge.ratelimit[0].admin);
    let before = version(&stage, ratelimit).await.context("/config tells the version")?;
    for round in 1..=6_u64 {
        let text = QUOTAS.replace("1000000", &(1_000_000 + round).to_string());
        if round % 2 == 0 {
            std::fs::write(&quota_file, &text)?;
        } else {
            let new = quota_file.with_extension("new");
            std::fs::write(&new, &text)?;
            std::fs::rename(&new, &quota_file)?;
        }
        stage.edge.issue_live_key(&format!("tenant-{round}"), "ingest").await?;
        wait_for("the new quotas to be in force", DEADLINE, async || {
            version(&stage, ratelimit).await.filter(|now| *now >= before + round)
        })
        .await?;
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await??;
    }
    assert!(sent.load(Ordering::Relaxed) > 100, "there was load");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_leaves_the_old_one_in_force_and_is_named() -> Result<()> {
    let stage = Stage::embedded().await?;
    let small = stage.edge.issue_live_key("small", "ingest").await?;
    for _ in 0..3 {
        assert_eq!(stage.write(&small, POINT).await?.status, 204);
    }
    assert_eq!(stage.write(&small, POINT).await?.status, 429);

    let bad = QUOTAS.replace("requests_per_unit: 3}", "requests_per_unit: 3, unit: fortnight}");
    let bad = bad.replace("{unit: year, requests_per_unit: 3, unit", "{requests_per_unit: 3, unit");
    std::fs::write(stage.edge.quota_file(), bad)?;
    std::fs::write(stage.edge.keys_file(), "keys:\n  - id: broken\n")?;
    for (admin, file) in [
        (stage.edge.ratelimit[0].admin, "edge.yaml:8:"),
        (stage.edge.authz[0].admin, "keys.yaml:2:"),
    ] {
        let error = wait_for(&format!("an error that names {file}"), DEADLINE, async || {
            let text = stage.admin(admin, "/config").await.ok()?.text();
            text.contains(file).then_some(text)
        })
        .await?;
        assert!(error.contains("last_error"), "{error}");
        assert_eq!(stage.admin(admin, "/readyz").await?.status, 200);
    }
    assert_eq!(stage.write(&small, POINT).await?.status, 429);

    // A raised limit keeps its count: of ten, three are used.
    std::fs::write(
        stage.edge.quota_file(),
        QUOTAS.replace("requests_per_unit: 3", "requests_per_unit: 10"),
    )?;
    let reply = stage.write_until(&small, POINT, 204).await?;
    assert_eq!(reply.header("x-ratelimit-remaining"), Some("6"));
    Ok(())
}
