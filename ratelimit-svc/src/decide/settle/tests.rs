//! Tests of `decide::settle`.

use super::*;
use crate::decide::hit::Role;
use crate::decide::reserve::Figures;
use crate::limits::sharing::{ClassShare, Fraction, Guarantee, How};
use crate::limits::unit::Window;

const NOW: Duration = Duration::from_secs(30);

fn hit(key: &str, amount: u64, limit: u32, role: Role) -> Hit {
    let window = Window { start: 0, seconds: 60 };
    let algorithm = Algorithm::FixedWindow;
    Hit {
        key: key.as_bytes().into(),
        amount,
        is_refund: false,
        limit,
        window,
        algorithm,
        role,
        share: None,
    }
}

/// Values, and whether each hit is over, for counters that all stand at `current`.
fn check(mode: Mode, current: u64, hits: &[Hit], expected: &[(u64, bool)]) {
    let settled = settle(hits, mode, NOW, |_| (Some(State::Fixed(current)), None));
    let count = |(hit, settled): (&Hit, &Settled)| settled.count(hit, NOW);
    let counts: Vec<Count> = hits.iter().zip(&settled).map(count).collect();
    let got: Vec<(u64, bool)> = counts.iter().map(|count| (count.value, count.over)).collect();
    assert_eq!(got, expected, "{mode:?} {hits:?}");
}

#[test]
fn what_moves_and_what_refuses() {
    use Mode::{AllOrNothing, CountAll};
    use Role::{Enforced, Observer, Quota};
    let all = |a: Role, b: Role| [hit("a", 1, 5, a), hit("b", 1, 9, b)];
    check(CountAll, 4, &all(Enforced, Enforced), &[(5, false), (5, false)]);
    check(CountAll, 5, &all(Enforced, Enforced), &[(6, true), (6, false)]);
    check(AllOrNothing, 4, &all(Enforced, Enforced), &[(5, false), (5, false)]);
    check(AllOrNothing, 5, &all(Enforced, Enforced), &[(5, true), (5, false)]);
    // What never refuses does not freeze its neighbours.
    check(AllOrNothing, 5, &all(Observer, Enforced), &[(5, true), (6, false)]);
    check(AllOrNothing, 5, &all(Quota, Enforced), &[(5, true), (5, false)]);
    check(AllOrNothing, 5, &all(Quota, Quota), &[(5, true), (6, false)]);
    check(AllOrNothing, 9, &all(Quota, Quota), &[(9, true), (9, true)]);
    check(AllOrNothing, 9, &all(Quota, Observer), &[(9, true), (9, true)]);
}

#[test]
fn one_counter_named_twice_adds_up() {
    let twice = [hit("a", 1, 2, Role::Enforced), hit("a", 1, 2, Role::Enforced)];
    check(Mode::AllOrNothing, 0, &twice, &[(1, false), (2, false)]);
    check(Mode::AllOrNothing, 1, &twice, &[(1, false), (1, true)]);
    check(Mode::CountAll, 1, &twice, &[(2, false), (3, true)]);
}

#[test]
fn a_look_without_a_class_does_not_hide_what_classes_took() {
    let forecast = |rank, amount| Hit {
        share: Some(ClassShare {
            rank,
            classes: 2,
            how: How::Forecast { guarantees: None },
            asked: None,
        }),
        ..hit("a", amount, 100, Role::Enforced)
    };
    let withheld = |hits: &[Hit]| {
        let active = Figures { used: 0.0, demand: 1.0, average: 0.0, last: 0.0 };
        let usage = Usage { number: 0.0, classes: [active; 2][..].into() };
        let settled = settle(hits, Mode::CountAll, NOW, |_| (None, Some(&usage)));
        settled.last().expect("one for each hit").withheld
    };
    // The first has a floor to meet, the second takes some of it, the last is told what is left.
    let floor = Fraction::try_new(0.4).expect("a fraction");
    let floors = [Guarantee { floor, ..Guarantee::default() }, Guarantee::default()];
    let below = Hit {
        share: Some(ClassShare {
            rank: 1,
            classes: 2,
            how: How::Forecast { guarantees: Some(floors[..].into()) },
            asked: None,
        }),
        ..forecast(1, 0)
    };
    let (take, look) = (forecast(0, 10), hit("a", 0, 100, Role::Enforced));
    let direct = withheld(&[take.clone(), below.clone()]);
    assert_ne!(withheld(std::slice::from_ref(&below)), direct);
    assert_eq!(withheld(&[take, look, below]), direct);
}

#[test]
fn refunds_and_looks() {
    let refund = Hit { is_refund: true, ..hit("a", 3, 5, Role::Enforced) };
    check(Mode::CountAll, 2, std::slice::from_ref(&refund), &[(0, false)]);
    check(Mode::AllOrNothing, 7, std::slice::from_ref(&refund), &[(4, false)]);
    check(Mode::AllOrNothing, 9, std::slice::from_ref(&refund), &[(6, true)]);
    let look = [hit("a", 0, 5, Role::Enforced)];
    check(Mode::CountAll, 5, &look, &[(5, false)]);
    check(Mode::CountAll, 6, &look, &[(6, true)]);
    check(Mode::CountAll, u64::MAX, &[hit("a", 1, 5, Role::Enforced)], &[(u64::MAX, true)]);
}

#[test]
fn a_refused_hit_moves_a_fixed_window_alone() {
    let bucket = Algorithm::TokenBucket { burst: 2 };
    let hits = [Algorithm::FixedWindow, Algorithm::SlidingWindow, bucket].map(|algorithm| Hit {
        algorithm,
        key: algorithm.name().as_bytes().into(),
        ..hit("", 3, 2, Role::Enforced)
    });
    let settled = settle(&hits, Mode::CountAll, NOW, |_| (None, None));
    let values = hits.iter().zip(&settled).map(|(hit, settled)| settled.count(hit, NOW).value);
    assert_eq!(values.collect::<Vec<_>>(), [3, 0, 0]);
    assert!(settled.iter().all(|settled| settled.over));
}

#[test]
fn algorithms_refuse_together() {
    let bucket = Algorithm::TokenBucket { burst: 2 };
    let hits = |last: u64| {
        [Algorithm::FixedWindow, Algorithm::SlidingWindow, bucket].map(|algorithm| {
            let amount = if algorithm == bucket { last } else { 1 };
            let key = algorithm.name().as_bytes().into();
            Hit { algorithm, key, ..hit("", amount, 9, Role::Enforced) }
        })
    };
    let values = |hits: &[Hit]| {
        let settled = settle(hits, Mode::AllOrNothing, NOW, |_| (None, None));
        let count = |(hit, settled): (&Hit, &Settled)| settled.count(hit, NOW);
        let counts = hits.iter().zip(&settled).map(count);
        counts.map(|count| (count.value, count.over)).collect::<Vec<_>>()
    };
    assert_eq!(values(&hits(2)), [(1, false), (1, false), (2, false)]);
    assert_eq!(values(&hits(3)), [(0, false), (0, false), (0, true)]);
}
