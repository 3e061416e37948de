//! The `trial` of a `rate_limit`: a limit with any of the keys of one. What it does not say is as the
//! rule has it.

use chassis::config::ConfigError;

use crate::document::{Node as Yaml, Value};
use crate::limits::file::Reader;
use crate::limits::file::rate_limit::given;
use crate::limits::rule::trial::Trial;
use crate::limits::rule::{Allowance, Step};
use crate::limits::stats::TrialCounts;

/// What a trial may say.
const TRIAL_KEYS: [&str; 11] = [
    "unit",
    "unit_multiplier",
    "window",
    "requests_per_unit",
    "algorithm",
    "burst",
    "reserve",
    "floor",
    "reserve_min",
    "admit_up_to",
    "mode",
];

/// Keys that stand for one thing together: who says one of them says all. Another algorithm has another
/// burst, and may be one that is not leased.
const TOGETHER: [(&[&str], &[&str]); 3] = [
    (&["unit", "unit_multiplier", "window"], &["unit", "unit_multiplier", "window"]),
    (
        &["reserve", "floor", "reserve_min", "admit_up_to"],
        &["reserve", "floor", "reserve_min", "admit_up_to"],
    ),
    (&["algorithm"], &["burst", "mode"]),
];

/// What is wrong with a trial that changes nothing.
pub(super) const TRIAL_IN_FORCE: &str = "trial is the limit that is in force";

impl Reader<'_> {
    /// The trial of a limit, if it has one.
    pub(super) fn trial(&self, limit: &Yaml, steps: &[Step]) -> Result<Option<Trial>, ConfigError> {
        let Some(node) = given(limit, "trial") else { return Ok(None) };
        let Value::Map(said) = &node.value else {
            return Err(self.error(node, "error loading config file: trial must be a map"));
        };
        for (key, _) in said {
            let name = key.value.as_text().unwrap_or_default();
            if !TRIAL_KEYS.contains(&name) {
                return Err(self.error(key, format!("{name} cannot be used in a trial")));
            }
        }
        if given(node, "requests_per_unit").is_none() && given(limit, "unlimited").is_some() {
            let message = "the trial of an unlimited rule needs unit and requests_per_unit";
            return Err(self.error(node, message));
        }
        let merged = merged(limit, node);
        let Allowance::Limited(tried) = self.allowance(&merged, steps)? else { return Ok(None) };
        let sharing = self.sharing(&merged)?;
        let is_same = self.allowance(limit, steps)? == Allowance::Limited(tried)
            && self.sharing(limit)? == sharing;
        if is_same {
            return Err(self.error(node, TRIAL_IN_FORCE));
        }
        Ok(Some(Trial { limit: tried, sharing, counts: TrialCounts::default() }))
    }
}

/// The limit of the rule with what the trial says in the place of what it has; faults that stand
/// nowhere else stand where the trial does.
fn merged(limit: &Yaml, trial: &Yaml) -> Yaml {
    let says = |key: &str| trial.value.get(key).is_some();
    let is_kept = |key: &str| {
        let is_replaced = TOGETHER
            .iter()
            .any(|(said, dropped)| dropped.contains(&key) && said.iter().any(|said| says(said)));
        !is_replaced && !says(key) && !["trial", "unlimited", "name", "replaces"].contains(&key)
    };
    let mut pairs = Vec::new();
    if let Value::Map(of_rule) = &limit.value {
        let kept = |(key, _): &&(Yaml, Yaml)| key.value.as_text().is_some_and(is_kept);
        pairs.extend(of_rule.iter().filter(kept).cloned());
    }
    if let Value::Map(of_trial) = &trial.value {
        pairs.extend(of_trial.iter().cloned());
    }
    Yaml { value: Value::Map(pairs), ..trial.clone() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::limits::file::parse;

    fn read(limit: &str) -> Result<String, String> {
        let text = format!("domain: d\ndescriptors:\n  - key: k\n    rate_limit: {{{limit}}}\n");
        let file =
            parse(Path::new("a.yaml"), text.as_bytes()).map_err(|error| error.to_string())?;
        let rule = file.tops[0].node.rule.as_ref().expect("a rule");
        Ok(rule.trial.as_ref().map_or_else(|| "none".to_owned(), |trial| trial.words()))
    }

    #[test]
    fn what_a_trial_does_not_say_is_as_the_rule_has_it() {
        let base = "unit: minute, requests_per_unit: 600";
        let check = |limit: &str, expected: &str| {
            assert_eq!(read(limit).as_deref(), Ok(expected), "{limit}");
        };
        check(base, "none");
        check(&format!("{base}, trial: {{requests_per_unit: 500}}"), "500 per minute");
        check(&format!("{base}, trial: {{unit: hour}}"), "600 per hour");
        check(&format!("{base}, unit_multiplier: 5, trial: {{window: 30s}}"), "600 per 30s");
        check(
            &format!("{base}, trial: {{algorithm: token_bucket, burst: 9}}"),
            "600 per minute, token bucket with burst 9",
        );
        check(
            &format!("{base}, reserve: none, trial: {{admit_up_to: {{ingest: 0.5}}}}"),
            "600 per minute, admit_up_to={ingest: 0.5}",
        );
        check(
            &format!("{base}, reserve: none, name: n, trial: {{requests_per_unit: 5}}"),
            "5 per minute, reserve=none",
        );
        check("unlimited: true, trial: {unit: second, requests_per_unit: 5}", "5 per second");
        check(
            &format!("{base}, overdraft: true, trial: {{requests_per_unit: 5}}"),
            "5 per minute, mode exact",
        );
    }

    #[test]
    fn a_trial_that_cannot_be_counted_is_refused_where_it_stands() {
        let base = "unit: minute, requests_per_unit: 600";
        let check = |limit: &str, expected: &str| {
            let problem = read(limit).expect_err(limit);
            assert!(problem.contains(expected) && problem.starts_with("a.yaml:4:"), "{problem}");
        };
        check(&format!("{base}, trial: 5"), "trial must be a map");
        check(&format!("{base}, trial: {{name: n}}"), "name cannot be used in a trial");
        check(
            &format!("{base}, trial: {{unlimited: true}}"),
            "unlimited cannot be used in a trial",
        );
        check(&format!("{base}, trial: {{}}"), "trial is the limit that is in force");
        check(&format!("{base}, trial: {{requests_per_unit: 600}}"), "trial is the limit");
        check(&format!("{base}, trial: {{unit: eon}}"), "invalid rate limit unit 'eon'");
        check(&format!("{base}, trial: {{requests_per_unit: -1}}"), "must be from 0");
        check(&format!("{base}, trial: {{burst: 5}}"), "burst can only be used");
        check("unlimited: true, trial: {unit: hour}", "needs unit and requests_per_unit");
        check(&format!("{base}, trial: {{rate: 5}}"), "unknown key 'rate'");
    }
}
