//! What changes for callers from one set of quotas to another. Pure: compares what is in force,
//! not the text of files, so comments, order of literals and splitting into files are no change.
//!
//! ```text
//! lowered edge tenant=demo: 3 per minute -> 1 per minute (old.yaml:9 -> new.yaml:9)
//! ```
//!
//! Places are compared by their entries. Of the order of patterns that match the same value only
//! the rule is compared, `wildcards`, and not where they stand.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use crate::limits::quotas::{Domain, Quotas};
use crate::limits::rule::{Allowance, Limit, Rule};
use crate::limits::tree::Level;

/// The direction of a change, as the caller feels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There was no rule here.
    Added,
    /// There is no rule here any more.
    Removed,
    /// More passes than before.
    Raised,
    /// Less passes than before.
    Lowered,
    /// As much passes, and something else is different.
    Changed,
}

/// One place whose limit is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The direction.
    pub kind: Kind,
    /// The domain, or nothing for a priority class of the service.
    pub domain: Option<String>,
    /// The entries that lead there, or the name of the class.
    pub path: String,
    /// What was in force.
    pub old: Option<String>,
    /// What will be.
    pub new: Option<String>,
    /// Where the old rule and the new one stand in their files.
    pub origins: [Option<String>; 2],
}

/// All changes, by domain and path, classes first.
pub fn diff(old: &Quotas, new: &Quotas) -> Vec<Change> {
    let mut changes = classes(old, new);
    changes.extend(wildcards(old, new));
    let (old, new) = (places(old), places(new));
    for (key, was) in &old {
        match new.get(key) {
            None => changes.push(change(key, Kind::Removed, Some(was), None)),
            Some(is) => {
                let same = was.description == is.description;
                let kind = match is.allowance.cmp_to(&was.allowance) {
                    Ordering::Equal if same => continue,
                    Ordering::Equal => Kind::Changed,
                    Ordering::Greater => Kind::Raised,
                    Ordering::Less => Kind::Lowered,
                };
                changes.push(change(key, kind, Some(was), Some(is)));
            }
        }
    }
    for (key, is) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        changes.push(change(key, Kind::Added, None, Some(is)));
    }
    changes.sort_by(|a, b| (&a.domain, &a.path).cmp(&(&b.domain, &b.path)));
    changes
}

/// Domain and path.
type Key = (String, Vec<(String, Option<String>)>);

struct Place {
    allowance: Passes,
    description: String,
    origin: Option<String>,
}

/// What passes at a place.
#[derive(Clone, Copy)]
enum Passes {
    All,
    Limited(Limit),
}

impl Passes {
    /// More or less, as hits in the long run; windows of another length are compared by rate.
    fn cmp_to(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Passes::All, Passes::All) => Ordering::Equal,
            (Passes::All, Passes::Limited(_)) => Ordering::Greater,
            (Passes::Limited(_), Passes::All) => Ordering::Less,
            (Passes::Limited(a), Passes::Limited(b)) => {
                let scaled = |limit: &Limit, other: &Limit| {
                    u128::from(limit.requests_per_unit) * u128::from(other.period.seconds())
                };
                scaled(a, b).cmp(&scaled(b, a))
            }
        }
    }
}

fn change(key: &Key, kind: Kind, old: Option<&Place>, new: Option<&Place>) -> Change {
    let step = |(key, value): &(String, Option<String>)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    };
    Change {
        kind,
        domain: Some(key.0.clone()),
        path: key.1.iter().map(step).collect::<Vec<_>>().join(", "),
        old: old.map(|place| place.description.clone()),
        new: new.map(|place| place.description.clone()),
        origins: [old, new].map(|place| place.and_then(|place| place.origin.clone())),
    }
}

fn places(quotas: &Quotas) -> BTreeMap<Key, Place> {
    let mut places = BTreeMap::new();
    for domain in quotas.domains() {
        collect(&domain.name, &domain.root, &mut Vec::new(), &mut places);
    }
    places
}

fn collect(
    domain: &str,
    level: &Level,
    above: &mut Vec<(String, Option<String>)>,
    places: &mut BTreeMap<Key, Place>,
) {
    for (key, value, node) in level.entries() {
        above.push((key.to_owned(), value.map(str::to_owned)));
        // A place without a rule lets through what a broader rule beside it would limit.
        let exempts = || {
            level.entries().any(|(other, pattern, _)| {
                let broader = pattern.is_none_or(|pattern| pattern.contains('*'));
                other == key && pattern != value && broader
            })
        };
        let place = match &node.rule {
            Some(rule) => Some(Place {
                allowance: match rule.allowance {
                    Allowance::Unlimited => Passes::All,
                    Allowance::Limited(limit) => Passes::Limited(limit),
                },
                description: describe(rule),
                origin: Some(rule.origin.to_string()),
            }),
            None if exempts() => Some(Place {
                allowance: Passes::All,
                description: "no limit".to_owned(),
                origin: None,
            }),
            None => None,
        };
        if let Some(place) = place {
            places.insert((domain.to_owned(), above.clone()), place);
        }
        collect(domain, &node.children, above, places);
        above.pop();
    }
}

/// The limit and everything that changes an answer or a metric.
fn describe(rule: &Rule) -> String {
    let mut text = match rule.allowance {
        Allowance::Unlimited => "unlimited".to_owned(),
        Allowance::Limited(limit) => limit.to_string(),
    };
    let sharing = rule.sharing.listing();
    if !sharing.is_empty() {
        text += &format!(", {sharing}");
    }
    if let Some(trial) = &rule.trial {
        text += &format!(", trial {{{}}}", trial.words());
    }
    let flags = [
        (rule.shadow_mode, "shadow mode"),
        (rule.quota_mode, "quota mode"),
        (rule.overdraft, "overdraft"),
        (rule.detailed_metric, "detailed metric"),
        (rule.steps.iter().any(|step| step.value_to_metric), "value to metric"),
        (rule.steps.iter().any(|step| step.share_threshold), "shared threshold"),
    ];
    for (_, name) in flags.iter().filter(|(set, _)| *set) {
        text += &format!(", {name}");
    }
    if !rule.name.is_empty() {
        text += &format!(", name '{}'", rule.name);
    }
    if !rule.replaces.is_empty() {
        text += &format!(", replaces '{}'", rule.replaces.join("', '"));
    }
    if let Some(metadata) = &rule.metadata {
        text += &format!(", metadata {metadata}");
    }
    text
}

fn classes(old: &Quotas, new: &Quotas) -> Vec<Change> {
    let by_name = |quotas: &Quotas| -> BTreeMap<String, String> {
        let classes = quotas.classes();
        let default = &classes.default_class().name;
        let text = |class: &crate::limits::class::Class| {
            let default = if class.name == *default { ", default" } else { "" };
            format!("rank {}, outage {}{default}", class.rank, class.outage.name())
        };
        classes.ladder().iter().map(|class| (class.name.clone(), text(class))).collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        let (was, is) = (old.get(name).cloned(), new.get(name).cloned());
        let kind = match (&was, &is) {
            (Some(was), Some(is)) if was == is => continue,
            (None, _) => Kind::Added,
            (_, None) => Kind::Removed,
            _ => Kind::Changed,
        };
        let origins = [None, None];
        changes.push(Change { kind, domain: None, path: name.clone(), old: was, new: is, origins });
    }
    changes
}

/// Domains whose patterns are met in another order.
fn wildcards(old: &Quotas, new: &Quotas) -> Vec<Change> {
    let changed = |is: &&Domain| {
        let was = old.domain(&is.name)?.root.precedence();
        let is_now = is.root.precedence();
        (was != is_now).then(|| Change {
            kind: Kind::Changed,
            domain: Some(is.name.to_string()),
            path: "wildcards".to_owned(),
            old: Some(was.name().to_owned()),
            new: Some(is_now.name().to_owned()),
            origins: [None, None],
        })
    };
    new.domains().iter().filter_map(changed).collect()
}

impl Kind {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Added => "added",
            Kind::Removed => "removed",
            Kind::Raised => "raised",
            Kind::Lowered => "lowered",
            Kind::Changed => "changed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = self.domain.as_deref().unwrap_or("priority class");
        let nothing = || "none".to_owned();
        let (old, new) = (self.old.clone(), self.new.clone());
        let (old, new) = (old.unwrap_or_else(nothing), new.unwrap_or_else(nothing));
        write!(f, "{} {domain} {}: {old} -> {new}", self.kind.name(), self.path)?;
        match &self.origins {
            [Some(old), Some(new)] => write!(f, " ({old} -> {new})"),
            [Some(one), None] | [None, Some(one)] => write!(f, " ({one})"),
            [None, None] => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
