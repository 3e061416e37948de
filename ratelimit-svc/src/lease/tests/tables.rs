//! One table, step by step.

use std::time::Duration;

use super::{answer, hit};
use crate::decide::hit::{Hit, Mode, Role};
use crate::lease::LeaseTerms;
use crate::lease::claim::{BATCH_MAX, Claim};
use crate::lease::loss::{HOLD, RESTORED_MAX, Whose};
use crate::lease::table::recovery::{HOLDS_MAX, SPREAD_MICROS_MAX};
use crate::lease::table::view::SHOWN_MAX;
use crate::lease::table::{NOT_YET, Served, Table};
use crate::limits::sharing::{ClassShare, How};
use crate::store::memory::Memory;

const NOW: Duration = Duration::from_secs(100);

fn table(keys_max: usize) -> Table {
    Table::new(&LeaseTerms::default(), keys_max, 7, NOW)
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
        if let Served::Counts(counts) = table.take(hits, again, NOW) {
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
    let Served::Counts(counts) = table.take(&[wide.clone(), narrow.clone()], false, NOW) else {
        panic!("known");
    };
    assert!(counts.iter().all(|count| !count.moved) && counts[1].remembered);
    // What only reports does not refuse.
    let shadow = Hit { role: Role::Observer, ..narrow };
    let before = table.held();
    assert_eq!(take(&table, &[wide, shadow]), [false, true]);
    assert_eq!(table.held(), before - 1);
}

/// However often a request tries again, and only if it passes.
#[test]
fn what_a_request_gives_back_is_given_back_once() {
    let table = table(1000);
    let (spent, narrow) = (named("spent", 1000, 200), named("narrow", 10, 8));
    take(&table, std::slice::from_ref(&spent));
    let back = Hit { is_refund: true, ..named("spent", 1000, 10) };
    let both = [back, narrow];
    let left = |table: &Table| match table.take(&[named("spent", 1000, 0)], false, NOW) {
        Served::Counts(counts) => 1000 - counts[0].value,
        _ => panic!("known"),
    };
    assert_eq!(left(&table), 800);
    for _ in 0..3 {
        assert!(matches!(table.take(&both, true, NOW), Served::Short(_)));
    }
    assert_eq!(left(&table), 800, "it waits");
    serve(&table);
    let Served::Counts(counts) = table.take(&both, true, NOW) else { panic!("served") };
    assert_eq!((counts[0].moved, counts[0].value, left(&table)), (true, 190, 810));
    assert_eq!(take(&table, &both), [false, true], "two are left of the narrow one");
    assert_eq!(left(&table), 810, "refused");
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
            assert!(matches!(short, Served::Short(_)));
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
    let Served::Short(before) = table.take(&one, false, NOW) else { panic!("nothing is known") };
    let Served::Short(still) = table.take(&one, true, NOW) else { panic!("nothing is known") };
    assert!(!still.has_failed_since(before));
    for claim in table.claims(BATCH_MAX, NOW) {
        assert_eq!(table.failed(&claim), before.hash);
    }
    let Served::Short(after) = table.take(&one, true, NOW) else { panic!("nothing is known") };
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

/// What is held when a process ends is lost to the window: of an hour or more next to nothing, at a
/// claim in ten requests and less. Ten requests a second for a minute from each of three replicas.
#[test]
fn a_restart_strands_little_of_a_long_window() {
    for (limit, per_second, held_max, claims_max) in [
        (1_000_000, 10, 1000, 0.1),
        (1_000_000, 1000, 1000, 0.02),
        (100_000, 100, 100, 0.1),
        (1200, 4, 72, 0.15),
    ] {
        let terms = LeaseTerms { replicas: 3, ..LeaseTerms::default() };
        let tables: Vec<Table> = (0..3).map(|seed| Table::new(&terms, 1000, seed, NOW)).collect();
        let (mut counter, mut claims, mut requests) = (0, 0, 0);
        for step in 0..60 * per_second {
            let now = NOW + Duration::from_secs(1) * step / per_second;
            for table in &tables {
                let one = hit("long", 3600, limit, 1, now.as_secs());
                for again in [false, true] {
                    let served = table.take(std::slice::from_ref(&one), again, now);
                    for claim in table.claims(usize::MAX, now) {
                        claims += 1;
                        table.granted(&claim, answer(&claim, &mut counter), now);
                    }
                    if matches!(served, Served::Counts(_)) {
                        break;
                    }
                }
                requests += 1;
            }
        }
        let held: u64 = tables.iter().map(Table::held).sum();
        println!("limit {limit}, {per_second}/s: {held} held, {claims} claims of {requests}");
        assert!(held <= held_max, "{held} of {limit} are lost");
        assert!(f64::from(claims) <= claims_max * f64::from(requests), "{claims} of {requests}");
    }
}

/// Classes that fall due together are granted from the highest down, in whatever order they came.
#[test]
fn the_order_within_a_batch_does_not_matter() {
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]];
    let granted = orders.map(|order| {
        let (table, counters) = (table(1000), Memory::default());
        let of = |class: u8, amount| {
            let how = How::Forecast { guarantees: None };
            let share = Some(ClassShare { rank: class, classes: 4, how, asked: None });
            Hit { share, ..named("pool", 100, amount) }
        };
        // More than there is, with what is kept for higher ones.
        for class in order {
            let outcome = table.take(&[of(class, 30)], false, NOW);
            assert!(matches!(outcome, Served::Short(_)), "{outcome:?}");
        }
        let claims = table.claims(BATCH_MAX, NOW);
        let hits: Vec<Hit> = claims.iter().map(Claim::counted_hit).collect();
        let counts = counters.count_now(&hits, Mode::CountAll, NOW);
        let mut granted = [0; 4];
        for (claim, count) in claims.iter().zip(&counts) {
            granted[claim.class] += claim.grant(count).granted;
        }
        granted
    });
    assert!(granted[0][0] > 0 && granted[0][3] == 0, "{granted:?}");
    assert!(granted.iter().all(|other| *other == granted[0]), "{granted:?}");
}

/// A table that does not know the time gives no free tokens, and after that those of new windows.
#[test]
fn free_tokens_wait_for_the_time() {
    let terms = LeaseTerms { replicas: 1, free_ppm: 500_000, free_replicas: 1 };
    let table = Table::new(&terms, 1000, 1, NOT_YET);
    let ask = |now: Duration| table.take(&[hit("a", 1, 100, 1, now.as_secs())], false, now);
    assert!(matches!(ask(NOW), Served::Short(_)));
    table.began(NOW);
    assert!(matches!(ask(NOW), Served::Short(_)), "an earlier process may have spent them");
    assert!(matches!(ask(NOW + Duration::from_secs(1)), Served::Counts(_)));
}

/// After a loss of data nothing is claimed for a while, and counters are told what was claimed.
#[test]
fn a_store_that_lost_its_data_is_told_first() {
    let table = table(1000);
    take(&table, &[named("a", 1000, 5), named("b", 1000, 1)]);
    let held = table.held();
    table.lost(NOW, &Whose::all());
    assert_eq!(take(&table, &[named("a", 1000, 1)]), [false], "what is held is spent");
    assert_eq!(table.take(&[named("c", 1000, 1)], false, NOW), Served::Held);
    let told = table.restorations(RESTORED_MAX);
    assert_eq!((told.len(), table.unrestored()), (2, 0));
    assert_eq!(told.iter().map(|told| told.hit.amount).sum::<u64>(), held + 6);
    assert!(told.iter().all(|told| told.taken == told.hit.amount));
    table.restored(&told[0], None);
    assert_eq!(table.restorations(RESTORED_MAX), [told[0].clone()], "told again");
    table.restored(&told[0], Some(900));
    table.restored(&told[1], Some(900));
    assert!(table.claims(BATCH_MAX, NOW + HOLD / 2).is_empty());
    let later = NOW + HOLD + Duration::from_secs(1);
    let outcome = table.take(&[named("c", 1000, 1)], false, later);
    assert!(matches!(outcome, Served::Short(_)), "{outcome:?}");
    assert_eq!(table.claims(BATCH_MAX, later).len(), 1);
}

/// A loss of some counters holds back those alone, and a process that finds young data claims
/// nothing of them for as long as it is told to.
#[test]
fn only_what_was_lost_is_held_back() {
    let table = table(1000);
    take(&table, &[named("a", 1000, 5), named("b", 1000, 1)]);
    let of = |first: u8| Whose::new(move |hit: &Hit| hit.key[0] == first);
    table.lost(NOW, &of(b'a'));
    assert_eq!(table.unrestored(), 1);
    assert!(table.is_holding(NOW));
    let is_held = |name, now| table.take(&[named(name, 500, 450)], false, now) == Served::Held;
    assert!(is_held("a2", NOW) && !is_held("b2", NOW));
    // What had fallen due before is not claimed either.
    assert!(table.claims(BATCH_MAX, NOW).iter().all(|claim| claim.stem[0] != b'a'));
    let young = HOLD / 4;
    table.hold(NOW, young, &of(b'c'));
    assert!(is_held("c", NOW) && is_held("a3", NOW) && !is_held("b3", NOW));
    let later = NOW + young + Duration::from_micros(SPREAD_MICROS_MAX);
    assert!(is_held("a4", later) && !is_held("c2", later));
    // More holds than can be told apart hold everything.
    (0..HOLDS_MAX).for_each(|_| table.hold(NOW, HOLD, &of(b'c')));
    assert!(is_held("b4", NOW));
    let end = NOW + HOLD + Duration::from_micros(SPREAD_MICROS_MAX);
    assert!(!is_held("a5", end) && !is_held("b5", end) && !table.is_holding(end));
}

/// What is shown names rules and no tenants.
#[test]
fn the_rules_that_hold_most_are_shown() {
    let table = table(100_000);
    for rule in 0..SHOWN_MAX + 5 {
        for tenant in ["acme", "globex"] {
            let name = format!("{{4:edge4:k{rule:03}6:{tenant:6}}}");
            take(&table, &[named(&name, 1000 * (rule as u32 + 1), 1)]);
        }
    }
    let shown = table.largest();
    assert_eq!(shown.len(), SHOWN_MAX);
    assert_eq!((&*shown[0].rule, shown[0].counters), ("edge.k024", 2));
    assert!(shown.is_sorted_by(|a, b| a.held >= b.held) && shown[0].held > 0);
}
