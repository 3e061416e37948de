//! Tests of `limits::file`.

use super::*;
use crate::document;
use crate::limits::algorithm::Algorithm;
use crate::limits::class::OutagePolicy;
use crate::limits::rule::{Allowance, CountingMode, Limit};
use crate::limits::sharing::Sharing;
use crate::limits::unit::{Period, Unit};

fn read(text: &str) -> Result<File, String> {
    parse(Path::new("q.yaml"), text.as_bytes()).map_err(|error| error.to_string())
}

fn refused(text: &str, expected: &str) {
    assert_eq!(read(text).expect_err(text), expected, "{text}");
}

fn descriptor(text: &str) -> String {
    format!("domain: d\ndescriptors:\n  - {text}\n")
}

#[test]
fn the_messages_of_the_reference_with_their_place() {
    for (text, expected) in [
        ("domain: [", None),
        ("- a", Some("q.yaml:1:1: error loading config file: must be a map")),
        ("", Some("q.yaml: config file cannot have empty domain")),
        ("domain: ''", Some("q.yaml:1:9: config file cannot have empty domain")),
        ("domain: d\n5: x", Some("q.yaml:2:1: config error, key is not of type string: 5")),
        ("domain: d\nnope: x", Some("q.yaml:2:1: config error, unknown key 'nope'")),
        (
            "domain: d\ndescriptors: [x]",
            Some("q.yaml:2:15: config error, yaml file contains list of type other than map: x"),
        ),
        ("domain: d\ndescriptors: 5.5", Some("q.yaml:2:14: error checking config")),
        (
            "domain: d\ndescriptors: 5",
            Some("q.yaml:2:14: error loading config file: descriptors must be a list"),
        ),
    ] {
        let error = read(text).expect_err(text);
        match expected {
            Some(expected) => assert_eq!(error, expected),
            None => assert!(error.contains(": error loading config file: "), "{error}"),
        }
    }
    for (text, expected) in [
        ("value: a", "q.yaml:3:5: descriptor has empty key"),
        ("key: ''", "q.yaml:3:5: descriptor has empty key"),
        ("{key: a, rate_limit: {}}", "q.yaml:3:26: invalid rate limit unit ''"),
        ("{key: a, rate_limit: {unit: foo}}", "q.yaml:3:33: invalid rate limit unit 'foo'"),
        ("{key: a, rate_limit: {unit: unknown}}", "q.yaml:3:33: invalid rate limit unit 'unknown'"),
        (
            "{key: a, rate_limit: {unit: day, unlimited: true}}",
            "q.yaml:3:33: should not specify rate limit unit when unlimited",
        ),
        (
            "{key: a, rate_limit: {unit: day, replaces: [{name: ''}]}}",
            "q.yaml:3:49: should not have an empty replaces entry",
        ),
        (
            "{key: a, rate_limit: {unit: day, name: n, replaces: [{name: n}]}}",
            "q.yaml:3:58: replaces should not contain name of same descriptor",
        ),
        (
            "{key: a, value: b, share_threshold: true}",
            "q.yaml:3:41: share_threshold can only be used with wildcard values (containing '*'), but found key 'a_b'",
        ),
        (
            "{key: a, metadata: 5, rate_limit: {unit: day}}",
            "q.yaml:3:24: error parsing metadata: must be a map",
        ),
        (
            "{key: a, rate_limit: {unit: day, requests_per_unit: -1}}",
            "q.yaml:3:57: error loading config file: requests_per_unit must be from 0 to 4294967295",
        ),
        (
            "{key: a, rate_limit: {unit: day, requests_per_unit: many}}",
            "q.yaml:3:57: error loading config file: requests_per_unit must be a whole number",
        ),
        (
            "{key: a, rate_limit: {unit: day, requests_per_unit: 1.5}}",
            "q.yaml:3:57: error checking config",
        ),
        (
            "{key: a, shadow_mode: 3}",
            "q.yaml:3:27: error loading config file: shadow_mode must be true or false",
        ),
    ] {
        refused(&descriptor(text), expected);
    }
    refused(
        "domain: d\ndescriptors:\n- key: a\n  descriptors:\n  - {key: b, value: c}\n  - {key: b, value: c}\n",
        "q.yaml:6:5: duplicate descriptor composite key 'd.a.b_c'",
    );
}

#[test]
fn classes_belong_at_the_top() {
    let nested = descriptor("{key: a, priority_classes: {}}");
    refused(&nested, "q.yaml:3:14: config error, unknown key 'priority_classes'");
}

#[test]
fn a_key_in_the_wrong_place_is_a_warning() {
    let text = descriptor("{key: a, rate_limit: {unit: day, shadow_mode: true}}");
    let file = read(&text).expect("as in the reference");
    let warnings: Vec<String> = file.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["q.yaml:3:38: key 'shadow_mode' has no effect in a rate_limit"]);
    let rule = file.tops[0].node.rule.clone().expect("has a limit");
    assert!(!rule.shadow_mode);
    let text = descriptor(
        "{key: tenant_bytes, rate_limit: {unit: day, requests_per_unit: 5, algorithm: token_bucket}}",
    );
    let warnings = read(&text).expect("a rule all the same").warnings;
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].to_string().contains("token_bucket cannot hold tenant_bytes"),
        "{}",
        warnings[0]
    );
    let text = descriptor(
        "{key: tenant_points, rate_limit: {unit: day, requests_per_unit: 5, mode: lease}}",
    );
    assert_eq!(read(&text).expect("a rule all the same").warnings.len(), 1);
}

#[test]
fn numbers_and_booleans_are_texts_as_written() {
    let file = read("domain: 5\ndescriptors:\n- {key: port, value: 80}\n- {key: flag, value: true}\n- {key: q, value: 007}\n- {key: n, value: }\n- key: y\n  value: 0x1F # hex\n")
        .expect("valid");
    let values: Vec<&str> = file.tops.iter().map(|top| &*top.value).collect();
    assert_eq!((&*file.domain, values), ("5", vec!["80", "true", "007", "", "0x1F"]));
}

#[test]
fn every_property_of_a_rule() {
    let file = read(
        "domain: d
descriptors:
  - key: a
    value: b*
    shadow_mode: true
    quota_mode: true
    detailed_metric: true
    value_to_metric: true
    share_threshold: true
    metadata: {tier: gold, list: [1, 2.5, true, null]}
    rate_limit: {unit: WEEK, requests_per_unit: 4294967295, name: n, replaces: [{name: o}, {name: p}]}
  - key: free
    rate_limit: {unlimited: true}
  - key: block
    rate_limit: {unit: second}
  - key: open
",
    )
    .expect("valid");
    let rule = file.tops[0].node.rule.clone().expect("limited");
    let limit = Limit::fixed(u32::MAX, Unit::Week);
    assert_eq!(rule.allowance, Allowance::Limited(limit));
    assert!(rule.shadow_mode && rule.quota_mode && rule.detailed_metric);
    assert!(rule.steps[0].value_to_metric && rule.steps[0].share_threshold);
    assert_eq!((rule.name.as_str(), rule.replaces.join(",").as_str()), ("n", "o,p"));
    assert_eq!((&*rule.id, &*rule.origin), ("a_b*", "q.yaml:3"));
    let metadata = rule.metadata.clone().expect("given");
    assert_eq!(metadata.to_string(), r#"{"list":[1,2.5,true,null],"tier":"gold"}"#);
    let allowance = |n: usize| file.tops[n].node.rule.as_ref().map(|rule| rule.allowance);
    assert_eq!(allowance(1), Some(Allowance::Unlimited));
    let blocked = Limit::fixed(0, Unit::Second);
    assert_eq!(allowance(2), Some(Allowance::Limited(blocked)));
    assert_eq!(allowance(3), None);
}

#[test]
fn classes_at_the_top() {
    let file = read(
        "domain: d\npriority_classes:\n  gold: {rank: 9, outage: bypass}\n  tin: {rank: 1, outage: deny, default: true}\n",
    )
    .expect("valid");
    let classes = file.classes.expect("given");
    assert_eq!(classes.default_class().name, "tin");
    assert_eq!(classes.ladder()[0].outage, OutagePolicy::Bypass);
    for (text, expected) in [
        ("5", "q.yaml:2:19: priority_classes must be a map of classes"),
        ("{}", "q.yaml:2:19: priority_classes must not be empty"),
        ("{a: 5}", "q.yaml:2:23: priority class 'a' must be a map"),
        (
            "{a: {default: true}}",
            "q.yaml:2:23: priority class 'a' needs a rank from 0 to 4294967295",
        ),
        (
            "{a: {rank: 1, outage: maybe}}",
            "q.yaml:2:41: outage of priority class 'a' must be bypass, local or deny",
        ),
        ("{a: {rank: 1, reserve: 1}}", "q.yaml:2:33: config error, unknown key 'reserve'"),
        ("{a: {rank: 1}}", "q.yaml:2:19: exactly one priority class must be the default, found 0"),
        (
            "{a: {rank: 1, outage: [bypass, deny]}}",
            "q.yaml:2:41: outage of priority class 'a' must be bypass, local or deny",
        ),
        (
            "{a: {rank: 1, outage: bypass, outage: deny}}",
            "q.yaml:2:49: error loading config file: duplicate mapping key: outage, set DuplicateKeyPolicy in Options if acceptable",
        ),
    ] {
        refused(&format!("domain: d\npriority_classes: {text}\n"), expected);
    }
}

#[test]
fn sizes_are_bounded() {
    let big = vec![b'#'; FILE_BYTES_MAX + 1];
    assert!(parse(Path::new("q"), &big).expect_err("too big").message.contains("larger than"));
    let text =
        format!("{{key: a, metadata: {{m: {}}}, rate_limit: {{unit: day}}}}", "x".repeat(5000));
    let error = read(&descriptor(&text)).expect_err("too big");
    assert!(error.ends_with("error parsing metadata: is larger than 4096 bytes"), "{error}");
    let root = chassis::config::parse_yaml::<document::Node>(Path::new("q"), &[0xff]);
    assert!(root.is_err());
}

/// More of everything than the parser reads unasked, and each value a number whose spelling is
/// looked up in the text.
#[test]
fn thirty_thousand_rules_are_read_as_they_are_spelled() {
    let mut text = "domain: d\ndescriptors:\n".to_owned();
    for n in 0..30_000 {
        text += &format!("- {{key: ü, value: 0{n}, rate_limit: {{unit: day}}}}\n");
    }
    const { assert!(30_000 * 9 > chassis::config::NODES_MAX) };
    let file = read(&text).expect("valid");
    let last = file.tops.last().expect("there are some");
    assert_eq!((file.tops.len(), &*last.value), (30_000, "029999"));
}

#[test]
fn a_file_holds_as_many_nodes_as_it_has_room_for() {
    // The densest limit there is takes more than four bytes for each of its nodes.
    let (rule, nodes) = ("- {key: a,value: b,rate_limit: {unit: day}}\n", 9);
    let read =
        |nodes_max| parse_yaml_within::<Yaml>(Path::new("q"), rule.as_bytes(), nodes_max).is_ok();
    assert!(read(nodes + 1) && !read(nodes), "with the list");
    assert!((FILE_BYTES_MAX / rule.len() + 1) * nodes < FILE_NODES_MAX);
}

#[test]
fn aliases_and_marks_keep_their_spelling() {
    let text =
        "domain: d\ndescriptors:\n- {key: a, value: &seven 007}\n- {key: b, value: *seven}\n";
    for mark in ["", "\u{feff}"] {
        let file = read(&format!("{mark}{text}")).expect("valid");
        let values: Vec<&str> = file.tops.iter().map(|top| &*top.value).collect();
        assert_eq!(values, ["007", "007"], "{mark:?}");
    }
}

#[test]
fn algorithms_and_periods() {
    let check = |text: &str, seconds: u64, algorithm: Algorithm| {
        let text =
            descriptor(&format!("{{key: a, rate_limit: {{requests_per_unit: 60, {text}}}}}"));
        let file = read(&text).expect(&text);
        let rule = file.tops[0].node.rule.clone().expect("limited");
        let period = Period::try_new(seconds).expect("in bounds");
        let limit = Limit { requests_per_unit: 60, period, algorithm, mode: None };
        assert_eq!(rule.allowance, Allowance::Limited(limit), "{text}");
        assert!(file.warnings.is_empty(), "{text}");
    };
    use Algorithm::{FixedWindow, SlidingWindow};
    let bucket = |burst| Algorithm::TokenBucket { burst };
    check("unit: minute, algorithm: fixed_window", 60, FixedWindow);
    check("unit: minute, algorithm: , burst: , window: , unit_multiplier: ", 60, FixedWindow);
    check("unit: minute, algorithm: sliding_window", 60, SlidingWindow);
    check("unit: minute, unit_multiplier: 5", 300, FixedWindow);
    check("window: 30s", 30, FixedWindow);
    check("window: 1.5m", 90, FixedWindow);
    check("window: 87600h", 315_360_000, FixedWindow);
    check("unit: year, unit_multiplier: 10", 315_360_000, FixedWindow);
    check("window: 1h, algorithm: token_bucket", 3600, bucket(60));
    check("unit: hour, algorithm: token_bucket, burst: 5", 3600, bucket(5));
    check("window: 60s, algorithm: token_bucket, burst: 315360000", 60, bucket(315_360_000));
}

#[test]
fn an_overdraft_needs_a_count_and_a_limit() {
    let rule = |more: &str| descriptor(&format!("{{key: a, rate_limit: {{unit: day, {more}}}}}"));
    for (more, expected) in [
        ("requests_per_unit: 5", false),
        ("requests_per_unit: 5, overdraft: false", false),
        ("requests_per_unit: 5, overdraft: true", true),
        ("requests_per_unit: 1, overdraft: true, algorithm: sliding_window", true),
    ] {
        let file = read(&rule(more)).expect(more);
        assert_eq!(file.tops[0].node.rule.clone().expect("a rule").overdraft, expected, "{more}");
    }
    for (more, expected) in [
        ("overdraft: true", "49: overdraft needs requests_per_unit above 0"),
        ("overdraft: 1", "49: error loading config file: overdraft must be true or false"),
        (
            "overdraft: true, requests_per_unit: 5, algorithm: token_bucket",
            "49: overdraft cannot be used with algorithm token_bucket",
        ),
        (
            "requests_per_unit: 5, overdraft: true, reserve: forecast",
            "86: reserve cannot be used with overdraft",
        ),
        (
            "requests_per_unit: 5, overdraft: true, mode: lease",
            "83: mode lease cannot be used with overdraft",
        ),
    ] {
        refused(&rule(more), &format!("q.yaml:3:{expected}"));
    }
    refused(
        &descriptor("{key: a, rate_limit: {unlimited: true, overdraft: true}}"),
        "q.yaml:3:55: should not specify rate limit overdraft when unlimited",
    );
}

#[test]
fn algorithms_and_periods_that_cannot_be() {
    let bounds = "error loading config file: window must be a duration of whole seconds such as 30s, from 1s to 87600h";
    for (marked, expected) in [
        ("unit: day, algorithm: ^leaky", "invalid rate limit algorithm 'leaky'"),
        ("unit: day, window: ^30s", "should not specify both rate limit unit and window"),
        ("window: 30s, unit_multiplier: ^2", "unit_multiplier can only be used with unit"),
        ("window: ^0s", bounds),
        ("window: ^500ms", bounds),
        ("window: ^1500ms", bounds),
        ("window: ^87601h", bounds),
        ("window: ^soon", bounds),
        ("window: ^30", bounds),
        ("window: ^1.5", "error checking config"),
        (
            "unit: day, unit_multiplier: ^0",
            "error loading config file: unit_multiplier must be from 1 to 4294967295",
        ),
        (
            "unit: day, unit_multiplier: ^x",
            "error loading config file: unit_multiplier must be a whole number",
        ),
        (
            "unit: year, unit_multiplier: ^11",
            "unit times unit_multiplier must not be longer than 87600h",
        ),
        (
            "unit: year, unit_multiplier: ^4294967295",
            "unit times unit_multiplier must not be longer than 87600h",
        ),
        ("unit: day, burst: ^5", "burst can only be used with algorithm token_bucket"),
        (
            "unit: day, algorithm: sliding_window, burst: ^5",
            "burst can only be used with algorithm token_bucket",
        ),
        (
            "unit: day, algorithm: token_bucket, burst: ^0",
            "error loading config file: burst must be from 1 to 4294967295",
        ),
        (
            "unit: day, algorithm: token_bucket, burst: ^-1",
            "error loading config file: burst must be from 1 to 4294967295",
        ),
        (
            "unit: day, algorithm: token_bucket, requests_per_unit: 1, burst: ^3651",
            "a burst of 3651 takes longer than 87600h to refill",
        ),
        ("unlimited: true, window: ^30s", "should not specify rate limit window when unlimited"),
        (
            "unlimited: true, algorithm: ^token_bucket",
            "should not specify rate limit algorithm when unlimited",
        ),
    ] {
        // A caret stands before the value that is at fault.
        let text = descriptor(&format!("{{key: a, rate_limit: {{{}}}}}", marked.replace('^', "")));
        let column = 27 + marked.find('^').expect("marked");
        refused(&text, &format!("q.yaml:3:{column}: {expected}"));
    }
    let text = descriptor("{key: a, rate_limit: {unit_multiplier: 2}}");
    refused(&text, "q.yaml:3:26: invalid rate limit unit ''");
}

#[test]
fn wildcards_by_switch() {
    let rule = "rate_limit: {unit: day, requests_per_unit: 1}";
    let below = format!("[{{key: m, value: '*', {rule}}}, {{key: m, value: 'a*', {rule}}}]");
    let met = |first: &str| {
        let of = |value: &str| format!("- {{key: k, value: '{value}', descriptors: {below}}}\n");
        let text = format!("{first}domain: d\ndescriptors:\n{}{}", of("*"), of("a*"));
        let file = read(&text).expect("valid");
        let mut root = Level::new(file.wildcards);
        for top in &file.tops {
            root.insert(&top.key, &top.value, top.node.clone()).expect("no duplicate");
        }
        root.find(&[("k", "ab"), ("m", "ab")]).map(|rule| rule.id.to_string()).expect("a rule")
    };
    assert_eq!(met(""), "k_*.m_*");
    assert_eq!(met("wildcards: file_order\n"), "k_*.m_*");
    assert_eq!(met("wildcards: most_specific\n"), "k_a*.m_a*");
    let problem = "q.yaml:2:12: wildcards must be file_order or most_specific";
    refused("domain: d\nwildcards: best\n", problem);
    let problem = "q.yaml:2:24: config error, unknown key 'wildcards'";
    refused("domain: d\ndescriptors: [{key: a, wildcards: file_order}]", problem);
}

fn sharing_of(text: &str) -> Result<Sharing, String> {
    let text = format!("{{key: a, rate_limit: {{unit: day, requests_per_unit: 100, {text}}}}}");
    let file = read(&descriptor(&text))?;
    assert!(file.warnings.is_empty(), "{text}");
    file.check_classes(&Classes::default()).map_err(|error| error.to_string())?;
    Ok(file.tops[0].node.rule.clone().expect("limited").sharing.clone())
}

#[test]
fn how_classes_share_a_limit() {
    let check = |text: &str, listing: &str| {
        assert_eq!(sharing_of(text).expect(text).listing(), listing, "{text}");
    };
    check("name: n", "");
    check("reserve: , floor: , reserve_min: , admit_up_to: , mode: ", "");
    check("reserve: none", "reserve=none");
    check("reserve: forecast", "reserve=forecast");
    check("floor: {background: 0.02}", "reserve=forecast floor={background: 0.02}");
    check(
        "floor: {background: 1}, reserve_min: {system-node-critical: 0.1, platform-core: 0}",
        "reserve=forecast floor={background: 1} reserve_min={system-node-critical: 0.1, platform-core: 0}",
    );
    check(
        "admit_up_to: {background: 0.6, ingest: 0.85, platform-core: 0.95, system-node-critical: 1.0}",
        "admit_up_to={background: 0.6, ingest: 0.85, platform-core: 0.95, system-node-critical: 1}",
    );
}

#[test]
fn what_classes_cannot_share() {
    for (marked, expected) in [
        ("reserve: ^maybe", "reserve must be forecast or none"),
        ("reserve: ^{}", "reserve must be forecast or none"),
        ("floor: ^0.5", "floor must be a map of classes and fractions"),
        ("floor: ^5", "floor must be a map of classes and fractions"),
        ("floor: {ingest: ^1.01}", "floor of priority class 'ingest' must be from 0 to 1"),
        ("floor: {ingest: ^-0.1}", "floor of priority class 'ingest' must be from 0 to 1"),
        ("floor: {ingest: ^much}", "floor of priority class 'ingest' must be from 0 to 1"),
        ("admit_up_to: {ingest: ^2}", "admit_up_to of priority class 'ingest' must be from 0 to 1"),
        ("floor: {1: 0.1, ^'1': 0.2}", "duplicate priority class '1'"),
        ("floor: {ingest: 0.6, ^background: 0.5}", "floors must not add up to more than 1"),
        ("floor: {^gold: 0.6}", "priority class 'gold' is not configured"),
        ("reserve_min: {ingest: 0.1, ^gold: 0.6}", "priority class 'gold' is not configured"),
        ("admit_up_to: {^gold: 0.6}", "priority class 'gold' is not configured"),
        (
            "admit_up_to: {ingest: 0.5, ^background: 0.6}",
            "admit_up_to of priority class 'background' is more than that of 'ingest', which ranks above it",
        ),
        (
            "reserve: ^forecast, admit_up_to: {ingest: 0.5}",
            "should not specify both reserve and admit_up_to",
        ),
        (
            "reserve: ^none, admit_up_to: {ingest: 0.5}",
            "should not specify both reserve and admit_up_to",
        ),
        (
            "admit_up_to: {ingest: 0.5}, floor: ^{ingest: 0.1}",
            "should not specify both floor and admit_up_to",
        ),
        ("reserve: none, floor: ^{}", "floor can only be used with reserve forecast"),
        ("reserve: none, reserve_min: ^{}", "reserve_min can only be used with reserve forecast"),
        ("mode: ^sometimes", "mode must be lease or exact"),
        (
            "algorithm: token_bucket, mode: ^lease",
            "mode lease can only be used with algorithm fixed_window",
        ),
        (
            "algorithm: sliding_window, mode: ^lease",
            "mode lease can only be used with algorithm fixed_window",
        ),
    ] {
        let column = 62 + marked.find('^').expect("marked");
        let error = sharing_of(&marked.replace('^', "")).expect_err(marked);
        assert_eq!(error, format!("q.yaml:3:{column}: {expected}"), "{marked}");
    }
    for (key, value) in [
        ("reserve", "forecast"),
        ("floor", "{ingest: 0.1}"),
        ("reserve_min", "{}"),
        ("admit_up_to", "{}"),
        ("mode", "exact"),
    ] {
        let text =
            descriptor(&format!("{{key: a, rate_limit: {{unlimited: true, {key}: {value}}}}}"));
        let column = 46 + key.len();
        let message = format!("should not specify rate limit {key} when unlimited");
        refused(&text, &format!("q.yaml:3:{column}: {message}"));
    }
}

#[test]
fn the_mode_of_a_limit() {
    for (text, mode) in [("lease", CountingMode::Lease), ("exact", CountingMode::Exact)] {
        let text = descriptor(&format!("{{key: a, rate_limit: {{unit: day, mode: {text}}}}}"));
        let file = read(&text).expect("valid");
        let rule = file.tops[0].node.rule.clone().expect("limited");
        let limit = Limit { mode: Some(mode), ..Limit::fixed(0, Unit::Day) };
        assert_eq!(rule.allowance, Allowance::Limited(limit));
    }
}
