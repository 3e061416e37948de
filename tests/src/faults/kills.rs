//! SIGKILL of each process in turn. The next one dies only after points flow again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Plan;
use super::clients::Clients;
use crate::edge::{Edge, Part, Service, Supervisor};
use crate::http::Http;
use crate::wait::{DEADLINE, wait_for};

/// Who dies, in this order, and under which name it is counted.
pub const VICTIMS: [(&str, Part); 8] = [
    ("gateway", Part::Replica(Service::Gateway, 0)),
    ("writer", Part::Replica(Service::Writer, 0)),
    ("ratelimit-svc", Part::Replica(Service::Ratelimit, 0)),
    ("ext-authz", Part::Replica(Service::Authz, 0)),
    ("redis", Part::Redis),
    ("kafka", Part::Kafka),
    ("influxdb", Part::InfluxDb),
    ("envoy", Part::Envoy),
];

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
        *kills.entry(name).or_default() += 1;
        tokio::time::sleep(plan.away).await;
        supervised(edge, &mut supervisor, clients.acknowledged(plan.between, progress, name))
            .await?;
    }
    // Whoever died last comes back too.
    let rest = clients.acknowledged(u64::MAX / 2, progress, "the rest");
    supervised(edge, &mut supervisor, rest).await?;
    let http = Http::new();
    wait_for("every process to be ready again", DEADLINE, async || {
        supervisor.poll(edge, |_| ());
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
    clients: impl Future<Output = Result<()>>,
) -> Result<()> {
    tokio::pin!(clients);
    loop {
        tokio::select! {
            ended = &mut clients => return ended,
            () = tokio::time::sleep(POLL) => {
                supervisor.poll(edge, |_| ());
            }
        }
    }
}
