//! Tests of `split`: parts that are memories, against one memory that holds everything.

use std::cell::RefCell;
use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::limits::algorithm::Algorithm;
use crate::limits::sharing::{ClassShare, How};
use crate::limits::unit::Window;
use crate::store::memory::Memory;

const NOW: Duration = Duration::from_secs(10);

fn hit(key: u8, amount: u64, limit: u32) -> Hit {
    let window = Window { start: 0, seconds: 60 };
    let (role, algorithm) = (Role::Enforced, Algorithm::FixedWindow);
    Hit { key: [key].into(), amount, is_refund: false, limit, window, algorithm, role, share: None }
}

/// Keys 0, 2, 4 in one part and 1, 3, 5 in the other.
struct Two {
    memories: [Memory; 2],
    lost: Option<usize>,
    asked: bool,
    /// Looks are answered even where a part is lost.
    spares_looks: bool,
    calls: RefCell<Vec<(usize, usize)>>,
}

impl Two {
    fn new() -> Self {
        let memories = [Memory::default(), Memory::default()];
        Self { memories, lost: None, asked: false, spares_looks: false, calls: RefCell::default() }
    }

    fn count(&self, hits: &[Hit], mode: Mode) -> Result<Vec<(u64, bool, bool)>, StoreError> {
        let counted = count_in_parts(
            hits,
            mode,
            |hit| usize::from(hit.key[0] % 2),
            |part, hits, mode| {
                self.calls.borrow_mut().push((part, hits.len()));
                let looks = hits.iter().all(|hit| hit.amount == 0);
                let lost = self.lost == Some(part) && !(looks && self.spares_looks);
                let answer = if lost {
                    Err(StoreError::Part(Box::new(match self.asked {
                        true => StoreError::TimedOut,
                        false => StoreError::NotConnected,
                    })))
                } else {
                    Ok(self.memories[part].count_now(&hits, mode, NOW))
                };
                std::future::ready(answer)
            },
            |back| {
                for hit in back {
                    let part = usize::from(hit.key[0] % 2);
                    self.memories[part].count_now(&[hit], Mode::CountAll, NOW);
                }
                std::future::ready(())
            },
        );
        let counts = counted.now_or_never().expect("nothing waits")?;
        Ok(counts.iter().map(|count| (count.value, count.over, count.moved)).collect())
    }

    fn value(&self, key: u8) -> u64 {
        let look = [hit(key, 0, 100)];
        self.memories[usize::from(key % 2)].count_now(&look, Mode::CountAll, NOW)[0].value
    }
}

#[test]
fn what_fits_nowhere_else_is_given_back() {
    let two = Two::new();
    let both = [hit(0, 1, 1), hit(1, 1, 9)];
    let mode = Mode::AllOrNothing;
    assert_eq!(two.count(&both, mode).expect("counted"), [(1, false, true); 2]);
    let refused = two.count(&both, mode).expect("counted");
    assert_eq!(refused, [(1, true, false), (1, false, false)]);
    assert_eq!((two.value(0), two.value(1)), (1, 1));
    // Counting all, each is on its own.
    let all = two.count(&both, Mode::CountAll).expect("counted");
    assert_eq!(all, [(2, true, true), (2, false, true)]);
}

#[test]
fn one_place_is_asked_once_and_as_is() {
    let two = Two::new();
    two.count(&[hit(0, 1, 9), hit(2, 1, 9)], Mode::AllOrNothing).expect("counted");
    assert_eq!(*two.calls.borrow(), [(0, 2)]);
}

/// What became of the hits of a request that fails: `c` counted, `n` not, `u` unsure.
fn fails(two: &Two, hits: &[Hit], mode: Mode) -> String {
    let error = two.count(hits, mode).expect_err("a part is lost");
    assert!(error.is_partial(), "{error:?}");
    let letter = |outcome: &Outcome| match outcome {
        Outcome::Counted(_) => 'c',
        Outcome::NotCounted => 'n',
        Outcome::Unsure => 'u',
    };
    error.outcomes(hits.len()).iter().map(letter).collect()
}

#[test]
fn what_became_of_each_hit_beside_a_lost_place_is_told() {
    for (asked, lost) in [(false, "n"), (true, "u")] {
        let two = Two { lost: Some(1), asked, ..Two::new() };
        let three = [hit(0, 1, 9), hit(1, 1, 9), hit(2, 1, 9)];
        let tried = fails(&two, &three, Mode::AllOrNothing);
        assert_eq!(tried, format!("n{lost}n"), "what was taken is given back");
        assert_eq!((two.value(0), two.value(2)), (0, 0));
        // Each on its own, what is counted is counted.
        assert_eq!(fails(&two, &three, Mode::CountAll), format!("c{lost}c"));
        assert_eq!((two.value(0), two.value(2)), (1, 1));
        assert_eq!(fails(&two, &three[1..2], Mode::CountAll), lost);
    }
}

#[test]
fn what_a_cancelled_request_took_is_given_back() {
    let memory = Memory::default();
    let given = RefCell::new(Vec::new());
    let hits = [hit(0, 3, 9), hit(1, 1, 9), hit(2, 1, 0)];
    let call = count_in_parts(
        &hits,
        Mode::AllOrNothing,
        |hit| hit.key[0],
        |part, hits, mode| {
            let answer = memory.count_now(&hits, mode, NOW);
            async move {
                if part == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(answer)
            }
        },
        |back| {
            given
                .borrow_mut()
                .extend(back.iter().map(|hit| (hit.key[0], hit.amount, hit.is_refund)));
            std::future::ready(())
        },
    );
    assert!(call.now_or_never().is_none(), "a part is silent");
    assert_eq!(*given.borrow(), [(0, 3, true)], "what is known to be taken");
}

#[test]
fn refunds_that_fail_leave_the_request_counted() {
    let mut two = Two::new();
    two.count(&[hit(1, 5, 9)], Mode::CountAll).expect("counted");
    two.lost = Some(1);
    two.spares_looks = true;
    let request = [hit(0, 1, 9), Hit { is_refund: true, ..hit(1, 2, 9) }];
    assert_eq!(fails(&two, &request, Mode::AllOrNothing), "cn");
    assert_eq!(two.value(0), 1);
}

#[test]
fn of_several_failures_the_one_of_the_whole_store_is_told() {
    let part = |error| StoreError::Part(Box::new(error));
    let told = |errors: [StoreError; 2]| {
        let answers = errors.into_iter().map(|error| (vec![0], Err(error))).collect();
        merge(vec![Outcome::NotCounted], answers).expect_err("failed").kind()
    };
    let (whole, asked) = (|| StoreError::NoMaster, || part(StoreError::TimedOut));
    assert_eq!((told([whole(), asked()]), told([asked(), whole()])), ("no_master", "no_master"));
}

#[test]
fn what_one_counter_refuses_is_told_beside_what_others_counted() {
    let count = |value| Count {
        value,
        ..Memory::default().count_now(&[hit(0, 0, 9)], Mode::CountAll, NOW)[0]
    };
    let counts = || vec![count(1), count(2)];
    assert_eq!(merge_refused(counts(), vec![]).expect("none"), counts());
    let refused = vec![(1, StoreError::NotConnected), (3, StoreError::TimedOut)];
    let error = merge_refused(counts(), refused).expect_err("two");
    let expected = [
        Outcome::Counted(count(1)),
        Outcome::NotCounted,
        Outcome::Counted(count(2)),
        Outcome::Unsure,
    ];
    assert_eq!((error.kind(), error.outcomes(4)), ("timeout", expected.to_vec()));
    let alone = merge_refused(vec![], vec![(0, StoreError::TimedOut)]).expect_err("the only one");
    assert!(matches!(alone, StoreError::TimedOut));
}

#[test]
fn what_is_remembered_stays_beside_what_is_asked() {
    let two = Two::new();
    let count = |value| Count {
        value,
        ..two.memories[0].count_now(&[hit(0, 0, 9)], Mode::CountAll, NOW)[0]
    };
    let remembered = || vec![None, Some(count(7)), None];
    let asked = merge_remembered(remembered(), Ok(vec![count(1), count(2)])).expect("counted");
    assert_eq!(asked.iter().map(|count| count.value).collect::<Vec<_>>(), [1, 7, 2]);
    let error = StoreError::TimedOut.with_outcomes(vec![Outcome::Unsure, Outcome::NotCounted]);
    let failed = merge_remembered(remembered(), Err(error)).expect_err("failed").outcomes(3);
    assert_eq!(failed, [Outcome::Unsure, Outcome::Counted(count(7)), Outcome::NotCounted]);
}

#[test]
fn a_refused_request_refunds_nothing() {
    let two = Two::new();
    let mode = Mode::AllOrNothing;
    two.count(&[hit(0, 5, 5)], mode).expect("counted");
    let back = Hit { is_refund: true, ..hit(0, 2, 5) };
    let refused = [back.clone(), hit(1, 2, 1)];
    let counts = two.count(&refused, mode).expect("counted");
    assert_eq!(counts, [(5, false, false), (0, true, false)]);
    assert_eq!((two.value(0), two.value(1)), (5, 0));
    let counts = two.count(&[back, hit(1, 1, 1)], mode).expect("counted");
    assert_eq!(counts, [(3, false, true), (1, false, true)]);
}

fn forecast(rank: u8, hit: Hit) -> Hit {
    let how = How::Forecast { guarantees: None };
    Hit { share: Some(ClassShare { rank, classes: 2, how, asked: None }), ..hit }
}

/// A tenant that is over its own limit has no use for the pool it shares with others.
#[test]
fn what_another_place_refuses_is_no_demand() {
    let (two, mode) = (Two::new(), Mode::AllOrNothing);
    let pool = |part| forecast(part, hit(1, 1, 100));
    for _ in 0..200 {
        two.count(&[hit(0, 1, 0), pool(0)], mode).expect("counted");
    }
    assert_eq!((two.value(0), two.value(1)), (0, 0));
    let passes = |_: &usize| !two.count(&[pool(1)], mode).expect("counted")[0].1;
    assert_eq!((0..100).filter(passes).count(), 100, "nothing is kept for it");
}

fn hits() -> impl Strategy<Value = Vec<Hit>> {
    let role = prop_oneof![Just(Role::Enforced), Just(Role::Quota), Just(Role::Observer)];
    let one = (0..6u8, 0..4u64, 0..6u32, role)
        .prop_map(|(key, amount, limit, role)| Hit { role, ..hit(key, amount, limit) });
    // Of a limit that is too large for demand to reach the most that counts: what is cut off there is
    // taken off twice.
    let shared = (6..9u8, 0..4u64, 0..2u8)
        .prop_map(|(key, amount, part)| forecast(part, hit(key, amount, 200)));
    proptest::collection::vec(prop_oneof![3 => one, 1 => shared], 1..6)
}

proptest! {
    /// In two parts it is as in one, as long as nobody else counts meanwhile.
    #[test]
    fn places_do_not_change_decisions(
        requests in proptest::collection::vec((any::<bool>(), hits()), 1..12),
    ) {
        let (two, one) = (Two::new(), Memory::default());
        for (atomic, hits) in requests {
            let mode = if atomic { Mode::AllOrNothing } else { Mode::CountAll };
            let expected = one.count_now(&hits, mode, NOW);
            let expected: Vec<_> =
                expected.iter().map(|count| (count.value, count.over, count.moved)).collect();
            prop_assert_eq!(two.count(&hits, mode).expect("counted"), expected);
        }
    }
}
