//! Classes that share a leased limit: the real table against the real count of a shared counter,
//! under the four mixes of demand for which the ideal is known.

use std::time::Duration;

use super::hit;
use super::simulation::Random;
use crate::decide::hit::{Hit, Mode};
use crate::lease::LeaseTerms;
use crate::lease::claim::{BATCH_MAX, Claim};
use crate::lease::table::{Served, Table};
use crate::limits::sharing::{ClassShare, How};
use crate::store::memory::Memory;

const REPLICAS: usize = 3;
const START: u64 = 1_800_000_000;
/// Seconds before the figures count: the averages have to settle.
const WARM_UP: u64 = 6;
/// Seconds that count.
const SECONDS: u64 = 6;

struct World {
    counters: Memory,
    tables: Vec<Table>,
    claims: u64,
}

impl World {
    fn new() -> Self {
        let terms = LeaseTerms { replicas: REPLICAS as u32, ..LeaseTerms::default() };
        let table = |seed| Table::new(&terms, 1000, seed, Duration::ZERO);
        let tables = (0..REPLICAS as u64).map(table).collect();
        Self { counters: Memory::default(), tables, claims: 0 }
    }

    /// Whether a request is admitted; claims are answered at once.
    fn admits(&mut self, replica: usize, hit: &Hit, now: Duration) -> bool {
        let table = &self.tables[replica];
        for attempt in 0..4 {
            let outcome = table.take(std::slice::from_ref(hit), attempt > 0, now);
            let claims = table.claims(BATCH_MAX, now);
            self.claims += claims.len() as u64;
            let hits: Vec<Hit> = claims.iter().map(Claim::counted_hit).collect();
            let counts = self.counters.count_now(&hits, Mode::CountAll, now);
            for (claim, count) in claims.iter().zip(&counts) {
                let grant = claim.grant(count);
                assert!(grant.taken <= claim.pool && grant.granted <= claim.hit.amount);
                table.granted(claim, grant, now);
            }
            if let Served::Counts(counts) = outcome {
                return !counts[0].over;
            }
        }
        false
    }
}

/// What became of a mix, in parts of the limit and of a window.
#[derive(Debug)]
struct Filling {
    /// Of each class, how much more was admitted than a filling from the top with full knowledge
    /// of each window admits.
    errors: [f64; 4],
    /// Admitted of what the limit and the demand allow.
    used: f64,
    /// Claims for each decision.
    claims_per_decision: f64,
}

/// Runs a mix: demand of each class in parts of the limit per second, arriving as Poisson.
fn run(limit: u32, demand: [f64; 4], seed: u64) -> Filling {
    let (mut world, mut random) = (World::new(), Random(seed));
    let sum: f64 = demand.iter().sum();
    let windows = (WARM_UP + SECONDS) as usize;
    let (mut asked, mut admitted) = (vec![[0u64; 4]; windows], vec![[0u64; 4]; windows]);
    let (mut seconds, mut requests) = (0.0, 0u64);
    loop {
        seconds += -(1.0 - random.unit()).ln() / (sum * f64::from(limit));
        let window = seconds as usize;
        if window >= windows {
            break;
        }
        let at = Duration::from_secs(START) + Duration::from_secs_f64(seconds);
        let mut draw = random.unit() * sum;
        let class = demand.iter().position(|part| {
            draw -= part;
            draw < 0.0
        });
        let class = class.unwrap_or(3);
        let how = How::Forecast { guarantees: None };
        let share = Some(ClassShare { rank: class as u8, classes: 4, how, asked: None });
        let hit = Hit { share, ..hit("pool", 1, limit, 1, at.as_secs()) };
        let replica = random.below(REPLICAS as u64) as usize;
        requests += 1;
        asked[window][class] += 1;
        admitted[window][class] += u64::from(world.admits(replica, &hit, at));
        assert!(admitted[window].iter().sum::<u64>() <= u64::from(limit), "more than the limit");
    }
    let (mut errors, mut used, mut possible) = ([0.0; 4], 0.0, 0.0);
    let whole = SECONDS as f64 * f64::from(limit);
    for (asked, admitted) in asked.iter().zip(&admitted).skip(WARM_UP as usize) {
        let mut room = u64::from(limit);
        for class in 0..4 {
            let ideal = asked[class].min(room);
            room -= ideal;
            errors[class] += (admitted[class] as f64 - ideal as f64) / whole;
            used += admitted[class] as f64;
        }
        possible += (u64::from(limit) - room) as f64;
    }
    let claims_per_decision = world.claims as f64 / requests as f64;
    Filling { errors, used: used / possible, claims_per_decision }
}

/// Higher classes come first, and what they leave is used.
fn check(demand: [f64; 4]) {
    for (limit, error_max, used_min) in [(10_000, 0.01, 0.99), (2000, 0.015, 0.985)] {
        for seed in 1..=3 {
            let outcome = run(limit, demand, seed);
            println!("{limit} {demand:?}: {outcome:.4?}");
            let worst = outcome.errors.iter().fold(0.0f64, |most, error| most.max(error.abs()));
            assert!(outcome.claims_per_decision <= 0.1, "{demand:?}");
            assert!(worst <= error_max && outcome.used >= used_min, "{demand:?}");
        }
    }
}

#[test]
fn overload_of_all_classes() {
    check([0.3, 0.4, 0.6, 1.0]);
}

#[test]
fn the_lowest_class_alone() {
    check([0.0, 0.0, 0.0, 2.0]);
}

#[test]
fn a_critical_surge() {
    check([1.2, 0.0, 0.0, 1.0]);
}

#[test]
fn a_flood_of_the_lowest_class() {
    check([0.05, 0.1, 0.5, 1.5]);
}
