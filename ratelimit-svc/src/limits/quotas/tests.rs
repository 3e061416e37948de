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

fn with_classes(domain: &str, class: &str) -> String {
    format!(
        "priority_classes: {{{class}: {{rank: 1, default: true}}}}\n{}",
        limited(domain, "x", 1)
    )
}

/// Files one after the other, each given as path and text; what is in force and told in the end.
fn in_turn(merge_domains: bool, states: &[&[(&str, &str)]]) -> Update {
    let mut update = Library::new(merge_domains).update(&contents(states[0]));
    assert_eq!(errors(&update), Vec::<String>::new());
    for state in &states[1..] {
        update = update.library.update(&contents(state));
    }
    update
}

fn default_class(update: &Update) -> &str {
    &update.quotas.classes().default_class().name
}

#[test]
fn classes_change_in_all_files_or_not_at_all() {
    let (a1, b1) = (with_classes("a", "one"), with_classes("b", "one"));
    let (a2, b2) = (with_classes("a", "two"), with_classes("b", "two"));
    let before: &[_] = &[("a", &*a1), ("b", &*b1)];
    let after: &[_] = &[("a", &*a2), ("b", &*b2)];

    let at_once = in_turn(false, &[before, after]);
    assert_eq!(errors(&at_once), Vec::<String>::new());
    assert_eq!(default_class(&at_once), "two");

    // One after the other, in either order: the first edit waits for the second.
    for (half, told) in [
        ([("a", &*a2), ("b", &*b1)], "a: priority_classes differ from those in b"),
        ([("a", &*a1), ("b", &*b2)], "b: priority_classes differ from those in a"),
    ] {
        let first = in_turn(false, &[before, &half]);
        assert_eq!(errors(&first), [told]);
        assert_eq!(default_class(&first), "one");
        for domain in ["a", "b"] {
            assert!(rule_id(&first.quotas, domain, &[("x", "")]).is_some(), "{domain} {told}");
        }
        let second = first.library.update(&contents(after));
        assert_eq!(errors(&second), Vec::<String>::new());
        assert_eq!(default_class(&second), "two");
        assert_eq!(second.quotas.domains().len(), 2);
    }

    // Two edits that contradict each other.
    let c2 = with_classes("b", "three");
    let both = in_turn(false, &[before, &[("a", &a2), ("b", &c2)]]);
    assert_eq!(both.errors.len(), 2, "{:?}", both.errors);
    assert_eq!((default_class(&both), both.quotas.domains().len()), ("one", 2));
}

#[test]
fn an_edit_takes_no_domain_from_another_file() {
    let (a, b) = (limited("a", "x", 1), limited("b", "x", 1));
    let taken = in_turn(false, &[&[("a", &a), ("b", &b)], &[("a", &b), ("b", &b)]]);
    assert_eq!(errors(&taken), ["a: duplicate domain 'b' in config file"]);
    assert_eq!(taken.quotas.domains().len(), 2);
    assert_eq!(taken.library.files.len(), 2);

    // Domains may change places, and what else was edited well is in force.
    let swapped = in_turn(false, &[&[("a", &a), ("b", &b)], &[("a", &b), ("b", &a)]]);
    assert_eq!((swapped.errors.len(), swapped.quotas.domains().len()), (0, 2));
    let (c, more) = (limited("c", "x", 1), limited("c", "y", 1));
    let before: &[_] = &[("a", &*a), ("b", &*b), ("c", &*c)];
    let mixed = in_turn(false, &[before, &[("a", &b), ("b", &b), ("c", &more)]]);
    assert_eq!(errors(&mixed), ["a: duplicate domain 'b' in config file"]);
    assert!(rule_id(&mixed.quotas, "a", &[("x", "")]).is_some());
    assert!(rule_id(&mixed.quotas, "c", &[("y", "")]).is_some());

    // A change that is refused may not push out who counts on it either.
    let chain = in_turn(false, &[before, &[("a", &c), ("b", &a), ("c", &c)]]);
    let expected =
        ["a: duplicate domain 'c' in config file", "b: duplicate domain 'a' in config file"];
    assert_eq!(errors(&chain), expected);
    assert_eq!(chain.quotas.domains().len(), 3);

    // A new file has what is left.
    let new = in_turn(false, &[before, &[("a", &c), ("b", &b), ("c", &c), ("d", &a)]]);
    let expected =
        ["a: duplicate domain 'c' in config file", "d: duplicate domain 'a' in config file"];
    assert_eq!(errors(&new), expected);
    let d = limited("d", "x", 1);
    let moved = in_turn(false, &[before, &[("a", &d), ("b", &b), ("c", &c), ("d", &a)]]);
    assert_eq!((moved.errors.len(), moved.quotas.domains().len()), (0, 4));
}

#[test]
fn an_edit_takes_no_key_of_a_merged_domain_from_another_file() {
    let (a, b) = (limited("d", "x", 1), limited("d", "y", 1));
    let both = format!("{a}- {{key: y, rate_limit: {{unit: day, requests_per_unit: 7}}}}\n");
    let keys = in_turn(true, &[&[("a", &a), ("b", &b)], &[("a", &both), ("b", &b)]]);
    assert_eq!(errors(&keys), ["a:5:3: duplicate descriptor composite key 'd.y'"]);
    for key in ["x", "y"] {
        let found = keys.quotas.domain("d").and_then(|d| d.root.find(&[(key, "")]));
        assert_eq!(found.map(|rule| &*rule.origin), Some(if key == "x" { "a:3" } else { "b:3" }));
    }
    let other = format!("wildcards: most_specific\n{a}");
    let order = in_turn(true, &[&[("a", &a), ("b", &b)], &[("a", &other), ("b", &b)]]);
    assert_eq!(errors(&order), ["a: wildcards differ in the files of domain 'd'"]);
    assert_eq!(order.quotas.domains()[0].root.rules().len(), 2);
}

#[test]
fn a_rule_that_misfits_takes_its_classes_back() {
    let gold = "priority_classes: {gold: {rank: 1, default: true}}\n";
    let tin = "priority_classes: {tin: {rank: 1, default: true}}\n";
    let a1 = format!("{gold}{}", with_floor("a", "gold"));
    // The classes move to another file, and the rule speaks of one that is gone.
    let (a2, b1) = (with_floor("a", "gold"), limited("b", "x", 1));
    let b2 = format!("{tin}{b1}");
    let update = in_turn(false, &[&[("a", &a1), ("b", &b1)], &[("a", &a2), ("b", &b2)]]);
    let expected = [
        "a:4:35: priority class 'gold' is not configured",
        "b: priority_classes differ from those in a",
    ];
    assert_eq!(errors(&update), expected);
    assert_eq!((default_class(&update), update.quotas.domains().len()), ("gold", 2));
}

proptest! {
    #[test]
    fn no_edit_puts_a_known_file_out_of_force(
        merge_domains: bool,
        states in proptest::collection::vec(
            proptest::collection::vec(("[pq]", "[xyz]", 0..4_usize), 4),
            1..5,
        ),
    ) {
        let text = |(domain, key, kind): &(String, String, usize)| {
            let rule = limited(domain, key, 1);
            match kind {
                0 => rule,
                1 => with_classes(domain, key),
                2 => with_floor(domain, key),
                _ => format!("wildcards: most_specific\n{rule}"),
            }
        };
        let mut library = Library::new(merge_domains);
        for state in &states {
            let texts: Vec<String> = state.iter().map(text).collect();
            let paths = ["a", "b", "c", "d"];
            let files: Vec<_> = paths.iter().zip(&texts).map(|(p, t)| (*p, t.as_str())).collect();
            let update = library.update(&contents(&files));
            for (path, good) in &library.files {
                let now = update.library.files.get(path);
                prop_assert!(now.is_some(), "{path:?} {:?}", update.errors);
                // In force as it is now, or told why not.
                let now = now.expect("checked");
                let at = paths.iter().position(|known| path.ends_with(known)).expect("known");
                let told = update.errors.iter().any(|error| error.path == *path);
                prop_assert!(told || now.hash == file::hash(texts[at].as_bytes()));
                prop_assert!(now.hash == file::hash(texts[at].as_bytes()) || now.hash == good.hash);
                prop_assert!(update.quotas.domain(&now.domain).is_some());
            }
            // What is told is told once for a file, and nothing is told where all is in force.
            let mut told: Vec<_> = update.errors.iter().map(|error| &error.path).collect();
            told.dedup();
            prop_assert_eq!(told.len(), update.errors.len());
            if update.errors.is_empty() {
                prop_assert_eq!(update.library.files.len(), paths.len());
            }
            // The same files again take nothing back.
            let again = update.library.update(&contents(&files));
            prop_assert!(again.errors.len() <= update.errors.len());
            prop_assert!(again.library.files.len() >= update.library.files.len());
            library = again.library;
        }
    }
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
    assert!(!update.quotas.domains()[0].names_reported);
    let pattern = "domain: d\ndescriptors: [{key: 'rep*'}]";
    let update = Library::new(false).update(&contents(&[("f", pattern)]));
    assert!(update.quotas.domains()[0].names_reported);
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

#[test]
fn files_of_a_domain_agree_on_wildcards() {
    let other = format!("wildcards: most_specific\n{}", limited("d", "y", 1));
    let files = contents(&[("a", &limited("d", "x", 1)), ("b", &other)]);
    let update = Library::new(true).update(&files);
    assert_eq!(errors(&update), ["b: wildcards differ in the files of domain 'd'"]);
}
