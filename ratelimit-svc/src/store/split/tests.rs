//! Tests of `split`: places that are memories, against one memory that holds everything.

use std::cell::RefCell;
use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::limits::algorithm::Algorithm;
use crate::limits::unit::Window;
use crate::store::memory::Memory;

const NOW: Duration = Duration::from_secs(10);

fn hit(key: u8, amount: u64, limit: u32) -> Hit {
    let window = Window { start: 0, seconds: 60 };
    let (role, algorithm) = (Role::Enforced, Algorithm::FixedWindow);
    Hit { key: [key].into(), amount, is_refund: false, limit, window, algorithm, role, share: None }
}

/// Keys 0, 2, 4 in one place and 1, 3, 5 in the other.
struct Two {
    memories: [Memory; 2],
    lost: Option<usize>,
    asked: bool,
    calls: RefCell<Vec<(usize, usize)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lost {
    asked: bool,
    partly: bool,
}

impl Failure for Lost {
    fn was_asked(&self) -> bool {
        self.asked
    }

    fn partly(self) -> Self {
        Self { partly: true, ..self }
    }
}

impl Two {
    fn new() -> Self {
        let memories = [Memory::default(), Memory::default()];
        Self { memories, lost: None, asked: false, calls: RefCell::default() }
    }

    fn count(&self, hits: &[Hit], mode: Mode) -> Result<Vec<(u64, bool, bool)>, Lost> {
        let counted = count_apart(
            hits,
            mode,
            |hit| usize::from(hit.key[0] % 2),
            |place, hits, mode| {
                self.calls.borrow_mut().push((place, hits.len()));
                let lost = self.lost == Some(place);
                let answer = if lost {
                    Err(Lost { asked: self.asked, partly: false })
                } else {
                    Ok(self.memories[place].count_now(&hits, mode, NOW))
                };
                std::future::ready(answer)
            },
            async |back| {
                for hit in back {
                    let place = usize::from(hit.key[0] % 2);
                    self.memories[place].count_now(&[hit], Mode::CountAll, NOW);
                }
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
    assert_eq!(two.count(&both, mode), Ok(vec![(1, false, true), (1, false, true)]));
    assert_eq!(two.count(&both, mode), Ok(vec![(1, true, false), (1, false, false)]));
    assert_eq!((two.value(0), two.value(1)), (1, 1));
    // Counting all, each is on its own.
    assert_eq!(two.count(&both, Mode::CountAll), Ok(vec![(2, true, true), (2, false, true)]));
}

#[test]
fn one_place_is_asked_once_and_as_is() {
    let two = Two::new();
    two.count(&[hit(0, 1, 9), hit(2, 1, 9)], Mode::AllOrNothing).expect("counted");
    assert_eq!(*two.calls.borrow(), [(0, 2)]);
}

#[test]
fn what_was_taken_beside_a_lost_place_is_given_back() {
    let two = Two { lost: Some(1), ..Two::new() };
    let both = [hit(0, 1, 9), hit(1, 1, 9)];
    let lost = Lost { asked: false, partly: false };
    assert_eq!(two.count(&both, Mode::AllOrNothing), Err(lost), "counted nowhere");
    assert_eq!(two.value(0), 0);
    // Each on its own, what is counted is counted.
    assert_eq!(two.count(&both, Mode::CountAll), Err(Lost { partly: true, ..lost }));
    assert_eq!(two.value(0), 1);
    assert_eq!(two.count(&both[1..], Mode::CountAll), Err(lost));
}

#[test]
fn of_two_failures_the_one_in_doubt_is_told() {
    let told = |asked: [bool; 2]| {
        let answers = asked.map(|asked| (vec![0], Err(Lost { asked, partly: false })));
        together(answers.into(), 2).expect_err("failed").asked
    };
    assert!(told([true, false]) && told([false, true]) && !told([false, false]));
}

#[test]
fn a_refused_request_refunds_nothing() {
    let two = Two::new();
    let mode = Mode::AllOrNothing;
    two.count(&[hit(0, 5, 5)], mode).expect("counted");
    let back = Hit { is_refund: true, ..hit(0, 2, 5) };
    let refused = [back.clone(), hit(1, 2, 1)];
    assert_eq!(two.count(&refused, mode), Ok(vec![(5, false, false), (0, true, false)]));
    assert_eq!((two.value(0), two.value(1)), (5, 0));
    assert_eq!(
        two.count(&[back, hit(1, 1, 1)], mode),
        Ok(vec![(3, false, true), (1, false, true)])
    );
}

fn hits() -> impl Strategy<Value = Vec<Hit>> {
    let role = prop_oneof![Just(Role::Enforced), Just(Role::Quota), Just(Role::Observer)];
    let one = (0..6u8, 0..4u64, 0..6u32, role)
        .prop_map(|(key, amount, limit, role)| Hit { role, ..hit(key, amount, limit) });
    proptest::collection::vec(one, 1..6)
}

proptest! {
    /// In two places it is as in one, as long as nobody else counts meanwhile.
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
            prop_assert_eq!(two.count(&hits, mode), Ok(expected));
        }
    }
}
