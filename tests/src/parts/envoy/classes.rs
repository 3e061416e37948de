//! The priority classes as Envoy's matchers are told of them: which pass and which are refused
//! while ratelimit-svc is away. Reads no files.

use anyhow::{Result, bail};
use ext_authz::names::name_problem;
use ratelimit_svc::limits::class::{Classes, OutagePolicy};

/// What stands for no class at all: a name that no class can have, where an empty expression would
/// be refused by Envoy.
const NONE: &str = "-";

/// Two regular expressions over names of classes; all other classes are `local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutageClasses {
    /// Matches the classes with `outage: bypass`.
    pub bypass: String,
    /// Matches the classes with `outage: deny`.
    pub deny: String,
}

impl OutageClasses {
    /// The expressions for a ladder of classes.
    ///
    /// # Errors
    /// For a class that no key can have: a name with other characters could match more than itself.
    pub fn try_new(classes: &Classes) -> Result<Self> {
        for class in classes.ladder() {
            if let Some(problem) = name_problem("priority class", &class.name) {
                bail!("{problem}: keys and Envoy know no others");
            }
        }
        let with = |policy: OutagePolicy| {
            let wanted = classes.ladder().iter().filter(|class| class.outage == policy);
            let names: Vec<&str> = wanted.map(|class| &*class.name).collect();
            if names.is_empty() { NONE.to_owned() } else { names.join("|") }
        };
        Ok(Self { bypass: with(OutagePolicy::Bypass), deny: with(OutagePolicy::Deny) })
    }
}

#[cfg(test)]
mod tests {
    use ratelimit_svc::limits::class::Class;

    use super::*;

    fn expressions(classes: &[(&str, OutagePolicy)]) -> Result<(String, String)> {
        let ladder = classes.iter().enumerate().map(|(at, &(name, outage))| {
            (Class { name: name.to_owned(), rank: at as u32, outage }, at == 0)
        });
        let classes = OutageClasses::try_new(&Classes::try_new(ladder.collect())?)?;
        Ok((classes.bypass, classes.deny))
    }

    #[test]
    fn each_policy_names_its_classes_highest_first() {
        use OutagePolicy::{Bypass, Deny, Local};
        let shipped =
            OutageClasses::try_new(&Classes::default()).expect("names that keys can have");
        assert_eq!(shipped.bypass, "system-node-critical");
        assert_eq!(shipped.deny, "background");
        for (classes, bypass, deny) in [
            (&[("only", Local)][..], "-", "-"),
            (&[("a", Bypass), ("b_2", Bypass), ("c", Deny), ("d-d", Deny)], "b_2|a", "d-d|c"),
        ] {
            let expected = (bypass.to_owned(), deny.to_owned());
            assert_eq!(expressions(classes).expect("classes"), expected, "{classes:?}");
        }
    }

    #[test]
    fn a_name_that_would_match_more_than_itself_is_refused() {
        for name in [
            ".*",
            "a|b",
            "gold|ingest",
            "go.d",
            "(gold)",
            "gold\"",
            "a\\d",
            "$",
            "-",
            "Gold",
            "${X}",
        ] {
            for outage in [OutagePolicy::Bypass, OutagePolicy::Deny, OutagePolicy::Local] {
                let error = expressions(&[(name, outage)]).expect_err(name).to_string();
                assert!(error.starts_with(&format!("priority class {name:?} must be ")), "{error}");
            }
        }
    }
}
