//! Classes that share a leased limit: the real table against the real count of a shared counter,
//! under the four mixes of demand for which the ideal is known.

use std::time::Duration;

use super::hit;
use super::simulation::Random;
use crate::lease::Terms;
use crate::lease::claim::{BATCH_MAX, Claim};
use crate::lease::table::{Outcome, Table};
use crate::limits::sharing::{How, Share};
use crate::store::memory::Memory;
use crate::store::{Hit, Mode};

const LIMIT: u32 = 2000;
const REPLICAS: usize = 3;
const WARM_UP: u64 = 6;
const SECONDS: u64 = 14;

struct World {
    counters: Memory,
    tables: Vec<Table>,
    claims: u64,
}

impl World {
    fn new() -> Self {
        let terms = Terms { replicas: REPLICAS as u32, ..Terms::default() };
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
            if let Outcome::Counts(counts) = outcome {
                return !counts[0].over;
            }
        }
        false
    }
}

/// Admitted of each class as parts of the limit, after the warm-up.
fn run(name: &str, demand: [f64; 4]) -> [f64; 4] {
    let (mut world, mut random) = (World::new(), Random(11));
    let per_second: f64 = demand.iter().sum::<f64>() * f64::from(LIMIT);
    let (mut now, mut requests) = (1_000_000_000.0, 0u64);
    let (mut admitted, mut in_window) = ([0u64; 4], (0, 0u64));
    while now < (1000 + SECONDS) as f64 * 1e6 {
        now += -(1.0 - random.unit()).ln() * 1e6 / per_second;
        let at = Duration::from_micros(now as u64);
        let mut draw = random.unit() * demand.iter().sum::<f64>();
        let class = demand.iter().position(|part| {
            draw -= part;
            draw < 0.0
        });
        let class = class.unwrap_or(3);
        let how = How::Forecast { guarantees: None };
        let share = Some(Share { place: class as u8, classes: 4, how });
        let asked = Hit { share, ..hit("pool", 1, LIMIT, 1, at.as_secs()) };
        requests += 1;
        let replica = random.below(REPLICAS as u64) as usize;
        let admits = world.admits(replica, &asked, at);
        if in_window.0 != at.as_secs() {
            in_window = (at.as_secs(), 0);
        }
        in_window.1 += u64::from(admits);
        assert!(in_window.1 <= u64::from(LIMIT), "{name}: more than the limit");
        if at.as_secs() >= 1000 + WARM_UP {
            admitted[class] += u64::from(admits);
        }
    }
    let whole = (SECONDS - WARM_UP) as f64 * f64::from(LIMIT);
    let parts = admitted.map(|admitted| admitted as f64 / whole);
    let used: f64 = parts.iter().sum();
    let commands = world.claims as f64 / requests as f64;
    println!("{name}: {parts:.3?} of the limit, used {used:.3}, {commands:.4} claims/decision");
    parts
}

/// Higher classes come first, and what they leave is used, but for a few percent.
fn check(name: &str, demand: [f64; 4]) {
    let parts = run(name, demand);
    let mut left: f64 = 1.0;
    for (class, (part, demand)) in parts.iter().zip(demand).enumerate() {
        let ideal = demand.min(left);
        left -= ideal;
        assert!(
            (part - ideal).abs() <= 0.04,
            "{name}: class {class} got {part:.3}, not {ideal:.3}"
        );
    }
    assert!(parts.iter().sum::<f64>() >= 0.97 * demand.iter().sum::<f64>().min(1.0), "{name}");
}

#[test]
fn overload_of_all_classes() {
    check("0.3/0.4/0.6/1.0", [0.3, 0.4, 0.6, 1.0]);
}

#[test]
fn the_lowest_class_alone() {
    check("only low 2.0", [0.0, 0.0, 0.0, 2.0]);
}

#[test]
fn a_critical_surge() {
    check("critical 1.2, low 1.0", [1.2, 0.0, 0.0, 1.0]);
}

#[test]
fn a_flood_of_the_lowest_class() {
    check("0.05/0.1/0.5/1.5", [0.05, 0.1, 0.5, 1.5]);
}
