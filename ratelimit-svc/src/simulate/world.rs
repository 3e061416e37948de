//! One set of quotas, its counters, and what it answers to each second of traffic.

use std::sync::Arc;
use std::time::Duration;

use crate::decide::conclude::{Verdict, verdict};
use crate::decide::hit::{Counts, Hit, Mode};
use crate::decide::plan::{Line, Plan};
use crate::decide::settings::Settings;
use crate::limits::quotas::Quotas;
use crate::limits::stats::Reason;
use crate::record::reader::Second;
use crate::simulate::arrivals::{Arrival, arrivals};
use crate::simulate::fleet::{Asked, Fleet, Found, Requests};
use crate::simulate::planned::{Planned, Plans};
use crate::simulate::shapes::Shapes;
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
pub struct World<'a> {
    quotas: &'a Quotas,
    settings: Settings,
    counters: Counters,
    /// Those of limits that are tried, each counted exactly.
    tried: Memory,
    shapes: Vec<Option<ShapeRules>>,
    plans: Plans<'a>,
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
    planned: Box<Planned<'a>>,
    /// Requests so far.
    asked: u64,
    answer: RowAnswer,
}

impl<'a> World<'a> {
    /// Quotas that begin with empty counters.
    pub fn new(quotas: &'a Quotas, scenario: &Scenario) -> Self {
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
        let plans = Plans::default();
        Self { quotas, settings, counters, tried, shapes, plans, order, decisions: 0 }
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
    pub fn second(&mut self, second: &Second, shapes: &'a Shapes) -> Vec<RowAnswer> {
        let mut rows: Vec<Running<'a>> = Vec::with_capacity(second.rows.len());
        for row in &second.rows {
            let planned = self.plans.take(row, second.t).unwrap_or_else(|| {
                let shape = shapes.get(row.shape);
                Box::new(Planned::of(row, shape, self.quotas, &self.settings, second.t))
            });
            self.know(row.shape, &planned);
            rows.push(Running { planned, asked: 0, answer: RowAnswer::default() });
        }
        let mut order = std::mem::take(&mut self.order);
        arrivals(&second.rows, &mut order);
        let start = Duration::from_secs(second.t);
        for arrival in &order {
            let at = arrival.row as usize;
            let (row, running) = (&second.rows[at], &mut rows[at]);
            if !running.planned.set_hits(row, running.asked) {
                running.answer.errors += 1;
            }
            running.asked += 1;
            let now = start + Duration::from_micros(arrival.micros.into());
            self.ask((at, row.shape), now, &mut rows);
        }
        self.decisions += order.len() as u64;
        self.order = order;
        if let Counters::Leased(fleet) = &mut self.counters {
            let judge = Judge { settings: &self.settings, tried: &self.tried };
            let end = start + Duration::from_micros(999_999);
            fleet.settle(&mut Judged { judge: &judge, rows: &mut rows, now: end });
        }
        let mut answers = Vec::with_capacity(rows.len());
        for (running, row) in rows.into_iter().zip(&second.rows) {
            let left_out = row.requests - running.asked;
            answers.push(RowAnswer { left_out, ..running.answer });
            self.plans.keep(row.shape, running.planned);
        }
        answers
    }

    fn ask(&mut self, (at, shape): (usize, usize), now: Duration, rows: &mut [Running<'_>]) {
        let judge = Judge { settings: &self.settings, tried: &self.tried };
        match &mut self.counters {
            Counters::Exact(memory) => {
                let Ok(plan) = &rows[at].planned.plan else { return };
                let counts = match &plan.hits[..] {
                    [hit] => {
                        Counts::from_iter([memory.count_one(hit, mode(judge.settings), now, None)])
                    }
                    hits => memory.count_now(hits, mode(judge.settings), now).into(),
                };
                let found = Found::Counts(None, counts, false);
                judge.judge(&mut rows[at], &found, now);
            }
            Counters::Leased(fleet) => {
                // Answers that came before now belong to requests that waited.
                fleet.advance(now, &mut Judged { judge: &judge, rows, now });
                let Ok(plan) = &rows[at].planned.plan else { return };
                if let Asked::Decided(found) = fleet.ask(at, shape, plan, now) {
                    judge.judge(&mut rows[at], &found, now);
                }
            }
        }
    }

    fn know(&mut self, shape: usize, planned: &Planned<'_>) {
        if self.shapes.len() <= shape {
            self.shapes.resize(shape + 1, None);
        }
        if let (None, Ok(plan)) = (&self.shapes[shape], &planned.plan) {
            let name = |line: &Line<'_>| line.metric_id().map(Arc::from);
            self.shapes[shape] = Some(ShapeRules {
                class: plan.class.name.as_str().into(),
                rules: plan.lines.iter().map(name).collect(),
            });
        }
    }
}

/// Requests of rows that waited, decided at a time.
struct Judged<'a, 'r, 'p> {
    judge: &'a Judge<'a>,
    rows: &'r mut [Running<'p>],
    now: Duration,
}

impl Requests for Judged<'_, '_, '_> {
    fn hits(&mut self, row: usize) -> &mut [Hit] {
        match &mut self.rows[row].planned.plan {
            Ok(plan) => &mut plan.hits,
            Err(_) => &mut [],
        }
    }

    fn decided(&mut self, row: usize, found: &Found) {
        self.judge.judge(&mut self.rows[row], found, self.now);
    }
}

/// Makes decisions of what was counted.
struct Judge<'a> {
    settings: &'a Settings,
    tried: &'a Memory,
}

impl Judge<'_> {
    fn judge(&self, running: &mut Running<'_>, found: &Found, now: Duration) {
        let Running { planned, answer, .. } = running;
        let Planned { plan: Ok(plan), tried, .. } = &**planned else { return };
        let evidence = found.evidence(&plan.hits);
        let verdict = verdict(plan, evidence, self.settings, now.as_secs());
        if verdict.over_limit {
            refuse(answer, plan, &verdict);
        }
        for tried in tried.iter().filter(|tried| tried.counts_after_verdict(&verdict)) {
            let count = self.tried.count_one(&tried.hit, mode(self.settings), now, None);
            let over = count.over;
            let rule = plan.lines[tried.descriptor].metric_id().unwrap_or_default();
            let known = answer.trials.iter().position(|known| *known.rule == *rule);
            let known = known.unwrap_or_else(|| {
                answer.trials.push(TrialAnswer { rule: rule.into(), requests: [[0; 2]; 2] });
                answer.trials.len() - 1
            });
            let requests = &mut answer.trials[known].requests;
            requests[usize::from(verdict.over_limit)][usize::from(over)] += 1;
        }
    }
}

fn refuse(answer: &mut RowAnswer, plan: &Plan<'_>, verdict: &Verdict) {
    let over = verdict.over.first();
    let rule = over.and_then(|(over, _)| plan.lines[*over].metric_id()).unwrap_or_default();
    let reason = over.map_or(Reason::OverLimit, |(_, reason)| *reason);
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
