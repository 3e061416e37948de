//! Tests of `tree`: which of several patterns counts, against a list that is searched through.

use proptest::prelude::*;

use super::*;

/// The place of a found node is its line.
fn node(line: usize) -> Arc<Node> {
    Arc::new(Node { at: Some((line as u64, 1)), ..Node::default() })
}

fn level(precedence: Precedence, entries: &[(&str, &str)]) -> Level {
    let mut level = Level::new(precedence);
    for (line, (key, value)) in entries.iter().enumerate() {
        level.insert(key, value, node(line)).expect("no duplicate");
    }
    level
}

fn found(level: &Level, key: &str, value: &str) -> Option<usize> {
    level.step(key, value).and_then(|node| node.at).map(|(line, _)| line as usize)
}

#[test]
fn the_order_of_the_file_or_the_most_specific() {
    let entries = [
        ("path", "*"),
        ("path", "/api/*"),
        ("path", "/api/*/write"),
        ("path", "*/write"),
        ("path", "/api/v1/read"),
        ("path", ""),
        ("pa*", "/api/v2/*"),
    ];
    let check = |precedence, value: &str, expected| {
        let level = level(precedence, &entries);
        assert_eq!(found(&level, "path", value), Some(expected), "{value}");
    };
    for (value, by_file, by_specificity) in [
        ("/api/v1/read", 4, 4),
        ("/api/v1/write", 0, 2),
        ("/api/v1", 0, 1),
        ("/other/write", 0, 3),
        ("/api/v2/read", 0, 6),
        ("", 0, 0),
    ] {
        check(Precedence::FileOrder, value, by_file);
        check(Precedence::MostSpecific, value, by_specificity);
    }
    let reversed: Vec<_> = entries.into_iter().rev().collect();
    let level = level(Precedence::MostSpecific, &reversed);
    assert_eq!(found(&level, "path", "/api/v1/write"), Some(4));
}

#[test]
fn equal_patterns_are_met_by_their_stars_and_then_in_the_order_of_the_file() {
    let level = level(Precedence::MostSpecific, &[("k", "a*b*"), ("k", "ab*"), ("k", "*ab")]);
    assert_eq!(found(&level, "k", "ab"), Some(1));
    assert_eq!(found(&level, "k", "axb"), Some(0));
    assert_eq!(found(&level, "k", "xab"), Some(2));
    let stars = |text| Precedence::MostSpecific.rank(["", text], 0);
    assert_eq!(stars("a***b*"), stars("a*b**"));
}

#[test]
fn duplicates_are_found() {
    let mut level = level(Precedence::MostSpecific, &[("k", "a*"), ("k", "a"), ("k*", "b")]);
    for (key, value) in [("k", "a*"), ("k", "a"), ("k*", "b")] {
        assert_eq!(level.insert(key, value, node(9)), Err(Duplicate), "{key} {value}");
    }
    assert_eq!(level.entries().count(), 3);
}

/// As written, searched from the first to the last.
fn naive(
    precedence: Precedence,
    entries: &[(String, String)],
    key: &str,
    value: &str,
) -> Option<usize> {
    let matches = |pattern: &str, text: &str| match Pattern::parse(pattern) {
        Some(pattern) => pattern.matches(text),
        None => pattern == text,
    };
    let is_pattern = |(k, v): &(String, String)| k.contains('*') || v.contains('*');
    let at = |wanted: &dyn Fn(&(String, String)) -> bool| entries.iter().position(wanted);
    let literal = at(&|entry| !is_pattern(entry) && entry.0 == key && entry.1 == value);
    // An entry without a value is about the key alone.
    let literal = literal.filter(|_| !value.is_empty());
    let matching = entries.iter().enumerate().filter(|(_, entry)| {
        let any_value = entry.0.contains('*') && entry.1.is_empty();
        is_pattern(entry) && matches(&entry.0, key) && (any_value || matches(&entry.1, value))
    });
    let literals =
        |(k, v): &(String, String)| (k.chars().chain(v.chars())).filter(|c| *c != '*').count();
    let stars = |(k, v): &(String, String)| {
        let runs = |text: &str| text.split(|c| c != '*').filter(|run| !run.is_empty()).count();
        runs(k) + runs(v)
    };
    let pattern = matching.min_by_key(|(at, entry)| match precedence {
        Precedence::FileOrder => (0, 0, *at),
        Precedence::MostSpecific => (usize::MAX - literals(entry), stars(entry), *at),
    });
    let alone = at(&|entry| entry.0 == key && entry.1.is_empty() && !is_pattern(entry));
    literal.or(pattern.map(|(at, _)| at)).or(alone)
}

fn entry() -> impl Strategy<Value = (String, String)> {
    ("[ab*]{1,3}", "[abü*]{0,4}")
}

proptest! {
    #[test]
    fn agrees_with_a_search(
        entries in proptest::collection::vec(entry(), 0..12),
        most_specific: bool,
        key in "[ab]{1,3}",
        value in "[abü]{0,5}",
    ) {
        let precedence =
            if most_specific { Precedence::MostSpecific } else { Precedence::FileOrder };
        let (mut level, mut kept) = (Level::new(precedence), Vec::new());
        for (key, value) in entries {
            let duplicate = kept.contains(&(key.clone(), value.clone()));
            let inserted = level.insert(&key, &value, node(kept.len()));
            prop_assert_eq!(inserted.is_err(), duplicate);
            if !duplicate {
                kept.push((key, value));
            }
        }
        prop_assert_eq!(found(&level, &key, &value), naive(precedence, &kept, &key, &value));
    }

    #[test]
    fn what_matches_less_is_met_first(narrow in "[ab]{0,3}\\*[ab]{0,3}", at in 0usize..7) {
        // Putting a star anywhere makes a pattern that matches all that the first does.
        let mut wide = narrow.clone();
        wide.insert(at.min(wide.len()), '*');
        let first_wide = Precedence::MostSpecific.rank(["", &wide], 0);
        let then_narrow = Precedence::MostSpecific.rank(["", &narrow], 1);
        let same = wide.contains("**");
        prop_assert_eq!(then_narrow < first_wide, !same);
    }
}
