//! Replicas that are stopped, killed or frozen while requests go on: what the clients notice.

use anyhow::{Context, Result, ensure};
use axum::Router;
use rustix::process::Signal;
use tests::edge::{Edge, Part, Parts, Patience, Service, Supervisor};
use tests::steady::{self, CLASSES, Noticed, SteadyLoad};
use tests::wait::{DEADLINE, wait_for};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::stage::{Stage, patient_quotas};

const REPLICAS: usize = 3;
/// Little, as unoptimised services and whatever else runs share two processors. `make bench` sends
/// 500 a second at optimised ones.
const PER_SECOND: u64 = 100;

async fn three_of_each() -> Result<Stage> {
    Stage::with(Parts::Real, |options| {
        options.quotas = patient_quotas();
        options.replicas = REPLICAS;
        options.patience = Patience::ROLLING;
    })
    .await
}

/// The rows of the table that an SRE asks for; `cargo test -- --nocapture` shows it.
fn report(how: &str, service: Service, noticed: &Noticed) {
    eprintln!(
        "| {how} | {} | {} | {} | {:.2} s |",
        service.name(),
        noticed.sent,
        noticed.failures(),
        noticed.longest_wait.as_secs_f64()
    );
}

/// Waits until Envoy has as many healthy hosts in a cluster.
pub async fn healthy(stage: &Stage, service: Service, count: usize) -> Result<()> {
    let url = format!("http://{}/clusters", stage.edge.at.envoy_admin);
    let start = format!("{}::", service.name());
    wait_for(&format!("{count} healthy {}", service.name()), DEADLINE, async || {
        let text = stage.http.get(&url).await.ok()?.text();
        let flags = text.lines().filter(|line| line.starts_with(&start));
        let well = flags.filter(|line| line.ends_with("::health_flags::healthy")).count();
        (well == count).then_some(())
    })
    .await
}

async fn restart_orderly(stage: &mut Stage, service: Service, number: usize) -> Result<()> {
    let replica = &mut stage.edge.replicas_mut(service)[number];
    let mut child = replica.child.take().context("the replica runs")?;
    child.signal(Signal::TERM)?;
    let status = child.wait(DEADLINE).await?;
    ensure!(status.success(), "{} ended with {status}:\n{}", child.name(), child.output());
    stage.edge.start_service(service).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_every_service_fails_no_request() -> Result<()> {
    let mut stage = three_of_each().await?;
    for service in Service::ALL {
        if service != Service::Writer {
            healthy(&stage, service, REPLICAS).await?;
        }
        let traffic = SteadyLoad::start(&stage.edge, "acme", PER_SECOND).await?;
        traffic.go_on(50).await?;
        for number in 0..REPLICAS {
            restart_orderly(&mut stage, service, number).await?;
            if service != Service::Writer {
                healthy(&stage, service, REPLICAS).await?;
            }
        }
        traffic.go_on(50).await?;
        let noticed = traffic.finish().await?;
        report("SIGTERM of each in turn", service, &noticed);
        assert_eq!(noticed.failures(), 0, "{}: {:?}", service.name(), noticed.failed);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_or_frozen_replica_costs_at_most_what_it_held() -> Result<()> {
    let mut stage = three_of_each().await?;
    for service in [Service::Authz, Service::Ratelimit, Service::Gateway] {
        healthy(&stage, service, REPLICAS).await?;
        let traffic = SteadyLoad::start(&stage.edge, "acme", PER_SECOND).await?;
        traffic.go_on(50).await?;
        let child = stage.edge.replicas_mut(service)[1].child.as_mut().context("it runs")?;
        child.signal(Signal::KILL)?;
        child.wait(DEADLINE).await?;
        traffic.go_on(300).await?;
        let noticed = traffic.finish().await?;
        report("kill -9 of one", service, &noticed);
        // What was in flight at a gateway may have been stored, so it is not sent again.
        let most = if service == Service::Gateway { PER_SECOND as usize / 10 } else { 0 };
        assert!(noticed.failures() <= most, "{}: {:?}", service.name(), noticed.failed);
        stage.edge.replicas_mut(service)[1].child = None;
        stage.edge.start_service(service).await?;
    }
    for service in [Service::Authz, Service::Ratelimit, Service::Gateway] {
        healthy(&stage, service, REPLICAS).await?;
        let traffic = SteadyLoad::start(&stage.edge, "acme", PER_SECOND).await?;
        traffic.go_on(50).await?;
        let frozen = stage.edge.child(Part::Replica(service, 2)).context("it runs")?;
        frozen.signal(Signal::STOP)?;
        traffic.go_on(500).await?;
        stage.edge.child(Part::Replica(service, 2)).context("it runs")?.signal(Signal::CONT)?;
        let noticed = traffic.finish().await?;
        report("SIGSTOP of one", service, &noticed);
        // Two seconds of the share of one.
        let most = 2 * PER_SECOND as usize / REPLICAS;
        assert!(noticed.failures() <= most, "{}: {:?}", service.name(), noticed.failed);
        if service == Service::Ratelimit {
            assert_eq!(noticed.failures_of(CLASSES[0]), 0, "{:?}", noticed.failed);
        }
    }
    Ok(())
}

/// Answers health checks and nothing else: as a replica whose workers hang, or one that says at each call
/// that it cannot.
async fn pretender(address: std::net::SocketAddr, hangs: bool) -> Result<JoinHandle<()>> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let answer = move || async move {
        if hangs {
            std::future::pending::<()>().await;
        }
        [("content-type", "application/grpc"), ("grpc-status", "14")]
    };
    let router =
        Router::new().route_service("/grpc.health.v1.Health/{method}", health).fallback(answer);
    let listener = TcpListener::bind(address).await?;
    Ok(tokio::spawn(async move {
        // It is aborted.
        let _ = axum::serve(listener, router).await;
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_healthy_and_does_not_serve_costs_no_request() -> Result<()> {
    let mut stage = Stage::with(Parts::Embedded, |options| {
        options.replicas = REPLICAS;
        options.patience = Patience::ROLLING;
    })
    .await?;
    // Before there is a replica that would have to know them and hangs.
    let keys = steady::keys(&stage.edge, "acme").await?;
    for (service, hangs) in [
        (Service::Authz, true),
        (Service::Authz, false),
        (Service::Ratelimit, true),
        (Service::Ratelimit, false),
    ] {
        healthy(&stage, service, REPLICAS).await?;
        let replica = &mut stage.edge.replicas_mut(service)[0];
        let (child, address) = (replica.child.take(), replica.listen);
        child.context("the replica runs")?.stop(DEADLINE).await;
        let pretender = pretender(address, hangs).await?;
        healthy(&stage, service, REPLICAS).await?;
        let traffic = SteadyLoad::with_keys(&stage.edge, keys.clone(), PER_SECOND);
        traffic.go_on(300).await?;
        let noticed = traffic.finish().await?;
        assert_eq!(noticed.failures(), 0, "{} hangs={hangs}: {:?}", service.name(), noticed.failed);
        let name = format!("cluster.{}.outlier_detection.ejections_enforced_total", service.name());
        let stats = format!("/stats?filter=^{name}$");
        let stats = stage.admin(stage.edge.at.envoy_admin, &stats).await?.text();
        assert!(!stats.trim().ends_with(": 0"), "{stats}");
        pretender.abort();
        // Its socket is closed once it has ended.
        let _ = pretender.await;
        stage.edge.start_service(service).await?;
    }
    Ok(())
}

/// With every replica of a service gone the outage table holds as for one.
#[tokio::test(flavor = "multi_thread")]
async fn all_replicas_gone_is_the_outage_of_the_service() -> Result<()> {
    let mut stage = Stage::with(Parts::Embedded, |options| {
        options.replicas = REPLICAS;
        options.patience = Patience::ROLLING;
    })
    .await?;
    let critical = stage.edge.issue_live_key("acme", CLASSES[0]).await?;
    let ingest = stage.edge.issue_live_key("acme", "ingest").await?;
    for (service, of_critical) in
        [(Service::Ratelimit, 204), (Service::Authz, 503), (Service::Gateway, 503)]
    {
        stage.edge.kill(service);
        let reply = stage.write_until(&ingest, "gone f=1", 503).await?;
        assert_eq!(reply.header("retry-after"), Some("1"), "{}", service.name());
        let reply = stage.write(&critical, "gone f=1").await?;
        assert_eq!(reply.status, of_critical, "{}: {}", service.name(), reply.text());
        stage.edge.start_service(service).await?;
        stage.write_until(&ingest, "back f=1", 204).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_is_started_again_and_bad_settings_are_given_up() -> Result<()> {
    let mut stage = Stage::embedded().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let mut supervisor = Supervisor::default();
    let mut lines: Vec<String> = Vec::new();
    let parts = [
        Part::Replica(Service::Ratelimit, 0),
        Part::Replica(Service::Authz, 0),
        Part::Replica(Service::Gateway, 0),
        Part::Replica(Service::Writer, 0),
        Part::Envoy,
    ];
    supervisor.poll(&mut stage.edge, |line| lines.push(line.to_owned()));
    for part in parts {
        let pid = |edge: &Edge| edge.child(part).map(tests::child::Child::pid);
        let before = pid(&stage.edge);
        stage.edge.child(part).context("it runs")?.signal(Signal::KILL)?;
        wait_for("a new process", DEADLINE, async || {
            supervisor.poll(&mut stage.edge, |line| lines.push(line.to_owned()));
            (pid(&stage.edge) != before).then_some(())
        })
        .await?;
    }
    assert_eq!(lines.len(), parts.len(), "a line for each: {lines:?}");
    assert!(lines.iter().all(|line| line.contains("starting it again")), "{lines:?}");
    stage.write_until(&key, "again f=1", 204).await?;

    std::fs::write(stage.edge.authz_config(), "no_such_key: 1\n")?;
    lines.clear();
    stage.edge.child(Part::Replica(Service::Authz, 0)).context("it runs")?.signal(Signal::KILL)?;
    wait_for("it to be given up", DEADLINE, async || {
        supervisor.poll(&mut stage.edge, |line| lines.push(line.to_owned()));
        lines.last().filter(|line| line.contains("stays down")).map(|_| ())
    })
    .await?;
    assert!(lines[1].contains("no_such_key"), "the line says why: {lines:?}");
    let count = lines.len();
    for _ in 0..100 {
        supervisor.poll(&mut stage.edge, |line| lines.push(line.to_owned()));
    }
    assert_eq!(lines.len(), count, "said once: {lines:?}");
    Ok(())
}
