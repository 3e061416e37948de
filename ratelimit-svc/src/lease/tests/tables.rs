//! One table, step by step.

use std::time::Duration;

use super::{answer, hit};
use crate::lease::Terms;
use crate::lease::claim::BATCH_MAX;
use crate::lease::table::{Outcome, Table};
use crate::store::{Hit, Role};

const NOW: Duration = Duration::from_secs(100);

fn table(keys_max: usize) -> Table {
    Table::new(&Terms::default(), keys_max, 7, NOW)
}

fn named(name: &str, limit: u32, amount: u64) -> Hit {
    hit(name, 60, limit, amount, NOW.as_secs())
}

/// Answers all claims from counters that stand at nothing.
fn serve(table: &Table) -> usize {
    let claims = table.claims(usize::MAX, NOW);
    for claim in &claims {
        table.granted(claim, answer(claim, &mut 0), NOW);
    }
    claims.len()
}

/// Takes, after as many claims as it needs; whether each hit is over.
fn take(table: &Table, hits: &[Hit]) -> Vec<bool> {
    for again in [false, true] {
        if let Outcome::Counts(counts) = table.take(hits, again, NOW) {
            return counts.iter().map(|count| count.over).collect();
        }
        serve(table);
    }
    panic!("answered after one claim each");
}

#[test]
fn a_request_takes_from_all_of_its_counters_or_from_none() {
    let table = table(1000);
    let (wide, narrow) = (named("wide", 1000, 1), named("narrow", 10, 8));
    assert_eq!(take(&table, &[wide.clone(), narrow.clone()]), [false, false]);
    let held = table.held();
    assert_eq!(take(&table, &[wide.clone(), narrow.clone()]), [false, true], "two are left");
    assert_eq!(table.held(), held, "the first counter kept its token");
    let Outcome::Counts(counts) = table.take(&[wide.clone(), narrow.clone()], false, NOW) else {
        panic!("known");
    };
    assert!(counts.iter().all(|count| !count.moved) && counts[1].remembered);
    // What only reports does not refuse.
    let shadow = Hit { role: Role::Observer, ..narrow };
    let before = table.held();
    assert_eq!(take(&table, &[wide, shadow]), [false, true]);
    assert_eq!(table.held(), before - 1);
}

#[test]
fn quota_limits_refuse_together() {
    let table = table(1000);
    let quota = |hit: Hit| Hit { role: Role::Quota, ..hit };
    let (a, b) = (quota(named("a", 10, 1)), quota(named("b", 10, 11)));
    take(&table, std::slice::from_ref(&a));
    let before = table.held();
    assert_eq!(take(&table, &[a.clone(), b.clone()]), [false, true]);
    assert_eq!(table.held(), before - 1, "one quota suffices");
    assert_eq!(take(&table, std::slice::from_ref(&b)), [true]);
}

#[test]
fn claims_are_batched_and_made_once() {
    let table = table(1000);
    for n in 0..100 {
        for _ in 0..3 {
            let short = table.take(&[named(&format!("k{n}"), 1000, 1)], false, NOW);
            assert!(matches!(short, Outcome::Short(_)));
        }
    }
    assert_eq!(table.claims(BATCH_MAX, NOW).len(), BATCH_MAX);
    assert_eq!(table.claims(BATCH_MAX, NOW).len(), 100 - BATCH_MAX);
    assert!(!table.has_due());
}

#[test]
fn a_claim_that_failed_is_told_to_those_who_wait() {
    let table = table(1000);
    let one = [named("a", 1000, 1)];
    let Outcome::Short(before) = table.take(&one, false, NOW) else { panic!("nothing is known") };
    let Outcome::Short(still) = table.take(&one, true, NOW) else { panic!("nothing is known") };
    assert!(!still.has_failed_since(before));
    for claim in table.claims(BATCH_MAX, NOW) {
        assert_eq!(table.failed(&claim), before.hash);
    }
    let Outcome::Short(after) = table.take(&one, true, NOW) else { panic!("nothing is known") };
    assert!(after.has_failed_since(before));
    assert!(table.has_due(), "the next request brings a new claim");
}

#[test]
fn memory_is_bounded_and_what_is_dropped_is_lost() {
    let table = table(128);
    for n in 0..10_000 {
        assert_eq!(take(&table, &[named(&format!("k{n}"), 1000, 1)]), [false]);
        assert!(table.len() <= 128);
    }
    let tally = table.tally();
    let load =
        |number: &std::sync::atomic::AtomicU64| number.load(std::sync::atomic::Ordering::Relaxed);
    assert!(load(&tally.evicted) >= 10_000 - 128);
    assert!(table.held() <= 128 * 20, "tokens of dropped slots are nowhere");
    assert_eq!(load(&tally.spent), 10_000);
}

#[test]
fn a_drained_table_hands_over_what_it_held() {
    let table = table(1000);
    take(&table, &[named("a", 1000, 1)]);
    take(&table, &[named("b", 1000, 1), named("c", 10, 1)]);
    let held = table.held();
    let returns = table.drain(NOW);
    assert_eq!(returns.iter().map(|back| back.hit.amount).sum::<u64>(), held);
    assert!(returns.iter().all(|back| back.hit.is_refund));
    assert!(table.is_drained() && table.is_empty() && table.drain(NOW).is_empty());
}
