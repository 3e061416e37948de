//! A rule: what a file says about the descriptors that end at one node of the tree.

pub mod trial;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::limits::algorithm::Algorithm;
use crate::limits::sharing::Sharing;
use crate::limits::stats::CountsOfRule;
use crate::limits::unit::{Period, Unit};
use trial::Trial;

/// So many hits per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Hits that pass in one period; 0 refuses everything.
    pub requests_per_unit: u32,
    /// The period.
    pub period: Period,
    /// How hits are held against it.
    pub algorithm: Algorithm,
    /// Where hits are counted, if the rule says so.
    pub mode: Option<CountingMode>,
}

/// Where the hits of a limit are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CountingMode {
    /// In blocks that a replica claims and then spends on its own.
    Lease,
    /// Each in the shared store.
    Exact,
}

impl CountingMode {
    /// The name in quota files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Exact => "exact",
        }
    }
}

impl Limit {
    /// So many hits in each window of a unit.
    pub fn fixed(requests_per_unit: u32, unit: Unit) -> Self {
        let algorithm = Algorithm::FixedWindow;
        Self { requests_per_unit, period: unit.into(), algorithm, mode: None }
    }

    /// The limit as a line of `/rlconfig`; a plain one reads as in the reference.
    pub fn listing(&self) -> String {
        let period = match self.period.unit() {
            Some(unit) => format!("unit={}", unit.name()),
            None => format!("window={}", self.period),
        };
        let mut text = format!("{period} requests_per_unit={}", self.requests_per_unit);
        if self.algorithm != Algorithm::default() {
            text += &format!(" algorithm={}", self.algorithm);
        }
        if let Some(mode) = self.mode {
            text += &format!(" mode={}", mode.name());
        }
        text
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.requests_per_unit, self.period)?;
        f.write_str(&self.algorithm.words())?;
        self.mode.map_or(Ok(()), |mode| write!(f, ", mode {}", mode.name()))
    }
}

/// The key of the entry by which whoever asks tells of hits that have happened already, whatever its
/// value: they are counted beyond the limit too. It takes no part in matching, unless a rule of the
/// domain speaks of it.
pub const REPORTED_KEY: &str = "reported";

/// What a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Counted and refused beyond the limit.
    Limited(Limit),
    /// Passes and is not counted.
    Unlimited,
}

/// One level of a rule's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The key of the entry.
    pub key: Box<str>,
    /// The value as configured, a pattern included; none for a rule about the key alone.
    pub value: Option<Box<str>>,
    /// Metrics name the value of the request at this level.
    pub value_to_metric: bool,
    /// All values that match the pattern share one counter.
    pub share_threshold: bool,
}

/// A limit and everything around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The path as it appears in metrics and explanations, as in `tenant_demo.route`.
    pub id: Arc<str>,
    /// From the top of the tree to the node the rule stands at.
    pub steps: Vec<Step>,
    /// What passes.
    pub allowance: Allowance,
    /// How classes share the limit.
    pub sharing: Sharing,
    /// A limit that is counted beside it and never enforced.
    pub trial: Option<Box<Trial>>,
    /// Name of the limit, empty where none was given.
    pub name: String,
    /// The same, made safe by [`header_safe`].
    pub header_name: String,
    /// Names of limits that do not apply where this one does.
    pub replaces: Vec<String>,
    /// Counted and reported, never refused.
    pub shadow_mode: bool,
    /// Refuses only together with all other quota limits of a request.
    pub quota_mode: bool,
    /// Hits are never refused and always counted; to look is refused once the limit is reached.
    pub overdraft: bool,
    /// Metrics name the values of the request at all levels.
    pub detailed_metric: bool,
    /// Handed to Envoy as dynamic metadata.
    pub metadata: Option<serde_json::Value>,
    /// The file and line the rule was read from.
    pub origin: Arc<str>,
    /// Where its decisions are counted.
    pub counts: CountsOfRule,
}

impl Rule {
    /// The limit and how it is shared as a line of `/rlconfig`.
    pub fn listing(&self) -> String {
        let mut text = match self.allowance {
            Allowance::Unlimited => "unlimited: true".to_owned(),
            Allowance::Limited(limit) => limit.listing(),
        };
        let sharing = self.sharing.listing();
        if !sharing.is_empty() {
            text += &format!(" {sharing}");
        }
        if let Some(trial) = &self.trial {
            text += &format!(" trial={{{}}}", trial.listing());
        }
        text
    }

    /// Whether another of the rules that a request meets, of which this is the one at a position, replaces
    /// it by name.
    pub fn is_replaced(&self, at: usize, rules: &[Option<&Rule>]) -> bool {
        !self.name.is_empty()
            && rules.iter().enumerate().any(|(other, matched)| {
                other != at && matched.is_some_and(|matched| matched.replaces.contains(&self.name))
            })
    }

    /// Whether the metric name depends on the request.
    pub fn is_dynamic(&self) -> bool {
        self.detailed_metric || self.steps.iter().any(|step| step.value_to_metric)
    }

    /// The rule's name in metrics for a request with these entries.
    pub fn metric_id(&self, entries: &[(&str, &str)]) -> Cow<'_, str> {
        if !self.is_dynamic() {
            return Cow::Borrowed(&self.id);
        }
        let mut id = String::new();
        for (step, (key, value)) in self.steps.iter().zip(entries) {
            let runtime = self.detailed_metric || step.value_to_metric;
            let value =
                if runtime && !step.share_threshold { Some(*value) } else { step.value.as_deref() };
            push_step(&mut id, key, value.filter(|value| !value.is_empty()));
        }
        id.into()
    }
}

/// Appends one level of a path to a rule's id.
pub fn push_step(id: &mut String, key: &str, value: Option<&str>) {
    if !id.is_empty() {
        id.push('.');
    }
    id.push_str(key);
    if let Some(value) = value {
        id.push('_');
        id.push_str(value);
    }
}

/// A name that is safe inside Envoy's `x-ratelimit-limit` header, where it is quoted but not
/// escaped: printable ASCII without quotes and backslashes, the rest becomes `_`.
pub fn header_safe(name: &str) -> String {
    let safe = |c: char| (' '..='~').contains(&c) && c != '"' && c != '\\';
    name.chars().map(|c| if safe(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_a_header() {
        assert_eq!(header_safe("per-key limit"), "per-key limit");
        assert_eq!(header_safe("a\"b\\c\r\nd\u{7f}ü"), "a_b_c__d__");
    }

    #[test]
    fn a_limit_says_what_it_is() {
        let plain = Limit::fixed(3, Unit::Year);
        let check = |limit: Limit, text: &str, listing: &str| {
            assert_eq!((limit.to_string().as_str(), limit.listing().as_str()), (text, listing));
        };
        check(plain, "3 per year", "unit=YEAR requests_per_unit=3");
        let period = Period::try_new(90).expect("in bounds");
        let sliding = Limit { period, algorithm: Algorithm::SlidingWindow, ..plain };
        let listing = "window=90s requests_per_unit=3 algorithm=sliding_window";
        check(sliding, "3 per 90s, sliding window", listing);
        let bucket = Limit { algorithm: Algorithm::TokenBucket { burst: 9 }, ..plain };
        let listing = "unit=YEAR requests_per_unit=3 algorithm=token_bucket burst=9";
        check(bucket, "3 per year, token bucket with burst 9", listing);
        let exact = Limit { mode: Some(CountingMode::Exact), ..plain };
        check(exact, "3 per year, mode exact", "unit=YEAR requests_per_unit=3 mode=exact");
    }

    #[test]
    fn which_value_metrics_name() {
        let step = |value: Option<&str>, value_to_metric, share_threshold| Step {
            key: "wild".into(),
            value: value.map(Into::into),
            value_to_metric,
            share_threshold,
        };
        let check = |step: Step, detailed_metric, expected: &str| {
            let mut id = String::new();
            push_step(&mut id, &step.key, step.value.as_deref());
            let rule = Rule {
                id: id.into(),
                steps: vec![step],
                allowance: Allowance::Unlimited,
                sharing: Sharing::Unsaid,
                trial: None,
                name: String::new(),
                header_name: String::new(),
                replaces: vec![],
                shadow_mode: false,
                quota_mode: false,
                overdraft: false,
                detailed_metric,
                metadata: None,
                origin: "a.yaml:1".into(),
                counts: CountsOfRule::default(),
            };
            assert_eq!(&*rule.metric_id(&[("wild", "foo1")]), expected);
        };
        check(step(Some("foo*"), false, false), false, "wild_foo*");
        check(step(Some("foo*"), true, false), false, "wild_foo1");
        check(step(Some("foo*"), true, true), false, "wild_foo*");
        check(step(Some("foo*"), false, false), true, "wild_foo1");
        check(step(Some("foo*"), true, true), true, "wild_foo*");
        check(step(None, false, false), false, "wild");
        check(step(None, true, false), false, "wild_foo1");
    }
}
