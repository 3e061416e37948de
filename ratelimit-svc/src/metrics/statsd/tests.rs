//! Tests of `statsd`: what is told, how it is written, and that it arrives.

use std::io::Read;
use std::net::TcpListener;

use prometheus_client::registry::Registry;

use super::*;
use crate::limits::stats::{HitStats, Reason, RuleOutcome};
use crate::metrics::rules::NamedBy;

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&mut Registry::default()))
}

fn hit(metrics: &Metrics, domain: &str, rule: &str, total: u64) {
    let hits = HitStats { total, within_limit: total, ..HitStats::default() };
    let reason = Reason::WithinLimit;
    let outcome = RuleOutcome { descriptor: 0, over_limit: false, reason, hits };
    metrics.rules.of(domain, rule, NamedBy::Rule).count("ingest", &outcome);
}

fn pairs(set: &[(&str, &str)]) -> Vec<(String, String)> {
    set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

#[test]
fn only_what_is_new_is_told() {
    let (metrics, mut told) = (metrics(), Reported::default());
    assert_eq!(told.samples(&metrics), []);
    hit(&metrics, "d", "a_1", 3);
    hit(&metrics, "d", "a:1", 4);
    metrics.store_error("timeout");
    let counter = |name: &str, count| Sample { name: name.into(), value: Value::Counter(count) };
    let mut samples = told.samples(&metrics);
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    let expected = [
        counter("ratelimit.service.call.should_rate_limit.redis_error", 1),
        counter("ratelimit.service.rate_limit.d.a_1.total_hits", 7),
        counter("ratelimit.service.rate_limit.d.a_1.within_limit", 7),
    ];
    assert_eq!(samples, expected);
    assert_eq!(told.samples(&metrics), []);
    hit(&metrics, "d", "a_1", 1);
    assert_eq!(told.samples(&metrics).len(), 2);
}

#[test]
fn durations_are_true_and_bounded() {
    let (metrics, mut told) = (metrics(), Reported::default());
    metrics.duration.observe(Duration::from_micros(300));
    let line = |sample: &Sample| Dialect::Statsd.line(sample, &[]);
    let lines: Vec<String> = told.samples(&metrics).iter().map(line).collect();
    assert_eq!(lines, ["ratelimit_server.ShouldRateLimit.response_time:0.3|ms"]);
    for _ in 0..4 * SAMPLES_MAX {
        metrics.duration.observe(Duration::from_millis(2));
    }
    let samples = told.samples(&metrics);
    assert_eq!(samples.len(), SAMPLES_MAX);
    assert_eq!(line(&samples[0]), "ratelimit_server.ShouldRateLimit.response_time:2|ms|@0.25");
}

#[test]
fn a_flush_is_bounded() {
    let (metrics, mut told) = (metrics(), Reported::default());
    for rule in 0..RULES_MAX + 100 {
        hit(&metrics, "d", &format!("r{rule}"), 1);
    }
    let samples = told.samples(&metrics);
    assert_eq!(samples.len(), 2 * (RULES_MAX + 1));
    assert!(samples.len() <= SAMPLES_OF_A_FLUSH_MAX);
}

#[test]
fn dialects() {
    let tags = pairs(&[("az", "a"), ("zone", "b")]);
    let sample = Sample { name: "rl.edge.over_limit".into(), value: Value::Counter(5) };
    let statsd = Dialect::Statsd;
    assert_eq!(statsd.line(&sample, &[]), "rl.edge.over_limit:5|c");
    assert_eq!(statsd.line(&sample, &tags), "rl.edge.over_limit.__az=a.__zone=b:5|c");
    let mogrifier = Mogrifier::try_new(r"^rl\.(.*)\.(.*)$", "rl.$2", pairs(&[("domain", "$1")]));
    let dog = Dialect::DogStatsd(vec![mogrifier.expect("valid")]);
    assert_eq!(dog.line(&sample, &tags), "rl.over_limit:5|c|#az:a,zone:b,domain:edge");
    let plain = Dialect::DogStatsd(vec![]);
    assert_eq!(plain.line(&sample, &[]), "rl.edge.over_limit:5|c");
}

fn exporter(metrics: &Arc<Metrics>, protocol: Protocol, host: &str, port: u16) -> Exporter {
    let settings = StatsdSettings {
        host: host.into(),
        port,
        protocol,
        dialect: Dialect::Statsd,
        extra_tags: vec![],
        interval: Duration::from_secs(10),
    };
    Exporter::new(metrics.clone(), settings)
}

#[test]
fn datagrams_arrive_within_their_bound() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
    server.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let metrics = metrics();
    for rule in 0..40 {
        hit(&metrics, "d", &format!("rule_{rule}"), 1);
    }
    // No datagram has room for it.
    hit(&metrics, &"x".repeat(DATAGRAM_BYTES_MAX), "a", 1);
    let port = server.local_addr().expect("bound").port();
    exporter(&metrics, Protocol::Udp, "127.0.0.1", port).flush();
    let (mut lines, mut buffer) = (0, [0; 4096]);
    while lines < 80 {
        let bytes = server.recv(&mut buffer).expect("a datagram");
        assert!(bytes <= DATAGRAM_BYTES_MAX, "{bytes}");
        let text = std::str::from_utf8(&buffer[..bytes]).expect("text");
        for line in text.lines() {
            lines += 1;
            assert!(line.starts_with("ratelimit.service.rate_limit.d.rule_"), "{line}");
        }
    }
    assert_eq!((lines, metrics.statsd_errors.get()), (80, 0));
}

#[test]
fn lines_arrive_over_a_connection() {
    let server = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = server.local_addr().expect("bound").port();
    let metrics = metrics();
    // Beyond what a server that reads nothing would take into its buffers at once.
    let rules = RULES_MAX as u64;
    for rule in 0..rules {
        hit(&metrics, "d", &format!("rule_{rule}"), 1);
    }
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let (mut stream, _) = server.accept().expect("accepted");
        stream.read_to_string(&mut text).expect("the end of the flush");
        text
    });
    exporter(&metrics, Protocol::Tcp, "127.0.0.1", port).flush();
    let text = reader.join().expect("read");
    assert_eq!((text.lines().count() as u64, metrics.statsd_errors.get()), (2 * rules, 0));
    assert!(
        text.ends_with('\n')
            && text.contains("ratelimit.service.rate_limit.d.rule_7.total_hits:1|c\n")
    );
}

#[test]
fn a_host_that_is_away_is_counted_and_nothing_else() {
    let metrics = metrics();
    let mut exporter = exporter(&metrics, Protocol::Udp, "not a host", 8125);
    exporter.flush();
    assert_eq!(metrics.statsd_errors.get(), 0, "there was nothing to send");
    for expected in 1..3 {
        hit(&metrics, "d", "a", 1);
        exporter.flush();
        assert_eq!(metrics.statsd_errors.get(), expected);
    }
    // A port nobody listens at is not even noticed, but by TCP.
    let gone = UdpSocket::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound").port();
    for (protocol, expected) in [(Protocol::Udp, 2), (Protocol::Tcp, 3)] {
        hit(&metrics, "d", "a", 1);
        super::tests::exporter(&metrics, protocol, "127.0.0.1", gone).flush();
        assert_eq!(metrics.statsd_errors.get(), expected, "{protocol:?}");
    }
}
