//! Outages without a store: what passes before, during and after adds up to the limit.

use proptest::prelude::*;

use super::*;
use crate::limits::algorithm::Algorithm;
use crate::limits::unit::Window;
use crate::store::Role;

const NOW: Duration = Duration::from_secs(90);

fn hit(key: &str, amount: u64, limit: u32) -> Hit {
    Hit {
        key: key.as_bytes().into(),
        amount,
        is_refund: false,
        limit,
        window: Window { start: 60, seconds: 60 },
        algorithm: Algorithm::FixedWindow,
        role: Role::Enforced,
        share: None,
    }
}

fn share(replicas: u32) -> Share {
    Share { replicas, factor: 1.0 }
}

/// Whether a hit passes at this replica in an outage.
fn passes(local: &Local, hit: &Hit, replicas: u32) -> bool {
    let hits = std::slice::from_ref(hit);
    let (parts, counts, _) = local.count(hits, share(replicas), Mode::CountAll, NOW, false);
    assert_eq!(parts.len(), counts.len());
    !counts[0].over
}

fn learn(local: &Local, store: &Memory, hit: &Hit) -> bool {
    let hits = std::slice::from_ref(hit);
    let counts = store.count_now(hits, Mode::CountAll, NOW);
    local.learn(hits, &counts, NOW, false);
    !counts[0].over
}

#[test]
fn an_unknown_counter_has_its_whole_share() {
    let local = Local::default();
    let passed = (0..9).filter(|_| passes(&local, &hit("a", 1, 8), 2)).count();
    assert_eq!(passed, 4);
}

#[test]
fn a_known_counter_goes_on_and_a_second_outage_starts_from_the_newest() {
    let (local, store) = (Local::default(), Memory::default());
    let hit = hit("a", 1, 20);
    for _ in 0..4 {
        assert!(learn(&local, &store, &hit));
    }
    assert_eq!((0..20).filter(|_| passes(&local, &hit, 2)).count(), 8);
    // Only this replica was busy: the store is told of its 8.
    local.clear();
    let owed = local.owed().take(9, NOW);
    assert_eq!(owed.iter().map(|hit| hit.amount).collect::<Vec<_>>(), [8]);
    store.count_now(&owed, Mode::CountAll, NOW);
    assert!(learn(&local, &store, &hit));
    assert_eq!((0..20).filter(|_| passes(&local, &hit, 2)).count(), 3, "half of 20 - 13");
}

#[test]
fn one_failed_call_leaves_nothing_behind() {
    let (local, store) = (Local::default(), Memory::default());
    let hit = hit("a", 1, 8);
    let (_, counts, _) =
        local.count(std::slice::from_ref(&hit), share(1), Mode::CountAll, NOW, true);
    assert!(!counts[0].over);
    assert!(local.owed().is_empty(), "the store may have counted it");
    for _ in 0..6 {
        assert!(learn(&local, &store, &hit));
    }
    assert_eq!((0..9).filter(|_| passes(&local, &hit, 1)).count(), 2);
}

#[test]
fn what_bypasses_is_taken_from_the_others_and_owed() {
    let local = Local::default();
    for _ in 0..3 {
        assert_eq!(local.bypass(&[hit("a", 1, 8)], share(2), NOW, false), 0);
    }
    assert!(passes(&local, &hit("a", 1, 8), 2));
    assert!(!passes(&local, &hit("a", 1, 8), 2));
    assert_eq!(local.owed().take(9, NOW)[0].amount, 4);
    local.bypass(&[hit("a", 1, 8)], share(2), NOW, true);
    assert!(local.owed().is_empty());
}

#[test]
fn a_used_share_does_not_begin_anew_while_counters_return() {
    let (local, store) = (Local::default(), Memory::default());
    let hit = hit("a", 1, 8);
    assert_eq!((0..9).filter(|_| passes(&local, &hit, 2)).count(), 4);
    let hits = std::slice::from_ref(&hit);
    let counts = store.count_now(hits, Mode::CountAll, NOW);
    local.learn(hits, &counts, NOW, true);
    assert!(!passes(&local, &hit, 2), "beside another counter that has not returned");
    local.clear();
    assert_eq!((0..9).filter(|_| passes(&local, &hit, 2)).count(), 3, "half of 8 - 1");
}

#[test]
fn a_bucket_is_owed_at_the_pace_of_a_share() {
    let local = Local::default();
    let bucket = Hit { algorithm: Algorithm::TokenBucket { burst: 6 }, ..hit("a", 1, 12) };
    // 12 in 60 s for two replicas: one every 10 s here.
    for _ in 0..5 {
        local.bypass(std::slice::from_ref(&bucket), share(2), NOW, false);
    }
    let owed = local.take_owed_of(&[bucket], NOW + Duration::from_secs(20));
    assert_eq!(owed.iter().map(|hit| (hit.limit, hit.amount)).collect::<Vec<_>>(), [(12, 3)]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A hit at a replica.
    Ask(usize),
    Fail,
    Mend,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0usize..3).prop_map(Step::Ask),
        1 => Just(Step::Fail),
        1 => Just(Step::Mend),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Three replicas, outages at any time. Whenever all replicas heard the newest count before
    /// an outage, the window never passes its limit.
    #[test]
    fn no_window_passes_its_limit(limit in 0u32..60, steps in steps()) {
        let replicas: [Local; 3] = Default::default();
        let store = Memory::default();
        let (ask, look) = (hit("a", 1, limit), hit("a", 0, limit));
        let (mut admitted, mut away) = (0, false);
        for local in &replicas {
            learn(local, &store, &look);
        }
        for step in steps {
            match step {
                Step::Ask(at) if away => admitted += u32::from(passes(&replicas[at], &ask, 3)),
                Step::Ask(at) => admitted += u32::from(learn(&replicas[at], &store, &ask)),
                Step::Fail if !away => {
                    for local in &replicas {
                        learn(local, &store, &look);
                    }
                    away = true;
                }
                Step::Mend if away => {
                    for local in &replicas {
                        local.clear();
                        store.count_now(&local.owed().take(9, NOW), Mode::CountAll, NOW);
                    }
                    away = false;
                }
                Step::Fail | Step::Mend => {}
            }
        }
        prop_assert!(admitted <= limit, "{admitted} of {limit}");
    }
}
