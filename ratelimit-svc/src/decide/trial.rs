//! Limits that are tried: which of them a request meets once it is decided, and what a count of one means.
//! They are counted on their own, so that nothing they do reaches the decision.
//!
//! ```text
//! plan ─► counters ─► decision ─┬─► refused by another limit: not counted
//!                               └─► trial ─► its own counter ─► status, beside the decision
//! ```

use std::borrow::Cow;

use crate::decide::conclude::{Verdict, remaining};
use crate::decide::decision::{Decision, TrialStatus};
use crate::decide::hit::{Count, Hit, Role};
use crate::decide::key::{KeyFormat, trial_key};
use crate::decide::plan::{Counted, Line, Plan, is_reported, matched_entries};
use crate::decide::request::Request;
use crate::decide::settings::Settings;
use crate::limits::quotas::Quotas;
use crate::limits::rule::Rule;
use crate::limits::rule::trial::Trial;
use crate::limits::sharing::How;

/// A limit that is tried on one descriptor of a request.
#[derive(Debug)]
pub struct Tried<'a> {
    /// Which descriptor.
    pub descriptor: usize,
    /// The limit, as if it were in force.
    pub counted: Counted<'a>,
    /// What is to be counted.
    pub hit: Hit,
}

/// Whether any limit is tried on the request.
pub fn has_trials(plan: &Plan<'_>) -> bool {
    plan.lines.iter().any(|line| tried_by(line).is_some())
}

/// What is tried on a request that was decided so.
pub fn trials<'a>(
    request: &Request<'_>,
    plan: &Plan<'a>,
    decision: &Decision,
    quotas: &Quotas,
    settings: &Settings,
    now_seconds: u64,
) -> Vec<Tried<'a>> {
    let mut tried = planned(request, plan, quotas, settings, now_seconds);
    tried.retain(|tried| tried.counts_after(decision));
    tried
}

/// What is tried on a request, whatever will be decided of it: the same for all requests that are planned
/// alike.
pub fn planned<'a>(
    request: &Request<'_>,
    plan: &Plan<'a>,
    quotas: &Quotas,
    settings: &Settings,
    now_seconds: u64,
) -> Vec<Tried<'a>> {
    let Some(domain) = quotas.domain(request.domain) else { return Vec::new() };
    let mut tried = Vec::new();
    for (at, line) in plan.lines.iter().enumerate() {
        let Some((rule, trial)) = tried_by(line) else { continue };
        let descriptor = &request.descriptors[at];
        let entries = matched_entries(descriptor, domain);
        let (amount, is_refund) = match line {
            Line::Counted(Counted { hit, .. }) => {
                (plan.hits[*hit].amount, plan.hits[*hit].is_refund)
            }
            _ => (request.hits(descriptor), descriptor.is_negative_hits),
        };
        let counted = Counted {
            hit: 0,
            limit: trial.limit,
            rule: Some(rule),
            metric_id: Cow::Borrowed(&rule.id),
            shadow_mode: true,
            quota_mode: false,
            overdraft: rule.overdraft,
        };
        let counted = match is_reported(descriptor, domain) {
            true => counted.reported(),
            false => counted,
        };
        let share = plan.share_by(&trial.sharing, &counted, &entries, quotas.classes());
        let knows_classes = settings.key_format == KeyFormat::Tidegate;
        let share = share.filter(|share| knows_classes || matches!(share.how, How::UpTo(_)));
        let window = counted.limit.period.window(now_seconds);
        let hit = Hit {
            key: trial_key(plan.domain, &entries, &rule.steps, counted.limit, window),
            amount,
            is_refund,
            limit: counted.threshold(amount),
            window,
            algorithm: counted.limit.algorithm,
            role: Role::Observer,
            share: share.filter(|_| !counted.overdraft || amount == 0),
        };
        tried.push(Tried { descriptor: at, counted, hit });
    }
    tried
}

impl Tried<'_> {
    /// Whether it is counted once the request is decided so. A request that another limit refuses would not
    /// have come as far, and one that was answered without the store says nothing of limits.
    pub fn counts_after(&self, decision: &Decision) -> bool {
        decision.degraded.is_none() && !refused_by_others(decision, self.descriptor)
    }

    /// The same where only the verdict is known.
    pub fn counts_after_verdict(&self, verdict: &Verdict) -> bool {
        let others = verdict.over.iter().any(|(over, _)| *over != self.descriptor);
        !(verdict.is_degraded || verdict.over_limit && others)
    }

    /// What came of it.
    pub fn status(&self, count: &Count) -> TrialStatus {
        let capacity = self.counted.capacity(&self.hit);
        TrialStatus {
            descriptor: self.descriptor,
            limit: self.counted.limit,
            over_limit: count.over,
            limit_remaining: if count.over { 0 } else { remaining(capacity, count) },
        }
    }
}

fn tried_by<'a>(line: &Line<'a>) -> Option<(&'a Rule, &'a Trial)> {
    match line {
        Line::Counted(Counted { rule: Some(rule), .. }) | Line::Unlimited(rule) => {
            rule.trial.as_deref().map(|trial| (*rule, trial))
        }
        Line::Counted(_) | Line::NoLimit | Line::Replaced(_) => None,
    }
}

/// Whether limits of other descriptors than the one at a position refuse the request.
fn refused_by_others(decision: &Decision, at: usize) -> bool {
    let mut statuses = decision.statuses.iter().enumerate();
    decision.over_limit && statuses.any(|(other, status)| other != at && status.over_limit)
}

#[cfg(test)]
mod tests;
