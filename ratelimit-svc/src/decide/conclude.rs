//! The second half of a decision: from counts to the answer.

use crate::decide::decision::{Decision, Status};
use crate::decide::hit::{Count, Hit};
use crate::decide::plan::{Counted, Line, Plan};
use crate::decide::request::Request;
use crate::decide::settings::Settings;
use crate::decide::settle::PerHit;
use crate::decide::{headers, metadata};
use crate::limits::class::OutagePolicy;
use crate::limits::stats::{HitStats, Reason, RuleOutcome};

/// What the counters said, or what takes their place.
#[derive(Clone, Copy, Debug)]
pub enum Evidence<'a> {
    /// The store counted; `hits` are as it was asked, `counts` its answers.
    Counts {
        /// What was asked.
        hits: &'a [Hit],
        /// What it answered.
        counts: &'a [Count],
        /// The counters are this replica's own, because the shared ones are out of reach.
        degraded: bool,
    },
    /// The store is out of reach: everything passes.
    Bypass,
    /// The store is out of reach: everything limited is refused.
    Deny,
}

/// Makes the answer to a planned request.
pub fn conclude(
    request: &Request<'_>,
    plan: &Plan<'_>,
    evidence: Evidence<'_>,
    settings: &Settings,
    now_seconds: u64,
) -> Decision {
    let mut statuses = Vec::with_capacity(plan.lines.len());
    let mut outcomes = Vec::with_capacity(plan.hits.len());
    let mut over = Over::default();
    for (at, line) in plan.lines.iter().enumerate() {
        let (status, outcome) = judge_line(plan, line, evidence, settings, now_seconds);
        over.add(line, status.over_limit);
        statuses.push(status);
        outcomes.extend(outcome.map(|outcome| RuleOutcome { descriptor: at, ..outcome }));
    }
    let (would_refuse, degraded) = (over.refuses(), degraded(plan, evidence));
    let mut decision = Decision {
        over_limit: would_refuse && !settings.shadow_mode,
        shadowed: would_refuse && settings.shadow_mode,
        statuses,
        headers: Vec::new(),
        metadata: None,
        degraded,
        outcomes,
        retry_seconds: None,
        trials: Vec::new(),
    };
    if settings.retry_info && decision.over_limit {
        decision.retry_seconds = Some(retry_seconds(&decision.statuses));
    }
    if let Some(names) = &settings.headers {
        decision.headers = headers::headers(names, plan, &decision.statuses);
    }
    if settings.dynamic_metadata || degraded.is_some() {
        let full = settings.dynamic_metadata;
        decision.metadata = Some(metadata::metadata(request, plan, &decision, full));
    }
    decision
}

/// The part of a decision that says who refused, without what a client is told: for whoever decides very many
/// requests and tells nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request is refused.
    pub over_limit: bool,
    /// Whether a policy, or the replica alone, answered in the store's place.
    pub is_degraded: bool,
    /// Descriptors that are over their limits, and why.
    pub over: PerHit<(usize, Reason)>,
}

/// As [`conclude`], but for what a client is told.
pub fn verdict(
    plan: &Plan<'_>,
    evidence: Evidence<'_>,
    settings: &Settings,
    now_seconds: u64,
) -> Verdict {
    let (mut over, mut all) = (Over::default(), PerHit::new());
    for (at, line) in plan.lines.iter().enumerate() {
        let (status, outcome) = judge_line(plan, line, evidence, settings, now_seconds);
        over.add(line, status.over_limit);
        if let Some(outcome) = outcome.filter(|outcome| outcome.over_limit) {
            all.push((at, outcome.reason));
        }
    }
    let over_limit = over.refuses() && !settings.shadow_mode;
    Verdict { over_limit, is_degraded: degraded(plan, evidence).is_some(), over: all }
}

/// Which limits of a request are over: an enforced one refuses it, and quotas do if all of them are.
#[derive(Default)]
struct Over {
    enforced: bool,
    quotas: usize,
    quotas_over: usize,
}

impl Over {
    fn add(&mut self, line: &Line<'_>, is_over: bool) {
        match line {
            Line::Counted(counted) if counted.quota_mode => {
                self.quotas += 1;
                self.quotas_over += usize::from(is_over);
            }
            _ => self.enforced |= is_over,
        }
    }

    fn refuses(&self) -> bool {
        self.enforced || (self.quotas > 0 && self.quotas == self.quotas_over)
    }
}

/// The policy that answered in the store's place.
fn degraded(plan: &Plan<'_>, evidence: Evidence<'_>) -> Option<OutagePolicy> {
    match evidence {
        _ if plan.hits.is_empty() => None,
        Evidence::Counts { degraded, .. } => degraded.then_some(OutagePolicy::Local),
        Evidence::Bypass => Some(OutagePolicy::Bypass),
        Evidence::Deny => Some(OutagePolicy::Deny),
    }
}

fn judge_line(
    plan: &Plan<'_>,
    line: &Line<'_>,
    evidence: Evidence<'_>,
    settings: &Settings,
    now_seconds: u64,
) -> (Status, Option<RuleOutcome>) {
    match line {
        Line::Counted(counted) => judge(plan, counted, evidence, settings, now_seconds),
        passing => pass(passing),
    }
}

/// What Envoy makes `Retry-After` of: the longest wait of the statuses that refuse, a second at least.
fn retry_seconds(statuses: &[Status]) -> u64 {
    let refusing = statuses.iter().filter(|status| status.over_limit);
    refusing.filter_map(|status| status.reset_seconds).max().unwrap_or(0).max(1)
}

fn pass(line: &Line<'_>) -> (Status, Option<RuleOutcome>) {
    let (remaining, met) = match line {
        Line::Unlimited(_) => (u32::MAX, Some(Reason::Unlimited)),
        Line::Replaced(_) => (0, Some(Reason::Replaced)),
        Line::NoLimit | Line::Counted(_) => (0, None),
    };
    let status = Status {
        over_limit: false,
        current_limit: None,
        limit_remaining: remaining,
        reserved: 0,
        reset_seconds: None,
    };
    let outcome = met.map(|reason| RuleOutcome {
        descriptor: 0,
        over_limit: false,
        reason,
        hits: HitStats::default(),
    });
    (status, outcome)
}

/// Judges one counted descriptor.
fn judge(
    plan: &Plan<'_>,
    counted: &Counted<'_>,
    evidence: Evidence<'_>,
    settings: &Settings,
    now_seconds: u64,
) -> (Status, Option<RuleOutcome>) {
    let hit = &plan.hits[counted.hit];
    let window_left = hit.window.remaining(now_seconds);
    let (mut reserved, mut withheld) = (false, 0);
    let (is_over, remaining, reset_seconds, mut hits) = match evidence {
        Evidence::Counts { hits, counts, .. } => {
            let (hit, count) = (&hits[counted.hit], &counts[counted.hit]);
            let capacity = counted.capacity(hit);
            let remaining = if count.over { 0 } else { remaining(capacity, count) };
            reserved = is_reserved(hit, count);
            let open = u64::from(capacity).saturating_sub(count.value);
            withheld = count.withheld.min(open) as u32;
            let stats = stats(hit, capacity, count, settings.near_limit_ratio);
            (count.over, remaining, reset_seconds(count), stats)
        }
        Evidence::Bypass => (false, counted.capacity(hit), window_left, HitStats::default()),
        Evidence::Deny => (true, 0, window_left, HitStats::default()),
    };
    hits.total = if hit.is_refund { 0 } else { hit.amount };
    let shadowed = is_over && counted.shadow_mode;
    if !shadowed {
        hits.shadow_mode = 0;
    }
    let by_counts = matches!(evidence, Evidence::Counts { degraded: false, .. });
    let reason = match (by_counts, shadowed, is_over) {
        (false, ..) => Reason::Degraded,
        (true, true, _) => Reason::ShadowMode,
        (true, false, true) if reserved => Reason::Reserved,
        (true, false, true) => Reason::OverLimit,
        (true, false, false) => Reason::WithinLimit,
    };
    let name = counted.rule.map_or_else(String::new, |rule| rule.header_name.clone());
    let status = Status {
        over_limit: is_over && !shadowed,
        current_limit: Some((counted.limit, name)),
        limit_remaining: remaining,
        reserved: withheld,
        reset_seconds: Some(reset_seconds),
    };
    let outcome = RuleOutcome { descriptor: 0, over_limit: status.over_limit, reason, hits };
    (status, Some(outcome))
}

/// What is left for the class of the hit.
pub(super) fn remaining(capacity: u32, count: &Count) -> u32 {
    u64::from(capacity).saturating_sub(count.withheld).saturating_sub(count.value) as u32
}

/// Whether the hit is refused although the limit has room for it.
fn is_reserved(hit: &Hit, count: &Count) -> bool {
    let fits = count.value.saturating_add(hit.amount) <= u64::from(hit.capacity());
    count.over && !hit.is_refund && count.withheld > 0 && fits
}

/// Whole seconds, rounded up: who waits that long has waited long enough. Who is over always
/// waits.
fn reset_seconds(count: &Count) -> u64 {
    let seconds = count.reset.as_secs() + u64::from(count.reset.subsec_nanos() > 0);
    seconds.max(u64::from(count.over))
}

/// How many hits met what. What was refused without being counted is over as a whole.
fn stats(hit: &Hit, capacity: u32, count: &Count, near_limit_ratio: f32) -> HitStats {
    if hit.is_refund {
        return HitStats::default();
    }
    let (amount, limit, after) = (hit.amount, u64::from(capacity), count.value);
    let near = (capacity as f32 * near_limit_ratio).floor() as u64;
    let mut stats = HitStats::default();
    if !count.moved {
        let over = if count.over { amount } else { 0 };
        stats.over_limit = over;
        stats.shadow_mode = over;
        stats.over_limit_with_local_cache = if count.remembered { over } else { 0 };
        return stats;
    }
    let before = after.saturating_sub(amount);
    if !count.over {
        stats.within_limit = amount;
        stats.near_limit =
            if before >= near { amount } else { after.saturating_sub(near).min(amount) };
    } else if before >= limit {
        stats.over_limit = amount;
        stats.shadow_mode = amount;
    } else {
        stats.over_limit = after.saturating_sub(limit);
        stats.shadow_mode = stats.over_limit;
        stats.near_limit = limit.saturating_sub(near.max(before));
    }
    stats
}

#[cfg(test)]
mod tests;
