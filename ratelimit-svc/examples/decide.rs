//! So many decisions in memory and nothing else, for tools that count what a decision does:
//!
//! ```text
//! valgrind ./decide 0        total heap usage: A allocs
//! valgrind ./decide 1000     total heap usage: B allocs     (B - A) / 1000 per decision
//! ```
//!
//! The second argument is the number of descriptors, 1 where it is not given, and the third the
//! number of rules beside the one that is met, as many for literal values as for patterns. With a fourth
//! that is 1 the decisions are recorded too.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use prometheus_client::registry::Registry;
use ratelimit_svc::decide::conclude::{Evidence, conclude};
use ratelimit_svc::decide::hit::Mode;
use ratelimit_svc::decide::plan::plan;
use ratelimit_svc::decide::request::{Descriptor, Request};
use ratelimit_svc::decide::settings::Settings;
use ratelimit_svc::decide::trial::has_trials;
use ratelimit_svc::limits::quotas::Library;
use ratelimit_svc::metrics::Metrics;
use ratelimit_svc::record::Recorder;
use ratelimit_svc::store::memory::Memory;

const NOW: Duration = Duration::from_secs(1_800_000_000);
const TENANTS: [&str; 10] =
    ["acme", "beta", "corp", "dent", "echo", "fern", "gulf", "hale", "iota", "jade"];

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().unwrap_or(1));
    let (times, descriptors) = (arguments.next().unwrap_or(1), arguments.next().unwrap_or(1));
    let rules = arguments.next().unwrap_or(0);
    let limit = "rate_limit: {unit: minute, requests_per_unit: 100000, name: per-tenant}";
    let mut text = format!("domain: edge\ndescriptors:\n- {{key: tenant, {limit}}}\n");
    for rule in 0..rules / 2 {
        text += &format!("- {{key: tenant, value: 'literal-{rule}', {limit}}}\n");
        text += &format!("- {{key: tenant, value: 'pattern-{rule:05}-*', {limit}}}\n");
    }
    let contents = BTreeMap::from([(PathBuf::from("a.yaml"), Ok(text.into()))]);
    let quotas = Library::new(false).update(&contents).quotas;
    let (memory, settings) = (Memory::default(), Settings::default());
    let metrics = Metrics::new(&mut Registry::default());
    let descriptor = |tenant: &&'static str| Descriptor {
        entries: [("tenant", *tenant), ("priority", "ingest")][..].into(),
        ..Descriptor::default()
    };
    let asked = Request {
        domain: "edge",
        descriptors: TENANTS[..descriptors.min(TENANTS.len())].iter().map(descriptor).collect(),
        hits_addend: 0,
    };
    let recorder = (arguments.next() == Some(1)).then(|| Recorder::new(65_536));
    for _ in 0..times {
        let planned = plan(black_box(&asked), &quotas, &settings, NOW.as_secs());
        let Ok(plan) = planned else { return };
        let counts = memory.count_now(&plan.hits, Mode::CountAll, NOW);
        let found = Evidence::Counts { hits: &plan.hits, counts: &counts, degraded: false };
        let decision = conclude(&asked, &plan, found, &settings, NOW.as_secs());
        black_box(has_trials(&plan));
        metrics.decided(&plan, &decision, Duration::from_micros(20));
        if let Some(recorder) = &recorder {
            recorder.record(&asked, &plan, &decision, NOW);
        }
        black_box(decision);
    }
}
