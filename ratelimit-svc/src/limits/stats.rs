//! What was decided of the requests that met a rule: the words for it, and the counts that hang on the
//! rule. How they are shown is `metrics`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::limits::class::CLASSES_MAX;

/// The domain, rule and class of everything beyond the caps.
pub const OTHER: &str = "other";

/// What a hit met: the `kind` label, and what the reference calls it.
pub const KINDS: [(&str, &str); 6] = [
    ("total", "total_hits"),
    ("within_limit", "within_limit"),
    ("near_limit", "near_limit"),
    ("over_limit", "over_limit"),
    ("shadow_mode", "shadow_mode"),
    ("over_limit_with_local_cache", "over_limit_with_local_cache"),
];

/// Why a descriptor is decided as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Below its limit.
    WithinLimit,
    /// Over its limit.
    OverLimit,
    /// The limit has room, and keeps it for other classes.
    Reserved,
    /// Over its limit, and only reported.
    ShadowMode,
    /// The store is out of reach.
    Degraded,
    /// An unlimited rule.
    Unlimited,
    /// Another limit takes its place.
    Replaced,
}

impl Reason {
    /// All, each at the place of its number; the length is that of the last.
    pub const ALL: [Self; Self::Replaced as usize + 1] = [
        Self::WithinLimit,
        Self::OverLimit,
        Self::Reserved,
        Self::ShadowMode,
        Self::Degraded,
        Self::Unlimited,
        Self::Replaced,
    ];

    /// The name in metrics and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::WithinLimit => "within_limit",
            Self::OverLimit => "over_limit",
            Self::Reserved => "reserved",
            Self::ShadowMode => "shadow_mode",
            Self::Degraded => "degraded",
            Self::Unlimited => "unlimited",
            Self::Replaced => "replaced",
        }
    }
}

/// What was decided of one descriptor that met a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleOutcome {
    /// Which descriptor.
    pub descriptor: usize,
    /// Whether the descriptor is over its limit.
    pub over_limit: bool,
    /// Why.
    pub reason: Reason,
    /// Hits by what they met, for the counters of the reference.
    pub hits: HitStats,
}

/// The hits of one descriptor by what they met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HitStats {
    /// All.
    pub total: u64,
    /// In an answer that passed.
    pub within_limit: u64,
    /// Beyond the near-limit ratio.
    pub near_limit: u64,
    /// Beyond the limit.
    pub over_limit: u64,
    /// Beyond the limit of a rule that only reports.
    pub shadow_mode: u64,
    /// Beyond the limit, known without asking the store.
    pub over_limit_with_local_cache: u64,
}

/// The way from a rule to its counts, found when it first decides. Rules that were read twice have
/// a way each, to the same counts.
#[derive(Default)]
pub struct CountsOfRule(OnceLock<Arc<RuleCounts>>);

impl CountsOfRule {
    /// The counts; `find` looks for them the first time.
    pub fn get_or_find(&self, find: impl FnOnce() -> Arc<RuleCounts>) -> &RuleCounts {
        self.0.get_or_init(find)
    }
}

/// A copy finds its own way.
impl Clone for CountsOfRule {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// No part of what a rule says.
impl PartialEq for CountsOfRule {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for CountsOfRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountsOfRule")
    }
}

/// What a limit that is tried made of requests, beside what was decided of them.
#[derive(Debug, Default)]
pub struct TrialCounts([[AtomicU64; 2]; 2]);

impl TrialCounts {
    /// Counts a request that was refused or not, and that the trial would refuse or not.
    pub fn count(&self, refused: bool, over_limit: bool) {
        self.0[usize::from(refused)][usize::from(over_limit)].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests so far: of those that were admitted, and of those that were refused, how many the trial
    /// would admit and refuse.
    pub fn so_far(&self) -> [[u64; 2]; 2] {
        self.0.each_ref().map(|pair| pair.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// A rule that is read anew begins anew.
impl Clone for TrialCounts {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// No part of what a rule says.
impl PartialEq for TrialCounts {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The counts of one rule.
pub struct RuleCounts {
    /// The domain, as configured.
    pub domain: Arc<str>,
    /// The rule's name in metrics.
    pub rule: Arc<str>,
    hits: [AtomicU64; KINDS.len()],
    /// By class, in order of appearance; the last is for classes beyond the cap.
    classes: [OnceLock<Box<ClassCounts>>; CLASSES_MAX + 1],
}

/// What was decided of one class.
pub struct ClassCounts {
    /// Its name.
    pub name: Box<str>,
    /// By reason, in the order of [`Reason::ALL`], what passed and what was refused.
    pub decided: [[AtomicU64; 2]; Reason::ALL.len()],
    /// What the limit that is tried made of them.
    pub tried: TrialCounts,
}

impl RuleCounts {
    /// Nothing yet, of a rule of that name.
    pub fn new(domain: Arc<str>, rule: Arc<str>) -> Self {
        Self { domain, rule, hits: Default::default(), classes: Default::default() }
    }

    /// The hits so far, in the order of [`KINDS`].
    pub fn hits(&self) -> [u64; KINDS.len()] {
        self.hits.each_ref().map(|hits| hits.load(Ordering::Relaxed))
    }

    /// Counts what was decided of one descriptor.
    pub fn count(&self, class: &str, outcome: &RuleOutcome) {
        let HitStats {
            total,
            within_limit,
            near_limit,
            over_limit,
            shadow_mode,
            over_limit_with_local_cache,
        } = outcome.hits;
        let hits =
            [total, within_limit, near_limit, over_limit, shadow_mode, over_limit_with_local_cache];
        for (count, hits) in self.hits.iter().zip(hits).filter(|(_, hits)| *hits > 0) {
            count.fetch_add(hits, Ordering::Relaxed);
        }
        let decided = &self.class(class).decided[outcome.reason as usize];
        decided[usize::from(outcome.over_limit)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what the limit that is tried made of a request.
    pub fn count_trial(&self, class: &str, refused: bool, over_limit: bool) {
        self.class(class).tried.count(refused, over_limit);
    }

    fn class(&self, name: &str) -> &ClassCounts {
        let (last, slots) = self.classes.split_last().expect("there is a slot for the rest");
        for slot in slots.iter().filter(|_| name != OTHER) {
            // A slot that is free, or has just been taken by another thread, tells whose it is.
            let class = slot.get_or_init(|| Box::new(ClassCounts::new(name)));
            if *class.name == *name {
                return class;
            }
        }
        last.get_or_init(|| Box::new(ClassCounts::new(OTHER)))
    }

    /// What was decided of each class that met the rule.
    pub fn classes(&self) -> impl Iterator<Item = &ClassCounts> {
        self.classes.iter().filter_map(|slot| slot.get().map(|class| &**class))
    }
}

impl ClassCounts {
    fn new(name: &str) -> Self {
        Self { name: name.into(), decided: Default::default(), tried: TrialCounts::default() }
    }
}
