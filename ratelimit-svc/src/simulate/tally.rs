//! What two sets of quotas made of the same traffic, added up by rule, class, who asked and minute.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::class::PRIORITY_KEY;
use crate::record::reader::{Second, TrafficRow};
use crate::record::shape::{Shape, ShapeDescriptor};
use crate::simulate::shapes::Shapes;
use crate::simulate::world::{RowAnswer, World};

/// Minutes that have figures of their own; a longer recording has longer steps.
pub const STEPS_MAX: usize = 4096;

/// Requests, and what both sides refused of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Both {
    /// All.
    pub requests: u64,
    /// Refused by the old quotas, or as recorded.
    pub old_refused: u64,
    /// Refused by the new quotas.
    pub new_refused: u64,
    /// Refused by the new ones and admitted by the old, row by row.
    pub newly_refused: u64,
    /// The opposite.
    pub newly_admitted: u64,
}

impl Both {
    /// Requests of which so many were refused.
    pub fn of(requests: u64, old_refused: u64, new_refused: u64) -> Self {
        Self {
            requests,
            old_refused,
            new_refused,
            newly_refused: new_refused.saturating_sub(old_refused),
            newly_admitted: old_refused.saturating_sub(new_refused),
        }
    }

    /// What a trial made of requests, as [`TrialAnswer`](crate::simulate::world::TrialAnswer) has them.
    pub fn of_trial(requests: [[u64; 2]; 2]) -> Self {
        let [[both_admit, newly_refused], [newly_admitted, both_refuse]] = requests;
        Self {
            requests: both_admit + newly_refused + newly_admitted + both_refuse,
            old_refused: newly_admitted + both_refuse,
            new_refused: newly_refused + both_refuse,
            newly_refused,
            newly_admitted,
        }
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.old_refused += other.old_refused;
        self.new_refused += other.new_refused;
        self.newly_refused += other.newly_refused;
        self.newly_admitted += other.newly_admitted;
    }
}

/// The figures of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfRule {
    /// Requests that meet it with the new quotas.
    pub requests: u64,
    /// What the old side refused by it, by reason.
    pub old: BTreeMap<&'static str, u64>,
    /// What the new side refused by it.
    pub new: BTreeMap<&'static str, u64>,
    /// What the limit that is tried by the new quotas would refuse, beside what they refuse.
    pub trial: Both,
}

/// What came of a simulation.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Everything that was simulated.
    pub total: Both,
    /// By class of the new quotas.
    pub classes: BTreeMap<Arc<str>, Both>,
    /// By domain and name of the rule.
    pub rules: BTreeMap<(String, String), OfRule>,
    /// By shape, where in the list of shapes.
    pub shapes: Vec<Both>,
    /// By the first second of each step of [`Tally::step_seconds`].
    pub steps: BTreeMap<u64, Both>,
    /// The length of a step.
    pub step_seconds: u64,
    /// First and last second.
    pub span: Option<(u64, u64)>,
    /// Recorded requests that nothing is known of but their number, and how many of them were refused.
    pub other: (u64, u64),
    /// Requests that have no answer.
    pub errors: u64,
    /// Requests of a second that had too many.
    pub left_out: u64,
    /// Requests that meet no rule of the new quotas.
    pub without_rule: u64,
    /// [`Tally::rules`] until everything was added, by domain and then by name, to be found without a copy of both.
    adding: BTreeMap<String, BTreeMap<String, OfRule>>,
}

/// What the old side made of a second.
pub enum OldSide<'a> {
    /// What was recorded.
    Recorded,
    /// Quotas.
    Quotas(&'a [RowAnswer]),
}

impl Tally {
    /// Nothing yet, by the minute.
    pub fn new() -> Self {
        Self { step_seconds: 60, ..Self::default() }
    }

    /// Adds a second.
    pub fn add(&mut self, second: &Second, shapes: &Shapes, new: &[RowAnswer], old: &OldSide<'_>) {
        self.span = Some(self.span.map_or((second.t, second.t), |(from, _)| (from, second.t)));
        self.other.0 += second.other.0;
        self.other.1 += second.other.1;
        let mut sum = Both::default();
        for (at, (row, new)) in second.rows.iter().zip(new).enumerate() {
            let domain = &shapes.get(row.shape).domain;
            let old_refused = match old {
                OldSide::Recorded => row.refused().min(row.requests),
                OldSide::Quotas(answers) => answers[at].refused(),
            };
            self.errors += new.errors;
            self.left_out += new.left_out;
            if new.left_out > 0 {
                continue;
            }
            let both = Both::of(row.requests, old_refused, new.refused());
            sum.add(&both);
            if self.shapes.len() <= row.shape {
                self.shapes.resize(shapes.len().max(row.shape + 1), Both::default());
            }
            self.shapes[row.shape].add(&both);
            self.refusals(domain, row, new, old, at);
        }
        self.total.add(&sum);
        let step = second.t - second.t % self.step_seconds;
        self.steps.entry(step).or_default().add(&sum);
        if self.steps.len() > STEPS_MAX {
            self.widen();
        }
    }

    fn refusals(
        &mut self,
        domain: &str,
        row: &TrafficRow,
        new: &RowAnswer,
        old: &OldSide<'_>,
        at: usize,
    ) {
        for trial in &new.trials {
            let both = Both::of_trial(trial.requests);
            self.rule(domain, &trial.rule).trial.add(&both);
        }
        for refusal in &new.refusals {
            let counts = &mut self.rule(domain, &refusal.rule).new;
            *counts.entry(refusal.reason.name()).or_default() += refusal.requests;
        }
        match old {
            OldSide::Recorded => {
                for (rule, reason, requests) in &row.refusals {
                    let counts = &mut self.rule(domain, rule).old;
                    *counts.entry(known_reason(reason)).or_default() += requests;
                }
            }
            OldSide::Quotas(answers) => {
                for refusal in &answers[at].refusals {
                    let counts = &mut self.rule(domain, &refusal.rule).old;
                    *counts.entry(refusal.reason.name()).or_default() += refusal.requests;
                }
            }
        }
    }

    /// Adds up by class and rule what is known by shape, once everything was added.
    pub fn finish(&mut self, shapes: &Shapes, world: &World<'_>) {
        self.add_by_shape(shapes, world);
        for (domain, rules) in std::mem::take(&mut self.adding) {
            self.rules
                .extend(rules.into_iter().map(|(rule, figures)| ((domain.clone(), rule), figures)));
        }
    }

    fn add_by_shape(&mut self, shapes: &Shapes, world: &World<'_>) {
        for (at, both) in std::mem::take(&mut self.shapes).into_iter().enumerate() {
            if let Some(known) = world.shape(at).filter(|_| both.requests > 0) {
                self.classes.entry(known.class.clone()).or_default().add(&both);
                if known.rules.iter().all(Option::is_none) {
                    self.without_rule += both.requests;
                }
                for rule in known.rules.iter().flatten() {
                    self.rule(&shapes.get(at).domain, rule).requests += both.requests;
                }
            }
            self.shapes.push(both);
        }
    }

    fn rule(&mut self, domain: &str, rule: &str) -> &mut OfRule {
        if !self.adding.contains_key(domain) {
            self.adding.insert(domain.to_owned(), BTreeMap::new());
        }
        let rules = self.adding.get_mut(domain).expect("it was there or was just inserted");
        if !rules.contains_key(rule) {
            rules.insert(rule.to_owned(), OfRule::default());
        }
        rules.get_mut(rule).expect("it was there or was just inserted")
    }

    /// Makes steps twice as long.
    fn widen(&mut self) {
        self.step_seconds *= 2;
        for (t, both) in std::mem::take(&mut self.steps) {
            self.steps.entry(t - t % self.step_seconds).or_default().add(&both);
        }
    }

    /// Whoever asked, by the first entry that is no class, with the most newly refused first and then
    /// the most refused.
    pub fn who(&self, shapes: &[Shape]) -> Vec<(String, Both)> {
        let mut who: BTreeMap<String, Both> = BTreeMap::new();
        for (shape, both) in shapes.iter().zip(&self.shapes) {
            who.entry(who_asked(shape)).or_default().add(both);
        }
        let mut who: Vec<(String, Both)> = who.into_iter().collect();
        who.sort_by_key(|(_, both)| std::cmp::Reverse((both.newly_refused, both.new_refused)));
        who
    }

    /// The step in which the most is newly refused, or refused at all where nothing is.
    pub fn worst(&self) -> Option<(u64, Both)> {
        let worst = |(_, both): &(&u64, &Both)| (both.newly_refused, both.new_refused);
        self.steps.iter().max_by_key(worst).map(|(t, both)| (*t, *both))
    }
}

/// Words of a recording by their own names; others are `other`.
fn known_reason(reason: &str) -> &'static str {
    use crate::limits::stats::{OTHER, Reason};
    Reason::ALL.into_iter().map(Reason::name).find(|name| *name == reason).unwrap_or(OTHER)
}

/// `key=value` of the first entry of the first descriptor that is not the class.
pub fn who_asked(shape: &Shape) -> String {
    let entries = |one: &ShapeDescriptor| one.entries.clone();
    let mut all = shape.descriptors.iter().flat_map(entries);
    let first = all.find(|(key, _)| key != PRIORITY_KEY);
    first.map_or_else(|| "(nobody)".to_owned(), |(key, value)| format!("{key}={value}"))
}
