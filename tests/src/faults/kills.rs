//! SIGKILL of each process in turn. The next one dies only after points flow again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Plan;
use super::clients::Clients;
use super::peaks::Watch;
use super::victims::VICTIMS;
use crate::edge::{Edge, Service, Supervisor};
use crate::http::Http;
use crate::wait::{DEADLINE, wait_for};

/// How often what has ended is looked for.
const POLL: Duration = Duration::from_millis(50);

/// Kills until the rounds are over or all points are acknowledged.
///
/// # Errors
/// When no point is acknowledged any more.
pub(super) async fn run(
    edge: &mut Edge,
    plan: &Plan,
    clients: &Clients,
    watch: &mut Watch,
    progress: &dyn Fn(&str, u64),
) -> Result<BTreeMap<&'static str, usize>> {
    let mut supervisor = Supervisor::default();
    let mut kills = BTreeMap::new();
    let victims = (0..plan.rounds).flat_map(|_| VICTIMS);
    for (name, part) in victims.filter(|(_, part)| plan.only.is_none_or(|only| only == *part)) {
        if clients.are_done() {
            break;
        }
        progress(&format!("{name} is killed"), clients.count());
        // What came up while it was not looked for is known before it ends.
        supervisor.poll(edge, |_| ());
        edge.child(part).with_context(|| format!("{name} runs"))?.signal(Signal::KILL)?;
        clients.somebody_dies(name);
        *kills.entry(name).or_default() += 1;
        watch.during(edge, tokio::time::sleep(plan.away)).await;
        watch.peaks.returned(name, Instant::now());
        let flow = clients.acknowledged(plan.between, progress, name);
        supervised(edge, &mut supervisor, watch, flow).await?;
    }
    // Whoever died last comes back too.
    let rest = clients.acknowledged(u64::MAX / 2, progress, "the rest");
    supervised(edge, &mut supervisor, watch, rest).await?;
    let http = Http::new();
    wait_for("every process to be ready again", DEADLINE, async || {
        supervisor.poll(edge, |_| ());
        watch.look(edge).await;
        edge.influxdb.as_ref()?.rows("_internal", "SHOW DATABASES").await.ok()?;
        for replica in Service::ALL.into_iter().flat_map(|service| edge.replicas(service)) {
            let ready = http.get(&format!("http://{}/readyz", replica.admin)).await.ok()?;
            ready.status.is_success().then_some(())?;
        }
        Some(())
    })
    .await?;
    Ok(kills)
}

/// Starts again what has ended, until the clients are content.
async fn supervised(
    edge: &mut Edge,
    supervisor: &mut Supervisor,
    watch: &mut Watch,
    clients: impl Future<Output = Result<()>>,
) -> Result<()> {
    tokio::pin!(clients);
    loop {
        tokio::select! {
            ended = &mut clients => return ended,
            () = tokio::time::sleep(POLL) => {
                supervisor.poll(edge, |_| ());
                watch.look(edge).await;
            }
        }
    }
}
