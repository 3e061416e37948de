//! What clients get wrong, through the real Envoy.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_named_and_its_neighbours_are_stored() -> Result<()> {
    let stage = Stage::embedded().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let reply = stage.write(&key, "good f=1\nbad f=\nfine f=2\nworse\n").await?;
    assert_eq!(reply.status, 400);
    let text = reply.text();
    assert!(text.contains("line 2") && text.contains("line 4"), "{text}");
    assert!(!text.contains("line 1:") && !text.contains("line 3:"), "{text}");
    let lines = stage.lines(|lines| lines.len() >= 2).await?;
    let mut names: Vec<&str> =
        lines.iter().filter_map(|line| line.split([',', ' ']).next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["fine", "good"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_bombs_and_unknown_types_are_refused_with_memory_flat() -> Result<()> {
    let stage = Stage::embedded().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let token = format!("Token {key}");
    let auth = ("authorization", token.as_str());

    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    let block = vec![b'\n'; 1 << 20];
    for _ in 0..96 {
        bomb.write_all(&block)?;
    }
    let bomb = bomb.finish()?;
    for _ in 0..4 {
        let reply =
            stage.post("/write", &[auth, ("content-encoding", "gzip")], bomb.clone()).await?;
        assert_eq!(reply.status, 413, "{}", reply.text());
    }
    let large = vec![b'\n'; 128 << 20];
    assert_eq!(stage.post("/write", &[auth], large).await?.status, 413);
    let gateway = stage.edge.gateway[0].child.as_ref().context("a gateway runs")?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid()))?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).context("Linux tells it")?;
    let peak: u64 = peak.split_whitespace().nth(1).context("a number")?.parse()?;
    assert!(peak < 256 << 10, "the gateway's memory peaked at {peak} KiB");

    let otlp = [auth, ("content-type", "text/html")];
    assert_eq!(stage.post("/v1/metrics", &otlp, "x").await?.status, 415);
    let page = [auth, ("content-type", "text/html")];
    assert_eq!(stage.post("/write", &page, "m f=1").await?.status, 415);
    let coding = [auth, ("content-encoding", "br")];
    assert_eq!(stage.post("/write", &coding, "m f=1").await?.status, 415);
    let garbage = [auth, ("content-type", "application/x-protobuf")];
    assert_eq!(stage.post("/v1/metrics", &garbage, "garbage").await?.status, 400);
    assert_eq!(stage.write(&key, "m f=1").await?.status, 204);
    Ok(())
}
