//! CPU for one decision, measured so that a noisy machine does not decide who wins: short slices of
//! every subject in turn, there and back again (A B B A), so that each round holds all of them
//! under the same weather. How many rounds there are, `stopping` says.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use super::rig::{RedisAt, Server, Usage};
use crate::load::engine::Engine;
use crate::load::schedule::{Amount, Pace};
use crate::load::table;
use crate::load::tally::Tally;
use crate::parts::redis::Redis;
use stopping::Stopping;

pub mod stopping;

/// One subject under one load.
pub struct Cell {
    /// Its name in the results.
    pub name: String,
    /// The processes that the load goes to.
    pub servers: Vec<u32>,
    /// The Redis behind them.
    pub redis: Option<RedisAt>,
    /// The load.
    pub engine: Engine,
    /// One for each round.
    pub samples: Vec<Sample>,
    /// Latencies of all rounds.
    pub latency: Option<Histogram<u64>>,
}

/// One slice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Server CPU for a decision, us.
    pub server_us: f64,
    /// Redis CPU for a decision, us.
    pub redis_us: f64,
    /// Redis commands for a decision.
    pub commands: f64,
    /// Decisions a second.
    pub per_second: f64,
    /// Share of requests that passed.
    pub admitted: f64,
    /// The most that one counter admitted in a second.
    pub sure_most: u64,
    /// CPU of the generator for a request, us.
    pub own_us: f64,
}

impl Cell {
    /// A cell without samples.
    pub fn new(
        name: impl Into<String>,
        servers: Vec<&Server>,
        redis: Option<&Redis>,
        engine: Engine,
    ) -> Self {
        let servers = servers.iter().map(|server| server.child.pid()).collect();
        Self::of_processes(name, servers, redis.map(RedisAt::from), engine)
    }

    /// The same of processes that others have started.
    pub fn of_processes(
        name: impl Into<String>,
        servers: Vec<u32>,
        redis: Option<RedisAt>,
        engine: Engine,
    ) -> Self {
        Self { name: name.into(), servers, redis, engine, samples: Vec::new(), latency: None }
    }

    /// One column of the samples.
    pub fn column(&self, of: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(of).collect()
    }

    /// Runs one slice without keeping it.
    ///
    /// # Errors
    /// As the engine's.
    pub fn warm(&mut self, slice: Duration) -> Result<()> {
        self.engine.run(Pace::Closed, Amount::Time(slice)).map(drop).context(self.name.clone())
    }

    /// Runs one slice.
    ///
    /// # Errors
    /// As the engine's, or when a server is gone.
    pub fn slice(&mut self, pace: Pace, slice: Duration) -> Result<Tally> {
        let before = Usage::before(&self.servers, self.redis)?;
        let tally =
            self.engine.run(pace, Amount::Time(slice)).with_context(|| self.name.clone())?;
        let after = Usage::after(&self.servers, self.redis)?;
        let total = tally.total();
        let decisions = total.sent as f64;
        let each = |used: Duration| used.as_secs_f64() * 1e6 / decisions;
        self.samples.push(Sample {
            server_us: each(after.servers.saturating_sub(before.servers)),
            redis_us: each(after.redis.saturating_sub(before.redis)),
            commands: after.calls.since(&before.calls).sent() as f64 / decisions,
            per_second: tally.rate(),
            admitted: total.admitted as f64 / decisions,
            sure_most: tally.sure_most,
            own_us: table::own_cpu_micros(&tally),
        });
        match &mut self.latency {
            Some(latency) => latency.add(tally.latency()).context("equal bounds")?,
            none => *none = Some(tally.latency()),
        }
        Ok(tally)
    }
}

/// Runs all cells in rounds, every second one backwards, until each of the ratios that are watched is known
/// well enough: pairs of a cell and its yardstick, by their places. A cell of which no ratio is watched
/// runs the fewest rounds, and one whose ratios are known runs no more of them.
///
/// # Errors
/// As a cell's.
pub fn interleave(
    cells: &mut [Cell],
    stopping: Stopping,
    slice: Duration,
    watched: &[(usize, usize)],
) -> Result<()> {
    for cell in cells.iter_mut() {
        cell.warm(slice / 2)?;
    }
    // A ratio that is known stays so: then each cell runs the first rounds, and ratios are of one round.
    let mut open = watched.to_vec();
    for round in 0..stopping.most {
        open.retain(|&(cell, yardstick)| {
            stopping.wants_more(&ratios(&cells[cell], &cells[yardstick]))
        });
        let mut is_in = vec![round < stopping.least; cells.len()];
        for (cell, yardstick) in &open {
            is_in[*cell] = true;
            is_in[*yardstick] = true;
        }
        for step in 0..cells.len() {
            let at = if round % 2 == 0 { step } else { cells.len() - 1 - step };
            if is_in[at] {
                cells[at].slice(Pace::Closed, slice)?;
            }
        }
    }
    Ok(())
}

/// How many times the CPU of `yardstick` a cell needs: the ratio of each round, which both ran in. Of cells that
/// stopped at different rounds those that both have.
pub fn ratios(cell: &Cell, yardstick: &Cell) -> Vec<f64> {
    let both = cell.samples.iter().zip(&yardstick.samples);
    both.map(|(cell, yardstick)| cell.server_us / yardstick.server_us).collect()
}
