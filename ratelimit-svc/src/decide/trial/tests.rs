//! Tests of `decide::trial`.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::decide::conclude::{Evidence, conclude};
use crate::decide::hit::Mode;
use crate::decide::key::{stem, usage_key};
use crate::decide::metadata::add_trials;
use crate::decide::plan::plan;
use crate::decide::request::Descriptor;
use crate::limits::class::OutagePolicy;
use crate::limits::quotas::Library;
use crate::store::memory::Memory;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn quotas(descriptors: &str) -> Quotas {
    let text = format!("domain: d\ndescriptors: [{descriptors}]\n");
    let update = Library::default().update(&[(PathBuf::from("f"), Ok(text.into_bytes()))].into());
    assert!(update.errors.is_empty(), "{:?}", update.errors);
    update.quotas
}

/// A service of one place.
struct Place {
    quotas: Quotas,
    settings: Settings,
    counters: Memory,
}

impl Place {
    fn new(descriptors: &str, all_or_nothing: bool) -> Self {
        let settings = Settings { all_or_nothing, dynamic_metadata: true, ..Settings::default() };
        Self { quotas: quotas(descriptors), settings, counters: Memory::default() }
    }

    fn mode(&self) -> Mode {
        if self.settings.all_or_nothing { Mode::AllOrNothing } else { Mode::CountAll }
    }

    /// Whether a request is refused, and what each trial made of it.
    fn ask(&self, descriptors: &[&[(&str, &str)]]) -> (bool, Vec<bool>, serde_json::Value) {
        let descriptors = descriptors
            .iter()
            .map(|entries| Descriptor { entries: (*entries).into(), ..Descriptor::default() })
            .collect();
        let request = Request { domain: "d", descriptors, hits_addend: 0 };
        let seconds = NOW.as_secs();
        let planned = plan(&request, &self.quotas, &self.settings, seconds).expect("planned");
        let counts = self.counters.count_now(&planned.hits, self.mode(), NOW);
        let found = Evidence::Counts { hits: &planned.hits, counts: &counts, degraded: false };
        let mut decision = conclude(&request, &planned, found, &self.settings, seconds);
        for tried in trials(&request, &planned, &decision, &self.quotas, &self.settings, seconds) {
            let hits = std::slice::from_ref(&tried.hit);
            let counts = self.counters.count_now(hits, self.mode(), NOW);
            decision.trials.push(tried.status(&counts[0]));
        }
        let mut metadata = decision.metadata.clone().expect("asked for");
        add_trials(&mut metadata, &decision.trials);
        let over = decision.trials.iter().map(|trial| trial.over_limit).collect();
        (decision.over_limit, over, metadata)
    }
}

#[test]
fn a_trial_is_counted_apart_and_refuses_nothing() {
    for all_or_nothing in [false, true] {
        let place = Place::new(
            "{key: t, rate_limit: {unit: day, requests_per_unit: 5, trial: {requests_per_unit: 3}}}",
            all_or_nothing,
        );
        let made: Vec<(bool, bool)> = (0..7)
            .map(|_| place.ask(&[&[("t", "a")]]))
            .map(|(refused, tried, _)| (refused, tried[0]))
            .collect();
        let (ok, newly, both) = ((false, false), (false, true), (true, true));
        assert_eq!(made, [ok, ok, ok, newly, newly, both, both], "{all_or_nothing}");
    }
}

#[test]
fn a_higher_trial_says_what_would_newly_be_admitted() {
    let place = Place::new(
        "{key: t, rate_limit: {unit: day, requests_per_unit: 2, trial: {requests_per_unit: 4}}}",
        true,
    );
    let made: Vec<(bool, bool)> = (0..6)
        .map(|_| place.ask(&[&[("t", "a")]]))
        .map(|(refused, tried, _)| (refused, tried[0]))
        .collect();
    let (ok, newly_admitted, both) = ((false, false), (true, false), (true, true));
    assert_eq!(made, [ok, ok, newly_admitted, newly_admitted, both, both]);
}

#[test]
fn what_another_limit_refuses_does_not_reach_the_trial() {
    let place = Place::new(
        "{key: t, rate_limit: {unit: day, requests_per_unit: 50, trial: {requests_per_unit: 3}}},
         {key: pool, rate_limit: {unit: day, requests_per_unit: 2}}",
        true,
    );
    for n in 0..6 {
        let (refused, tried, _) = place.ask(&[&[("t", "a")], &[("pool", "")]]);
        assert_eq!((refused, tried.len()), (n >= 2, usize::from(n < 2)), "{n}");
    }
    // Two were counted, so there is room for one.
    assert_eq!(place.ask(&[&[("t", "a")]]).1, [false]);
    assert_eq!(place.ask(&[&[("t", "a")]]).1, [true]);
}

#[test]
fn an_unlimited_rule_can_try_a_limit() {
    let place = Place::new(
        "{key: t, rate_limit: {unlimited: true, trial: {unit: day, requests_per_unit: 1}}}",
        false,
    );
    assert_eq!(place.ask(&[&[("t", "a")]]).1, [false]);
    let (refused, tried, metadata) = place.ask(&[&[("t", "a")]]);
    assert_eq!((refused, tried), (false, vec![true]));
    assert_eq!(metadata["trial"], "over_limit");
    let shown = &metadata["descriptors"][0]["trial"];
    assert_eq!((&shown["requestsPerUnit"], &shown["unit"]), (&1.into(), &"DAY".into()));
    assert_eq!((&shown["reason"], &shown["remaining"]), (&"over_limit".into(), &0.into()));
}

#[test]
fn classes_share_a_trial_by_its_own_rule() {
    let place = Place::new(
        "{key: t, rate_limit: {unit: day, requests_per_unit: 10, reserve: none,
          trial: {admit_up_to: {background: 0.2}}}}",
        false,
    );
    let low: [&[(&str, &str)]; 1] = [&[("t", "a"), ("priority", "background")]];
    let made: Vec<bool> = (0..3).map(|_| place.ask(&low).1[0]).collect();
    assert_eq!(made, [false, false, true]);
    let high: [&[(&str, &str)]; 1] = [&[("t", "a"), ("priority", "ingest")]];
    assert_eq!(place.ask(&high).1, [false]);
}

#[test]
fn an_outage_and_a_rule_without_a_trial_try_nothing() {
    let place = Place::new(
        "{key: t, rate_limit: {unit: day, requests_per_unit: 5, trial: {requests_per_unit: 3}}},
         {key: plain, rate_limit: {unit: day, requests_per_unit: 5}}",
        false,
    );
    assert!(place.ask(&[&[("plain", "")]]).1.is_empty());
    assert!(place.ask(&[&[("plain", "")]]).2["trial"].is_null());
    let entries: &[(&str, &str)] = &[("t", "a")];
    let descriptor = Descriptor { entries: entries.into(), ..Descriptor::default() };
    let request = Request { domain: "d", descriptors: vec![descriptor], hits_addend: 0 };
    let planned = plan(&request, &place.quotas, &place.settings, NOW.as_secs()).expect("planned");
    assert!(has_trials(&planned));
    let mut decision =
        conclude(&request, &planned, Evidence::Bypass, &place.settings, NOW.as_secs());
    assert_eq!(decision.degraded, Some(OutagePolicy::Bypass));
    let of = |decision: &Decision| {
        trials(&request, &planned, decision, &place.quotas, &place.settings, NOW.as_secs()).len()
    };
    assert_eq!(of(&decision), 0);
    decision.degraded = None;
    assert_eq!(of(&decision), 1);
}

#[test]
fn its_counter_is_no_other() {
    let place = Place::new(
        "{key: t, rate_limit: {unit: day, requests_per_unit: 5, trial: {requests_per_unit: 3}}}",
        false,
    );
    let entries: &[(&str, &str)] = &[("t", "a|b"), ("priority", "ingest")];
    let descriptor = Descriptor { entries: entries.into(), ..Descriptor::default() };
    let request = Request { domain: "d", descriptors: vec![descriptor], hits_addend: 0 };
    for key_format in [KeyFormat::Tidegate, KeyFormat::Reference] {
        let settings = Settings { key_format, ..Settings::default() };
        let planned = plan(&request, &place.quotas, &settings, NOW.as_secs()).expect("planned");
        let decision = conclude(&request, &planned, Evidence::Bypass, &settings, NOW.as_secs());
        let decision = Decision { degraded: None, ..decision };
        let tried = trials(&request, &planned, &decision, &place.quotas, &settings, NOW.as_secs());
        let name = String::from_utf8_lossy(&tried[0].hit.key).into_owned();
        assert_eq!(name, "{1:d1:t3:a|b}~trial|d20833");
        assert_eq!(stem(&tried[0].hit.key), b"{1:d1:t3:a|b}~trial|d");
        let named = crate::decide::key::keys_of(&tried[0].hit.key);
        assert_eq!(named.as_deref(), Some("d.t (trial)"));
        assert_ne!(planned.hits[0].key, tried[0].hit.key);
        assert_ne!(usage_key(&planned.hits[0]), usage_key(&tried[0].hit));
    }
}
