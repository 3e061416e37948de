//! Classes that share a leased limit when an overload begins: on a counter that nobody knew, and
//! after calm. What each of the first seconds admits beside a filling from the top with full
//! knowledge. Claims take the time of a round trip, and requests wait for them for as long as they
//! may.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::hit;
use super::simulation::Random;
use crate::decide::hit::{Count, Hit, Mode};
use crate::lease::LeaseTerms;
use crate::lease::claim::{BATCH_MAX, Claim};
use crate::lease::table::{Served, Table};
use crate::limits::sharing::{ClassShare, How};
use crate::store::memory::Memory;

const START: u64 = 1_800_000_000;
/// As long as a request waits for a claim.
const BUDGET_MICROS: u64 = 5_000;

/// One second: what was asked, and what was admitted, highest class first.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    pub asked: [u64; 4],
    pub admitted: [u64; 4],
}

impl Second {
    /// How far each class is from what a perfect filling admits, in parts of the limit.
    pub fn errors(&self, limit: u32) -> [f64; 4] {
        let mut room = u64::from(limit);
        std::array::from_fn(|class| {
            let ideal = self.asked[class].min(room);
            room -= ideal;
            (self.admitted[class] as f64 - ideal as f64) / f64::from(limit)
        })
    }
}

enum Event {
    Asked { replica: usize, claims: Vec<Claim> },
    Answered { replica: usize, claims: Vec<Claim>, counts: Vec<Count> },
}

struct Waiting {
    class: usize,
    hit: Hit,
    until: u64,
}

struct World {
    limit: u32,
    counters: Memory,
    tables: Vec<Table>,
    waiting: Vec<Vec<Waiting>>,
    order: BinaryHeap<Reverse<(u64, usize)>>,
    events: Vec<Option<Event>>,
    random: Random,
    seconds: Vec<Second>,
}

impl World {
    fn at(&mut self, micros: u64, event: Event) {
        self.order.push(Reverse((micros, self.events.len())));
        self.events.push(Some(event));
    }

    /// What happens up to that instant.
    fn run_to(&mut self, micros: u64) {
        while let Some(&Reverse((at, slot))) = self.order.peek()
            && at <= micros
        {
            self.order.pop();
            let now = Duration::from_secs(START) + Duration::from_micros(at);
            match self.events[slot].take().expect("once") {
                Event::Asked { replica, claims } => {
                    let hits: Vec<Hit> = claims.iter().map(Claim::counted_hit).collect();
                    let counts = self.counters.count_now(&hits, Mode::CountAll, now);
                    let back = at + 50 + self.random.below(400);
                    self.at(back, Event::Answered { replica, claims, counts });
                }
                Event::Answered { replica, claims, counts } => {
                    for (claim, count) in claims.iter().zip(&counts) {
                        self.tables[replica].granted(claim, claim.grant(count), now);
                    }
                    let waiting = std::mem::take(&mut self.waiting[replica]);
                    for waiting in waiting {
                        if waiting.until >= at {
                            self.ask(replica, waiting, true, at);
                        }
                    }
                    self.send(replica, at);
                }
            }
        }
    }

    fn ask(&mut self, replica: usize, asks: Waiting, again: bool, at: u64) {
        let now = Duration::from_secs(START) + Duration::from_micros(at);
        match self.tables[replica].take(std::slice::from_ref(&asks.hit), again, now) {
            Served::Counts(counts) => {
                if !counts[0].over {
                    // Of the window that paid for it.
                    let (window, _) = self.tables[replica].lease_of(&asks.hit).expect("there");
                    let second = &mut self.seconds[(window.start - START) as usize];
                    second.admitted[asks.class] += 1;
                    let admitted = second.admitted.iter().sum::<u64>();
                    assert!(admitted <= u64::from(self.limit), "more than the limit");
                }
            }
            _ => self.waiting[replica].push(asks),
        }
    }

    fn send(&mut self, replica: usize, at: u64) {
        let now = Duration::from_secs(START) + Duration::from_micros(at);
        loop {
            let claims = self.tables[replica].claims(BATCH_MAX, now);
            if claims.is_empty() {
                return;
            }
            let there = at + 50 + self.random.below(400);
            self.at(there, Event::Asked { replica, claims });
        }
    }
}

/// Runs so many seconds of a demand that is told for each, in parts of the limit.
fn run(
    replicas: usize,
    limit: u32,
    demand: impl Fn(usize) -> [f64; 4],
    seconds: usize,
    seed: u64,
) -> Vec<Second> {
    let terms = LeaseTerms { replicas: replicas as u32, ..LeaseTerms::default() };
    let table = |seed| Table::new(&terms, 1000, seed, Duration::ZERO);
    let mut world = World {
        limit,
        counters: Memory::default(),
        tables: (0..replicas as u64).map(table).collect(),
        waiting: (0..replicas).map(|_| Vec::new()).collect(),
        order: BinaryHeap::new(),
        events: Vec::new(),
        random: Random(seed),
        seconds: vec![Second::default(); seconds + 1],
    };
    let mut micros = 0.0f64;
    loop {
        let demand = demand(micros as usize / 1_000_000);
        let sum: f64 = demand.iter().sum();
        micros += -(1.0 - world.random.unit()).ln() * 1e6 / (sum * f64::from(limit));
        let at = micros as u64;
        let second = at as usize / 1_000_000;
        if second >= seconds {
            break;
        }
        world.run_to(at);
        let mut draw = world.random.unit() * sum;
        let class = demand.iter().position(|part| {
            draw -= part;
            draw < 0.0
        });
        let class = class.unwrap_or(3);
        let how = How::Forecast { guarantees: None };
        let share = Some(ClassShare { rank: class as u8, classes: 4, how, asked: None });
        let hit = Hit { share, ..hit("pool", 1, limit, 1, START + second as u64) };
        let replica = world.random.below(replicas as u64) as usize;
        world.seconds[second].asked[class] += 1;
        world.ask(replica, Waiting { class, hit, until: at + BUDGET_MICROS }, false, at);
        world.send(replica, at);
    }
    world.seconds.truncate(seconds);
    world.seconds
}

/// Demand that overloads a limit, in parts of it.
const MIXES: [[f64; 4]; 5] = [
    [0.3, 0.4, 0.6, 1.0],
    [0.0, 0.0, 0.0, 2.0],
    [1.2, 0.0, 0.0, 1.0],
    [0.05, 0.1, 0.5, 1.5],
    [0.0, 1.0, 1.0, 1.0],
];
/// Of the limit, what is asked before an overload begins, where anything is.
const CALM: f64 = 0.2;
/// Seconds of calm.
const BEFORE: usize = 3;
/// Seconds that count.
const SECONDS: usize = 5;

/// How far the first seconds of a mix are from a perfect filling, on average over some seeds.
fn errors(
    replicas: usize,
    limit: u32,
    seeds: u64,
    is_known: bool,
    mix: [f64; 4],
) -> [[f64; 4]; SECONDS] {
    let calm = if is_known { BEFORE } else { 0 };
    let demand = |second| {
        let part = if second < calm { CALM / mix.iter().sum::<f64>() } else { 1.0 };
        mix.map(|of_class| of_class * part)
    };
    let mut errors = [[0.0; 4]; SECONDS];
    for seed in 1..=seeds {
        let seconds = run(replicas, limit, demand, calm + SECONDS, seed);
        for (sums, second) in errors.iter_mut().zip(&seconds[calm..]) {
            for (sum, error) in sums.iter_mut().zip(second.errors(limit)) {
                *sum += error / seeds as f64;
            }
        }
    }
    println!("{replicas} replicas, {limit}, known {is_known}, {mix:?}: {errors:.3?}");
    errors
}

fn worst(errors: &[f64; 4]) -> f64 {
    errors.iter().fold(0.0, |most, error| most.max(error.abs()))
}

/// The first second learns what is asked, those after it know.
fn check(replicas: usize, limit: u32, seeds: u64, first_max: f64, later_max: f64) {
    for is_known in [false, true] {
        for mix in MIXES {
            let errors = errors(replicas, limit, seeds, is_known, mix);
            assert!(worst(&errors[0]) <= first_max, "{is_known} {mix:?} {errors:.3?}");
            let later = errors[1..].iter().map(worst).fold(0.0, f64::max);
            assert!(later <= later_max, "{is_known} {mix:?} {errors:.3?}");
        }
    }
}

#[test]
fn an_overload_on_one_replica() {
    check(1, 1000, 1, 0.2, 0.04);
    check(1, 3000, 1, 0.15, 0.02);
}

#[test]
fn an_overload_on_three_replicas() {
    check(3, 1000, 1, 0.12, 0.04);
    check(3, 5000, 1, 0.12, 0.015);
}

/// What nobody is in need of is refused to nobody, however little is known.
#[test]
fn no_overload() {
    for (replicas, limit, most) in [(1, 1000, 0.01), (3, 1000, 0.01), (3, 5000, 0.002)] {
        for is_known in [false, true] {
            for mix in [[0.1, 0.2, 0.3, 0.3], [0.0, 0.1, 0.6, 0.2]] {
                let errors = errors(replicas, limit, 1, is_known, mix);
                // Chance alone takes a second over its margin now and then.
                let mean = |class| errors.iter().map(|of| of[class]).sum::<f64>() / SECONDS as f64;
                let worst = worst(&[mean(0), mean(1), mean(2), mean(3)]);
                assert!(worst <= most, "{mix:?} {errors:.4?}");
            }
        }
    }
}
