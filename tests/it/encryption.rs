//! The hops behind Envoy over mutual TLS: who gets in, who does not, and what a rotation costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chassis::tls::client::ClientSettings;
use tests::child::Child;
use tests::edge::encryption::{ENVOY, LISTENER};
use tests::edge::{Encryption, Parts, Service};
use tests::pki::Pki;
use tests::ports::free_address;
use tests::wait::{DEADLINE, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::stage::Stage;
use crate::tls_client;

async fn encrypted() -> Result<Stage> {
    Stage::with(Parts::Embedded, |options| options.encryption = Encryption::On).await
}

fn pki(stage: &Stage) -> Result<&Pki> {
    stage.edge.pki.as_ref().context("the edge is encrypted")
}

/// How often a client's handshake failed at a service, by its admin page.
async fn refused(stage: &Stage, service: Service) -> Result<u64> {
    let page = stage.admin(stage.edge.replicas(service)[0].admin, "/metrics").await?.text();
    let counts = page
        .lines()
        .filter(|line| line.contains("tls_handshake_failures_total{") && !line.starts_with('#'));
    Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_tenant_from_beside_envoy_fails_in_the_handshake() -> Result<()> {
    let stage = encrypted().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    assert_eq!(stage.write(&key, "through f=1").await?.status, 204);
    let gateway = stage.edge.gateway[0].listen;
    let forged = [("x-tidegate-tenant", "acme"), ("x-tidegate-key-id", "k")];
    let write = async |settings: &ClientSettings| {
        tls_client::post(gateway, settings, "/write?db=demo", &forged, "forged f=1").await
    };
    // In clear text, without a certificate, with that of another service: nothing is answered.
    let url = format!("http://{gateway}/write?db=demo");
    stage.http.post(&url, &forged, "forged f=1").await.expect_err("clear text");
    let pki = pki(&stage)?;
    let nobody = ClientSettings { identity: None, ..pki.client(ENVOY) };
    write(&nobody).await.expect_err("no certificate");
    write(&pki.client("writer")).await.expect_err("not Envoy's certificate");
    wait_for("the refusals to be counted", DEADLINE, async || {
        refused(&stage, Service::Gateway).await.ok().filter(|count| *count >= 3)
    })
    .await?;
    // What Envoy's certificate may.
    ensure!(write(&pki.client(ENVOY)).await?.status == 204, "Envoy's certificate is good");
    let lines = stage.lines(|lines| lines.len() >= 2).await?;
    ensure!(lines.len() == 2, "{lines:?}");
    let config = stage.admin(stage.edge.gateway[0].admin, "/config").await?.text();
    ensure!(config.contains("\"clients_authenticated\": true"), "{config}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_client_certificates_the_gateway_says_so() -> Result<()> {
    let stage = Stage::embedded().await?;
    let config = stage.admin(stage.edge.gateway[0].admin, "/config").await?.text();
    ensure!(config.contains("\"clients_authenticated\": false"), "{config}");
    let gateway = stage.edge.gateway[0].child.as_ref().context("it runs")?;
    let warnings = gateway.output().matches("may write as any tenant").count();
    ensure!(warnings == 1, "{}", gateway.output());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_reach_the_edge_over_tls() -> Result<()> {
    let stage = encrypted().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let authorization = format!("Token {key}");
    let headers = [("authorization", authorization.as_str())];
    let settings = ClientSettings { identity: None, ..pki(&stage)?.client(LISTENER) };
    let at = stage.edge.at.edge_tls;
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let (reply, agreed) =
            tls_client::post_with(at, &settings, protocol, "/api/v2/write?bucket=d", &headers)
                .await?;
        ensure!(reply.status == 204 && agreed == protocol, "{} {agreed:?}", reply.status);
    }
    stage.lines(|lines| lines.len() == 2).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_speaks_only_to_the_right_services() -> Result<()> {
    let mut stage = encrypted().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    assert_eq!(stage.write(&key, "before f=1").await?.status, 204);
    // A gateway with a good certificate of the same authority that is another service's.
    let pki = pki(&stage)?;
    let other = pki.sign("writer")?;
    tests::pki::replace(&pki.certificate("gateway"), &other.certificate)?;
    tests::pki::replace(&pki.key("gateway"), &other.key)?;
    stage.edge.kill(Service::Gateway);
    stage.edge.start_service(Service::Gateway).await?;
    stage.write_until(&key, "wrong f=1", 503).await?;
    pki_issue(&stage, "gateway")?;
    stage.write_until(&key, "right f=1", 204).await?;
    Ok(())
}

fn pki_issue(stage: &Stage, name: &str) -> Result<()> {
    pki(stage)?.issue(name)
}

/// The serial numbers of the certificates that Envoy has in force, by its admin page.
async fn certificates_of_envoy(stage: &Stage) -> Option<String> {
    let url = format!("http://{}/certs", stage.edge.at.envoy_admin);
    Some(stage.http.get(&url).await.ok()?.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_every_certificate_drops_no_request() -> Result<()> {
    let stage = Arc::new(encrypted().await?);
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let (done, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for number in 0..4 {
        let (stage, key) = (stage.clone(), key.clone());
        let (done, sent) = (done.clone(), sent.clone());
        load.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let reply = stage.write(&key, format!("load,n={number} f=1")).await?;
                ensure!(reply.status == 204, "{} {}", reply.status, reply.text());
                sent.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    let more = async |count: u64| {
        let before = sent.load(Ordering::Relaxed);
        wait_for("requests to pass", DEADLINE, async || {
            (sent.load(Ordering::Relaxed) > before + count).then_some(())
        })
        .await
    };
    more(50).await?;
    let expiries = async || {
        let mut loaded = 0;
        for service in [Service::Authz, Service::Ratelimit, Service::Gateway] {
            let admin = stage.edge.replicas(service)[0].admin;
            let page = stage.admin(admin, "/metrics").await?.text();
            let counts = page
                .lines()
                .filter(|line| line.contains("tls_certificate_loads_total{result=\"success\"}"));
            loaded +=
                counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
        }
        anyhow::Ok(loaded)
    };
    for round in 1..=3_u64 {
        let before = certificates_of_envoy(&stage).await.context("Envoy answers")?;
        let loaded = expiries().await?;
        for name in [ENVOY, LISTENER, "ext-authz", "ratelimit-svc", "gateway"] {
            pki_issue(&stage, name)?;
        }
        wait_for("new certificates everywhere", DEADLINE, async || {
            let envoy = certificates_of_envoy(&stage).await.filter(|now| *now != before);
            let services = expiries().await.ok().filter(|now| *now >= loaded + 3);
            envoy.and(services)
        })
        .await
        .with_context(|| format!("round {round}"))?;
        // New connections as well as old ones.
        more(50).await?;
    }
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = tokio::time::timeout(Duration::from_secs(60), load.join_next()).await? {
        ended??;
    }
    eprintln!("{} requests through three rotations, none lost", sent.load(Ordering::Relaxed));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hop_to_the_real_parts_is_encrypted() -> Result<()> {
    let stage = Stage::real().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    assert_eq!(stage.write(&key, "sealed f=1").await?.status, 204);
    let rows = stage.rows("acme__default", "SELECT f FROM sealed", 1).await?;
    ensure!(rows.len() == 1, "{rows:?}");
    // Nobody of them answers in clear text.
    let influxdb = stage.edge.influxdb.as_ref().context("InfluxDB runs")?.address;
    let clear = stage.http.get(&format!("http://{influxdb}/ping")).await?;
    ensure!(clear.status == 400, "InfluxDB answered {} in clear text", clear.status);
    let redis = stage.edge.redis.as_ref().context("Redis runs")?.address;
    let mut stream = TcpStream::connect(redis).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = Vec::new();
    // It closes the connection, one way or the other.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await?;
    ensure!(!answer.starts_with(b"+PONG"), "Redis answered in clear text");
    let ratelimit = stage.admin(stage.edge.ratelimit[0].admin, "/metrics").await?.text();
    ensure!(ratelimit.contains("ratelimit_breaker_open 0"), "{ratelimit}");
    Ok(())
}

/// Runs another gateway on the stage's Kafka, with a login of its own.
async fn gateway_with(stage: &Stage, section: &str, port: u16) -> Result<Child> {
    let kafka = stage.edge.kafka.as_ref().context("Kafka runs")?.address;
    let dir = &stage.edge.options.dir;
    let yaml = format!(
        "journal:\n  kafka:\n    brokers: {kafka}\n{section}gateway:\n  listen: 127.0.0.1:0\n  \
         admin_listen: 127.0.0.1:{port}\n"
    );
    let file = dir.join(format!("gateway-{port}.yaml"));
    std::fs::write(&file, yaml)?;
    let mut command = std::process::Command::new(tests::edge::service("ingest-filter")?);
    command.args(["gateway", "--config"]).arg(file);
    Child::start(&format!("gateway-{port}"), dir, command)
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_lets_in_who_logs_in_and_says_once_who_does_not() -> Result<()> {
    let stage = Stage::real().await?;
    let ca = pki(&stage)?.authority().display().to_string();
    let dir = stage.edge.options.dir.clone();
    std::fs::write(dir.join("wrong-password"), "not it\n")?;
    std::fs::write(dir.join("empty-password"), "\n")?;
    let section = |mechanism: &str, password: &str| {
        format!(
            "    tls: {{ca_file: {ca}}}\n    sasl: {{mechanism: {mechanism}, username: tidegate, \
             password_file: {password}}}\n"
        )
    };
    let readyz =
        async |port: u16| stage.http.get(&format!("http://127.0.0.1:{port}/readyz")).await.ok();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let port = free_address()?.port();
        let mut child = gateway_with(&stage, &section(mechanism, "kafka-password"), port).await?;
        wait_for(&format!("{mechanism} to log in"), DEADLINE, async || {
            readyz(port).await.filter(|reply| reply.status == 200).map(drop)
        })
        .await
        .or_else(|error| child.check_alive().and(Err(error)))
        .with_context(|| child.output())?;
    }
    // A refused login: up, not ready, one line.
    let port = free_address()?.port();
    let child = gateway_with(&stage, &section("SCRAM-SHA-512", "wrong-password"), port).await?;
    let refused = |output: &str| output.to_lowercase().matches("authentication").count();
    wait_for("the refusal to be said", DEADLINE, async || {
        (refused(&child.output()) > 0).then_some(())
    })
    .await
    .with_context(|| child.output())?;
    ensure!(readyz(port).await.is_some_and(|reply| reply.status == 503), "not ready");
    // Settings that cannot work: the end, with the file named.
    for (section, expected) in [
        (section("PLAIN", "empty-password"), "empty-password' holds no secret"),
        (section("PLAIN", "no-password"), "no-password' cannot be read"),
        (format!("    tls: {{ca_file: {ca}.not}}\n"), "ca.crt.not' cannot be read"),
    ] {
        let mut child = gateway_with(&stage, &section, free_address()?.port()).await?;
        let status = child.wait(DEADLINE).await?;
        ensure!(status.code() == Some(64), "{status} {}", child.output());
        ensure!(child.output().contains(expected), "{}", child.output());
    }
    Ok(())
}
