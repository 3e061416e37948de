//! Tests of `decide::reserve`: what holds of every cap, and how well limits are shared.

use proptest::prelude::*;

use super::*;
use crate::decide::hit::{Mode, Role};
use crate::decide::settle::settle;
use crate::limits::algorithm::Algorithm;
use crate::limits::sharing::Fraction;
use crate::limits::unit::{Unit, Window};

mod simulation;

const NOW: Duration = Duration::from_micros(1_800_000_000_250_000);

fn fraction(value: f64) -> Fraction {
    Fraction::try_new(value).expect("in bounds")
}

/// A hit of the class at `rank` of four, in a window of one second of which a quarter is over.
fn hit(algorithm: Algorithm, limit: u32, rank: u8, guarantees: Option<&[Guarantee]>) -> Hit {
    let window = Window { start: NOW.as_secs(), seconds: 1 };
    let guarantees = guarantees.map(Into::into);
    let share =
        Some(ClassShare { rank, classes: 4, how: How::Forecast { guarantees }, asked: None });
    let (key, role) = (b"k|s1800000000"[..].into(), Role::Enforced);
    Hit { key, amount: 1, is_refund: false, limit, window, algorithm, role, share }
}

fn terms(hit: &Hit) -> Terms {
    let share = hit.share.as_ref().expect("shared");
    Terms::of(hit, share, NOW).expect("forecasts")
}

fn algorithms() -> [Algorithm; 3] {
    [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket { burst: 1000 }]
}

/// Figures in which the class at `rank` asked for `demand` now, or so many windows ago.
fn asked(rank: usize, demand: f64, windows_ago: f64) -> Usage {
    let mut usage = Usage::new(NOW.as_secs() as f64, 4);
    let class = &mut usage.classes[rank];
    (class.last, class.average) = (usage.number - windows_ago, demand);
    if windows_ago == 0.0 {
        class.demand = demand;
    }
    usage
}

#[test]
fn a_class_alone_has_everything() {
    for algorithm in algorithms() {
        for rank in 0..4 {
            let terms = terms(&hit(algorithm, 1000, rank, None));
            let usage = asked(rank.into(), 5000.0, 0.0);
            assert_eq!(terms.cap(&usage, 0.0, 0.0), 1000.0, "{algorithm}");
        }
    }
}

#[test]
fn a_flood_that_is_over_keeps_nobody_out_for_long() {
    for algorithm in algorithms() {
        let terms = |rank| terms(&hit(algorithm, 1000, rank, None));
        let mut usage = Usage::new(NOW.as_secs() as f64, 4);
        for _ in 0..1000 {
            terms(0).ask(&mut usage, 86_000.0);
        }
        assert_eq!(usage.classes[0].demand, 2000.0, "{algorithm}");
        let mut low = 0.0;
        for window in 1..=8 {
            let later = Terms { number: usage.number + 1.0, ..terms(1) };
            usage = Usage::rolled(Some(&usage), &later);
            Terms { rank: 0, ..later.clone() }.ask(&mut usage, 1.0);
            low = later.cap(&usage, 0.0, 0.0);
            assert!(window < 8 || low > 500.0, "{algorithm}, window {window}: {low}");
        }
        assert!(low <= 1000.0);
    }
}

/// A part of a split request takes on trial what another refuses. Once that is given back, the class
/// is as idle as before: the rate of its next hit is measured from that one on.
#[test]
fn demand_that_is_taken_back_wakes_nobody() {
    for algorithm in algorithms() {
        let on_trial = hit(algorithm, 1000, 0, None);
        let trial =
            settle(std::slice::from_ref(&on_trial), Mode::AllOrNothing, NOW, |_| (None, None));
        let share = on_trial.share.clone().map(|share| ClassShare { asked: Some(1), ..share });
        let back = [Hit { is_refund: true, share, ..on_trial }];
        let known = |_| (Some(trial[0].state), trial[0].usage.as_ref());
        let mut usage = settle(&back, Mode::CountAll, NOW, known)[0].usage.clone().expect("noted");
        let mut never = Usage::new(usage.window(), 4);
        let later = NOW + Duration::from_millis(100);
        let of = |hit: &Hit| Terms::of(hit, hit.share.as_ref().expect("shared"), later);
        let asks = of(&hit(algorithm, 1000, 0, None)).expect("forecasts");
        asks.ask(&mut usage, 6.0);
        asks.ask(&mut never, 6.0);
        assert_eq!(usage, never, "{algorithm}");
    }
}

#[test]
fn what_can_never_pass_is_no_demand() {
    for algorithm in algorithms() {
        for (amount, demand) in [(1000, 1000.0), (1001, 0.0), (1_000_000_000, 0.0)] {
            let hits = [Hit { amount, ..hit(algorithm, 1000, 0, None) }];
            for mode in [Mode::CountAll, Mode::AllOrNothing] {
                let settled = settle(&hits, mode, NOW, |_| (None, None));
                let asked = settled[0].usage.as_ref().map_or(0.0, |usage| usage.classes[0].demand);
                assert_eq!(asked, demand, "{algorithm}: {amount}");
            }
        }
    }
}

#[test]
fn what_is_expected_is_kept() {
    let cap = |windows_ago| {
        let terms = terms(&hit(Algorithm::FixedWindow, 1000, 1, None));
        terms.cap(&asked(0, 400.0, windows_ago), 0.0, 0.0)
    };
    // 400 in a quarter of the window are 1200 in the rest of it, more than there is.
    assert_eq!(cap(0.0), 0.0);
    // 400 in a window are 300 in what is left of it, and a margin of at most 100 / 3.
    assert_eq!(cap(1.0), 666.0);
    assert_eq!(cap(4.0), 666.0);
    assert_eq!(cap(5.0), 1000.0, "who did not ask for four windows is not waited for");
    // Room that comes back need not be kept, but for the margin.
    let bucket = Algorithm::TokenBucket { burst: 1000 };
    let terms = terms(&hit(bucket, 1000, 1, None));
    assert_eq!(terms.cap(&asked(0, 400.0, 1.0), 0.0, 0.0), 966.0);
    assert_eq!(terms.cap(&asked(0, 1200.0, 1.0), 0.0, 0.0), 766.0, "200 more than comes back");
}

/// An overload that begins in the middle of a window, on a counter that nobody knew: the highest class
/// alone needs all that is left.
#[test]
fn an_overload_in_the_middle_of_a_window_is_no_half_of_one() {
    const LIMIT: u32 = 6000;
    let memory = crate::store::memory::Memory::new(1 << 12);
    let began = Duration::from_secs(1_800_000_030);
    let mut background = 0;
    // 200 a second of the highest class, 400 of the lowest, until the window ends.
    for step in 0..18_000u64 {
        let now = began + Duration::from_micros(step * 1_000_000 / 600);
        let rank = if step % 3 == 0 { 0 } else { 3 };
        let window = Unit::Minute.window(now.as_secs());
        let hit = Hit { window, ..hit(Algorithm::FixedWindow, LIMIT, rank, None) };
        let count = memory.count_now(std::slice::from_ref(&hit), Mode::CountAll, now)[0];
        background += u32::from(rank == 3 && !count.over);
    }
    assert!(background <= LIMIT / 10, "{background} of {LIMIT}, where the class above needs all");
}

#[test]
fn a_minimum_is_kept_without_demand_and_melts() {
    let guarantee = |reserve_min| Guarantee { floor: fraction(0.0), reserve_min };
    let list = [0.2, 0.0, 0.0, 0.0].map(|part| guarantee(fraction(part)));
    let cap = |algorithm| {
        let terms = terms(&hit(algorithm, 1000, 3, Some(&list)));
        terms.cap(&Usage::new(terms.number, 4), 0.0, 0.0)
    };
    assert_eq!(cap(Algorithm::FixedWindow), 850.0, "of 200 a quarter has melted");
    assert_eq!(cap(Algorithm::TokenBucket { burst: 1000 }), 800.0, "a bucket has no end");
}

#[test]
fn a_floor_is_left_to_whom_it_belongs() {
    let guarantee = |floor| Guarantee { floor, reserve_min: fraction(0.0) };
    let list = [0.0, 0.0, 0.0, 0.02].map(|part| guarantee(fraction(part)));
    let cap = |rank, usage: &Usage, value| {
        terms(&hit(Algorithm::FixedWindow, 1000, rank, Some(&list))).cap(usage, value, 0.0)
    };
    let mut usage = asked(0, 5000.0, 0.0);
    assert_eq!(cap(0, &usage, 900.0), 1000.0, "nobody below asks");
    usage.classes[3].last = usage.number;
    assert_eq!(cap(0, &usage, 900.0), 980.0);
    assert_eq!(cap(3, &usage, 900.0), 920.0, "its own floor, whatever others expect");
    assert_eq!(cap(3, &usage, 990.0), 1000.0);
    assert_eq!(cap(2, &usage, 900.0), 0.0);
    usage.classes[3].used = 15.0;
    assert_eq!((cap(0, &usage, 900.0), cap(3, &usage, 900.0)), (995.0, 905.0));
}

#[test]
fn margins_together_are_bounded() {
    let mut usage = Usage::new(NOW.as_secs() as f64, 4);
    for class in &mut usage.classes {
        (class.last, class.average) = (usage.number, 30.0);
    }
    let cap = terms(&hit(Algorithm::FixedWindow, 100, 3, None)).cap(&usage, 0.0, 0.0);
    assert_eq!(cap, (100.0 - 3.0 * 30.0 * 0.75 - 10.0_f64).floor());
}

fn figures() -> impl Strategy<Value = Figures> {
    let windows_ago = prop_oneof![4 => 0..3u32, 1 => 3..8u32];
    (0..1500u32, 0..3000u32, 0.0..2000.0f64, windows_ago).prop_map(
        |(used, demand, average, windows_ago)| Figures {
            used: used.into(),
            demand: if windows_ago == 0 { demand.into() } else { 0.0 },
            average,
            last: NOW.as_secs() as f64 - f64::from(windows_ago),
        },
    )
}

fn usages() -> impl Strategy<Value = Usage> {
    let classes = [figures(), figures(), figures(), figures()];
    let number = NOW.as_secs() as f64;
    classes.prop_map(move |classes| Usage { number, classes: classes.into() })
}

fn guarantees() -> impl Strategy<Value = Vec<Guarantee>> {
    let percent = |value: u32| fraction(f64::from(value) / 100.0);
    let one = (0..=25u32, 0..=50u32).prop_map(move |(floor, reserve_min)| Guarantee {
        floor: percent(floor),
        reserve_min: percent(reserve_min),
    });
    proptest::collection::vec(one, 4)
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::FixedWindow),
        Just(Algorithm::SlidingWindow),
        (1..3000u32).prop_map(|burst| Algorithm::TokenBucket { burst }),
    ]
}

proptest! {
    /// Who is refused for want of room sees no class below admitted; one within its own floor is
    /// what a floor is for.
    #[test]
    fn no_inversion(
        algorithm in algorithm(),
        limit in 1..2000u32,
        usage in usages(),
        guarantees in proptest::option::of(guarantees()),
        value in 0..2000u32,
        previous in 0..2000u32,
        amount in 1..50u32,
    ) {
        let cap = |rank| {
            let terms = terms(&hit(algorithm, limit, rank, guarantees.as_deref()));
            terms.cap(&usage, value.into(), previous.into())
        };
        let after = f64::from(value + amount);
        let past_floor = |rank: u8| {
            let terms = terms(&hit(algorithm, limit, rank, guarantees.as_deref()));
            let list = terms.guarantees.as_ref();
            let used = usage.classes[usize::from(rank)].used;
            list.is_none_or(|list| used >= list[usize::from(rank)].0)
        };
        for higher in 0..4u8 {
            let capacity = terms(&hit(algorithm, limit, higher, None)).capacity;
            prop_assert!(cap(higher) <= capacity && cap(higher) >= 0.0);
            for lower in (higher + 1..4).filter(|lower| past_floor(*lower)) {
                let inverted = after > cap(higher) && after <= cap(lower);
                prop_assert!(!inverted, "{higher} {} {lower} {}", cap(higher), cap(lower));
            }
        }
    }

    /// Whatever a class asks for, the classes above see the same room.
    #[test]
    fn a_flood_below_changes_nothing_above(
        algorithm in algorithm(),
        limit in 1..2000u32,
        usage in usages(),
        minimum in 0..100u32,
        value in 0..2000u32,
        previous in 0..2000u32,
        lower in 1..4u8,
        flood in 1.0..1e9f64,
    ) {
        let reserve_min = fraction(f64::from(minimum) / 100.0);
        let list = [Guarantee { floor: fraction(0.0), reserve_min }; 4];
        let mut flooded = usage.clone();
        terms(&hit(algorithm, limit, lower, Some(&list))).ask(&mut flooded, flood);
        for higher in 0..=lower {
            let terms = terms(&hit(algorithm, limit, higher, Some(&list)));
            let cap = |usage| terms.cap(usage, value.into(), previous.into());
            prop_assert_eq!(cap(&usage), cap(&flooded));
        }
    }

    /// Rolling by one window at a time and by several at once is the same.
    #[test]
    fn windows_roll_one_by_one_or_at_once(usage in usages(), windows in 1..9u32) {
        let hit = hit(Algorithm::FixedWindow, 100, 0, None);
        let at = |ahead: u32| Terms { number: usage.number + f64::from(ahead), ..terms(&hit) };
        let mut stepped = usage.clone();
        for ahead in 1..=windows {
            stepped = Usage::rolled(Some(&stepped), &at(ahead));
        }
        let at_once = Usage::rolled(Some(&usage), &at(windows));
        for (stepped, at_once) in stepped.classes.iter().zip(&at_once.classes) {
            let active = at_once.last >= usage.number + f64::from(windows) - IDLE_WINDOWS_MAX;
            prop_assert!(stepped == at_once || !active);
            prop_assert!(active || (stepped.average, at_once.average) == (0.0, 0.0));
        }
    }
}
