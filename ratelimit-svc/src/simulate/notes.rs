//! What to know when reading the figures of a simulation: where the recording and the quotas do not fit
//! together, so that a figure that looks good is not good for the wrong reason.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::quotas::Quotas;
use crate::record::shape::Shape;
use crate::simulate::Counting;
use crate::simulate::instant::instant;
use crate::simulate::tally::Tally;

/// Names that a note lists; of more it says how many.
const NAMED_MAX: usize = 5;

/// Keys and values that quotas name, patterns among them; without a value it is empty.
pub fn named(quotas: &Quotas) -> Vec<(String, String)> {
    let mut named = Vec::new();
    for rule in quotas.domains().iter().flat_map(|domain| domain.root.rules()) {
        for step in &rule.steps {
            let value = step.value.as_deref().unwrap_or_default();
            named.push((step.key.to_string(), value.to_owned()));
        }
    }
    named
}

/// Values that are hashed and that quotas name.
pub fn on_hashes(
    named: &[(String, String)],
    hashed: &BTreeSet<String>,
    has_salt: bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    let of_hashed = |has: fn(&str) -> bool| {
        let mut keys: Vec<&str> = named
            .iter()
            .filter(|(key, value)| hashed.contains(key) && has(value))
            .map(|(key, _)| key.as_str())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys.join(", ")
    };
    let patterns = of_hashed(|value| value.contains('*'));
    if !patterns.is_empty() {
        notes.push(format!("values of {patterns} are hashed: patterns match none of them"));
    }
    let literals = of_hashed(|value| !value.is_empty() && !value.contains('*'));
    if !literals.is_empty() && !has_salt {
        notes.push(format!(
            "values of {literals} are hashed: without --salt-file rules for one value match none of them"
        ));
    }
    notes
}

/// Requests of domains that the quotas do not have, and requests that meet no rule of those they have.
pub fn on_domains(tally: &Tally, shapes: &[Shape], quotas: &Quotas) -> Vec<String> {
    let mut unknown: BTreeMap<&str, u64> = BTreeMap::new();
    for (shape, both) in shapes.iter().zip(&tally.shapes) {
        if both.requests > 0 && quotas.domain(&shape.domain).is_none() {
            *unknown.entry(&shape.domain).or_default() += both.requests;
        }
    }
    let in_unknown: u64 = unknown.values().sum();
    let mut notes: Vec<String> = unknown
        .iter()
        .take(NAMED_MAX)
        .map(|(domain, requests)| {
            format!("{requests} requests ask of domain {domain}, which the new quotas do not have")
        })
        .collect();
    let more = unknown.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        notes.push(format!("and so do requests of {more} other domains"));
    }
    let without = tally.without_rule.saturating_sub(in_unknown);
    if without > 0 {
        let all = tally.total.requests;
        notes.push(format!("{without} of {all} requests meet no rule of the new quotas and pass"));
    }
    notes
}

/// Rules that no request met.
pub fn on_rules(tally: &Tally, quotas: &Quotas) -> Option<String> {
    let mut unmet: BTreeSet<String> = BTreeSet::new();
    for domain in quotas.domains() {
        for rule in domain.root.rules().into_iter().filter(|rule| !rule.is_dynamic()) {
            let known = tally.rules.get(&(domain.name.to_string(), rule.id.to_string()));
            if known.is_none_or(|known| known.requests == 0) {
                unmet.insert(format!("{}.{}", domain.name, rule.id));
            }
        }
    }
    let more = unmet.len().saturating_sub(NAMED_MAX);
    let named: Vec<&str> = unmet.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!named.is_empty()).then(|| format!("no request meets {}{more}", named.join(", ")))
}

/// Rules that refused when it was recorded, and that nothing here has.
pub fn on_rules_gone(tally: &Tally, quotas: &Quotas) -> Vec<String> {
    let is_known = |domain: &str, rule: &str| {
        let domain = quotas.domain(domain);
        domain.is_some_and(|domain| {
            domain.root.rules().iter().any(|known| *known.id == *rule || known.is_dynamic())
        })
    };
    let gone = tally.rules.iter().filter(|((domain, rule), figures)| {
        !figures.old.is_empty() && figures.requests == 0 && !is_known(domain, rule)
    });
    gone.map(|((domain, rule), figures)| {
        let refused: u64 = figures.old.values().sum();
        match rule.is_empty() {
            true => format!("which rule of {domain} refused {refused} requests was not recorded"),
            false => format!(
                "{refused} requests were refused by {domain}.{rule}, which the new quotas do not have"
            ),
        }
    })
    .collect()
}

/// An outage in which nothing was recorded.
pub fn on_outage(tally: &Tally, counting: &Counting) -> Option<String> {
    let Counting::Leased { outage: Some(outage), .. } = counting else { return None };
    let (from, to) = tally.span?;
    let is_outside = outage.end <= from || outage.start > to;
    is_outside.then(|| {
        let (start, end) = (instant(outage.start), instant(outage.end));
        format!("nothing was recorded in the outage from {start} to {end}: it changes nothing")
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::limits::quotas::Library;
    use crate::simulate::leased;
    use crate::simulate::tally::Both;

    fn quotas(text: &str) -> Quotas {
        let contents = [(PathBuf::from("a.yaml"), Ok(text.as_bytes().to_vec()))].into();
        Library::default().update(&contents).quotas
    }

    const QUOTAS: &str = "
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: minute, requests_per_unit: 5}}
  - {key: pool, rate_limit: {unit: minute, requests_per_unit: 5}}
";

    #[test]
    fn quotas_of_something_else_do_not_pass_for_good_ones() {
        let shape = |domain: &str| Shape { domain: domain.to_owned(), ..Shape::default() };
        let shapes = [shape("edge"), shape("egde")];
        let mut tally = Tally::new();
        tally.shapes = vec![Both::of(10, 0, 0), Both::of(7, 0, 0)];
        tally.total = Both::of(17, 0, 0);
        tally.without_rule = 9;
        let met = ("edge".to_owned(), "tenant".to_owned());
        tally.rules.entry(met).or_default().requests = 8;
        let quotas = quotas(QUOTAS);
        let notes = on_domains(&tally, &shapes, &quotas);
        assert_eq!(
            notes,
            [
                "7 requests ask of domain egde, which the new quotas do not have",
                "2 of 17 requests meet no rule of the new quotas and pass",
            ]
        );
        assert_eq!(on_rules(&tally, &quotas).as_deref(), Some("no request meets edge.pool"));
    }

    #[test]
    fn an_outage_beside_the_recording_is_told() {
        let mut tally = Tally::new();
        tally.span = Some((100, 200));
        let with = |range: std::ops::Range<u64>| match leased(2) {
            Counting::Leased { replicas, limit_min, round_trip, .. } => {
                Counting::Leased { replicas, limit_min, round_trip, outage: Some(range) }
            }
            Counting::Exact => Counting::Exact,
        };
        for (range, is_told) in
            [(0..100, true), (0..101, false), (200..201, false), (201..202, true)]
        {
            assert_eq!(on_outage(&tally, &with(range.clone())).is_some(), is_told, "{range:?}");
        }
        assert_eq!(on_outage(&tally, &leased(2)), None);
    }
}
