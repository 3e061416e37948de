//! What each process of an edge on real parts uses of the processors.

use std::time::Duration;

use anyhow::{Context, Result};

use super::victims::VICTIMS;
use crate::edge::{Edge, Part};
use crate::load::cpu;

/// CPU of every process so far.
pub(super) struct Used(Vec<(&'static str, Duration)>);

impl Used {
    /// Up to now.
    ///
    /// # Errors
    /// When one does not run.
    pub fn now(edge: &Edge) -> Result<Self> {
        let of = |(name, part): (&'static str, Part)| -> Result<(&'static str, Duration)> {
            let child = edge.child(part).with_context(|| format!("{name} runs"))?;
            Ok((name, cpu::of_process(child.pid())?))
        };
        VICTIMS.into_iter().map(of).collect::<Result<Vec<_>>>().map(Self)
    }

    /// What each used for a point since `before`, µs.
    pub fn each_point_since(&self, before: &Self, points: u64) -> Vec<(&'static str, f64)> {
        let each = |((name, now), (_, before)): (&(&'static str, Duration), &(_, Duration))| {
            (*name, now.saturating_sub(*before).as_secs_f64() * 1e6 / points.max(1) as f64)
        };
        self.0.iter().zip(&before.0).map(each).collect()
    }
}
