//! Two configurations and the lines that tell them apart.

use std::path::PathBuf;

use super::*;
use crate::limits::quotas::{Contents, Library};

fn quotas(files: &[&str]) -> Quotas {
    let name = |at: usize| PathBuf::from(format!("{}.yaml", char::from(b'a' + at as u8)));
    let contents: Contents = files
        .iter()
        .enumerate()
        .map(|(at, text)| (name(at), Ok(text.as_bytes().to_vec())))
        .collect();
    let update = Library::new(true).update(&contents);
    assert!(update.errors.is_empty(), "{:?}", update.errors);
    update.quotas
}

fn rules(lines: &str) -> String {
    format!("domain: d\ndescriptors:\n{lines}")
}

fn check(old: &str, new: &str, expected: &[&str]) {
    let changes = diff(&quotas(&[&rules(old)]), &quotas(&[&rules(new)]));
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(lines, expected);
}

#[test]
fn limits_go_up_and_down() {
    let limit = |text: &str| format!("  - {{key: k, rate_limit: {{{text}}}}}\n");
    let five = limit("unit: minute, requests_per_unit: 5");
    check(&five, &five, &[]);
    let check_to = |new: &str, expected: &str| check(&five, &limit(new), &[expected]);
    let lowered = "lowered d k: 5 per minute -> 4 per minute (a.yaml:3 -> a.yaml:3)";
    check_to("unit: minute, requests_per_unit: 4", lowered);
    let raised = "raised d k: 5 per minute -> 6 per minute (a.yaml:3 -> a.yaml:3)";
    check_to("unit: minute, requests_per_unit: 6", raised);
    // By rate: 300 an hour is 5 a minute.
    let same = "changed d k: 5 per minute -> 300 per hour (a.yaml:3 -> a.yaml:3)";
    check_to("unit: hour, requests_per_unit: 300", same);
    let raised = "raised d k: 5 per minute -> 1 per second (a.yaml:3 -> a.yaml:3)";
    check_to("unit: second, requests_per_unit: 1", raised);
    check_to("unlimited: true", "raised d k: 5 per minute -> unlimited (a.yaml:3 -> a.yaml:3)");
}

#[test]
fn a_trial_is_told() {
    let limit = |more: &str| {
        format!("  - {{key: k, rate_limit: {{unit: minute, requests_per_unit: 5{more}}}}}\n")
    };
    check(
        &limit(""),
        &limit(", trial: {requests_per_unit: 4}"),
        &["changed d k: 5 per minute -> 5 per minute, trial {4 per minute} (a.yaml:3 -> a.yaml:3)"],
    );
}

#[test]
fn how_classes_share_is_told() {
    let limit = |text: &str| {
        format!("  - {{key: k, rate_limit: {{unit: minute, requests_per_unit: 5{text}}}}}\n")
    };
    let check_to = |old: &str, new: &str, expected: &str| {
        check(
            &limit(old),
            &limit(new),
            &[&format!("changed d k: {expected} (a.yaml:3 -> a.yaml:3)")],
        );
    };
    check(&limit(", mode: exact"), &limit(", mode: exact"), &[]);
    check_to("", ", mode: exact", "5 per minute -> 5 per minute, mode exact");
    check_to("", ", reserve: none", "5 per minute -> 5 per minute, reserve=none");
    check_to(
        ", floor: {ingest: 0.1}",
        ", admit_up_to: {ingest: 0.5}",
        "5 per minute, reserve=forecast floor={ingest: 0.1} -> 5 per minute, admit_up_to={ingest: 0.5}",
    );
}

#[test]
fn rules_come_and_go() {
    let one = "  - {key: k, value: a, rate_limit: {unit: day, requests_per_unit: 1}}\n";
    check("", one, &["added d k=a: none -> 1 per day (a.yaml:3)"]);
    check(one, "", &["removed d k=a: 1 per day -> none (a.yaml:3)"]);
    let nested =
        "  - key: k\n    value: a\n    descriptors:\n      - {key: l, rate_limit: {unit: day}}\n";
    check("", nested, &["added d k=a, l: none -> 0 per day (a.yaml:6)"]);
    // The same text in key and value is another rule.
    let other = "  - {key: k_a, rate_limit: {unit: day, requests_per_unit: 1}}\n";
    let removed = "removed d k=a: 1 per day -> none (a.yaml:3)";
    check(one, other, &[removed, "added d k_a: none -> 1 per day (a.yaml:3)"]);
}

#[test]
fn an_exemption_from_a_broader_rule_is_a_change() {
    let any = "  - {key: k, rate_limit: {unit: day, requests_per_unit: 1}}\n";
    let exempt = format!("{any}  - {{key: k, value: vip}}\n");
    check(any, &exempt, &["added d k=vip: none -> no limit"]);
    check("", "  - {key: k, value: vip}\n", &[]);
}

#[test]
fn modes_names_and_metadata_are_told() {
    let old = "  - {key: k, rate_limit: {unit: day, requests_per_unit: 1}}\n";
    let to = |line: &str, text: &str| {
        let expected = format!("changed d k: 1 per day -> {text} (a.yaml:3 -> a.yaml:3)");
        check(old, &format!("  - {{key: k, {line}}}\n"), &[&expected]);
    };
    let limit = "rate_limit: {unit: day, requests_per_unit: 1}";
    to(&format!("{limit}, shadow_mode: true"), "1 per day, shadow mode");
    to(&format!("{limit}, quota_mode: true"), "1 per day, quota mode");
    to(&format!("{limit}, detailed_metric: true"), "1 per day, detailed metric");
    to(&format!("{limit}, metadata: {{a: 1}}"), "1 per day, metadata {\"a\":1}");
    let named = "rate_limit: {unit: day, requests_per_unit: 1, name: n, replaces: [{name: m}]}";
    to(named, "1 per day, name 'n', replaces 'm'");
}

#[test]
fn splitting_and_ordering_files_is_no_change() {
    let a = "  - {key: a, value: x, rate_limit: {unit: day}}\n";
    let b = "  - {key: b, value: y, rate_limit: {unit: day}}\n";
    let both = quotas(&[&rules(&format!("{a}{b}"))]);
    assert_eq!(diff(&both, &quotas(&[&rules(b), &rules(a)])), []);
}

#[test]
fn priority_classes_are_compared() {
    let with = |classes: &str| quotas(&[&format!("domain: d\npriority_classes: {{{classes}}}\n")]);
    let old = with("a: {rank: 2, outage: deny}, b: {rank: 1, default: true}");
    let new = with("a: {rank: 2, outage: bypass}, c: {rank: 1, default: true}");
    let lines: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "changed priority class a: rank 2, outage deny -> rank 2, outage bypass",
            "removed priority class b: rank 1, outage local, default -> none",
            "added priority class c: none -> rank 1, outage local, default",
        ]
    );
}

#[test]
fn another_order_of_wildcards_is_told() {
    let text = |first: &str| format!("{first}domain: d\ndescriptors: [{{key: k}}]\n");
    let (old, new) = (text(""), text("wildcards: most_specific\n"));
    let lines: Vec<String> =
        diff(&quotas(&[&old]), &quotas(&[&new])).iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["changed d wildcards: file_order -> most_specific"]);
    assert!(diff(&quotas(&[&new]), &quotas(&[&new])).is_empty());
}
