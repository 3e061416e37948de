//! Simulations of seeded traffic whose whole tallies are kept in `golden.txt`: what makes a simulation faster
//! must not change an answer. `GOLDEN=write` writes the file anew, for a change that is meant to.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::super::run::{Question, run};
use super::super::tally::Tally;
use super::super::{Counting, Scenario, leased};
use super::{NOW, quotas};
use crate::decide::request::{Descriptor, Request};
use crate::decide::settings::Settings;
use crate::record::hashed::HashedKeys;
use crate::record::segments::Segments;
use crate::record::table::Table;

const GOLDEN: &str = include_str!("golden.txt");
const SECONDS: u64 = 90;
const TENANTS: u64 = 60;
const CLASSES: [&str; 4] = ["system-node-critical", "platform-core", "ingest", "background"];

/// Limits of all kinds: leased and small, shared by classes and not, buckets, trials, overdrafts, a quota.
const QUOTAS: &str = "
  - key: tenant
    rate_limit: {unit: minute, requests_per_unit: 90, mode: lease, trial: {requests_per_unit: 60}}
  - key: tenant
    value: tenant-0
    rate_limit: {unit: minute, requests_per_unit: 1500, trial: {requests_per_unit: 900, reserve: none}}
  - key: tenant
    value: tenant-1
    rate_limit: {unit: second, requests_per_unit: 6, trial: {requests_per_unit: 3}}
  - key: tenant
    value: tenant-2
    rate_limit: {unit: minute, requests_per_unit: 100, algorithm: token_bucket, burst: 20}
  - key: tenant
    value: tenant-3
    rate_limit: {unlimited: true}
  - key: points
    rate_limit: {unit: minute, requests_per_unit: 900, overdraft: true}
  - key: route
    rate_limit: {unit: minute, requests_per_unit: 300, algorithm: sliding_window, reserve: none}
";

/// Repeatable numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// A few tenants ask often and in bursts, most now and then; some requests have two descriptors.
fn record(dir: &Path) {
    let mut segments =
        Segments::new(dir, 1 << 30, "r".to_owned(), HashedKeys::default()).expect("made");
    let mut random = Random(0x243f_6a88_85a3_08d3);
    let names: Vec<String> = (0..TENANTS).map(|tenant| format!("tenant-{tenant}")).collect();
    for second in 0..SECONDS {
        let mut table = Table::new(10_000);
        table.begin(NOW + second);
        let crowd = if second % 30 > 24 { 4 } else { 1 };
        for _ in 0..crowd * (40 + random.below(40)) {
            // The lower the number of a tenant, the more often it asks.
            let tenant =
                random.below(TENANTS).min(random.below(TENANTS)).min(random.below(TENANTS));
            let class = CLASSES[random.below(4).min(random.below(4)) as usize];
            let name = &*names[tenant as usize];
            let entries = [("tenant", name), ("priority", class)][..].into();
            let mut descriptors = vec![Descriptor { entries, ..Descriptor::default() }];
            if random.below(3) == 0 {
                let entries = [("points", name)][..].into();
                let hits_addend = Some(random.below(40));
                descriptors.push(Descriptor { entries, hits_addend, ..Descriptor::default() });
            }
            if random.below(5) == 0 {
                let entries = [("route", "write")][..].into();
                descriptors.push(Descriptor { entries, ..Descriptor::default() });
            }
            let request = Request { domain: "edge", descriptors, hits_addend: 1 };
            table.add(&request, class, None, random.below(1000) as u16);
        }
        segments.write(&[table]).expect("written");
    }
    segments.finish().expect("finished");
}

/// The figures that a person would look at, and a hash of all of them.
fn simulated(dir: &Path, scenario: Scenario) -> String {
    let (new, old) = (
        quotas(QUOTAS),
        quotas("  - {key: tenant, rate_limit: {unit: minute, requests_per_unit: 70}}\n"),
    );
    let question =
        Question { traffic: vec![dir.to_owned()], new, old: Some(old), scenario, salt: None };
    let answer = run(&question, &mut |_| {}).expect("simulated");
    let (tally, total) = (&answer.tally, answer.tally.total);
    let mut text = format!("{} decisions; {total:?}\n", answer.decisions);
    for ((_, rule), figures) in &tally.rules {
        let (new, old, trial) = (&figures.new, &figures.old, figures.trial);
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  {rule}: new {new:?} old {old:?}");
        let _ = writeln!(text, "    trial {} of {}", trial.new_refused, trial.requests);
    }
    let Tally { total, classes, rules, shapes, steps, step_seconds, span, .. } = tally;
    let Tally { other, errors, left_out, without_rule, .. } = tally;
    let all = format!(
        "Tally {{ total: {total:?}, classes: {classes:?}, rules: {rules:?}, shapes: {shapes:?}, \
         steps: {steps:?}, step_seconds: {step_seconds:?}, span: {span:?}, other: {other:?}, \
         errors: {errors:?}, left_out: {left_out:?}, without_rule: {without_rule:?} }} {:?}",
        answer.notes
    );
    let _ = writeln!(text, "  everything {:016x}", xxh3_64(all.as_bytes()));
    text
}

#[test]
fn simulations_of_seeded_traffic_answer_as_they_did() {
    let dir = tempfile::tempdir().expect("temporary directory");
    record(dir.path());
    let slow = |outage| Counting::Leased {
        replicas: 3,
        limit_min: 100,
        round_trip: Duration::from_micros(1_700),
        outage,
    };
    let all_or_nothing = Settings { all_or_nothing: true, ..Settings::default() };
    let scenarios = [
        ("exact", Scenario::default()),
        ("all or nothing", Scenario { settings: all_or_nothing.clone(), ..Scenario::default() }),
        ("leased by three", Scenario { counting: leased(3), ..Scenario::default() }),
        ("leased, all or nothing", Scenario { settings: all_or_nothing, counting: leased(2) }),
        ("leased from 100 on, slowly", Scenario { counting: slow(None), ..Scenario::default() }),
        (
            "leased, with an outage",
            Scenario { counting: slow(Some(NOW + 40..NOW + 65)), ..Scenario::default() },
        ),
        (
            "leased, waiting in vain",
            Scenario {
                counting: Counting::Leased {
                    replicas: 4,
                    limit_min: 1,
                    round_trip: Duration::from_millis(12),
                    outage: None,
                },
                ..Scenario::default()
            },
        ),
    ];
    let mut text = String::new();
    for (name, scenario) in scenarios {
        let _ = writeln!(text, "{name}: {}", simulated(dir.path(), scenario));
    }
    if std::env::var_os("GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/simulate/tests/golden.txt");
        std::fs::write(path, &text).expect("written");
    }
    assert_eq!(text, GOLDEN);
}
