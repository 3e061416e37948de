//! Dynamic metadata of the answer: what Envoy can log and later filters can read.
//!
//! ```text
//! {domain, class, reason, degraded?, hitsAddend?, metadata?,
//!  trial?,
//!  descriptors: [{entries: ["k=v"], rule?, reason?, limit?, hitsAddend?, trial?}]}
//! ```

use serde_json::{Map, Value as Json, json};

use crate::decide::decision::{Decision, TrialStatus};
use crate::decide::plan::{Line, Plan};
use crate::decide::request::Request;
use crate::limits::algorithm::Algorithm;
use crate::limits::rule::Limit;
use crate::limits::stats::Reason;

/// The metadata of a decision; only the mark of an outage unless `full`.
pub fn metadata(request: &Request<'_>, plan: &Plan<'_>, decision: &Decision, full: bool) -> Json {
    let mut root = Map::new();
    if let Some(policy) = decision.degraded {
        root.insert("degraded".to_owned(), true.into());
        root.insert("outage".to_owned(), policy.name().into());
    }
    root.insert("class".to_owned(), plan.class.name.as_str().into());
    root.insert("reason".to_owned(), reason(decision).into());
    if !full {
        return Json::Object(root);
    }
    root.insert("domain".to_owned(), request.domain.into());
    if request.hits_addend > 0 {
        root.insert("hitsAddend".to_owned(), request.hits_addend.into());
    }
    let descriptors = (0..plan.lines.len()).map(|at| descriptor(request, plan, decision, at));
    root.insert("descriptors".to_owned(), descriptors.collect());
    let mut merged = Json::Null;
    for (line, status) in plan.lines.iter().zip(&decision.statuses) {
        let rule = match line {
            Line::NoLimit | Line::Replaced(_) => None,
            met => met.rule(),
        };
        if let Some(given) = rule.and_then(|rule| rule.metadata.as_ref())
            && !status.over_limit
        {
            merge(&mut merged, given);
        }
    }
    if !merged.is_null() {
        root.insert("metadata".to_owned(), merged);
    }
    Json::Object(root)
}

/// One word for the request as a whole.
fn reason(decision: &Decision) -> &'static str {
    let refuses = |reason: Reason| {
        let mut over = decision.outcomes.iter().filter(|outcome| outcome.over_limit);
        over.any(|outcome| outcome.reason == reason)
    };
    match (decision.degraded.is_some(), decision.over_limit) {
        (true, _) => "degraded",
        // One limit that is full is reason enough, whatever the others keep.
        (false, true) if refuses(Reason::Reserved) && !refuses(Reason::OverLimit) => "reserved",
        (false, true) => "over_limit",
        (false, false) => "within_limit",
    }
}

fn descriptor(request: &Request<'_>, plan: &Plan<'_>, decision: &Decision, at: usize) -> Json {
    let asked = &request.descriptors[at];
    let entries: Vec<String> =
        asked.entries.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut object = Map::new();
    object.insert("entries".to_owned(), entries.into());
    if let Some(hits) = asked.hits_addend {
        object.insert("hitsAddend".to_owned(), hits.into());
    }
    if let Some((limit, name)) = &decision.statuses[at].current_limit {
        let mut given = described(limit);
        if !name.is_empty() {
            given["name"] = name.as_str().into();
        }
        object.insert("limit".to_owned(), given);
    }
    if let Some(rule) = plan.lines[at].rule() {
        object.insert("rule".to_owned(), (*rule.id).into());
    }
    if let Some(outcome) = decision.outcomes.iter().find(|outcome| outcome.descriptor == at) {
        object.insert("reason".to_owned(), outcome.reason.name().into());
    }
    Json::Object(object)
}

/// Adds what limits that are tried would have made of the request, to full metadata.
pub fn add_trials(metadata: &mut Json, trials: &[TrialStatus]) {
    if trials.is_empty() || metadata["descriptors"].is_null() {
        return;
    }
    let word = |over_limit| if over_limit { "over_limit" } else { "within_limit" };
    metadata["trial"] = word(trials.iter().any(|trial| trial.over_limit)).into();
    for trial in trials {
        let mut given = described(&trial.limit);
        given["reason"] = word(trial.over_limit).into();
        given["remaining"] = trial.limit_remaining.into();
        metadata["descriptors"][trial.descriptor]["trial"] = given;
    }
}

fn described(limit: &Limit) -> Json {
    let mut given = json!({"requestsPerUnit": limit.requests_per_unit});
    match limit.period.unit() {
        Some(unit) => given["unit"] = unit.name().into(),
        None => given["window"] = limit.period.to_string().into(),
    }
    if limit.algorithm != Algorithm::default() {
        given["algorithm"] = limit.algorithm.name().into();
    }
    if let Some(burst) = limit.algorithm.burst() {
        given["burst"] = burst.into();
    }
    given
}

/// Adds what is not there yet, maps in depth.
fn merge(into: &mut Json, other: &Json) {
    match (into, other) {
        (into @ Json::Null, other) => *into = other.clone(),
        (Json::Object(into), Json::Object(other)) => {
            for (key, value) in other {
                merge(into.entry(key.clone()).or_insert(Json::Null), value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_wins() {
        let mut merged = Json::Null;
        for given in [json!({"a": 1, "m": {"x": 1}}), json!({"a": 2, "m": {"x": 2, "y": 3}})] {
            merge(&mut merged, &given);
        }
        assert_eq!(merged, json!({"a": 1, "m": {"x": 1, "y": 3}}));
    }
}
