//! Simulations of small recordings whose answers are known.

mod golden;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::report::Report;
use super::run::{Answer, Question, run};
use super::tally::Both;
use super::{Counting, Scenario, leased};
use crate::decide::request::{Descriptor, Request};
use crate::limits::quotas::{Library, Quotas};
use crate::limits::stats::Reason;
use crate::record::hashed::HashedKeys;
use crate::record::segments::Segments;
use crate::record::table::{Refused, Table};

/// The start of an hour.
const NOW: u64 = 1_800_000_000;
const SALT: &str = "0123456789abcdef";

fn quotas(rules: &str) -> Arc<Quotas> {
    let text = format!("domain: edge\ndescriptors:\n{rules}");
    let contents = BTreeMap::from([(PathBuf::from("a.yaml"), Ok(text.into_bytes()))]);
    let update = Library::new(false).update(&contents);
    assert!(update.errors.is_empty(), "{:?}", update.errors);
    Arc::new(update.quotas)
}

fn limit(limit: &str) -> Arc<Quotas> {
    quotas(&format!("  - {{key: tenant, rate_limit: {{{limit}}}}}\n"))
}

/// Requests of a tenant and class in one second.
type Asked<'a> = (u64, &'a str, &'a str, u64);

/// A recording of these requests, of which a tenant's first few of all were admitted.
fn record(dir: &Path, asked: &[Asked<'_>], admitted: u64, hashed: HashedKeys) {
    let mut segments = Segments::new(dir, 1 << 30, "r".to_owned(), hashed).expect("made");
    let mut taken: BTreeMap<&str, u64> = BTreeMap::new();
    let mut tables: BTreeMap<u64, Table> = BTreeMap::new();
    for &(second, tenant, class, requests) in asked {
        let table = tables.entry(second).or_insert_with(|| Table::new(10_000));
        table.begin(NOW + second);
        let entries = [("tenant", tenant), ("priority", class)][..].into();
        let descriptors = vec![Descriptor { entries, ..Descriptor::default() }];
        let request = Request { domain: "edge", descriptors, hits_addend: 1 };
        for n in 0..requests {
            let taken = taken.entry(tenant).or_default();
            *taken += 1;
            let refused = Refused { rule: "tenant", reason: Reason::OverLimit };
            let refused = (*taken > admitted).then_some(refused);
            table.add(&request, class, refused, (n * 999 / requests) as u16);
        }
    }
    let tables: Vec<Table> = tables.into_values().collect();
    segments.write(&tables).expect("written");
    segments.finish().expect("finished");
}

fn simulate(dir: &Path, new: Arc<Quotas>, old: Option<Arc<Quotas>>, counting: Counting) -> Answer {
    let scenario = Scenario { counting, ..Scenario::default() };
    let salt = Some(SALT.to_owned());
    let question = Question { traffic: vec![dir.to_owned()], new, old, scenario, salt };
    run(&question, &mut |_| {}).expect("simulated")
}

fn ten_minutes() -> Vec<Asked<'static>> {
    let tenants = [("acme", 30), ("bolt", 7)];
    (0..600).flat_map(|t| tenants.map(|(tenant, n)| (t, tenant, "ingest", n))).collect()
}

#[test]
fn a_change_is_seen_before_it_bites() {
    let dir = tempfile::tempdir().expect("temporary directory");
    record(dir.path(), &ten_minutes(), u64::MAX, HashedKeys::default());
    let (old, new) =
        ("unit: minute, requests_per_unit: 1800", "unit: minute, requests_per_unit: 1000");
    let answer = simulate(dir.path(), limit(new), Some(limit(old)), Counting::Exact);
    let total = answer.tally.total;
    // Ten windows, in each of which acme asks 1800 times.
    assert_eq!((total.requests, total.old_refused, total.new_refused), (22_200, 0, 8000));
    assert_eq!((total.newly_refused, total.newly_admitted), (8000, 0));
    let who = answer.tally.who(&answer.shapes);
    assert_eq!((who[0].0.as_str(), who[0].1.newly_refused), ("tenant=acme", 8000));
    assert_eq!(who[1].1.new_refused, 0);
    let (worst, both) = answer.tally.worst().expect("some");
    assert_eq!((worst % 60, both.newly_refused), (0, 800));
    assert_eq!(answer.tally.classes["ingest"].newly_refused, 8000);
    let rule = &answer.tally.rules[&("edge".to_owned(), "tenant".to_owned())];
    assert_eq!((rule.requests, rule.new["over_limit"]), (22_200, 8000));
    // The other way round what was refused is admitted.
    let answer = simulate(dir.path(), limit(old), Some(limit(new)), Counting::Exact);
    assert_eq!((answer.tally.total.newly_refused, answer.tally.total.newly_admitted), (0, 8000));
}

#[test]
fn a_trial_is_simulated_beside_its_limit() {
    let dir = tempfile::tempdir().expect("temporary directory");
    record(dir.path(), &ten_minutes(), u64::MAX, HashedKeys::default());
    let with = "unit: minute, requests_per_unit: 1500, trial: {requests_per_unit: 1000}";
    for counting in [Counting::Exact, leased(2)] {
        let answer = simulate(dir.path(), limit(with), None, counting);
        let rule = &answer.tally.rules[&("edge".to_owned(), "tenant".to_owned())];
        // In each of ten windows acme asks 1800 times: 300 are refused, and by the trial 500 more.
        let Both { requests, old_refused, new_refused, newly_refused, newly_admitted } = rule.trial;
        assert_eq!((requests, newly_admitted), (22_200, 0));
        assert_eq!((new_refused, old_refused), (8000, answer.tally.total.new_refused));
        assert_eq!(newly_refused, new_refused - old_refused);
        let report = Report { answer: &answer, against: "what was recorded", conditions: &[] };
        let line = format!("its trial would refuse 8000 of 22200: {newly_refused} newly");
        assert!(report.text(false).contains(&line), "{}", report.text(false));
        assert_eq!(report.json()["rules"][0]["trial"]["new_refused"], 8000);
        assert!(report.html().contains("Trials, beside the new quotas"));
        assert!(report.markdown().contains("| trial of `edge.tenant` | 22200 |"));
    }
}

#[test]
fn what_was_recorded_is_the_old_side() {
    let dir = tempfile::tempdir().expect("temporary directory");
    record(
        dir.path(),
        &[(0, "acme", "ingest", 100), (1, "acme", "ingest", 50)],
        40,
        HashedKeys::default(),
    );
    let same = "unit: hour, requests_per_unit: 40";
    let answer = simulate(dir.path(), limit(same), None, Counting::Exact);
    let total = answer.tally.total;
    assert_eq!((total.old_refused, total.new_refused, total.newly_refused), (110, 110, 0));
    assert!(answer.notes.is_empty(), "{:?}", answer.notes);
    let other = quotas("  - {key: path, rate_limit: {unit: hour, requests_per_unit: 1}}\n");
    let answer = simulate(dir.path(), other, None, Counting::Exact);
    assert_eq!(answer.tally.total.newly_admitted, 110);
    let expected = [
        "150 of 150 requests meet no rule of the new quotas and pass",
        "no request meets edge.path",
        "110 requests were refused by edge.tenant, which the new quotas do not have",
    ];
    assert_eq!(answer.notes, expected);
}

#[test]
fn algorithms_and_classes_are_those_of_the_service() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let asked: Vec<Asked<'_>> = (0..60)
        .flat_map(|t| [(t, "acme", "system-node-critical", 20), (t, "acme", "background", 50)])
        .collect();
    record(dir.path(), &asked, u64::MAX, HashedKeys::default());
    let bucket =
        "unit: second, requests_per_unit: 10, algorithm: token_bucket, burst: 30, reserve: none";
    let answer = simulate(dir.path(), limit(bucket), None, Counting::Exact);
    // The burst, and ten a second for what follows.
    let admitted = answer.tally.total.requests - answer.tally.total.new_refused;
    assert!((600 + 15..=600 + 30).contains(&admitted), "{admitted}");
    // 1800 for a minute: the higher class has all of its 1200, the lower one what is left.
    let shared = "unit: minute, requests_per_unit: 1800";
    let answer = simulate(dir.path(), limit(shared), None, Counting::Exact);
    let class = |name: &str| answer.tally.classes[name];
    assert_eq!(class("system-node-critical").new_refused, 0);
    let background = 3000 - class("background").new_refused;
    assert!((500..=600).contains(&background), "{background}");
    let rule = &answer.tally.rules[&("edge".to_owned(), "tenant".to_owned())];
    assert!(rule.new["reserved"] > 1000, "{rule:?}");
}

#[test]
fn replicas_lease_within_the_limit() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let asked: Vec<Asked<'_>> = (0..120).map(|t| (t, "acme", "ingest", 100)).collect();
    record(dir.path(), &asked, u64::MAX, HashedKeys::default());
    let rule = "unit: minute, requests_per_unit: 3000, reserve: none";
    let answer = simulate(dir.path(), limit(rule), None, leased(3));
    let admitted = answer.tally.total.requests - answer.tally.total.new_refused;
    // Two windows. A replica may hold a few hits that nobody asks it for.
    assert!((5970..=6000).contains(&admitted), "{admitted}");
    assert_eq!(answer.decisions, 12_000);
}

#[test]
fn an_outage_is_the_policy_of_each_class() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let classes = ["system-node-critical", "ingest", "background"];
    let asked: Vec<Asked<'_>> =
        (0..60).flat_map(|t| classes.map(|class| (t, class, class, 20))).collect();
    record(dir.path(), &asked, u64::MAX, HashedKeys::default());
    let Counting::Leased { replicas, limit_min, round_trip, .. } = leased(2) else { return };
    let outage = Some(NOW + 20..NOW + 40);
    let counting = Counting::Leased { replicas, limit_min, round_trip, outage };
    // A small limit is counted exactly, and a share of it in the outage.
    let rule = "unit: second, requests_per_unit: 10";
    let answer = simulate(dir.path(), limit(rule), None, counting);
    let refused = |class: &str| answer.tally.classes[class].new_refused;
    assert_eq!(refused("system-node-critical"), 40 * 10, "bypassed for 20 s");
    assert_eq!(refused("ingest"), 60 * 10, "two shares of five");
    assert_eq!(refused("background"), 40 * 10 + 20 * 20, "denied for 20 s");
    let degraded: u64 =
        answer.tally.rules.values().filter_map(|rule| rule.new.get("degraded")).sum();
    assert_eq!(degraded, 20 * 10 + 20 * 20);
}

#[test]
fn requests_that_wait_for_a_claim_are_decided_once_each() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tenants: Vec<String> = (0..500).map(|n| format!("t{n}")).collect();
    let asked: Vec<Asked<'_>> = (0..5)
        .flat_map(|t| tenants.iter().map(move |name| (t, name.as_str(), "ingest", 3)))
        .collect();
    record(dir.path(), &asked, u64::MAX, HashedKeys::default());
    let Counting::Leased { replicas, limit_min, .. } = leased(4) else { return };
    for micros in [0, 500, 4000] {
        let round_trip = Duration::from_micros(micros);
        let counting = Counting::Leased { replicas, limit_min, round_trip, outage: None };
        let rule = "unit: hour, requests_per_unit: 100000";
        let answer = simulate(dir.path(), limit(rule), None, counting);
        let total = answer.tally.total;
        assert_eq!((total.requests, total.new_refused), (7500, 0), "{micros} us");
    }
}

#[test]
fn hashed_values_meet_the_rules_that_name_them() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let hashed = HashedKeys::try_new(["tenant".to_owned()], SALT.to_owned()).expect("a salt");
    record(dir.path(), &[(0, "acme", "ingest", 10), (0, "bolt", "ingest", 10)], u64::MAX, hashed);
    let rules = "  - {key: tenant, value: acme, rate_limit: {unit: hour, requests_per_unit: 4}}\n  - {key: tenant, value: b*, rate_limit: {unit: hour, requests_per_unit: 1}}\n  - {key: tenant, rate_limit: {unit: hour, requests_per_unit: 7}}\n";
    let answer = simulate(dir.path(), quotas(rules), None, Counting::Exact);
    assert_eq!(answer.tally.total.new_refused, 6 + 3);
    let expected = [
        "values of tenant are hashed: patterns match none of them",
        "no request meets edge.tenant_b*",
    ];
    assert_eq!(answer.notes, expected);
}

#[test]
fn what_is_not_simulated_is_said() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let text = r#"{"format":"tidegate-traffic","version":1,"replica":"r","started":1800000000}
{"shape":0,"domain":"edge","class":"ingest","descriptors":[{"entries":[["tenant","acme"]]}]}
{"t":1800000000,"rows":[[0,99999999999,[99999999999],[0,9],[]],[0,5,[5],[0,9],[]]],"other":[7,2]}
{"t":1800000001,"rows":[[3,1,[1],[0,0],[]]]}"#;
    std::fs::write(dir.path().join("traffic-1.jsonl.zst"), text).expect("written");
    let answer =
        simulate(dir.path(), limit("unit: hour, requests_per_unit: 1"), None, Counting::Exact);
    assert_eq!((answer.tally.total.requests, answer.tally.total.new_refused), (5, 4));
    let conditions = ["not_simulated > 50 %".parse().expect("a condition")];
    let report = Report { answer: &answer, against: "what was recorded", conditions: &conditions };
    let text = report.text(false);
    for expected in [
        "7 requests of the tail were counted together when recorded (2 refused)",
        "99999999999 requests of crowded seconds are not simulated",
        "1 part of the recordings could not be used:",
        "a row of shape 3 that does not fit",
        "FAILED: --fail-if 'not_simulated > 50 %'",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(report.html().contains("a row of shape 3") && report.markdown().contains("**failed**"));
    assert_eq!(report.json()["left_out"], 99_999_999_999_u64);
}
