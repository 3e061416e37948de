//! Certificates that change under load, on three of each and real parts, and peers that lose their
//! right while they are connected.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tests::edge::encryption::{ENVOY, LISTENER};
use tests::edge::{Encryption, Parts, Patience, Service};
use tests::pki::{Pki, replace};
use tests::steady::SteadyLoad;
use tests::wait::{DEADLINE, wait_for};

use crate::replicas::healthy;
use crate::stage::{Stage, patient_quotas};
use crate::tls_client;

const REPLICAS: usize = 3;
const PER_SECOND: u64 = 50;
/// The services that Envoy asks.
const ASKED: [Service; 3] = [Service::Authz, Service::Ratelimit, Service::Gateway];
/// How long a peer without a right may stay.
const GONE_WITHIN: Duration = Duration::from_secs(60);

fn pki(stage: &Stage) -> Result<&Pki> {
    stage.edge.pki.as_ref().context("the edge is encrypted")
}

/// A counter on every replica's page, by replica.
async fn counts(stage: &Stage, metric: &str) -> Option<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for service in ASKED {
        for replica in stage.edge.replicas(service) {
            let page = stage.admin(replica.admin, "/metrics").await.ok()?.text();
            let lines = page.lines().filter(|line| line.contains(metric));
            let sum = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
            counts.insert(replica.name(), sum);
        }
    }
    Some(counts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_on_three_of_each_and_real_parts_fails_no_request() -> Result<()> {
    let stage = Stage::with(Parts::Real, |options| {
        options.quotas = patient_quotas();
        options.replicas = REPLICAS;
        options.patience = Patience::ROLLING;
    })
    .await?;
    for service in ASKED {
        healthy(&stage, service, REPLICAS).await?;
    }
    let traffic = SteadyLoad::start(&stage.edge, "acme", PER_SECOND).await?;
    traffic.go_on(50).await?;
    let loads = "tls_certificate_loads_total{result=\"success\"}";
    for round in 1..=3 {
        let before = counts(&stage, loads).await.context("they answer")?;
        let services = ASKED.map(Service::name);
        for name in services.into_iter().chain([ENVOY, LISTENER]) {
            pki(&stage)?.issue(name)?;
        }
        wait_for("new certificates everywhere", DEADLINE, async || {
            let now = counts(&stage, loads).await?;
            before.iter().all(|(name, count)| now[name] > *count).then_some(())
        })
        .await
        .with_context(|| format!("round {round}"))?;
        traffic.go_on(100).await?;
    }
    let noticed = traffic.finish().await?;
    eprintln!("{} requests through three rotations, {} failed", noticed.sent, noticed.failures());
    ensure!(noticed.failures() == 0, "{:?}", noticed.failed);
    Ok(())
}

/// Waits until every service has ended the connections that were held, and how long that took.
async fn all_gone(held: Vec<tokio::task::JoinHandle<()>>, why: &str) -> Result<()> {
    let began = std::time::Instant::now();
    for connection in held {
        let ended = tokio::time::timeout(GONE_WITHIN, connection).await;
        ended.with_context(|| format!("still there after 60 s: {why}"))??;
    }
    eprintln!("{why}: gone from every service within {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_its_right_is_gone_from_every_service() -> Result<()> {
    let stage = Stage::with(Parts::Embedded, |options| options.encryption = Encryption::On).await?;
    let pki = pki(&stage)?;
    let names = stage.edge.names_file();
    let envoy = Pki::uri(ENVOY);
    replace(&names, &format!("{envoy}\n{}\n{}\n", Pki::uri("guest"), Pki::uri("brief")))?;
    pki.issue("guest")?;
    let at = ASKED.map(|service| stage.edge.replicas(service)[0].listen);
    let mut guests = Vec::new();
    for at in at {
        // The new names are in force within a second.
        guests.push(
            wait_for("the guest to be let in", DEADLINE, async || {
                tls_client::hold(at, &pki.client("guest")).await.ok()
            })
            .await?,
        );
    }
    // Time enough to connect to all three on a busy machine.
    let expires = SystemTime::now() + Duration::from_secs(25);
    let brief = pki.sign_with("brief", |params| params.not_after = expires.into())?;
    pki.put("brief", &brief)?;
    let mut briefly = Vec::new();
    for at in at {
        briefly.push(tls_client::hold(at, &pki.client("brief")).await?);
    }
    ensure!(guests.iter().chain(&briefly).all(|held| !held.is_finished()), "all are let in");
    all_gone(briefly, "an expired certificate").await?;
    ensure!(guests.iter().all(|held| !held.is_finished()), "the others stay");
    replace(&names, &format!("{envoy}\n"))?;
    all_gone(guests, "a name that left the list").await?;
    for reason in ["expired", "not_allowed"] {
        let metric = format!("tls_connections_ended_total{{reason=\"{reason}\"}}");
        let counts = counts(&stage, &metric).await.context("they answer")?;
        ensure!(counts.values().all(|count| *count == 1), "{reason}: {counts:?}");
    }
    // Envoy was never without.
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    ensure!(stage.write(&key, "still f=1").await?.status == 204, "Envoy is let in");
    Ok(())
}
