//! Which rule a request would meet, and why, in words: for people at a terminal and at the console. Uses the
//! very code that decides, and counts nothing.

use crate::decide::plan::{ClassSource, Line, Plan, plan};
use crate::decide::request::{Descriptor, Request};
use crate::decide::settings::Settings;
use crate::limits::class::PRIORITY_KEY;
use crate::limits::nearest::nearest;
use crate::limits::pattern::Precedence;
use crate::limits::quotas::{Domain, Quotas};
use crate::limits::rule::{REPORTED_KEY, Rule};
use crate::limits::sharing::{ClassShare, How};

/// The explanation, some lines.
///
/// # Errors
/// When the request cannot be one.
pub fn text(
    request: &Request<'_>,
    quotas: &Quotas,
    settings: &Settings,
    key_prefix: &str,
    now_seconds: u64,
) -> Result<String, String> {
    let planned = plan(request, quotas, settings, now_seconds);
    let planned = planned.map_err(|error| error.to_string())?;
    let mut text = class(&planned, request, quotas);
    if settings.shadow_mode {
        text += "SHADOW_MODE: nothing is refused\n";
    }
    if !planned.domain_known {
        text += &format!("domain {}: no file has it, so everything passes\n", request.domain);
        return Ok(text);
    }
    let domain = quotas.domain(request.domain);
    let names_priority = domain.is_some_and(|domain| domain.names_priority);
    if domain.is_some_and(|domain| domain.root.precedence() == Precedence::MostSpecific) {
        text += "wildcards: of the patterns that match, the most specific counts\n";
    }
    for (at, line) in planned.lines.iter().enumerate() {
        text += &format!("descriptor {}: {}\n", written(&request.descriptors[at]), verdict(line));
        let meant = domain.filter(|_| matches!(line, Line::NoLimit));
        if let Some(meant) = meant.and_then(|domain| meant_key(&request.descriptors[at], domain)) {
            text += &meant;
        }
        let takes_off = !names_priority
            && request.descriptors[at].entries.iter().any(|(key, _)| *key == PRIORITY_KEY);
        if takes_off {
            text += "  the priority entry names the class and takes no part in matching\n";
        }
        let is_reported = domain.is_some_and(|domain| !domain.names_reported)
            && request.descriptors[at].entries.iter().any(|(key, _)| *key == REPORTED_KEY);
        if is_reported {
            text += "  the reported entry says that the hits have happened and takes no part in matching\n";
        }
        if let Some(trial) = line.rule().and_then(|rule| rule.trial.as_ref()) {
            text += &format!("  trial {}: counted apart and never enforced\n", trial.words());
        }
        if let Line::Counted(counted) = line {
            let hit = &planned.hits[counted.hit];
            text += &format!("  counter {key_prefix}{}\n", String::from_utf8_lossy(&hit.key));
            if let Some(share) = &hit.share {
                text += &format!("  {}\n", shared(share, hit.capacity()));
            }
            if hit.algorithm.has_windows() {
                let left = hit.window.remaining(now_seconds);
                text += &format!("  window ends in {left} s\n");
            }
        }
    }
    Ok(text)
}

/// A descriptor as it is written on the command line.
fn written(descriptor: &Descriptor<'_>) -> String {
    let entries = descriptor.entries.iter().map(|(key, value)| format!("{key}={value}"));
    entries.collect::<Vec<_>>().join(",")
}

/// The descriptor written as `key=value,key=value`.
///
/// # Errors
/// When it is written otherwise.
pub fn descriptor(text: &str) -> Result<Descriptor<'_>, String> {
    let entry = |entry| {
        str::split_once(entry, '=').ok_or_else(|| format!("'{entry}' is not of the form key=value"))
    };
    let entries = text.split(',').map(entry).collect::<Result<_, _>>()?;
    Ok(Descriptor { entries, ..Descriptor::default() })
}

fn class(plan: &Plan<'_>, request: &Request<'_>, quotas: &Quotas) -> String {
    let why = match plan.class_source {
        ClassSource::Named => "named by the request",
        ClassSource::Absent => "the default, as the request names none",
        ClassSource::Unknown => "the default, as the request names one that does not exist",
    };
    let known = || quotas.classes().ladder().iter().map(|class| class.name.as_str());
    let entries = request.descriptors.iter().flat_map(|descriptor| &descriptor.entries);
    let mut named = entries.filter(|(key, _)| *key == PRIORITY_KEY).map(|(_, value)| *value);
    let unknown = named.find(|named| known().all(|known| known != *named));
    let meant = unknown.filter(|_| plan.class_source == ClassSource::Unknown);
    let meant = meant.and_then(|named| nearest(named, known()));
    let meant = meant.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default();
    format!("class {}: {why}{meant}\n", plan.class)
}

/// Which key may have been meant, where no rule begins with that of the first entry.
fn meant_key(descriptor: &Descriptor<'_>, domain: &Domain) -> Option<String> {
    let (key, _) = descriptor.entries.iter().find(|(key, _)| *key != PRIORITY_KEY)?;
    let rules = domain.root.rules();
    let first = || rules.iter().filter_map(|rule| rule.steps.first()).map(|step| &*step.key);
    if first().any(|known| known == *key) {
        return None;
    }
    let meant = nearest(key, first())?;
    Some(format!("  no rule begins with the key '{key}'; did you mean '{meant}'?\n"))
}

fn verdict(line: &Line<'_>) -> String {
    match line {
        Line::NoLimit => {
            "no rule stands at exactly this depth for these entries, so it passes".to_owned()
        }
        Line::Unlimited(rule) => format!("{}, unlimited, so it passes uncounted", place(rule)),
        Line::Replaced(rule) => {
            format!("{}, replaced by another limit of the request", place(rule))
        }
        Line::Counted(counted) => {
            let limit = counted.limit;
            let rule = counted.rule.map_or_else(String::new, place);
            let mut text = format!("{rule}, {limit}");
            let sharing = counted.rule.map(|rule| rule.sharing.listing());
            for sharing in sharing.iter().filter(|sharing| !sharing.is_empty()) {
                text += &format!(", {sharing}");
            }
            if counted.shadow_mode {
                text += ", shadow mode: never refuses";
            }
            if counted.overdraft {
                text += ", overdraft: hits are counted beyond it, 0 hits are refused from it on";
            }
            if counted.quota_mode {
                text += ", quota mode: refuses only when all quota limits are over";
            }
            text
        }
    }
}

/// What the class may take of a limit that it shares.
fn shared(share: &ClassShare, capacity: u32) -> String {
    match (&share.how, share.rank) {
        (How::UpTo(fraction), _) => {
            format!("the class is admitted up to {} of {capacity}", fraction.of(capacity))
        }
        (How::Forecast { .. }, 0) => {
            "the class ranks highest and reserves what it needs".to_owned()
        }
        (How::Forecast { .. }, above) => {
            let classes = if above == 1 { "class" } else { "classes" };
            format!("the class may take what the {above} {classes} above it will not need")
        }
    }
}

/// The rule, where it stands, and how each level was matched.
fn place(rule: &Rule) -> String {
    let steps: Vec<String> = rule
        .steps
        .iter()
        .map(|step| match step.value.as_deref() {
            None => format!("{} by key alone", step.key),
            Some(value) if value.contains('*') => format!("{} by pattern {value}", step.key),
            Some(value) => format!("{} by value {value}", step.key),
        })
        .collect();
    format!("rule {} at {} ({})", rule.id, rule.origin, steps.join(", "))
}
