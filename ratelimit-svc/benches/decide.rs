//! What a decision costs without a wire: matching by the number of rules, the name of a counter,
//! the whole decision in memory by algorithm, headers and metrics.
//!
//! `cargo bench -p ratelimit-svc`. Allocations are counted by `tests/it/allocations.rs`, instructions
//! with `examples/decide.rs`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use prometheus_client::registry::Registry;
use ratelimit_svc::decide::conclude::{Evidence, conclude};
use ratelimit_svc::decide::decision::Decision;
use ratelimit_svc::decide::headers::headers;
use ratelimit_svc::decide::hit::Mode;
use ratelimit_svc::decide::key::{KeyFormat, counter_key};
use ratelimit_svc::decide::plan::{Plan, plan};
use ratelimit_svc::decide::request::{Descriptor, Request};
use ratelimit_svc::decide::settings::HeaderNames;
use ratelimit_svc::decide::settings::Settings;
use ratelimit_svc::limits::quotas::{Library, Quotas};
use ratelimit_svc::limits::rule::Limit;
use ratelimit_svc::limits::unit::Unit;
use ratelimit_svc::metrics::Metrics;
use ratelimit_svc::record::Recorder;
use ratelimit_svc::store::memory::Memory;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn read(text: &str) -> Quotas {
    let contents = BTreeMap::from([(PathBuf::from("a.yaml"), Ok(text.as_bytes().to_vec()))]);
    let update = Library::new(false).update(&contents);
    assert!(update.errors.is_empty(), "{:?}", update.errors);
    update.quotas
}

/// So many rules for literal values, with patterns and a rule for the key alone beside them.
fn rules(count: usize, value: impl Fn(usize) -> String) -> Quotas {
    let mut text = "domain: edge\ndescriptors:\n".to_owned();
    let limit = "rate_limit: {unit: minute, requests_per_unit: 600}";
    for n in 0..count {
        let line = writeln!(text, "- {{key: tenant, value: '{}', {limit}}}", value(n));
        line.expect("writing to memory does not fail");
    }
    read(&text)
}

fn matching(c: &mut Criterion) {
    let mut group = c.benchmark_group("match");
    for count in [10, 100, 1_000, 10_000] {
        let literal = rules(count, |n| format!("tenant-{n}"));
        let pattern = rules(count, |n| format!("t-{n:05}-*"));
        let (literal, pattern) = (&literal.domains()[0].root, &pattern.domains()[0].root);
        let last = format!("tenant-{}", count - 1);
        let entries = [("tenant", last.as_str())];
        let found = |b: &mut criterion::Bencher<'_>| {
            b.iter(|| literal.find(black_box(&entries)).expect("found").allowance);
        };
        group.bench_function(BenchmarkId::new("literal", count), found);
        let last = format!("t-{:05}-x", count - 1);
        let entries = [("tenant", last.as_str())];
        let found = |b: &mut criterion::Bencher<'_>| {
            b.iter(|| pattern.find(black_box(&entries)).expect("found").allowance);
        };
        group.bench_function(BenchmarkId::new("pattern", count), found);
    }
    group.finish();
}

fn naming(c: &mut Criterion) {
    let limit = Limit::fixed(600, Unit::Minute);
    let window = Unit::Minute.window(NOW.as_secs());
    let entries = [("tenant", "acme"), ("path", "/api/v2/write")];
    c.bench_function("key", |b| {
        b.iter(|| {
            counter_key(KeyFormat::Tidegate, "edge", black_box(&entries), &[], limit, window)
        });
    });
}

struct Decider {
    quotas: Quotas,
    memory: Memory,
    settings: Settings,
}

impl Decider {
    fn new(algorithm: &str) -> Self {
        let limit = format!("{{unit: minute, requests_per_unit: 1000000000, {algorithm}}}");
        let text = format!("domain: edge\ndescriptors: [{{key: tenant, rate_limit: {limit}}}]\n");
        let settings = Settings { headers: Some(HeaderNames::default()), ..Settings::default() };
        Self { quotas: read(&text), memory: Memory::default(), settings }
    }

    fn decide<'a, 'r: 'a>(&'a self, request: &Request<'r>) -> (Plan<'a>, Decision) {
        let plan = plan(request, &self.quotas, &self.settings, NOW.as_secs()).expect("planned");
        let counts = self.memory.count_now(&plan.hits, Mode::CountAll, NOW);
        let found = Evidence::Counts { hits: &plan.hits, counts: &counts, degraded: false };
        let decision = conclude(request, &plan, found, &self.settings, NOW.as_secs());
        (plan, decision)
    }
}

fn request(descriptors: usize) -> Request<'static> {
    const TENANTS: [&str; 5] = ["acme", "beta", "corp", "dent", "echo"];
    let descriptor = |tenant: &&'static str| Descriptor {
        entries: [("tenant", *tenant), ("priority", "ingest")][..].into(),
        ..Descriptor::default()
    };
    let descriptors = TENANTS[..descriptors].iter().map(descriptor).collect();
    Request { domain: "edge", descriptors, hits_addend: 0 }
}

fn deciding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    for algorithm in ["fixed_window", "sliding_window", "token_bucket"] {
        let decider = Decider::new(&format!("algorithm: {algorithm}"));
        for descriptors in [1, 5] {
            let asked = request(descriptors);
            let id = BenchmarkId::new(algorithm, descriptors);
            group.bench_function(id, |b| b.iter(|| decider.decide(black_box(&asked))));
        }
    }
    group.finish();
    let (decider, asked) = (Decider::new("algorithm: fixed_window"), request(1));
    let (plan, decision) = decider.decide(&asked);
    let names = HeaderNames::default();
    c.bench_function("headers", |b| {
        b.iter(|| headers(&names, black_box(&plan), &decision.statuses));
    });
    let metrics = Arc::new(Metrics::new(&mut Registry::default()));
    c.bench_function("metrics", |b| {
        b.iter(|| metrics.decided(black_box(&plan), &decision, Duration::from_micros(20)));
    });
}

/// What it costs to record a decision: of a request that was seen in this second, and of one that begins
/// a row.
fn recording(c: &mut Criterion) {
    let (decider, asked) = (Decider::new("algorithm: fixed_window"), request(1));
    let (plan, decision) = decider.decide(&asked);
    let recorder = Recorder::new(65_536);
    c.bench_function("record/again", |b| {
        b.iter(|| recorder.record(black_box(&asked), &plan, &decision, NOW));
    });
    let names: Vec<String> = (0..8000).map(|n| format!("tenant-{n:05}")).collect();
    let of = |name| {
        let entries = [("tenant", name), ("priority", "ingest")][..].into();
        let descriptors = vec![Descriptor { entries, ..Descriptor::default() }];
        Request { domain: "edge", descriptors, hits_addend: 0 }
    };
    let requests: Vec<Request<'_>> = names.iter().map(|name| of(name)).collect();
    let mut at = 0;
    c.bench_function("record/first", |b| {
        b.iter(|| {
            at += 1;
            let second = NOW + Duration::from_secs(at as u64 / 8000);
            recorder.record(black_box(&requests[at % 8000]), &plan, &decision, second);
        });
    });
}

criterion_group!(benches, matching, naming, deciding, recording);
criterion_main!(benches);
