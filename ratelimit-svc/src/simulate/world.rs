//! One set of quotas, its counters, and what it answers to each second of traffic.

use std::sync::Arc;
use std::time::Duration;

use crate::decide::conclude::{Evidence, conclude};
use crate::decide::decision::Decision;
use crate::decide::hit::Mode;
use crate::decide::plan::{Line, Plan, plan};
use crate::decide::request::{Request, RequestError};
use crate::decide::settings::Settings;
use crate::decide::trial::{has_trials, trials};
use crate::limits::quotas::Quotas;
use crate::limits::stats::Reason;
use crate::record::reader::Second;
use crate::record::shape::Shape;
use crate::simulate::arrivals::{Arrival, arrivals, share};
use crate::simulate::fleet::{Asked, Fleet};
use crate::simulate::{Counting, Scenario};
use crate::store::memory::Memory;

/// Which rule refused how many requests of a row, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule's name in metrics.
    pub rule: Arc<str>,
    /// Why.
    pub reason: Reason,
    /// How many.
    pub requests: u64,
}

/// What became of the requests of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowAnswer {
    /// What was refused, by the first rule that refused each.
    pub refusals: Vec<Refusal>,
    /// Requests that cannot be answered: the request, or what is in force, does not allow it.
    pub errors: u64,
    /// Requests that were not simulated.
    pub left_out: u64,
    /// What limits that are tried made of them.
    pub trials: Vec<TrialAnswer>,
}

/// What a limit that is tried made of the requests of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialAnswer {
    /// The rule's name in metrics.
    pub rule: Arc<str>,
    /// Of those that the limits in force admit, and of those that they refuse, how many the trial would
    /// admit and refuse.
    pub requests: [[u64; 2]; 2],
}

impl RowAnswer {
    /// How many were refused.
    pub fn refused(&self) -> u64 {
        self.refusals.iter().map(|refusal| refusal.requests).sum()
    }
}

/// What is known of a shape whatever the time.
#[derive(Clone, Debug)]
pub struct ShapeRules {
    /// The class of its requests.
    pub class: Arc<str>,
    /// The names of the rules that its descriptors meet.
    pub rules: Vec<Option<Arc<str>>>,
}

/// Quotas with counters of their own.
pub struct World {
    quotas: Arc<Quotas>,
    settings: Settings,
    counters: Counters,
    /// Those of limits that are tried, each counted exactly.
    tried: Memory,
    shapes: Vec<Option<ShapeRules>>,
    order: Vec<Arrival>,
    /// Decisions so far.
    pub decisions: u64,
}

enum Counters {
    Exact(Memory),
    Leased(Box<Fleet>),
}

/// A row on its way.
struct Running<'a> {
    request: Request<'a>,
    plan: Result<Plan<'a>, RequestError>,
    /// Requests so far.
    asked: u64,
    answer: RowAnswer,
}

impl World {
    /// Quotas that begin with empty counters.
    pub fn new(quotas: Arc<Quotas>, scenario: &Scenario) -> Self {
        let counters = match &scenario.counting {
            Counting::Exact => Counters::Exact(Memory::default()),
            Counting::Leased { replicas, limit_min, round_trip, outage } => {
                let mode = mode(&scenario.settings);
                let fleet = Fleet::new(*replicas, *limit_min, *round_trip, outage.clone(), mode);
                Counters::Leased(Box::new(fleet))
            }
        };
        let settings =
            Settings { headers: None, dynamic_metadata: false, ..scenario.settings.clone() };
        let (tried, shapes, order) = (Memory::default(), Vec::new(), Vec::new());
        Self { quotas, settings, counters, tried, shapes, order, decisions: 0 }
    }

    /// What is known of a shape that was asked.
    pub fn shape(&self, shape: usize) -> Option<&ShapeRules> {
        self.shapes.get(shape)?.as_ref()
    }

    /// Live counters that were dropped for want of room: then some limits began anew too early.
    pub fn evictions(&self) -> u64 {
        match &self.counters {
            Counters::Exact(memory) => memory.evictions(),
            Counters::Leased(fleet) => fleet.evictions(),
        }
    }

    /// Decides all requests of a second; one answer for each row.
    pub fn second(&mut self, second: &Second, shapes: &[Shape]) -> Vec<RowAnswer> {
        let quotas = self.quotas.clone();
        let mut rows: Vec<Running<'_>> = second
            .rows
            .iter()
            .map(|row| {
                let requests = row.requests.max(1);
                let request = shapes[row.shape].request(|at| share(row.hits[at], requests, 0));
                let plan = plan(&request, &quotas, &self.settings, second.t);
                Running { request, plan, asked: 0, answer: RowAnswer::default() }
            })
            .collect();
        for (row, running) in second.rows.iter().zip(&rows) {
            self.know(row.shape, running);
        }
        let mut order = std::mem::take(&mut self.order);
        arrivals(&second.rows, &mut order);
        let start = Duration::from_secs(second.t);
        for arrival in &order {
            let at = arrival.row as usize;
            let (row, running) = (&second.rows[at], &mut rows[at]);
            let Ok(plan) = &mut running.plan else {
                running.answer.errors += 1;
                running.asked += 1;
                continue;
            };
            set_hits(plan, &row.hits, row.requests, running.asked);
            running.asked += 1;
            let now = start + Duration::from_micros(arrival.micros.into());
            self.ask((at, row.shape), now, &mut rows);
        }
        self.decisions += order.len() as u64;
        self.order = order;
        if let Counters::Leased(fleet) = &mut self.counters {
            let judge = Judge { quotas: &quotas, settings: &self.settings, tried: &self.tried };
            let end = start + Duration::from_micros(999_999);
            fleet.settle(&mut |at, evidence| judge.take_in(&mut rows[at], evidence, end));
        }
        let left_out = |(running, requests): (Running<'_>, u64)| {
            let left_out = requests - running.asked;
            RowAnswer { left_out, ..running.answer }
        };
        rows.into_iter().zip(second.rows.iter().map(|row| row.requests)).map(left_out).collect()
    }

    fn ask(&mut self, (at, shape): (usize, usize), now: Duration, rows: &mut [Running<'_>]) {
        let quotas = self.quotas.clone();
        let judge = Judge { quotas: &quotas, settings: &self.settings, tried: &self.tried };
        match &mut self.counters {
            Counters::Exact(memory) => {
                let Running { request, plan: Ok(plan), answer, .. } = &mut rows[at] else { return };
                let counts = memory.count_now(&plan.hits, mode(judge.settings), now);
                let found = Evidence::Counts { hits: &plan.hits, counts: &counts, degraded: false };
                judge.judge(request, plan, answer, found, now);
            }
            Counters::Leased(fleet) => {
                // Answers that came before now belong to requests that waited.
                fleet.advance(now, &mut |at, evidence| {
                    judge.take_in(&mut rows[at], evidence, now);
                });
                let Ok(plan) = &rows[at].plan else { return };
                let asked = fleet.ask(at, shape, plan, now);
                if let Asked::Decided(found) = asked {
                    judge.take_in(&mut rows[at], found.evidence(), now);
                }
            }
        }
    }

    fn know(&mut self, shape: usize, running: &Running<'_>) {
        if self.shapes.len() <= shape {
            self.shapes.resize(shape + 1, None);
        }
        if let (None, Ok(plan)) = (&self.shapes[shape], &running.plan) {
            let name = |line: &Line<'_>| line.metric_id().map(Arc::from);
            self.shapes[shape] = Some(ShapeRules {
                class: plan.class.name.as_str().into(),
                rules: plan.lines.iter().map(name).collect(),
            });
        }
    }
}

/// Makes the hits of a plan those of the `n`th request of its row.
fn set_hits(plan: &mut Plan<'_>, hits: &[u64], requests: u64, n: u64) {
    let Plan { lines, hits: planned, .. } = plan;
    for (line, hits) in lines.iter().zip(hits) {
        if let Line::Counted(counted) = line {
            let amount = share(*hits, requests, n);
            let hit = &mut planned[counted.hit];
            // Whether there are any decides how they are planned, and is the same for the whole row.
            if hit.amount > 0 && amount > 0 {
                hit.amount = amount;
            }
        }
    }
}

/// Makes decisions of what was counted.
struct Judge<'a> {
    quotas: &'a Quotas,
    settings: &'a Settings,
    tried: &'a Memory,
}

impl Judge<'_> {
    fn take_in(&self, running: &mut Running<'_>, evidence: Evidence<'_>, now: Duration) {
        let Running { request, plan: Ok(plan), answer, .. } = running else { return };
        self.judge(request, plan, answer, evidence, now);
    }

    fn judge(
        &self,
        request: &Request<'_>,
        plan: &Plan<'_>,
        answer: &mut RowAnswer,
        evidence: Evidence<'_>,
        now: Duration,
    ) {
        let decision = conclude(request, plan, evidence, self.settings, now.as_secs());
        if decision.over_limit {
            refuse(answer, plan, &decision);
        }
        if !has_trials(plan) {
            return;
        }
        for tried in trials(request, plan, &decision, self.quotas, self.settings, now.as_secs()) {
            let hits = std::slice::from_ref(&tried.hit);
            let counts = self.tried.count_now(hits, mode(self.settings), now);
            let over = counts.iter().any(|count| count.over);
            let rule = plan.lines[tried.descriptor].metric_id().unwrap_or_default();
            let known = answer.trials.iter().position(|known| *known.rule == *rule);
            let known = known.unwrap_or_else(|| {
                answer.trials.push(TrialAnswer { rule: rule.into(), requests: [[0; 2]; 2] });
                answer.trials.len() - 1
            });
            let requests = &mut answer.trials[known].requests;
            requests[usize::from(decision.over_limit)][usize::from(over)] += 1;
        }
    }
}

fn refuse(answer: &mut RowAnswer, plan: &Plan<'_>, decision: &Decision) {
    let over = decision.outcomes.iter().find(|outcome| outcome.over_limit);
    let rule = over.and_then(|over| plan.lines[over.descriptor].metric_id()).unwrap_or_default();
    let reason = over.map_or(Reason::OverLimit, |over| over.reason);
    let known =
        answer.refusals.iter_mut().find(|known| known.reason == reason && *known.rule == *rule);
    match known {
        Some(refusal) => refusal.requests += 1,
        None => answer.refusals.push(Refusal { rule: rule.into(), reason, requests: 1 }),
    }
}

fn mode(settings: &Settings) -> Mode {
    match settings.all_or_nothing {
        true => Mode::AllOrNothing,
        false => Mode::CountAll,
    }
}
