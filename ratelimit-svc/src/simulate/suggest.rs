//! Which limit fits recorded traffic: the smallest that would have refused no more than so much of the
//! hits of each who is counted by a rule. Pure: what was asked comes in by the second.
//!
//! A fixed window refuses what is beyond its limit, so a limit follows from the sums of the windows. For a
//! bucket the rate is that of the minute, and the burst the smallest that is enough.

use std::collections::HashMap;

use crate::decide::plan::{Line, plan};
use crate::decide::settings::Settings;
use crate::limits::class::PRIORITY_KEY;
use crate::limits::quotas::Quotas;
use crate::limits::rule::{Allowance, Limit, Rule};
use crate::limits::unit::Unit;
use crate::record::reader::Second;
use crate::record::shape::Shape;

/// The most pairs of a second and a counter.
pub const POINTS_MAX: usize = 32 << 20;
/// The units that are proposed.
pub const UNITS: [Unit; 4] = [Unit::Second, Unit::Minute, Unit::Hour, Unit::Day];

/// The hits of each who is counted by a rule, second by second.
pub struct Series<'q> {
    domain: &'q str,
    rule: &'q str,
    quotas: &'q Quotas,
    /// Of a shape, the descriptors that meet the rule and who they are.
    shapes: HashMap<usize, Vec<(usize, String)>>,
    hits: HashMap<String, Vec<(u64, u64)>>,
    points: usize,
    /// The limit in force, if the rule was met and has one.
    pub in_force: Option<Limit>,
    /// Whether there was no room for all.
    pub is_full: bool,
}

/// A limit, and who needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// In each window of this.
    pub unit: Unit,
    /// So many hits.
    pub limit: u64,
    /// Who needs them.
    pub who: String,
    /// The most hits that anyone brought in one window.
    pub peak: u64,
    /// What half of all would need.
    pub median: u64,
}

/// A bucket, and who needs its burst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Hits a second.
    pub rate: u64,
    /// The burst.
    pub burst: u64,
    /// Who needs it.
    pub who: String,
}

impl<'q> Series<'q> {
    /// Nothing yet, of a rule of a domain by its name in metrics.
    pub fn new(quotas: &'q Quotas, domain: &'q str, rule: &'q str) -> Self {
        let (shapes, hits) = (HashMap::new(), HashMap::new());
        Self { domain, rule, quotas, shapes, hits, points: 0, in_force: None, is_full: false }
    }

    /// Adds a second; they must come in order.
    pub fn add(&mut self, second: &Second, shapes: &[Shape]) {
        for row in &second.rows {
            if !self.shapes.contains_key(&row.shape) {
                let met = self.met(&shapes[row.shape], second.t);
                self.shapes.insert(row.shape, met);
            }
            for (descriptor, who) in &self.shapes[&row.shape] {
                let hits = row.hits[*descriptor];
                if hits == 0 || shapes[row.shape].descriptors[*descriptor].is_refund {
                    continue;
                }
                if !self.hits.contains_key(who) {
                    self.hits.insert(who.clone(), Vec::new());
                }
                let Some(series) = self.hits.get_mut(who) else { continue };
                match series.last_mut().filter(|(t, _)| *t == second.t) {
                    Some((_, sum)) => *sum = sum.saturating_add(hits),
                    None if self.points < POINTS_MAX => {
                        self.points += 1;
                        series.push((second.t, hits));
                    }
                    None => self.is_full = true,
                }
            }
        }
    }

    /// The descriptors of a shape that meet the rule, each with who it is.
    fn met(&mut self, shape: &Shape, now_seconds: u64) -> Vec<(usize, String)> {
        if shape.domain != self.domain {
            return vec![];
        }
        let request = shape.request(|_| 1);
        let settings = Settings::default();
        let Ok(plan) = plan(&request, self.quotas, &settings, now_seconds) else { return vec![] };
        let mut met = Vec::new();
        for (at, line) in plan.lines.iter().enumerate() {
            let is_met = |rule: &&Rule| *rule.id == *self.rule;
            let Some(rule) = line.rule().filter(is_met) else { continue };
            if let (Line::Counted(_), Allowance::Limited(limit)) = (line, rule.allowance) {
                self.in_force = Some(limit);
            }
            let entries = shape.descriptors[at].entries.iter();
            let entries = entries.filter(|(key, _)| key != PRIORITY_KEY);
            let who: Vec<String> = entries.map(|(key, value)| format!("{key}={value}")).collect();
            met.push((at, who.join(",")));
        }
        met
    }

    /// How many are counted.
    pub fn len(&self) -> usize {
        self.hits.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    /// The smallest limit in windows of a unit that refuses no more than `part` of the hits of each.
    pub fn proposal(&self, unit: Unit, part: f64) -> Option<Proposal> {
        let need = |(who, series): (&String, &Vec<(u64, u64)>)| {
            let sums = windows(series, unit.seconds());
            let peak = sums.iter().copied().max().unwrap_or(0);
            (
                smallest(peak, |limit| refused_by_window(&sums, limit), total(series), part),
                peak,
                who.clone(),
            )
        };
        let mut needs: Vec<(u64, u64, String)> = self.hits.iter().map(need).collect();
        needs.sort();
        let peak = needs.iter().map(|(_, peak, _)| *peak).max()?;
        let median = needs[needs.len() / 2].0;
        let (limit, _, who) = needs.pop()?;
        Some(Proposal { unit, limit, who, peak, median })
    }

    /// A bucket that is refilled at the rate of the minute's proposal, with the smallest burst that
    /// refuses no more than `part` of the hits of each.
    pub fn bucket(&self, part: f64) -> Option<Bucket> {
        let rate = self.proposal(Unit::Minute, part)?.limit.div_ceil(60).max(1);
        let need = |(who, series): (&String, &Vec<(u64, u64)>)| {
            let all = total(series);
            (smallest(all, |burst| refused_by_bucket(series, rate, burst), all, part), who.clone())
        };
        let (burst, who) = self.hits.iter().map(need).max()?;
        Some(Bucket { rate, burst: burst.max(1), who })
    }
}

fn total(series: &[(u64, u64)]) -> u64 {
    series.iter().fold(0, |sum, (_, hits)| sum.saturating_add(*hits))
}

fn windows(series: &[(u64, u64)], seconds: u64) -> Vec<u64> {
    let mut sums: Vec<(u64, u64)> = Vec::new();
    for (t, hits) in series {
        match sums.last_mut().filter(|(window, _)| *window == t / seconds) {
            Some((_, sum)) => *sum = sum.saturating_add(*hits),
            None => sums.push((t / seconds, *hits)),
        }
    }
    sums.into_iter().map(|(_, sum)| sum).collect()
}

fn refused_by_window(sums: &[u64], limit: u64) -> u64 {
    sums.iter().fold(0, |sum, hits| sum.saturating_add(hits.saturating_sub(limit)))
}

fn refused_by_bucket(series: &[(u64, u64)], rate: u64, burst: u64) -> u64 {
    let (mut level, mut last, mut refused) = (burst, None, 0_u64);
    for (t, hits) in series {
        let passed = last.map_or(0, |last| t - last);
        level = level.saturating_add(rate.saturating_mul(passed)).min(burst);
        let taken = level.min(*hits);
        refused = refused.saturating_add(hits - taken);
        level -= taken;
        last = Some(*t);
    }
    refused
}

/// The smallest number up to `most` that refuses no more than `part` of `all`; more never refuses more.
fn smallest(most: u64, refused: impl Fn(u64) -> u64, all: u64, part: f64) -> u64 {
    let allowed = (all as f64 * part) as u64;
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low) / 2;
        match refused(middle) <= allowed {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_smallest_limit_that_is_enough() {
        let sums = [10, 20, 100];
        let need = |part| smallest(100, |limit| refused_by_window(&sums, limit), 130, part);
        assert_eq!((need(0.0), need(0.1), need(1.0)), (100, 87, 0));
        assert_eq!(windows(&[(59, 1), (60, 2), (119, 3), (240, 4)], 60), [1, 5, 4]);
    }

    #[test]
    fn a_burst_is_what_a_rate_leaves_over() {
        // 50 at once, then 10 a second.
        let series: Vec<(u64, u64)> = (0..60).map(|t| (t, if t == 0 { 50 } else { 10 })).collect();
        assert_eq!(refused_by_bucket(&series, 10, 50), 0);
        assert_eq!(refused_by_bucket(&series, 10, 49), 1);
        assert_eq!(smallest(640, |burst| refused_by_bucket(&series, 10, burst), 640, 0.0), 50);
    }

    proptest! {
        #[test]
        fn one_less_is_not_enough(
            sums in proptest::collection::vec(0..1000_u64, 1..20), part in 0.0..0.5,
        ) {
            let (all, peak) = (sums.iter().sum(), *sums.iter().max().expect("some"));
            let limit = smallest(peak, |limit| refused_by_window(&sums, limit), all, part);
            let allowed = (all as f64 * part) as u64;
            prop_assert!(refused_by_window(&sums, limit) <= allowed);
            prop_assert!(limit == 0 || refused_by_window(&sums, limit - 1) > allowed);
        }
    }
}
