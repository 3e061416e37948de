//! What becomes of a batch, against databases that refuse, fail and come back.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const CONFIG: RetryConfig =
    RetryConfig { backoff_max: Duration::from_secs(30), poison_attempts: 3 };

fn refused() -> Answer {
    Answer::Refused { status: 400, message: "type conflict".to_owned() }
}

fn failed() -> Answer {
    Answer::Failed { status: 500, message: "panic".to_owned() }
}

/// Runs `work` against a database that answers `answer(lines)`; gives the order of writes.
fn run(work: &mut Work, mut answer: impl FnMut(&Range<usize>) -> Answer) -> Vec<Range<usize>> {
    let mut writes = Vec::new();
    for _ in 0..10_000 {
        match work.next() {
            Next::Done => return writes,
            Next::Write(lines) => {
                writes.push(lines.clone());
                let answer = answer(&lines);
                work.answered(answer, 0.5);
            }
            Next::Ping | Next::Canary(_) => {
                work.well(true, 0.5);
            }
        }
    }
    panic!("the work does not end: {work:?}");
}

fn buried(work: &Work) -> Vec<(usize, Cause)> {
    let points = work.dead().iter().flat_map(|dead| dead.lines.clone().map(|l| (l, dead.cause)));
    points.collect()
}

/// The points by their last writes: of two with one series and time the later one must be the last.
fn in_order(stored: Vec<usize>) -> Vec<usize> {
    let mut last: Vec<usize> = Vec::new();
    for line in stored.into_iter().rev() {
        if !last.contains(&line) {
            last.push(line);
        }
    }
    last.reverse();
    last
}

proptest! {
    /// Bad points and poisonous ones are found, all others are written, in order.
    #[test]
    fn exactly_the_bad_points_die(
        lines in 1_usize..200,
        bad: Vec<proptest::sample::Index>,
        poison: Option<proptest::sample::Index>,
    ) {
        let bad: BTreeSet<usize> = bad.iter().take(20).map(|index| index.index(lines)).collect();
        let poison = poison.map(|index| index.index(lines)).filter(|line| !bad.contains(line));
        let mut work = Work::new(CONFIG, lines);
        let mut stored = Vec::new();
        run(&mut work, |part| {
            if poison.is_some_and(|line| part.contains(&line)) {
                return failed();
            }
            // Like InfluxDB 1.x: the good points of a refused part are stored all the same.
            stored.extend(part.clone().filter(|line| !bad.contains(line)));
            if bad.range(part.clone()).next().is_some() { refused() } else { Answer::Written }
        });
        let mut expected: Vec<_> = bad.iter().map(|line| (*line, Cause::Refused)).collect();
        expected.extend(poison.map(|line| (line, Cause::Poison)));
        expected.sort_by_key(|(line, _)| *line);
        prop_assert_eq!(buried(&work), expected);
        prop_assert_eq!(work.written() + work.dead().len(), lines);
        prop_assert!(in_order(stored).is_sorted());
    }

    /// A target that refuses everything for a while costs no good point, wherever in a batch that
    /// begins and ends, and the points are in order all the same.
    #[test]
    fn a_target_that_heals_in_the_middle_of_a_batch_costs_no_good_point(
        lines in 1_usize..200,
        bad: Vec<proptest::sample::Index>,
        from in 0_usize..40,
        times in 0_usize..60,
    ) {
        let bad: BTreeSet<usize> = bad.iter().take(5).map(|index| index.index(lines)).collect();
        let mut work = Work::new(CONFIG, lines);
        let (mut stored, mut asked) = (Vec::new(), 0);
        while work.next() != Next::Done {
            let refuses = (from..from + times).contains(&asked);
            match work.next() {
                Next::Write(part) => {
                    let mut good = part.clone().filter(|line| !bad.contains(line));
                    if !refuses {
                        stored.extend(&mut good);
                    }
                    let is_refused = refuses || bad.range(part).next().is_some();
                    work.answered(if is_refused { refused() } else { Answer::Written }, 0.5);
                }
                Next::Canary(good) => {
                    if !refuses {
                        stored.extend(good);
                    }
                    work.well(!refuses, 0.5);
                }
                next => panic!("{next:?}"),
            }
            asked += 1;
            prop_assert!(asked < 10_000, "it does not end: {:?}", work);
        }
        let expected: Vec<_> = bad.iter().map(|line| (*line, Cause::Refused)).collect();
        prop_assert_eq!(buried(&work), expected);
        prop_assert_eq!(work.written(), lines - bad.len());
        prop_assert_eq!(in_order(stored), (0..lines).filter(|line| !bad.contains(line)).collect::<Vec<_>>());
    }

    #[test]
    fn a_pause_keeps_its_bounds(pauses in 0_usize..80, random in -1.0..2.0_f64) {
        let mut work = Work::new(CONFIG, 1);
        for _ in 0..pauses {
            work.answered(Answer::Unreachable(String::new()), 1.0);
        }
        let Then::Wait(pause, Class::Unreachable) =
            work.answered(Answer::Unreachable(String::new()), random)
        else {
            panic!("a wait");
        };
        prop_assert!(pause >= BACKOFF_MIN && pause <= UNREACHABLE_PAUSE_MAX);
    }
}

#[test]
fn one_bad_point_of_5000_costs_few_writes() {
    let mut work = Work::new(CONFIG, 5000);
    let writes =
        run(&mut work, |part| if part.contains(&1234) { refused() } else { Answer::Written });
    assert_eq!(buried(&work), [(1234, Cause::Refused)]);
    assert!(writes.len() <= 2 * 13 + 2, "{}", writes.len());
    let mut all_bad = Work::new(CONFIG, 1);
    all_bad.answered(refused(), 0.5);
    assert_eq!(all_bad.next(), Next::Canary(None));
    all_bad.well(true, 0.5);
    assert_eq!(all_bad.next(), Next::Write(0..1));
    all_bad.answered(refused(), 0.5);
    assert_eq!(all_bad.next(), Next::Canary(None));
    all_bad.well(true, 0.5);
    assert_eq!(buried(&all_bad), [(0, Cause::Refused)]);
}

#[test]
fn what_a_person_must_mend_is_held_for_ever() {
    for (answer, class) in [
        (Answer::Unauthorized, Class::Unauthorized),
        (Answer::Unreachable("refused".to_owned()), Class::Unreachable),
        (Answer::Busy { retry_after: None }, Class::Busy),
    ] {
        let mut work = Work::new(CONFIG, 10);
        for _ in 0..1000 {
            let then = work.answered(answer.clone(), 0.5);
            assert!(matches!(then, Then::Wait(_, found) if found == class), "{then:?}");
            assert_eq!(work.next(), Next::Write(0..10));
        }
    }
    let mut work = Work::new(CONFIG, 10);
    assert!(matches!(work.answered(Answer::DatabaseMissing, 0.5), Then::CreateDatabase(_)));
}

#[test]
fn whoever_is_back_is_found_sooner_than_whoever_fails_is_tried() {
    let longest = |answer: Answer| {
        let mut work = Work::new(CONFIG, 1);
        for _ in 0..20 {
            work.answered(answer.clone(), 1.0);
        }
        work.answered(answer, 1.0)
    };
    let away = longest(Answer::Unreachable(String::new()));
    assert_eq!(away, Then::Wait(UNREACHABLE_PAUSE_MAX, Class::Unreachable));
    let busy = longest(Answer::Busy { retry_after: None });
    assert_eq!(busy, Then::Wait(CONFIG.backoff_max, Class::Busy));
}

#[test]
fn retry_after_is_followed_within_reason() {
    let mut work = Work::new(CONFIG, 1);
    let mut pause = |seconds| {
        let retry_after = Some(Duration::from_secs(seconds));
        work.answered(Answer::Busy { retry_after }, 0.0)
    };
    assert_eq!(pause(45), Then::Wait(Duration::from_secs(45), Class::Busy));
    assert_eq!(pause(0), Then::Wait(BACKOFF_MIN, Class::Busy));
    assert_eq!(pause(86_400), Then::Wait(RETRY_AFTER_MAX, Class::Busy));
}

#[test]
fn too_large_is_halved_down_to_the_point() {
    let mut work = Work::new(CONFIG, 8);
    run(&mut work, |part| match part.contains(&5) || part.len() > 2 {
        true => Answer::TooLarge,
        false => Answer::Written,
    });
    assert_eq!(buried(&work), [(5, Cause::TooLarge)]);
}

#[test]
fn a_missing_retention_policy_is_waited_for() {
    let mut work = Work::new(CONFIG, 8);
    for _ in 0..100 {
        let message = "retention policy not found".to_owned();
        let then = work.answered(Answer::RetentionPolicyMissing { status: 500, message }, 0.5);
        assert!(matches!(then, Then::Wait(_, Class::RetentionPolicyMissing)), "{then:?}");
        assert_eq!(work.next(), Next::Write(0..8));
    }
    run(&mut work, |_| Answer::Written);
    assert!(work.dead().is_empty());
}

/// However often it refuses, in whatever sizes: it must take another point before any is given up.
#[test]
fn no_point_dies_while_the_database_refuses_everything() {
    for lines in [1, 2, 100, 5000] {
        let mut work = Work::new(CONFIG, lines);
        let (mut writes, mut canaries) = (0, 0);
        while canaries < 50 {
            match work.next() {
                Next::Write(_) => {
                    writes += 1;
                    work.answered(
                        if canaries % 2 == 0 { refused() } else { Answer::TooLarge },
                        0.5,
                    );
                }
                Next::Canary(good) => {
                    canaries += 1;
                    assert_eq!(good, None, "nothing was ever taken");
                    let then = work.well(false, 0.5);
                    assert!(matches!(then, Then::Wait(_, Class::Refusing)), "{then:?}");
                }
                next => panic!("{next:?}"),
            }
        }
        assert!(work.dead().is_empty());
        // Few of a large batch are asked about before the canary.
        assert!(writes <= 50 * (13 + 2 * CONDEMNED_MAX), "{writes} writes of {lines}");
        let order = run(&mut work, |_| Answer::Written);
        assert_eq!(
            (order.len(), &order[0]),
            (1, &(0..lines)),
            "the whole batch, once more and in order"
        );
        assert_eq!((work.dead().len(), work.written()), (0, lines));
    }
}

/// What is already given up stays so; the rest is written again.
#[test]
fn a_database_that_begins_to_refuse_gives_up_no_more() {
    let mut work = Work::new(CONFIG, 8);
    // The first point is bad, the second is taken, then everything is refused.
    for _ in 0..3 {
        work.answered(refused(), 0.5);
    }
    assert_eq!(work.next(), Next::Write(0..1));
    work.answered(refused(), 0.5);
    assert!(work.dead().is_empty(), "not before another is taken");
    assert_eq!(work.next(), Next::Write(1..2));
    work.answered(Answer::Written, 0.5);
    assert_eq!(work.next(), Next::Write(0..1), "once more, as it may have been about all");
    work.answered(refused(), 0.5);
    assert!(work.dead().is_empty(), "not before another is taken");
    assert_eq!(work.next(), Next::Write(2..4));
    work.answered(Answer::Written, 0.5);
    assert_eq!(buried(&work), [(0, Cause::Refused)]);
    assert_eq!(work.dead()[0].attempts, 2);
    while let Next::Write(_) = work.next() {
        work.answered(refused(), 0.5);
    }
    assert_eq!(work.next(), Next::Canary(Some(3)));
    work.well(false, 0.5);
    assert_eq!(buried(&work), [(0, Cause::Refused)]);
    let writes = run(&mut work, |_| Answer::Written);
    assert_eq!((writes.len(), &writes[0]), (1, &(1..8)));
    assert_eq!(work.written(), 7);
}

#[test]
fn no_point_dies_while_the_database_fails_on_everything() {
    let mut work = Work::new(CONFIG, 1);
    for _ in 0..100 {
        for _ in 0..CONFIG.poison_attempts {
            assert_eq!(work.next(), Next::Write(0..1));
            work.answered(failed(), 0.5);
        }
        assert_eq!(work.next(), Next::Canary(None));
        work.well(false, 0.5);
    }
    assert!(work.dead().is_empty());
    // Until the database takes another point, fails on this one, and takes the other again.
    for _ in 0..CONFIG.poison_attempts {
        work.answered(Answer::Broken("reset".to_owned()), 0.5);
    }
    work.well(true, 0.5);
    assert_eq!(work.next(), Next::Write(0..1));
    work.answered(Answer::Broken("reset".to_owned()), 0.5);
    assert_eq!(work.next(), Next::Canary(None));
    work.well(true, 0.5);
    assert_eq!(buried(&work), [(0, Cause::Poison)]);
    assert_eq!(work.dead()[0].attempts, CONFIG.poison_attempts + 1);
}

#[test]
fn a_database_that_comes_back_acquits_the_point() {
    let mut work = Work::new(CONFIG, 1);
    for _ in 0..CONFIG.poison_attempts {
        work.answered(failed(), 0.5);
    }
    work.well(true, 0.5);
    assert_eq!(work.next(), Next::Write(0..1));
    work.answered(Answer::Written, 0.5);
    assert_eq!((work.next(), work.written()), (Next::Done, 1));
}

#[test]
fn a_part_on_trial_waits_for_the_database_to_be_well() {
    let mut work = Work::new(CONFIG, 4);
    for _ in 0..CONFIG.poison_attempts {
        work.answered(Answer::Broken("reset".to_owned()), 0.5);
    }
    for _ in 0..5 {
        assert_eq!(work.next(), Next::Ping, "the database is restarting");
        work.well(false, 0.5);
    }
    work.well(true, 0.5);
    assert_eq!(work.next(), Next::Write(0..2));
    // A suspect is split at its first failure.
    work.answered(Answer::Broken("reset".to_owned()), 0.5);
    assert_eq!(work.next(), Next::Ping);
    work.well(true, 0.5);
    assert_eq!(work.next(), Next::Write(0..1));
}

#[test]
fn nothing_to_write_is_done() {
    assert_eq!(Work::new(CONFIG, 0).next(), Next::Done);
}
