//! Partitions that confirm and that do not, at given times.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn three() -> (Progress, Instant) {
    let now = Instant::now();
    let mut progress = Progress::default();
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

/// Records of these partitions are sent, all or none.
fn admit(progress: &mut Progress, partitions: &[u32], now: Instant) -> Result<(), Hold> {
    progress.check(partitions.iter().copied(), now)?;
    partitions.iter().for_each(|partition| progress.sent(*partition, now));
    Ok(())
}

#[test]
fn a_partition_that_confirms_nothing_is_held_and_costs_no_other() {
    let (mut progress, start) = three();
    admit(&mut progress, &[0, 1], start).expect("taken");
    let later = start + HOLD_AFTER - MS;
    admit(&mut progress, &[0], later).expect("a pause is waited for");
    progress.decided(1, true, later);
    let now = start + HOLD_AFTER;
    assert_eq!(admit(&mut progress, &[0], now), Err(Hold::Unconfirmed(0)));
    assert_eq!(admit(&mut progress, &[1, 0], now), Err(Hold::Unconfirmed(0)));
    assert_eq!(progress.held(now), [Hold::Unconfirmed(0)]);
    admit(&mut progress, &[1, 2], now).expect("others go on");
    let both = progress.gives_up_at([0, 1].into_iter());
    assert_eq!(both, Some((start + GIVE_UP_AFTER, Hold::Unconfirmed(0))));
    assert_eq!(progress.none_is_taken(), None);
}

#[test]
fn each_confirmation_begins_the_time_anew() {
    let (mut progress, start) = three();
    for second in 0..20 {
        let now = start + second * Duration::from_secs(1);
        admit(&mut progress, &[0, 0], now).expect("slow, and going on");
        progress.decided(0, true, now + 500 * MS);
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
    admit(&mut progress, &[0, 0], start).expect("taken");
    let failed = start + GIVE_UP_AFTER;
    progress.decided(0, false, failed);
    assert_eq!(admit(&mut progress, &[0], failed), Err(Hold::Unconfirmed(0)), "one is under way");
    progress.decided(0, false, failed);
    assert_eq!(progress.held(failed), [Hold::Unconfirmed(0)]);
    admit(&mut progress, &[0], failed).expect("one tries");
    assert_eq!(admit(&mut progress, &[0], failed + MS), Err(Hold::Unconfirmed(0)));
    progress.decided(0, true, failed + 2 * MS);
    admit(&mut progress, &[0], failed + 3 * MS).expect("all are taken");
    admit(&mut progress, &[0], failed + 3 * MS).expect("all are taken");
    assert_eq!(progress.held(failed + 3 * MS), []);
}

#[test]
fn a_quick_refusal_is_no_reason_to_hold() {
    let (mut progress, start) = three();
    admit(&mut progress, &[0, 0], start).expect("taken");
    progress.decided(0, false, start + MS);
    admit(&mut progress, &[0], start + 2 * MS).expect("taken");
    assert_eq!(progress.held(start + 2 * MS), []);
}

#[test]
fn a_partition_is_slow_while_a_record_waits_for_it_and_none_is_confirmed() {
    let (mut progress, start) = three();
    assert!(!progress.is_slow(0, start + SLOW_AFTER) && !progress.is_slow(9, start));
    admit(&mut progress, &[0, 0], start).expect("taken");
    assert!(!progress.is_slow(0, start + SLOW_AFTER - MS));
    assert!(progress.is_slow(0, start + SLOW_AFTER));
    progress.decided(0, true, start + SLOW_AFTER);
    assert!(!progress.is_slow(0, start + SLOW_AFTER));
    assert!(progress.is_slow(0, start + 2 * SLOW_AFTER));
    progress.decided(0, true, start + 2 * SLOW_AFTER);
    assert!(!progress.is_slow(0, start + 9 * SLOW_AFTER), "nothing waits");
}

#[test]
fn what_brokers_say_holds_a_partition_until_they_say_otherwise() {
    let (mut progress, now) = three();
    let none = Placement { partition: 0, ..Placement::default() };
    let few = Placement { partition: 1, leader: Some(2), copies: 3, in_sync: vec![2] };
    let well = Placement { partition: 2, leader: Some(3), copies: 3, in_sync: vec![3, 1] };
    let all = [none, few, well];
    progress.told(&all, 2, &BTreeSet::new(), now);
    assert_eq!(admit(&mut progress, &[0], now), Err(Hold::NoLeader(0)));
    assert_eq!(admit(&mut progress, &[1], now), Err(Hold::OutOfSync(1, 1, 2)));
    admit(&mut progress, &[2], now).expect("taken");
    assert_eq!(progress.none_is_taken(), None);
    for silent in [1, 3] {
        progress.told(&all, 2, &BTreeSet::from([silent]), now);
        let why = "it leads, or must confirm what another leads";
        assert_eq!(admit(&mut progress, &[2], now), Err(Hold::Silent(2, silent)), "{why}");
        assert_eq!(progress.none_is_taken(), Some(Hold::NoLeader(0)));
    }
    progress.told(&all, 1, &BTreeSet::from([9]), now);
    assert_eq!(progress.held(now), [Hold::NoLeader(0)]);
    progress.trust();
    assert_eq!(progress.held(now), []);
}

#[test]
fn nothing_is_known_of_a_topic_that_is_not_found() {
    let mut progress = Progress::default();
    let now = Instant::now();
    assert_eq!((progress.held(now), progress.none_is_taken()), (Vec::new(), None));
    assert_eq!(progress.gives_up_at([7].into_iter()), None);
    admit(&mut progress, &[7], now).expect("a partition that is new");
    assert_eq!(progress.gives_up_at([7].into_iter()).map(|(at, _)| at), Some(now + GIVE_UP_AFTER));
}
