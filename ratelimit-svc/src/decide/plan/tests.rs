//! Tests of `decide::plan`.

use std::path::PathBuf;

use super::*;
use crate::decide::request::Override;
use crate::limits::quotas::Library;
use crate::limits::unit::Unit;

const NOW: u64 = 1_000_000;

/// Never freed, as plans borrow from them.
fn quotas(text: &str) -> &'static Quotas {
    let contents = [(PathBuf::from("f"), Ok(text.as_bytes().to_vec()))].into();
    let update = Library::default().update(&contents);
    assert!(update.errors.is_empty(), "{:?}", update.errors);
    Box::leak(Box::new(update.quotas))
}

fn planned<'a>(text: &str, descriptors: &[&[(&'a str, &'a str)]]) -> Plan<'a> {
    let descriptors = descriptors
        .iter()
        .map(|entries| Descriptor { entries: (*entries).into(), ..Descriptor::default() })
        .collect();
    let request = Request { domain: "d", descriptors, hits_addend: 0 };
    plan(&request, quotas(text), &Settings::default(), NOW).expect("planned")
}

const TENANT: &str =
    "domain: d\ndescriptors: [{key: tenant, rate_limit: {unit: day, requests_per_unit: 5}}]\n";

#[test]
fn the_class_is_taken_off_before_matching() {
    let check = |entries: &[(&str, &str)], class: &str, source: ClassSource| {
        let plan = planned(TENANT, &[entries]);
        assert_eq!((plan.class.name.as_str(), plan.class_source), (class, source));
        assert_eq!(plan.hits[0].key, planned(TENANT, &[&[("tenant", "a")]]).hits[0].key);
    };
    check(&[("tenant", "a")], "ingest", ClassSource::Absent);
    check(&[("tenant", "a"), ("priority", "background")], "background", ClassSource::Named);
    check(&[("priority", "platform-core"), ("tenant", "a")], "platform-core", ClassSource::Named);
    check(&[("tenant", "a"), ("priority", "root")], "ingest", ClassSource::Unknown);
}

#[test]
fn a_request_has_the_lowest_class_it_names() {
    let high: &[(&str, &str)] = &[("tenant", "a"), ("priority", "system-node-critical")];
    let low: &[(&str, &str)] = &[("tenant", "b"), ("priority", "background")];
    for order in [[high, low], [low, high]] {
        assert_eq!(planned(TENANT, &order).class.name, "background");
    }
}

#[test]
fn a_domain_may_match_on_priority() {
    let text =
        "domain: d\ndescriptors: [{key: priority, value: background, rate_limit: {unit: day}}]\n";
    let plan = planned(text, &[&[("priority", "background")], &[("tenant", "a")]]);
    assert_eq!(plan.class.name, "background");
    assert!(matches!(plan.lines[0], Line::Counted(_)));
    assert!(matches!(plan.lines[1], Line::NoLimit));
}

#[test]
fn an_override_needs_no_rule() {
    let limit = Override { requests_per_unit: 7, unit: Some(Unit::Hour) };
    let entries = vec![("user", "u"), ("path", "/")];
    let descriptor = Descriptor {
        entries: entries.into(),
        limit_override: Some(limit),
        ..Descriptor::default()
    };
    let request = Request { domain: "d", descriptors: vec![descriptor], hits_addend: 0 };
    let plan = |text| plan(&request, quotas(text), &Settings::default(), NOW).expect("planned");
    let known = plan(TENANT);
    let Line::Counted(counted) = &known.lines[0] else { panic!("not counted") };
    assert_eq!((counted.limit.requests_per_unit, &*counted.metric_id), (7, "user.path"));
    let unknown = plan("domain: other\n");
    assert!(matches!(unknown.lines[0], Line::NoLimit), "the domain must exist");
    assert!(!unknown.domain_known && unknown.hits.is_empty());
}

#[test]
fn values_share_a_counter_where_the_rule_says_so() {
    let text = "domain: d\ndescriptors:\n- {key: f, value: 'a*', share_threshold: true, rate_limit: {unit: day}}\n- {key: f, value: 'b*', rate_limit: {unit: day}}\n";
    let plan = planned(text, &[&[("f", "a1")], &[("f", "a2")], &[("f", "b1")], &[("f", "b2")]]);
    assert_eq!(plan.hits[0].key, plan.hits[1].key);
    assert_ne!(plan.hits[2].key, plan.hits[3].key);
}

#[test]
fn names_replace_names() {
    let text = "
domain: d
descriptors:
- {key: a, rate_limit: {unit: day, name: one}}
- {key: b, rate_limit: {unit: day, name: two, replaces: [{name: one}]}}
- {key: c, rate_limit: {unlimited: true, replaces: [{name: two}]}}
- {key: n, rate_limit: {unit: day}}
";
    let check = |keys: &[&str], expected: &str| {
        let entries: Vec<Vec<(&str, &str)>> = keys.iter().map(|key| vec![(*key, "")]).collect();
        let entries: Vec<&[(&str, &str)]> = entries.iter().map(Vec::as_slice).collect();
        let lines = planned(text, &entries).lines;
        let letter = |line: &Line| match line {
            Line::NoLimit => '-',
            Line::Unlimited(_) => 'u',
            Line::Replaced(_) => 'r',
            Line::Counted(_) => 'c',
        };
        assert_eq!(lines.iter().map(letter).collect::<String>(), expected, "{keys:?}");
    };
    check(&["a", "n", "none"], "cc-");
    check(&["a", "b"], "rc");
    check(&["b", "c"], "ru");
    // A limit that is itself replaced replaces all the same.
    check(&["a", "b", "c"], "rru");
    check(&["a", "a", "b"], "rrc");
}

#[test]
fn what_never_refuses_is_an_observer() {
    let text = "
domain: d
descriptors:
- {key: e, rate_limit: {unit: day}}
- {key: s, shadow_mode: true, rate_limit: {unit: day}}
- {key: q, quota_mode: true, rate_limit: {unit: day}}
- {key: x, quota_mode: true, shadow_mode: true, rate_limit: {unit: day}}
";
    let roles = |keys: &[&str]| {
        let entries: Vec<Vec<(&str, &str)>> = keys.iter().map(|key| vec![(*key, "")]).collect();
        let entries: Vec<&[(&str, &str)]> = entries.iter().map(Vec::as_slice).collect();
        planned(text, &entries).hits.iter().map(|hit| hit.role).collect::<Vec<_>>()
    };
    use Role::{Enforced, Observer, Quota};
    assert_eq!(roles(&["e", "s", "q"]), [Enforced, Observer, Quota]);
    assert_eq!(roles(&["e", "q", "x"]), [Enforced, Observer, Observer]);
}

#[test]
fn which_limits_classes_share() {
    let text = "
domain: d
descriptors:
- {key: unsaid, rate_limit: {unit: day}}
- {key: none, rate_limit: {unit: day, reserve: none}}
- {key: forecast, rate_limit: {unit: day, floor: {background: 0.1}}}
- {key: fixed, rate_limit: {unit: day, admit_up_to: {background: 0.5}}}
";
    let rank = |key: &str, class: Option<&str>| {
        let mut entries = vec![(key, "a")];
        entries.extend(class.map(|class| ("priority", class)));
        planned(text, &[&entries]).hits[0].share.as_ref().map(|share| share.rank)
    };
    for (key, named, unnamed) in [
        ("unsaid", Some(3), None),
        ("none", None, None),
        ("forecast", Some(3), Some(2)),
        ("fixed", Some(3), Some(2)),
    ] {
        assert_eq!(rank(key, Some("background")), named, "{key}");
        assert_eq!(rank(key, None), unnamed, "{key}: as the default class, or plainly");
        assert_eq!(rank(key, Some("unknown")), rank(key, Some("ingest")), "{key}: the default");
    }
    assert_eq!(rank("unsaid", Some("unknown")), Some(2));
    // A counter that is one class's own is not shared.
    let text = "domain: d\ndescriptors: [{key: priority, rate_limit: {unit: day}}]\n";
    assert_eq!(planned(text, &[&[("priority", "ingest")]]).hits[0].share, None);
}

#[test]
fn what_is_reported_counts_whatever_the_rule_says() {
    let text = "
domain: d
descriptors:
- {key: bytes, rate_limit: {unit: day, requests_per_unit: 1500}}
- {key: leased, rate_limit: {unit: day, requests_per_unit: 1500, mode: lease}}
- {key: bucket, rate_limit: {unit: day, requests_per_unit: 1500, algorithm: token_bucket}}
";
    for (key, limit) in [("bytes", u32::MAX), ("leased", u32::MAX), ("bucket", 1500)] {
        let asked = planned(text, &[&[(key, "a"), ("priority", "ingest"), ("reported", "true")]]);
        let plain = planned(text, &[&[(key, "a"), ("priority", "ingest")]]);
        assert_eq!(asked.hits[0].key, plain.hits[0].key, "{key}: the same counter");
        assert_eq!(asked.hits[0].limit, limit, "{key}");
        let Line::Counted(counted) = &asked.lines[0] else { panic!("{key} is counted") };
        let is_exact = counted.limit.mode == Some(CountingMode::Exact);
        assert_eq!((counted.overdraft, is_exact), (key != "bucket", key != "bucket"), "{key}");
    }
    // A domain with a rule about such an entry matches it like any other.
    let text = "domain: d\ndescriptors: [{key: reported, rate_limit: {unit: day, requests_per_unit: 5}}]\n";
    assert_eq!(planned(text, &[&[("reported", "x")]]).hits[0].limit, 5);
}
