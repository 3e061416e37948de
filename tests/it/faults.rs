//! A small fault run: every process of the edge is killed once under numbered points.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::edge::{Parts, Patience};
use tests::faults::{self, Plan, VICTIMS};

use crate::stage::Stage;

/// What a client may be told while something is away: to come again, never that its points are bad
/// or that its key or quota is at fault.
const REFUSALS: [&str; 2] = ["503 ", "no answer"];

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_point_is_there_once_whatever_is_killed() -> Result<()> {
    let mut stage = Stage::with(Parts::Real, |options| {
        let run = faults::options(&options.dir);
        options.quotas = run.quotas;
        options.patience = Patience::BUSY_MACHINE;
    })
    .await?;
    let plan = Plan {
        points: 9_000,
        tenants: 3,
        clients: 2,
        write_points: 20,
        rounds: 1,
        away: Duration::from_millis(300),
        undisturbed: 900,
        between: 300,
        only: None,
        per_second: None,
    };
    let outcome = faults::run(&mut stage.edge, plan, &|_, _| ()).await?;
    ensure!(outcome.kills.len() == VICTIMS.len(), "{:?}", outcome.kills);
    ensure!(outcome.is_exact(), "{:?}", outcome.stored);
    ensure!(outcome.noticed.acknowledged == outcome.stored.stored, "{outcome:?}");
    ensure!(outcome.books.journalled >= outcome.stored.stored, "{outcome:?}");
    ensure!((1..=outcome.books.journalled).contains(&outcome.books.confirmed), "{outcome:?}");
    let known = |reason: &String| REFUSALS.iter().any(|known| reason.starts_with(known));
    let unknown: Vec<_> = outcome.noticed.refused.keys().filter(|reason| !known(reason)).collect();
    ensure!(unknown.is_empty(), "{unknown:?}");
    Ok(())
}
