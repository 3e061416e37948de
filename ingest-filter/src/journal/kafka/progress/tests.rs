//! Partitions that confirm and that do not, at given times.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn three() -> (Progress, Instant) {
    let now = Instant::now();
    let mut progress = Progress::new(1000);
    let placement = |partition| Placement {
        partition,
        leader: Some(partition + 1),
        copies: 2,
        in_sync: vec![partition + 1, (partition + 1) % 3 + 1],
    };
    let placements: Vec<_> = (0..3).map(placement).collect();
    progress.told(&placements, 1, &BTreeSet::new(), now);
    (progress, now)
}

#[test]
fn a_partition_that_confirms_nothing_is_held_and_costs_no_other() {
    let (mut progress, start) = three();
    progress.admit(&[(0, 10), (1, 10)], start).expect("taken");
    let later = start + HOLD_AFTER - MS;
    progress.admit(&[(0, 10)], later).expect("a pause is waited for");
    progress.decided(1, 10, true, later);
    let now = start + HOLD_AFTER;
    assert_eq!(progress.admit(&[(0, 10)], now), Err(Hold::Unconfirmed(0)));
    assert_eq!(progress.admit(&[(1, 10), (0, 10)], now), Err(Hold::Unconfirmed(0)));
    assert_eq!(progress.held(now), [Hold::Unconfirmed(0)]);
    progress.admit(&[(1, 10), (2, 10)], now).expect("others go on");
    let both = progress.gives_up_at([0, 1].into_iter());
    assert_eq!(both, Some((start + GIVE_UP_AFTER, Hold::Unconfirmed(0))));
    assert_eq!(progress.none_is_taken(), None);
}

#[test]
fn each_confirmation_begins_the_time_anew() {
    let (mut progress, start) = three();
    for second in 0..20 {
        let now = start + second * Duration::from_secs(1);
        progress.admit(&[(0, 1), (0, 1)], now).expect("slow, and going on");
        progress.decided(0, 1, true, now + 500 * MS);
    }
    let last = start + Duration::from_millis(19_500);
    assert_eq!(progress.gives_up_at([0].into_iter()).map(|(at, _)| at), Some(last + GIVE_UP_AFTER));
    assert!(progress.is_busy(0, Duration::from_secs(1), last + 999 * MS));
    assert!(!progress.is_busy(0, Duration::from_secs(1), last + 1000 * MS));
    assert!(!progress.is_busy(1, Duration::from_secs(1), last));
}

#[test]
fn after_a_hold_one_record_at_a_time_tries_until_one_is_confirmed() {
    let (mut progress, start) = three();
    progress.admit(&[(0, 1), (0, 1)], start).expect("taken");
    let failed = start + GIVE_UP_AFTER;
    progress.decided(0, 1, false, failed);
    assert_eq!(progress.admit(&[(0, 1)], failed), Err(Hold::Unconfirmed(0)), "one is under way");
    progress.decided(0, 1, false, failed);
    assert_eq!(progress.held(failed), [Hold::Unconfirmed(0)]);
    progress.admit(&[(0, 1)], failed).expect("one tries");
    assert_eq!(progress.admit(&[(0, 1)], failed + MS), Err(Hold::Unconfirmed(0)));
    progress.decided(0, 1, true, failed + 2 * MS);
    progress.admit(&[(0, 1)], failed + 3 * MS).expect("all are taken");
    progress.admit(&[(0, 1)], failed + 3 * MS).expect("all are taken");
    assert_eq!(progress.held(failed + 3 * MS), []);
}

#[test]
fn a_quick_refusal_is_no_reason_to_hold() {
    let (mut progress, start) = three();
    progress.admit(&[(0, 1), (0, 1)], start).expect("taken");
    progress.decided(0, 1, false, start + MS);
    progress.admit(&[(0, 1)], start + 2 * MS).expect("taken");
    assert_eq!(progress.held(start + 2 * MS), []);
}

#[test]
fn slow_partitions_hold_no_more_than_their_part() {
    let (mut progress, start) = three();
    progress.admit(&[(0, 600), (1, 600)], start).expect("not slow yet");
    let now = start + SLOW_AFTER;
    assert_eq!(progress.admit(&[(0, 1)], now), Err(Hold::QueueShare(0)));
    progress.admit(&[(2, 1)], now).expect("another partition is not");
    progress.decided(1, 600, true, now);
    progress.admit(&[(0, 399)], now).expect("there is room again");
    progress.admit(&[(0, 1)], now).expect("999 of 1000");
    assert_eq!(progress.admit(&[(0, 1)], now), Err(Hold::QueueShare(0)));
    assert_eq!(progress.held(now), [], "a full part is no silence");
}

#[test]
fn what_brokers_say_holds_a_partition_until_they_say_otherwise() {
    let (mut progress, now) = three();
    let none = Placement { partition: 0, ..Placement::default() };
    let few = Placement { partition: 1, leader: Some(2), copies: 3, in_sync: vec![2] };
    let well = Placement { partition: 2, leader: Some(3), copies: 3, in_sync: vec![3, 1] };
    let all = [none, few, well];
    progress.told(&all, 2, &BTreeSet::new(), now);
    assert_eq!(progress.admit(&[(0, 1)], now), Err(Hold::NoLeader(0)));
    assert_eq!(progress.admit(&[(1, 1)], now), Err(Hold::OutOfSync(1, 1, 2)));
    progress.admit(&[(2, 1)], now).expect("taken");
    assert_eq!(progress.none_is_taken(), None);
    for silent in [1, 3] {
        progress.told(&all, 2, &BTreeSet::from([silent]), now);
        let why = "it leads, or must confirm what another leads";
        assert_eq!(progress.admit(&[(2, 1)], now), Err(Hold::Silent(2, silent)), "{why}");
        assert_eq!(progress.none_is_taken(), Some(Hold::NoLeader(0)));
    }
    progress.told(&all, 1, &BTreeSet::from([9]), now);
    assert_eq!(progress.held(now), [Hold::NoLeader(0)]);
    progress.trust();
    assert_eq!(progress.held(now), []);
}

#[test]
fn nothing_is_known_of_a_topic_that_is_not_found() {
    let mut progress = Progress::new(1000);
    let now = Instant::now();
    assert_eq!((progress.held(now), progress.none_is_taken()), (Vec::new(), None));
    assert_eq!(progress.gives_up_at([7].into_iter()), None);
    progress.admit(&[(7, 1)], now).expect("a partition that is new");
    assert_eq!(progress.gives_up_at([7].into_iter()).map(|(at, _)| at), Some(now + GIVE_UP_AFTER));
}
