//! Outages without a store: what passes before, during and after adds up to the limit.

use proptest::prelude::*;

use super::*;
use crate::decide::hit::Role;
use crate::limits::algorithm::Algorithm;
use crate::limits::unit::Window;

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

fn share(replicas: u32) -> ReplicaShare {
    ReplicaShare { replicas, factor: 1.0 }
}

/// Of a request of one hit whose answer was lost.
fn unsure() -> Unavailable {
    Unavailable::of(vec![Outcome::Unsure])
}

/// Whether a hit passes at this replica in an outage.
fn passes(local: &Local, hit: &Hit, replicas: u32) -> bool {
    let hits = std::slice::from_ref(hit);
    let (parts, counts, _) =
        local.count(hits, share(replicas), Mode::CountAll, NOW, &Unavailable::NOT_ASKED);
    assert_eq!(parts.len(), counts.len());
    !counts[0].over
}

fn learn(local: &Local, store: &Memory, hit: &Hit) -> bool {
    let hits = std::slice::from_ref(hit);
    let counts = store.count_now(hits, Mode::CountAll, NOW);
    local.learn(hits.iter().zip(counts.iter().copied()), NOW);
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
        local.count(std::slice::from_ref(&hit), share(1), Mode::CountAll, NOW, &unsure());
    assert!(!counts[0].over);
    assert!(local.owed().is_empty(), "the store may have counted it");
    for _ in 0..6 {
        assert!(learn(&local, &store, &hit));
    }
    assert_eq!((0..9).filter(|_| passes(&local, &hit, 1)).count(), 2);
}

#[test]
fn each_hit_is_judged_where_it_was_counted_and_owed_where_it_was_not() {
    let local = Local::default();
    let hits = [hit("there", 1, 8), hit("lost", 1, 8), hit("in doubt", 1, 8)];
    let counted = |over| Count {
        value: 3,
        reset: Duration::ZERO,
        over,
        moved: true,
        withheld: 0,
        remembered: false,
    };
    let lost = |over| {
        let outcomes = [Outcome::Counted(counted(over)), Outcome::NotCounted, Outcome::Unsure];
        Unavailable::of(outcomes.into())
    };
    let owed = || {
        let owed = local.take_owed(9, NOW);
        owed.iter().map(|hit| (hit.key.to_vec(), hit.amount)).collect::<Vec<_>>()
    };
    for over in [false, true] {
        let (judged, counts, _) = local.count(&hits, share(2), Mode::CountAll, NOW, &lost(over));
        assert_eq!(judged.iter().map(|hit| hit.limit).collect::<Vec<_>>(), [8, 4, 4]);
        assert_eq!(counts[0], counted(over), "as the store said");
        assert!(!counts[1].over && !counts[2].over);
        assert_eq!(owed(), [(b"lost".to_vec(), 1)]);
        assert_eq!(local.bypass(&hits, share(2), NOW, &lost(over)), 0);
        assert_eq!(owed(), [(b"lost".to_vec(), 1)], "what bypassed");
    }
    assert!(!passes(&local, &hits[1], 2) && !passes(&local, &hits[2], 2), "their shares are used");
    assert!(passes(&local, &hits[0], 2), "nothing of this share");
}

#[test]
fn what_bypasses_is_taken_from_the_others_and_owed() {
    let local = Local::default();
    for _ in 0..3 {
        assert_eq!(local.bypass(&[hit("a", 1, 8)], share(2), NOW, &Unavailable::NOT_ASKED), 0);
    }
    assert!(passes(&local, &hit("a", 1, 8), 2));
    assert!(!passes(&local, &hit("a", 1, 8), 2));
    assert_eq!(local.owed().take(9, NOW)[0].amount, 4);
    local.bypass(&[hit("a", 1, 8)], share(2), NOW, &unsure());
    assert!(local.owed().is_empty());
}

#[test]
fn a_used_share_does_not_begin_anew_before_the_store_counts() {
    let (local, store) = (Local::default(), Memory::default());
    let hit = hit("a", 1, 8);
    assert_eq!((0..9).filter(|_| passes(&local, &hit, 2)).count(), 4);
    local.tidy(NOW);
    assert!(!passes(&local, &hit, 2), "the store is found and the counter is not asked");
    let hits = std::slice::from_ref(&hit);
    let counts = store.count_now(hits, Mode::CountAll, NOW);
    local.learn(hits.iter().zip(counts.iter().copied()), NOW);
    assert_eq!((0..9).filter(|_| passes(&local, &hit, 2)).count(), 3, "half of 8 - 1");
}

#[test]
fn what_has_ended_is_dropped() {
    let (local, hit) = (Local::default(), hit("a", 1, 8));
    assert!(passes(&local, &hit, 1));
    local.tidy(NOW);
    assert_eq!((local.counters.len(), local.used.load(Ordering::Relaxed)), (1, true));
    local.tidy(Duration::from_secs(hit.window.end()));
    assert_eq!((local.counters.len(), local.used.load(Ordering::Relaxed)), (0, false));
}

#[test]
fn a_bucket_is_owed_at_the_pace_of_a_share() {
    let local = Local::default();
    let bucket = Hit { algorithm: Algorithm::TokenBucket { burst: 6 }, ..hit("a", 1, 12) };
    // 12 in 60 s for two replicas: one every 10 s here.
    for _ in 0..5 {
        local.bypass(std::slice::from_ref(&bucket), share(2), NOW, &Unavailable::NOT_ASKED);
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
                        local.tidy(NOW);
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
