//! Classes that arrive at random share a limit: who is admitted, beside what a filling from the
//! top with full knowledge of each window would admit. The clock is counted, the seed fixed.

use super::*;
use crate::decide::hit::Mode;
use crate::store::memory::Memory;

/// Seconds before the figures count: the averages have to settle.
const WARM: usize = 6;
/// Seconds that count.
const STEADY: usize = 4;
const START: u64 = 1_800_000_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Which of four classes that come as often as `mix` says.
    fn class(&mut self, mix: [f64; 4]) -> usize {
        let mut pick = self.unit() * mix.iter().sum::<f64>();
        let class = (0..3).find(|class| {
            pick -= mix[*class];
            pick < 0.0
        });
        class.unwrap_or(3)
    }
}

/// What became of a mix in its steady windows, in parts of the limit.
#[derive(Debug)]
struct Outcome {
    /// Furthest, of all classes, from what a perfect filling admits, on average over the windows.
    error: f64,
    /// Admitted of what the limit and the demand allow.
    used: f64,
    /// Most admitted in a window.
    most: f64,
    inversions: usize,
}

fn arrival(algorithm: Algorithm, limit: u32, rank: usize, amount: u64, now: Duration) -> Hit {
    let window = Window { start: now.as_secs(), seconds: 1 };
    let key = match algorithm {
        Algorithm::FixedWindow => format!("k|s{}", window.start),
        _ => "k|other".to_owned(),
    };
    let how = How::Forecast { guarantees: None };
    let share = Some(ClassShare { rank: rank as u8, classes: 4, how, asked: None });
    let (key, role) = (key.into_bytes().into(), Role::Enforced);
    Hit { key, amount, is_refund: false, limit, window, algorithm, role, share }
}

/// Runs a mix and looks at its steady windows.
fn run(algorithm: Algorithm, limit: u32, mix: [f64; 4], seed: u64) -> Outcome {
    let course = course(algorithm, limit, |_| mix, WARM + STEADY, seed);
    outcome(limit, &course.demand[WARM..], &course.admitted[WARM..], course.inversions)
}

/// What was asked and admitted in each second, by class.
struct Course {
    demand: Vec<[u32; 4]>,
    admitted: Vec<[u32; 4]>,
    inversions: usize,
}

/// Demand of each class in parts of `limit`, told for each second, arrives as Poisson.
fn course(
    algorithm: Algorithm,
    limit: u32,
    mix: impl Fn(usize) -> [f64; 4],
    windows: usize,
    seed: u64,
) -> Course {
    let (memory, mut random) = (Memory::new(1 << 12), Random(seed));
    let mut demand = vec![[0u32; 4]; windows];
    let mut admitted = demand.clone();
    let (mut inversions, mut refused, mut seconds) = (0, 0u64, 0.0);
    loop {
        let mix = mix(seconds as usize);
        let rate = mix.iter().sum::<f64>() * f64::from(limit);
        seconds += -(1.0 - random.unit()).ln() / rate;
        let second = seconds as usize;
        if second >= windows {
            break;
        }
        let class = random.class(mix);
        let now = Duration::from_secs(START) + Duration::from_secs_f64(seconds);
        let ask = |class, amount| {
            let hit = arrival(algorithm, limit, class, amount, now);
            (memory.count_now(std::slice::from_ref(&hit), Mode::CountAll, now)[0], hit)
        };
        demand[second][class] += 1;
        if ask(class, 1).0.over {
            refused += 1;
            // Who else would have been admitted at this state and instant?
            let asked = if refused % 16 == 0 { class + 1..4 } else { 4..4 };
            inversions += asked
                .map(|lower| ask(lower, 0))
                .filter(|(look, hit)| look.value + 1 + look.withheld <= hit.capacity().into())
                .count();
        } else {
            admitted[second][class] += 1;
        }
    }
    Course { demand, admitted, inversions }
}

fn outcome(limit: u32, demand: &[[u32; 4]], admitted: &[[u32; 4]], inversions: usize) -> Outcome {
    let (limit, windows) = (f64::from(limit), demand.len() as f64);
    let (mut used, mut errors, mut possible, mut most) = (0.0, [0.0f64; 4], 0.0, 0.0f64);
    for (demand, admitted) in demand.iter().zip(admitted) {
        let mut room = limit;
        for class in 0..4 {
            let ideal = f64::from(demand[class]).min(room);
            room -= ideal;
            used += f64::from(admitted[class]) / limit / windows;
            errors[class] += (f64::from(admitted[class]) - ideal) / limit / windows;
        }
        possible += (limit - room) / limit / windows;
        most = most.max(f64::from(admitted.iter().sum::<u32>()) / limit);
    }
    Outcome {
        error: errors.iter().fold(0.0, |most, error| most.max(error.abs())),
        used: used / possible,
        most,
        inversions,
    }
}

const MIXES: [[f64; 4]; 4] =
    [[0.3, 0.4, 0.6, 1.0], [0.0, 0.0, 0.0, 2.0], [1.2, 0.0, 0.0, 1.0], [0.05, 0.1, 0.5, 1.5]];

fn check(algorithm: Algorithm, limit: u32, error_max: f64, used_min: f64) {
    let outcomes = MIXES.into_iter().zip(1..).map(|(mix, seed)| {
        let outcome = run(algorithm, limit, mix, seed);
        println!("{algorithm} {limit} {mix:?}: {outcome:.4?}");
        outcome
    });
    for outcome in outcomes.collect::<Vec<_>>() {
        assert_eq!(outcome.inversions, 0, "{outcome:?}");
        assert!(outcome.error <= error_max, "{outcome:?}");
        assert!(outcome.used >= used_min, "{outcome:?}");
        assert!(algorithm != Algorithm::FixedWindow || outcome.most <= 1.0, "{outcome:?}");
    }
}

#[test]
fn a_fixed_window_is_filled_from_the_top() {
    check(Algorithm::FixedWindow, 10_000, 0.01, 0.99);
}

#[test]
fn a_small_fixed_window_is_filled_from_the_top() {
    check(Algorithm::FixedWindow, 100, 0.05, 0.95);
}

#[test]
fn a_sliding_window_is_filled_from_the_top() {
    check(Algorithm::SlidingWindow, 10_000, 0.01, 0.99);
}

#[test]
fn a_bucket_is_filled_from_the_top() {
    check(Algorithm::TokenBucket { burst: 10_000 }, 10_000, 0.01, 0.99);
}

/// An overload begins on a counter that nobody knew, or after calm: the first window learns what is
/// asked while it is young, those after it know.
#[test]
fn an_overload_that_begins() {
    const CALM: usize = 6;
    for limit in [1000, 3000] {
        for before in [0, CALM] {
            for mix in MIXES.into_iter().chain([[0.0, 1.0, 1.0, 1.0]]) {
                let demand = |second| match second < before {
                    true => mix.map(|part| part * 0.2 / mix.iter().sum::<f64>()),
                    false => mix,
                };
                let course = course(Algorithm::FixedWindow, limit, demand, before + 5, 1);
                let errors: Vec<f64> = (before..before + 5)
                    .map(|at| {
                        let (asked, admitted) = ([course.demand[at]], [course.admitted[at]]);
                        outcome(limit, &asked, &admitted, 0).error
                    })
                    .collect();
                println!("{limit} after {before} s of calm, {mix:?}: {errors:.4?}");
                assert_eq!(course.inversions, 0);
                assert!(errors[0] <= 0.08, "{errors:.4?}");
                assert!(errors[1..].iter().all(|error| *error <= 0.02), "{errors:.4?}");
            }
        }
    }
}
