//! Tests of `decide::conclude`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::decide::algorithm::State;
use crate::decide::decision::Decision;
use crate::decide::hit::Mode;
use crate::decide::plan::plan;
use crate::decide::request::Descriptor;
use crate::decide::settings::HeaderNames;
use crate::decide::settle::settle;
use crate::limits::quotas::{Library, Quotas};
use crate::limits::stats::Reason;
use crate::store::memory::Memory;

const NOW: u64 = 1_000_000;
const TIME: Duration = Duration::from_secs(NOW);

fn quotas(descriptors: &str) -> Quotas {
    let text = format!("domain: d\ndescriptors: [{descriptors}]\n");
    let update = Library::default().update(&[(PathBuf::from("f"), Ok(text.into_bytes()))].into());
    assert!(update.errors.is_empty(), "{:?}", update.errors);
    update.quotas
}

fn rule(key: &str, limit: u32, more: &str) -> String {
    format!(
        "{{key: {key}, {more} rate_limit: {{unit: day, requests_per_unit: {limit}, name: {key}}}}}"
    )
}

fn request<'a>(keys: &[&'a str], hits: u32) -> Request<'a> {
    let descriptor =
        |key: &&'a str| Descriptor { entries: [(*key, "")][..].into(), ..Descriptor::default() };
    let descriptors = keys.iter().map(descriptor).collect();
    Request { domain: "d", descriptors, hits_addend: hits }
}

/// Decides with counters that stand at these values.
fn decide_at(
    quotas: &Quotas,
    settings: &Settings,
    asked: &Request<'_>,
    current: &[u64],
) -> Decision {
    let planned = plan(asked, quotas, settings, NOW).expect("planned");
    let mode = if settings.all_or_nothing { Mode::AllOrNothing } else { Mode::CountAll };
    let settled = settle(&planned.hits, mode, TIME, |at| (Some(State::Fixed(current[at])), None));
    let counts: Vec<Count> =
        planned.hits.iter().zip(settled).map(|(hit, settled)| settled.count(hit, TIME)).collect();
    let found = Evidence::Counts { hits: &planned.hits, counts: &counts, degraded: false };
    conclude(asked, &planned, found, settings, NOW)
}

fn codes(decision: &Decision) -> (bool, Vec<bool>) {
    (decision.over_limit, decision.statuses.iter().map(|status| status.over_limit).collect())
}

#[test]
fn exactly_the_limit_passes() {
    let quotas = quotas(&rule("a", 3, ""));
    for (current, hits, over, left) in
        [(0, 1, false, 2), (2, 1, false, 0), (3, 1, true, 0), (1, 3, true, 0), (0, 3, false, 0)]
    {
        let decision = decide_at(&quotas, &Settings::default(), &request(&["a"], hits), &[current]);
        let status = &decision.statuses[0];
        assert_eq!((decision.over_limit, status.limit_remaining), (over, left), "{current} {hits}");
        assert_eq!(status.reset_seconds, Some(86_400 - NOW % 86_400));
    }
}

#[test]
fn the_overall_code() {
    let shadow = "shadow_mode: true,";
    let quota = "quota_mode: true,";
    let both = "quota_mode: true, shadow_mode: true,";
    for (first, second, over, expected) in [
        ("", "", [true, false], true),
        ("", "", [false, false], false),
        (shadow, "", [true, false], false),
        (quota, "", [true, false], true),
        (quota, "", [false, false], false),
        (quota, quota, [true, false], false),
        (quota, quota, [true, true], true),
        (both, quota, [true, true], false),
    ] {
        let quotas = quotas(&format!("{}, {}", rule("a", 5, first), rule("b", 5, second)));
        for all_or_nothing in [false, true] {
            let settings = Settings { all_or_nothing, ..Settings::default() };
            let current = over.map(|over| if over { 5 } else { 0 });
            let decision = decide_at(&quotas, &settings, &request(&["a", "b"], 1), &current);
            assert_eq!(decision.over_limit, expected, "{first} {second} {over:?}");
            assert_eq!(decision.retry_seconds, None, "nobody asked for it");
            let settings = Settings { retry_info: true, ..settings };
            let told = decide_at(&quotas, &settings, &request(&["a", "b"], 1), &current);
            assert_eq!(told.retry_seconds.is_some(), expected, "{first} {second} {over:?}");
            let settings = Settings { shadow_mode: true, ..settings };
            let decision = decide_at(&quotas, &settings, &request(&["a", "b"], 1), &current);
            assert_eq!((decision.over_limit, decision.shadowed), (false, expected));
        }
        let settings = Settings { quota_mode: true, ..Settings::default() };
        let decision = decide_at(&quotas, &settings, &request(&["a", "b"], 1), &[5, 0]);
        assert!(!decision.over_limit, "every limit is a quota limit");
    }
}

#[test]
fn a_shadow_rule_reports_and_passes() {
    let quotas = quotas(&rule("a", 5, "shadow_mode: true,"));
    let decision = decide_at(&quotas, &Settings::default(), &request(&["a"], 3), &[4]);
    assert_eq!(codes(&decision), (false, vec![false]));
    assert_eq!(decision.statuses[0].limit_remaining, 0);
    let outcome = &decision.outcomes[0];
    assert_eq!((outcome.reason, outcome.hits.shadow_mode), (Reason::ShadowMode, 2));
    assert_eq!((outcome.hits.over_limit, outcome.hits.near_limit), (2, 1));
}

/// The same counters as in the reference's documentation of near limits: limit 10, ratio 0.8.
#[test]
fn what_hits_met() {
    let quotas = quotas(&rule("a", 10, ""));
    let check = |current: u64, hits: u32, expected: (u64, u64, u64)| {
        let asked = request(&["a"], hits);
        let decision = decide_at(&quotas, &Settings::default(), &asked, &[current]);
        let stats = decision.outcomes[0].hits;
        assert_eq!(stats.total, u64::from(hits));
        assert_eq!((stats.within_limit, stats.near_limit, stats.over_limit), expected);
    };
    check(0, 1, (1, 0, 0));
    check(7, 1, (1, 0, 0));
    check(7, 3, (3, 2, 0));
    check(8, 2, (2, 2, 0));
    check(8, 5, (0, 2, 3));
    check(5, 9, (0, 2, 4));
    check(10, 2, (0, 0, 2));
}

#[test]
fn the_headers_of_the_status_that_matters() {
    let quotas = quotas(&format!(
        "{}, {}, {}",
        rule("a", 5, ""),
        rule("b", 9, ""),
        rule("q", 2, "quota_mode: true,")
    ));
    let settings = Settings { headers: Some(HeaderNames::default()), ..Settings::default() };
    let check = |keys: &[&str], current: &[u64], expected: Option<(&str, &str)>| {
        let decision = decide_at(&quotas, &settings, &request(keys, 1), current);
        let value = |at: usize| decision.headers.get(at).map(|header| header.value.as_str());
        assert_eq!(value(0).zip(value(1)), expected, "{keys:?}");
    };
    check(&["a", "b"], &[0, 0], Some(("5", "4")));
    check(&["a", "b"], &[0, 6], Some(("9", "2")));
    check(&["a", "b"], &[5, 9], Some(("9", "0")));
    check(&["a", "q"], &[5, 2], Some(("5", "0")));
    check(&["none"], &[], None);
}

#[test]
fn outages_answer_by_policy_and_say_so() {
    let quotas = quotas(&rule("a", 5, ""));
    let asked = request(&["a", "none"], 1);
    let settings = Settings::default();
    let planned = plan(&asked, &quotas, &settings, NOW).expect("planned");
    for (evidence, over, left, policy) in [
        (Evidence::Bypass, false, 5, OutagePolicy::Bypass),
        (Evidence::Deny, true, 0, OutagePolicy::Deny),
    ] {
        let decision = conclude(&asked, &planned, evidence, &settings, NOW);
        assert_eq!(codes(&decision), (over, vec![over, false]));
        assert_eq!(decision.statuses[0].limit_remaining, left);
        assert!(decision.statuses[0].current_limit.is_some());
        assert_eq!(
            (decision.degraded, decision.outcomes[0].reason),
            (Some(policy), Reason::Degraded)
        );
        let metadata = decision.metadata.expect("always in an outage");
        assert_eq!(
            (&metadata["degraded"], &metadata["reason"]),
            (&true.into(), &"degraded".into())
        );
    }
    let free = request(&["none"], 1);
    let planned = plan(&free, &quotas, &settings, NOW).expect("planned");
    let decision = conclude(&free, &planned, Evidence::Deny, &settings, NOW);
    assert_eq!(
        (decision.over_limit, decision.degraded),
        (false, None),
        "nothing was to be counted"
    );
}

#[test]
fn metadata_of_what_passed_is_merged() {
    let quotas = quotas(&format!(
        "{}, {}",
        rule("a", 5, "metadata: {tier: gold, m: {x: 1}},"),
        rule("b", 5, "metadata: {tier: tin, m: {y: 2}},")
    ));
    let settings = Settings { dynamic_metadata: true, ..Settings::default() };
    let metadata = |current: [u64; 2]| {
        decide_at(&quotas, &settings, &request(&["a", "b"], 1), &current).metadata.expect("asked")
    };
    let both = metadata([0, 0]);
    assert_eq!(both["metadata"], serde_json::json!({"tier": "gold", "m": {"x": 1, "y": 2}}));
    assert_eq!(both["descriptors"][0]["rule"], "a");
    assert_eq!(both["descriptors"][1]["limit"]["requestsPerUnit"], 5);
    let second = metadata([5, 0]);
    assert_eq!(second["metadata"]["tier"], "tin");
    assert_eq!((&second["reason"], &second["class"]), (&"over_limit".into(), &"ingest".into()));
    assert_eq!(second["descriptors"][0]["reason"], "over_limit");
}

#[test]
fn a_bucket_says_what_it_holds_and_when_to_come_again() {
    let text =
        "rate_limit: {window: 60s, requests_per_unit: 6, algorithm: token_bucket, burst: 20}";
    let quotas = quotas(&format!("{{key: a, {text}}}"));
    let settings = Settings { dynamic_metadata: true, ..Settings::default() };
    let memory = Memory::default();
    let ask = |hits: u32, now: Duration| {
        let asked = request(&["a"], hits);
        let planned = plan(&asked, &quotas, &settings, now.as_secs()).expect("planned");
        let counts = memory.count_now(&planned.hits, Mode::CountAll, now);
        let found = Evidence::Counts { hits: &planned.hits, counts: &counts, degraded: false };
        conclude(&asked, &planned, found, &settings, now.as_secs())
    };
    let state = |decision: &Decision| {
        let status = &decision.statuses[0];
        (status.over_limit, status.limit_remaining, status.reset_seconds)
    };
    let first = ask(18, TIME);
    assert_eq!(state(&first), (false, 2, Some(180)), "full again in 18 times 10 s");
    let limit = &first.metadata.as_ref().expect("asked")["descriptors"][0]["limit"];
    assert_eq!((&limit["algorithm"], &limit["burst"]), (&"token_bucket".into(), &20.into()));
    assert_eq!(first.outcomes[0].hits.near_limit, 2, "of 20 the last four are near");
    let second = ask(5, TIME + Duration::from_millis(500));
    assert_eq!(state(&second), (true, 0, Some(30)), "three are missing, half a second has passed");
    assert_eq!((second.outcomes[0].hits.over_limit, second.outcomes[0].hits.within_limit), (5, 0));
    assert_eq!(state(&ask(5, TIME + Duration::from_secs(30))), (false, 0, Some(200)));
    assert_eq!(state(&ask(21, TIME)), (true, 0, Some(60)), "never");
}

proptest! {
    /// Requests against a plain count of what passed: the limit is met and never passed.
    #[test]
    fn all_or_nothing_never_admits_more_than_a_limit(
        limits in (0..6u32, 0..6u32),
        requests in proptest::collection::vec((any::<bool>(), any::<bool>(), 1..4u32), 1..30),
    ) {
        let quotas = quotas(&format!("{}, {}", rule("a", limits.0, ""), rule("b", limits.1, "")));
        let settings = Settings { all_or_nothing: true, ..Settings::default() };
        let memory = Memory::default();
        let mut admitted: HashMap<&str, u64> = HashMap::new();
        for (a, b, hits) in requests {
            let keys: Vec<&str> = [(a, "a"), (b, "b")].iter().filter(|k| k.0).map(|k| k.1).collect();
            if keys.is_empty() {
                continue;
            }
            let asked = request(&keys, hits);
            let planned = plan(&asked, &quotas, &settings, NOW).expect("planned");
            let counts = memory.count_now(&planned.hits, Mode::AllOrNothing, TIME);
            let found = Evidence::Counts { hits: &planned.hits, counts: &counts, degraded: false };
            let decision = conclude(&asked, &planned, found, &settings, NOW);
            let limit = |key: &str| u64::from(if key == "a" { limits.0 } else { limits.1 });
            let fits = keys.iter().all(|key| {
                admitted.get(key).copied().unwrap_or(0) + u64::from(hits) <= limit(key)
            });
            prop_assert_eq!(decision.over_limit, !fits);
            if fits {
                for key in keys {
                    *admitted.entry(key).or_default() += u64::from(hits);
                }
            }
        }
    }
}

/// A quota charged afterwards: what is reported counts whatever the limit, and who has reached the
/// limit is refused before the next request.
#[test]
fn an_overdraft_counts_what_has_happened_and_refuses_the_next() {
    let limit = |algorithm: &str| {
        let more = format!("algorithm: {algorithm}, overdraft: true");
        quotas(&format!("{{key: p, rate_limit: {{unit: day, requests_per_unit: 10, {more}}}}}"))
    };
    let ask = |amount: u64| {
        let descriptor = Descriptor {
            entries: [("p", "")][..].into(),
            hits_addend: Some(amount),
            ..Descriptor::default()
        };
        Request { domain: "d", descriptors: vec![descriptor], hits_addend: 0 }
    };
    for (algorithm, all_or_nothing) in
        [("fixed_window", false), ("fixed_window", true), ("sliding_window", true)]
    {
        let (quotas, memory) = (limit(algorithm), Memory::default());
        let settings = Settings { all_or_nothing, ..Settings::default() };
        let mode = if all_or_nothing { Mode::AllOrNothing } else { Mode::CountAll };
        let decide = |amount: u64| {
            let asked = ask(amount);
            let planned = plan(&asked, &quotas, &settings, NOW).expect("planned");
            let counts = memory.count_now(&planned.hits, mode, TIME);
            let found = Evidence::Counts { hits: &planned.hits, counts: &counts, degraded: false };
            let decision = conclude(&asked, &planned, found, &settings, NOW);
            (decision.over_limit, decision.statuses[0].limit_remaining)
        };
        for (amount, expected) in [
            (0, (false, 10)),
            (9, (false, 1)),
            (0, (false, 1)),
            // One request too many is let in, and counted in full.
            (25, (false, 0)),
            (0, (true, 0)),
            (3, (false, 0)),
            (0, (true, 0)),
        ] {
            assert_eq!(decide(amount), expected, "{algorithm} {all_or_nothing} {amount}");
        }
    }
    // Reaching the limit exactly is enough.
    let (quotas, settings) = (limit("fixed_window"), Settings::default());
    assert!(decide_at(&quotas, &settings, &ask(0), &[10]).over_limit);
    assert!(!decide_at(&quotas, &settings, &ask(0), &[9]).over_limit);
}
