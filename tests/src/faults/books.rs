//! The books of the journal after a run, by `ingest-filter audit totals`, beside what the gateways
//! have confirmed since they were last started.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::edge::{Edge, Service, service};
use crate::wait::{DEADLINE, wait_for};

/// What the journal and the gateways have counted, in points.
#[derive(Clone, Copy, Debug)]
pub struct Books {
    /// In the journal, what was sent again included.
    pub journalled: u64,
    /// Confirmed by the gateways since they were last started.
    pub confirmed: u64,
}

/// Waits until the books balance with nothing queued.
///
/// # Errors
/// When they do not balance, or cannot be had.
pub(super) async fn balanced(edge: &Edge) -> Result<Books> {
    let program = service("ingest-filter")?;
    let config = edge.gateway_config();
    let mut last = String::new();
    let settled = wait_for("the books to balance", DEADLINE, async || {
        let mut audit = Command::new(&program);
        audit.args(["audit", "totals", "--json", "--config"]).arg(&config);
        for gateway in edge.replicas(Service::Gateway) {
            audit.args(["--gateway", &gateway.admin.to_string()]);
        }
        let output = tokio::task::spawn_blocking(move || audit.output()).await.ok()?.ok()?;
        last = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let lines = last.lines().map_while(|line| serde_json::from_str(line).ok());
        let lines: Vec<serde_json::Value> = lines.collect();
        let [.., all, confirmed] = &lines[..] else { return None };
        let settled = output.status.success() && all["queued"] == 0;
        settled.then(|| (all["journalled"].clone(), confirmed["confirmed"].clone()))
    })
    .await;
    match settled {
        Ok((journalled, confirmed)) => Ok(Books {
            journalled: journalled.as_u64().context("the books say what is journalled")?,
            confirmed: confirmed.as_u64().context("gateways say what they confirmed")?,
        }),
        Err(error) => bail!("{error:#}: {last}"),
    }
}
