//! Lines into recordings, and what of them is counted.

use std::path::Path;

use super::bootstrap;
use super::operators::{DEFAULT_FORMAT, Log, parse};
use super::{Import, Rules, Summary, ValueRule, descriptor_rule};
use crate::record::hashed::HashedKeys;
use crate::record::reader::Traffic;
use crate::record::segments::Segments;

const BOOTSTRAP: &str = r#"
static_resources:
  listeners:
    - access_log:
        - typed_config:
            log_format:
              json_format: {time: "%START_TIME%", code: "%RESPONSE_CODE%", who: "%DYNAMIC_METADATA(auth:tenant)%", fixed: x}
      http_filters:
        - typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
            rate_limits: [{actions: [{remote_address: {}}]}]
        - typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
            domain: edge
            rate_limits:
              - actions:
                  - metadata: {descriptor_key: tenant, metadata_key: {key: auth, path: [{key: tenant}]}, default_value: unknown}
                  - generic_key: {descriptor_value: all}
              - actions: [{request_headers: {header_name: x-path, descriptor_key: path}}]
              - actions: [{destination_cluster: {}}]
"#;

fn import(log: &Log, rules: &Rules, lines: &[&str]) -> (Summary, Vec<(u64, String, u64, u64)>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let hashed = HashedKeys::default();
    let segments = Segments::new(dir.path(), 1 << 30, "r".to_owned(), hashed).expect("made");
    let mut import = Import::new(log, rules, segments);
    for line in lines {
        import.line(line).expect("written");
    }
    let summary = import.finish().expect("written");
    let mut rows = Vec::new();
    if summary.requests > 0 {
        let (all, traffic) = Traffic::open(&[dir.path().to_owned()]).expect("read").read_all();
        for (t, second) in all {
            for row in second.rows {
                let entries = &traffic.shapes[row.shape].descriptors[0].entries;
                let text: Vec<String> = entries.iter().map(|(k, v)| format!("{k}={v}")).collect();
                rows.push((t, text.join(","), row.requests, row.refused()));
            }
        }
    }
    rows.sort();
    (summary, rows)
}

fn rules(descriptor: &str) -> Rules {
    let descriptors = vec![descriptor_rule(descriptor).expect("a descriptor")];
    Rules { domain: "edge".to_owned(), descriptors, not_asked: vec![401, 403] }
}

#[test]
fn text_logs_become_recordings() {
    let log = Log::Text(parse(DEFAULT_FORMAT).expect("a format"));
    let line = |time: &str, code: &str, agent: &str| {
        format!(
            "[{time}] \"GET / HTTP/2\" {code} - 0 0 1 - \"-\" \"{agent}\" \"id\" \"edge\" \"-\""
        )
    };
    let lines = [
        line("2027-01-15T08:00:01.000Z", "200", "one"),
        line("2027-01-15T08:00:00.500Z", "429", "one"),
        line("2027-01-15T08:00:01.900Z", "200", "one"),
        line("2027-01-15T08:00:01.900Z", "200", "-"),
        line("2027-01-15T08:00:01.900Z", "401", "one"),
        line("yesterday", "200", "one"),
        "hello".to_owned(),
        String::new(),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (summary, rows) = import(&log, &rules("agent=%REQ(USER-AGENT)%,kind=web"), &lines);
    let of = |t, requests, refused| (t, "agent=one,kind=web".to_owned(), requests, refused);
    assert_eq!(rows, [of(1_800_000_000, 1, 1), of(1_800_000_001, 2, 0)]);
    assert_eq!((summary.requests, summary.refused, summary.not_asked), (3, 1, 2));
    assert_eq!(summary.broken, 2);
    assert_eq!((summary.shown[0].0, summary.shown[0].1.as_str()), (6, "'yesterday' is no instant"));
    let expected = (7, "at column 1: expected \"[\" after %%".to_owned(), "hello".to_owned());
    assert_eq!(summary.shown[1], expected);
}

#[test]
fn a_bootstrap_says_how() {
    let found = bootstrap::read(Path::new("envoy.yaml"), BOOTSTRAP.as_bytes()).expect("YAML");
    assert_eq!(found.domain.as_deref(), Some("edge"));
    assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
    assert!(found.notes[0].contains("destination_cluster cannot be made from a log"));
    let log = found.log.expect("a log");
    let [tenant, path] = &found.descriptors[..] else { panic!("{:?}", found.descriptors) };
    assert_eq!(path.entries[0].value, ValueRule::Logged("REQ(X-PATH)".to_owned(), None));
    let rules =
        Rules { domain: "edge".to_owned(), descriptors: vec![tenant.clone()], not_asked: vec![] };
    let lines = [
        r#"{"time":"2027-01-15T08:00:00Z","code":429,"who":"acme"}"#,
        r#"{"time":"2027-01-15T08:00:00Z","code":200,"who":null}"#,
    ];
    let (summary, rows) = import(&log, &rules, &lines);
    let of =
        |who: &str, refused| (1_800_000_000, format!("tenant={who},generic_key=all"), 1, refused);
    assert_eq!(rows, [of("acme", 1), of("unknown", 0)]);
    assert_eq!(summary.broken, 0);
}

/// The bootstrap of this repository fits the log that it writes.
#[test]
fn our_own_bootstrap_is_understood() {
    let text = include_str!("../../../envoy-config/envoy.yaml");
    // As it is rendered: every placeholder has a value.
    let mut parts = text.split("${");
    let mut rendered = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        rendered.push('1');
        rendered += part.split_once('}').expect("a placeholder ends").1;
    }
    let found = bootstrap::read(Path::new("envoy.yaml"), rendered.as_bytes()).expect("YAML");
    let log = found.log.expect("a log");
    let fits = |rule: &&super::DescriptorRule| {
        rule.entries.iter().all(|entry| match &entry.value {
            ValueRule::Logged(operator, _) => log.has(operator),
            ValueRule::Text(_) => true,
        })
    };
    let fitting: Vec<_> = found.descriptors.iter().filter(fits).collect();
    assert!(fitting.iter().any(|rule| rule.entries[0].key == "tenant"), "{:?}", found.descriptors);
}

#[test]
fn lines_that_come_late_are_counted() {
    let log = Log::own();
    let line = |seconds: u64| format!(r#"{{"time":"{seconds}","status":200,"tenant":"acme"}}"#);
    let mut lines: Vec<String> = (0..700).map(|n| line(1_800_000_000 + n)).collect();
    lines.push(line(1_800_000_000));
    lines.push(line(1_800_000_650));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let tenant = "tenant=%DYNAMIC_METADATA(envoy.filters.http.ext_authz:tenant)%";
    let (summary, rows) = import(&log, &rules(tenant), &lines);
    assert_eq!((summary.requests, summary.late), (701, 1));
    assert_eq!(rows.iter().map(|row| row.2).sum::<u64>(), 701);
}

#[test]
fn the_first_ten_that_do_not_match_are_shown() {
    let lines = ["x"; 50];
    let (summary, _) = import(&Log::own(), &rules("a=b"), &lines);
    assert_eq!((summary.broken, summary.shown.len()), (50, 10));
    assert!(descriptor_rule("a").is_err());
}
