//! Does a decision cost more when there are more rules? 10 to 10,000 literal rules, each met alike.

use anyhow::Result;

use super::Context;
use super::cost;
use super::results::{Aim, median};
use super::rig::{self, Store};
use super::rounds::{Cell, interleave, ratios};
use crate::load::scenario::many_rules;

const COUNTS: [usize; 4] = [10, 100, 1_000, 10_000];
/// What a thousand times the rules may cost.
const FLAT: f64 = 1.15;

/// Runs the stage.
///
/// # Errors
/// As [`cost::measure`].
pub async fn measure(cx: &mut Context) -> Result<()> {
    let dir = rig::stage_dir(&cx.dir, "rules")?;
    let mut servers = Vec::new();
    for rules in COUNTS {
        let (file, traffic) = many_rules(rules)?;
        let server = rig::rls(&dir, &format!("rules-{rules}"), &file, Store::Memory, 1).await?;
        servers.push((rules, server, traffic));
    }
    let mut cells = Vec::new();
    for (rules, server, traffic) in &servers {
        let engine = cost::engine(&[server.address], 4, 16, traffic.clone())?;
        cells.push(Cell::new(rules.to_string(), vec![server], None, engine));
    }
    cx.step("rules: interleaved rounds");
    interleave(&mut cells, cx.stopping(), cx.slice(), &[(COUNTS.len() - 1, 0)])?;
    for cell in &cells {
        let name = format!("rules/{}/server", cell.name);
        cx.results.add_samples(&name, &cell.column(|sample| sample.server_us), "us");
    }
    let slope = median(&ratios(&cells[COUNTS.len() - 1], &cells[0]));
    cx.results.add("rules/10,000 rules to 10", slope, "x", Aim::AtMost(FLAT));
    drop(cells);
    if let Some((_, server, _)) = servers.last() {
        cost::process(cx, "ratelimit-svc 10,000 rules", server)?;
    }
    Ok(())
}
