//! The first half of a decision: which rule each descriptor meets, and what is to be counted.

use std::borrow::Cow;

use crate::decide::hit::{Hit, Role};
use crate::decide::key::{KeyFormat, counter_key};
use crate::decide::request::{Descriptor, Request, RequestError};
use crate::decide::settings::Settings;
use crate::decide::settle::PerHit;
use crate::limits::class::{Class, Classes, PRIORITY_KEY};
use crate::limits::quotas::{Domain, Quotas};
use crate::limits::rule::{Allowance, CountingMode, Limit, REPORTED_KEY, Rule, push_step};
use crate::limits::sharing::{ClassShare, How, Sharing};
use crate::limits::stats::CountsOfRule;

/// What the counters decide about, and what is already decided. Borrowed from the quotas in force:
/// threads that count references to one popular rule wait for each other.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The domain as named by the request.
    pub domain: &'a str,
    /// Whether the files know the domain.
    pub domain_known: bool,
    /// The priority class of the request.
    pub class: &'a Class,
    /// How many classes rank above it.
    pub class_rank: usize,
    /// How the class was found.
    pub class_source: ClassSource,
    /// One line for each descriptor, in order.
    pub lines: Vec<Line<'a>>,
    /// What the store is to count; [`Line::Counted`] points into it.
    pub hits: Vec<Hit>,
}

/// How the class of a request was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassSource {
    /// A descriptor named it.
    Named,
    /// No descriptor named one: the default class.
    Absent,
    /// A descriptor named one that does not exist: the default class.
    Unknown,
}

/// What is known of one descriptor before counting.
#[derive(Debug)]
pub enum Line<'a> {
    /// No rule stands at its end: passes.
    NoLimit,
    /// An unlimited rule: passes.
    Unlimited(&'a Rule),
    /// Another limit of the request replaces this one: passes.
    Replaced(&'a Rule),
    /// The counter decides.
    Counted(Counted<'a>),
}

/// A descriptor whose counter decides.
#[derive(Debug)]
pub struct Counted<'a> {
    /// Where in [`Plan::hits`].
    pub hit: usize,
    /// The limit that applies.
    pub limit: Limit,
    /// The rule it comes from; none for a limit that came with the request.
    pub rule: Option<&'a Rule>,
    /// The rule's name in metrics.
    pub metric_id: Cow<'a, str>,
    /// Never refuses.
    pub shadow_mode: bool,
    /// Refuses only together with the other quota limits.
    pub quota_mode: bool,
    /// Tells of hits that have happened already.
    pub overdraft: bool,
}

/// Works out what is to be counted for `request` at `now_seconds` since the epoch.
///
/// # Errors
/// When the request has no answer.
pub fn plan<'a, 'r: 'a>(
    request: &Request<'r>,
    quotas: &'a Quotas,
    settings: &Settings,
    now_seconds: u64,
) -> Result<Plan<'a>, RequestError> {
    request.check()?;
    let (class_rank, class_source) = class_of(request, quotas.classes());
    let class = &*quotas.classes().ladder()[class_rank];
    let Some(domain) = quotas.domain(request.domain) else {
        let lines = request.descriptors.iter().map(|_| Line::NoLimit).collect();
        return Ok(Plan {
            domain: request.domain,
            domain_known: false,
            class,
            class_rank,
            class_source,
            lines,
            hits: vec![],
        });
    };
    let mut plan = Plan {
        domain: &domain.name,
        domain_known: true,
        class,
        class_rank,
        class_source,
        lines: Vec::with_capacity(request.descriptors.len()),
        hits: Vec::with_capacity(request.descriptors.len()),
    };
    let entries: PerHit<Cow<'_, [(&str, &str)]>> =
        request.descriptors.iter().map(|descriptor| matched_entries(descriptor, domain)).collect();
    let rules: PerHit<Option<&Rule>> = request
        .descriptors
        .iter()
        .zip(&entries)
        .map(|(descriptor, entries)| match descriptor.limit_override {
            Some(_) => None,
            None => domain.root.find(entries),
        })
        .collect();
    for (at, descriptor) in request.descriptors.iter().enumerate() {
        let line = match (rules[at], descriptor.limit_override) {
            (_, Some(limit)) => {
                let unit = limit.unit.ok_or(RequestError::OverrideUnit)?;
                let limit = Limit::fixed(limit.requests_per_unit, unit);
                Line::Counted(overridden(&entries[at], limit))
            }
            (None, None) => Line::NoLimit,
            (Some(rule), None) if rule.is_replaced(at, &rules) => Line::Replaced(rule),
            (Some(rule), None) => match rule.allowance {
                Allowance::Unlimited => Line::Unlimited(rule),
                Allowance::Limited(limit) => {
                    Line::Counted(limited(rule, &entries[at], limit, settings))
                }
            },
        };
        let line = match line {
            Line::Counted(counted) if is_reported(descriptor, domain) => {
                Line::Counted(counted.reported())
            }
            line => line,
        };
        let share = plan.share(&line, &entries[at], quotas.classes());
        // Whoever counts beside us under the reference's names tells nothing of classes.
        let tells = settings.key_format == KeyFormat::Tidegate;
        let share = share.filter(|share| tells || matches!(share.how, How::UpTo(_)));
        let (amount, is_refund) = (request.hits(descriptor), descriptor.is_negative_hits);
        let asked = Asked { amount, is_refund, entries: &entries[at] };
        plan.push(line, share, asked, settings, now_seconds);
    }
    plan.assign_roles(settings);
    Ok(plan)
}

/// What one descriptor asks for.
struct Asked<'a> {
    amount: u64,
    is_refund: bool,
    entries: &'a [(&'a str, &'a str)],
}

impl<'a> Plan<'a> {
    fn push(
        &mut self,
        mut line: Line<'a>,
        share: Option<ClassShare>,
        Asked { amount, is_refund, entries }: Asked<'_>,
        settings: &Settings,
        now_seconds: u64,
    ) {
        if let Line::Counted(counted) = &mut line {
            counted.hit = self.hits.len();
            let steps = counted.rule.map_or(&[][..], |rule| &rule.steps);
            let limit = counted.limit;
            let window = limit.period.window(now_seconds);
            self.hits.push(Hit {
                key: counter_key(settings.key_format, self.domain, entries, steps, limit, window),
                amount,
                is_refund,
                limit: counted.threshold(amount),
                window,
                algorithm: limit.algorithm,
                role: Role::Enforced,
                // What has happened is counted for every class alike.
                share: share.filter(|_| !counted.overdraft || amount == 0),
            });
        }
        self.lines.push(line);
    }

    /// How the limit of a descriptor is shared with the class of the request.
    fn share(
        &self,
        line: &Line<'_>,
        entries: &[(&str, &str)],
        classes: &Classes,
    ) -> Option<ClassShare> {
        let Line::Counted(counted) = line else { return None };
        let sharing = counted.rule.map_or(&Sharing::Unsaid, |rule| &rule.sharing);
        self.share_by(sharing, counted, entries, classes)
    }

    /// How a limit would be shared by what `sharing` says.
    pub(super) fn share_by(
        &self,
        sharing: &Sharing,
        Counted { rule, overdraft, .. }: &Counted<'_>,
        entries: &[(&str, &str)],
        classes: &Classes,
    ) -> Option<ClassShare> {
        // Where the class is part of the counter's name, each class has a counter of its own.
        let own_counter = entries.iter().enumerate().any(|(at, (key, _))| {
            let step = rule.and_then(|rule| rule.steps.get(at));
            *key == PRIORITY_KEY && !step.is_some_and(|step| step.share_threshold)
        });
        if (own_counter || *overdraft) && *sharing == Sharing::Unsaid {
            return None;
        }
        // Only who is silent is counted plainly, as by the reference: a class that does not exist
        // would else outrank the default class.
        let named = self.class_source != ClassSource::Absent;
        sharing.share(classes, self.class_rank, named)
    }

    /// Says which hits may refuse the whole request. What never refuses must not veto: it would
    /// freeze the counters of the limits beside it.
    fn assign_roles(&mut self, settings: &Settings) {
        let Self { lines, hits, .. } = self;
        let counted = || {
            lines.iter().filter_map(|line| match line {
                Line::Counted(counted) => Some(counted),
                _ => None,
            })
        };
        // Quota limits refuse together, so one that cannot refuse spares the request.
        let quota_can_refuse = counted().all(|line| !(line.quota_mode && line.shadow_mode));
        for line in counted() {
            hits[line.hit].role = if settings.shadow_mode || line.shadow_mode {
                Role::Observer
            } else if line.quota_mode {
                if quota_can_refuse { Role::Quota } else { Role::Observer }
            } else {
                Role::Enforced
            };
        }
    }
}

impl Counted<'_> {
    /// The same for hits that have happened: counted in full, at once and exactly, whatever the rule
    /// says. What does not fit a bucket is no level that a bucket could have.
    pub(super) fn reported(self) -> Self {
        if self.limit.algorithm.burst().is_some() {
            return self;
        }
        let limit = Limit { mode: Some(CountingMode::Exact), ..self.limit };
        Self { overdraft: true, limit, ..self }
    }

    /// What the count may reach with these hits. What has happened already cannot be refused, so
    /// under an overdraft it is counted in full, and who only looks is over from the limit on:
    ///
    /// ```text
    /// limit 10:  look (9 <= 9) ok ─ 25 hits (34 <= max) counted ─ look (34 <= 9) over
    /// ```
    pub(super) fn threshold(&self, amount: u64) -> u32 {
        match (self.overdraft, amount) {
            (false, _) => self.limit.requests_per_unit,
            (true, 0) => self.limit.requests_per_unit.saturating_sub(1),
            (true, _) => u32::MAX,
        }
    }

    /// The most that can be taken, by the threshold that `hit` was held against.
    pub fn capacity(&self, hit: &Hit) -> u32 {
        match self.overdraft {
            false => hit.capacity(),
            true => hit.capacity().saturating_add(1).min(self.limit.requests_per_unit),
        }
    }
}

/// The class of a request is the lowest that any of its descriptors names.
fn class_of(request: &Request<'_>, classes: &Classes) -> (usize, ClassSource) {
    let named = request
        .descriptors
        .iter()
        .flat_map(|descriptor| &descriptor.entries)
        .filter(|(key, _)| *key == PRIORITY_KEY)
        .map(|(_, value)| classes.rank(value));
    let mut source = ClassSource::Absent;
    let mut lowest: Option<usize> = None;
    for rank in named {
        let rank = rank.unwrap_or_else(|| {
            source = ClassSource::Unknown;
            classes.default_rank()
        });
        if source == ClassSource::Absent {
            source = ClassSource::Named;
        }
        lowest = lowest.max(Some(rank));
    }
    (lowest.unwrap_or_else(|| classes.default_rank()), source)
}

/// Whether a descriptor tells of hits that have happened already.
pub(super) fn is_reported(descriptor: &Descriptor<'_>, domain: &Domain) -> bool {
    !domain.names_reported && descriptor.entries.iter().any(|(key, _)| *key == REPORTED_KEY)
}

/// The entries without those that name the class or say that hits have happened. They stand at one end
/// as a rule, and then what is left is borrowed.
pub(super) fn matched_entries<'r, 'a>(
    descriptor: &'r Descriptor<'a>,
    domain: &Domain,
) -> Cow<'r, [(&'a str, &'a str)]> {
    let is_mark = |(key, _): &(&str, &str)| {
        !domain.names_priority && *key == PRIORITY_KEY
            || !domain.names_reported && *key == REPORTED_KEY
    };
    let entries = descriptor.entries.as_slice();
    let leading = entries.iter().take_while(|entry| is_mark(entry)).count();
    let rest = &entries[leading..];
    let trailing = rest.iter().rev().take_while(|entry| is_mark(entry)).count();
    let rest = &rest[..rest.len() - trailing];
    match rest.iter().any(is_mark) {
        true => rest.iter().filter(|entry| !is_mark(entry)).copied().collect(),
        false => Cow::Borrowed(rest),
    }
}

impl<'a> Line<'a> {
    /// The rule that was met.
    pub fn rule(&self) -> Option<&'a Rule> {
        match self {
            Self::NoLimit => None,
            Self::Unlimited(rule) | Self::Replaced(rule) => Some(rule),
            Self::Counted(counted) => counted.rule,
        }
    }

    /// The way to the counts of the rule, unless its name in metrics depends on the request.
    pub fn counts(&self) -> Option<&'a CountsOfRule> {
        match self {
            Self::Counted(Counted { metric_id: Cow::Owned(_), .. }) => None,
            other => other.rule().map(|rule| &rule.counts),
        }
    }

    /// The name in metrics; none where there is nothing to count.
    pub fn metric_id(&self) -> Option<&str> {
        match self {
            Self::NoLimit => None,
            Self::Unlimited(rule) | Self::Replaced(rule) => Some(&rule.id),
            Self::Counted(counted) => Some(&counted.metric_id),
        }
    }
}

fn limited<'a>(
    rule: &'a Rule,
    entries: &[(&str, &str)],
    limit: Limit,
    settings: &Settings,
) -> Counted<'a> {
    Counted {
        hit: 0,
        limit,
        metric_id: rule.metric_id(entries),
        shadow_mode: rule.shadow_mode,
        quota_mode: rule.quota_mode || settings.quota_mode,
        overdraft: rule.overdraft,
        rule: Some(rule),
    }
}

/// A limit that came with the request. Metrics name it by its keys alone.
fn overridden(entries: &[(&str, &str)], limit: Limit) -> Counted<'static> {
    let mut id = String::new();
    for (key, _) in entries {
        push_step(&mut id, key, None);
    }
    Counted {
        hit: 0,
        limit,
        rule: None,
        metric_id: id.into(),
        shadow_mode: false,
        quota_mode: false,
        overdraft: false,
    }
}

#[cfg(test)]
mod tests;
