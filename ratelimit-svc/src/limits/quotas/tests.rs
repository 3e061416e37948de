//! Tests of `limits::quotas`.

use proptest::prelude::*;

use super::*;

fn contents(files: &[(&str, &str)]) -> Contents {
    files.iter().map(|(path, text)| (PathBuf::from(path), Ok(text.as_bytes().to_vec()))).collect()
}

fn limited(domain: &str, key: &str, rpu: u32) -> String {
    format!(
        "domain: {domain}\ndescriptors:\n- key: {key}\n  rate_limit: {{unit: day, requests_per_unit: {rpu}}}\n"
    )
}

fn errors(update: &Update) -> Vec<String> {
    update.errors.iter().map(ToString::to_string).collect()
}

fn rule_id(quotas: &Quotas, domain: &str, entries: &[(&str, &str)]) -> Option<String> {
    quotas.domain(domain)?.root.find(entries).map(|rule| rule.id.to_string())
}

#[test]
fn one_bad_file_does_not_take_the_others_down() {
    let (a, b) = (limited("a", "x", 1), limited("b", "x", 1));
    let first = Library::new(false).update(&contents(&[("a", &a), ("b", "domain: [")]));
    assert_eq!(first.errors.len(), 1);
    assert!(first.quotas.domain("a").is_some() && first.quotas.domain("b").is_none());

    let second = first.library.update(&contents(&[("a", &a), ("b", &b)]));
    assert!(second.errors.is_empty() && second.quotas.domain("b").is_some());

    let third =
        second.library.update(&contents(&[("a", "domain: ''"), ("b", &limited("b", "y", 2))]));
    assert_eq!(errors(&third), ["a:1:9: config file cannot have empty domain"]);
    assert!(rule_id(&third.quotas, "a", &[("x", "")]).is_some(), "last good");
    assert!(rule_id(&third.quotas, "b", &[("y", "")]).is_some(), "new");

    let gone = third.library.update(&contents(&[("b", &b)]));
    assert!(gone.errors.is_empty() && gone.quotas.domain("a").is_none());
}

#[test]
fn a_domain_belongs_to_the_file_that_had_it() {
    let text = limited("d", "x", 1);
    let first = Library::new(false).update(&contents(&[("b", &text)]));
    let second = first.library.update(&contents(&[("a", &text), ("b", &text)]));
    assert_eq!(errors(&second), ["a: duplicate domain 'd' in config file"]);
    let third = second.library.update(&contents(&[("a", &text)]));
    assert!(third.errors.is_empty());
}

#[test]
fn merged_domains_may_not_repeat_a_key() {
    let library = Library::new(true);
    let update = library.update(&contents(&[
        ("a", &limited("d", "x", 1)),
        ("b", &limited("d", "y", 1)),
        ("c", &limited("d", "x", 2)),
    ]));
    assert_eq!(errors(&update), ["c:3:3: duplicate descriptor composite key 'd.x'"]);
    assert_eq!(update.quotas.domains()[0].root.rules().len(), 2);
}

#[test]
fn one_set_of_classes_for_the_service() {
    let classes = "priority_classes: {one: {rank: 1, default: true}}\n";
    let other = "priority_classes: {two: {rank: 1, default: true}}\n";
    let update = Library::new(false).update(&contents(&[
        ("a", &format!("{classes}domain: a")),
        ("b", &format!("{classes}domain: b")),
        ("c", &format!("{other}domain: c")),
        ("d", "domain: d"),
    ]));
    assert_eq!(errors(&update), ["c: priority_classes differ from those in a"]);
    assert_eq!(update.quotas.classes().default_class().name, "one");
    assert_eq!(Library::new(false).update(&Contents::new()).quotas.classes(), &Classes::default());
}

fn with_floor(domain: &str, class: &str) -> String {
    format!(
        "domain: {domain}\ndescriptors:\n- key: k\n  rate_limit: {{unit: day, floor: {{{class}: 0.1}}}}\n"
    )
}

#[test]
fn rules_speak_of_classes_that_another_file_defines() {
    let gold = "priority_classes: {gold: {rank: 1, default: true}}\ndomain: z\n";
    let tin = "priority_classes: {tin: {rank: 1, default: true}}\ndomain: z\n";
    let first = Library::new(false).update(&contents(&[
        ("a", &with_floor("a", "gold")),
        ("b", &with_floor("b", "ingest")),
        ("z", gold),
    ]));
    assert_eq!(errors(&first), ["b:4:35: priority class 'ingest' is not configured"]);
    assert!(first.quotas.domain("a").is_some() && first.quotas.domain("b").is_none());
    assert!(first.quotas.domain("z").is_some());

    // When the classes change below a rule, the rule stays and the mistake is told.
    let files = [("a", with_floor("a", "gold")), ("z", tin.to_owned())];
    let second = first.library.update(&contents(&files.each_ref().map(|(p, t)| (*p, t.as_str()))));
    assert_eq!(errors(&second), ["a:4:35: priority class 'gold' is not configured"]);
    assert_eq!(second.quotas.classes().default_class().name, "tin");
    assert!(rule_id(&second.quotas, "a", &[("k", "")]).is_some(), "last good");

    // A file that contradicts its own classes changes nothing.
    let own = format!(
        "{}priority_classes: {{tin: {{rank: 1, default: true}}}}\n",
        with_floor("a", "gold")
    );
    let third = Library::new(false).update(&contents(&[("a", &own)]));
    assert_eq!(errors(&third), ["a:4:35: priority class 'gold' is not configured"]);
    assert_eq!(third.quotas.classes(), &Classes::default());
}

#[test]
fn which_rule_matches() {
    let text = "
domain: d
descriptors:
  - {key: k, value: lit*, rate_limit: {unit: day}}
  - {key: k, value: '*eral', rate_limit: {unit: day}}
  - {key: k, value: literal, rate_limit: {unit: day}}
  - key: k
    rate_limit: {unit: day}
    descriptors:
    - {key: sub, rate_limit: {unit: day}}
    - {key: sub, value: v, descriptors: [{key: deep, rate_limit: {unit: day}}]}
  - {key: k_a, value: b, rate_limit: {unit: day}}
  - {key: k, value: a_b, rate_limit: {unit: day}}
  - {key: any*, rate_limit: {unit: day}}
  - {key: any*, value: v*, rate_limit: {unit: day}}
";
    let update = Library::new(false).update(&contents(&[("f", text)]));
    assert_eq!(errors(&update), Vec::<String>::new());
    let check = |entries: &[(&str, &str)], expected: Option<&str>| {
        assert_eq!(rule_id(&update.quotas, "d", entries).as_deref(), expected, "{entries:?}");
    };
    check(&[("k", "literal")], Some("k_literal"));
    check(&[("k", "litany")], Some("k_lit*"));
    check(&[("k", "lit-eral")], Some("k_lit*"));
    check(&[("k", "general")], Some("k_*eral"));
    check(&[("k", "other")], Some("k"));
    check(&[("k", "")], Some("k"));
    check(&[("k", "other"), ("sub", "x")], Some("k.sub"));
    check(&[("k", "other"), ("sub", "v")], None);
    check(&[("k", "other"), ("sub", "v"), ("deep", "")], Some("k.sub_v.deep"));
    check(&[("k", "literal"), ("sub", "x")], None);
    check(&[("k_a", "b")], Some("k_a_b"));
    check(&[("k", "a_b")], Some("k_a_b"));
    check(&[("k_a", "c")], None);
    check(&[("anything", "v1")], Some("any*"));
    check(&[("none", "")], None);
    check(&[], None);
    assert!(!update.quotas.domains()[0].names_priority);
}

#[test]
fn a_domain_that_names_priority_is_known() {
    let nested = "domain: d\ndescriptors: [{key: a, descriptors: [{key: priority, value: x}]}]";
    let update = Library::new(false).update(&contents(&[("f", nested)]));
    assert!(update.quotas.domains()[0].names_priority);
}

/// The reference's own way: strings joined with `_` and looked up in a list.
fn naive_step(rules: &[(String, String)], key: &str, value: &str) -> Option<usize> {
    let is = |rule: &(String, String), value: &str| rule.0 == key && rule.1 == value;
    let literal = rules.iter().position(|rule| !value.is_empty() && is(rule, value));
    let wild = || {
        rules.iter().position(|(k, v)| {
            v.contains('*') && k == key && {
                let parts: Vec<&str> = v.split('*').collect();
                let (prefix, suffix) = (parts[0], parts[parts.len() - 1]);
                value.len() >= prefix.len() + suffix.len()
                    && value.starts_with(prefix)
                    && value.ends_with(suffix)
            }
        })
    };
    literal.or_else(wild).or_else(|| rules.iter().position(|rule| is(rule, "")))
}

proptest! {
    #[test]
    fn matching_agrees_with_a_scan(
        rules in proptest::collection::vec(("[ab]", "[xy]{0,2}\\*?"), 0..12),
        key in "[ab]",
        value in "[xy]{0,3}",
    ) {
        let mut unique: Vec<(String, String)> = Vec::new();
        for rule in rules {
            if !unique.contains(&rule) {
                unique.push(rule);
            }
        }
        let mut text = "domain: d\ndescriptors:\n".to_owned();
        for (n, (key, value)) in unique.iter().enumerate() {
            text += &format!(
                "- {{key: {key}, value: '{value}', rate_limit: {{unit: day, requests_per_unit: {n}}}}}\n"
            );
        }
        let update = Library::new(false).update(&contents(&[("f", &text)]));
        prop_assert!(update.errors.is_empty());
        let entries = [(key.as_str(), value.as_str())];
        let found = update.quotas.domain("d").and_then(|domain| domain.root.find(&entries));
        let origin = found.map(|rule| rule.allowance);
        let expected = naive_step(&unique, &key, &value).map(|n| {
            use crate::limits::rule::{Allowance, Limit};
            let unit = crate::limits::unit::Unit::Day;
            Allowance::Limited(Limit::fixed(n as u32, unit))
        });
        prop_assert_eq!(origin, expected);
    }
}
