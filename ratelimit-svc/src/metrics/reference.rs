//! The names that envoyproxy/ratelimit gives its metrics: on the statsd wire, and at `/metrics`
//! by its default mapping.
//!
//! ```text
//! domain edge, rule tenant_acme.route_/write
//!   statsd       ratelimit.service.rate_limit.edge.tenant_acme.route_/write.over_limit
//!   Prometheus   ratelimit_service_rate_limit_over_limit{domain="edge",key1="tenant_acme",
//!                                                        key2="route_/write"}
//! ```
//!
//! Only the first two levels of a rule have labels, so deeper rules add up. The names have no
//! `_total`, which OpenMetrics demands of a counter: their type is shown as unknown.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::limits::stats::KINDS;
use crate::metrics::Metrics;

/// The one method there is.
pub const METHOD: &str = "ShouldRateLimit";

const KIND_NAMES: [(usize, &str); 5] = [
    (0, "ratelimit_service_rate_limit_total_hits"),
    (1, "ratelimit_service_rate_limit_within_limit"),
    (2, "ratelimit_service_rate_limit_near_limit"),
    (3, "ratelimit_service_rate_limit_over_limit"),
    (4, "ratelimit_service_rate_limit_shadow_mode"),
];

/// A metric of one series: its name, labels and value.
type Single<'a> = (&'a str, &'a [(&'a str, &'a str)], u64);

/// The metrics of the service under the names of the reference.
pub struct Reference {
    metrics: Arc<Metrics>,
    milliseconds: bool,
}

impl Reference {
    /// Shows `metrics`; `milliseconds` is `PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS`.
    pub fn new(metrics: Arc<Metrics>, milliseconds: bool) -> Self {
        Self { metrics, milliseconds }
    }

    fn rules(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Path = (Arc<str>, String, Option<String>);
        let mut sums: BTreeMap<Path, [u64; KINDS.len()]> = BTreeMap::new();
        for counts in self.metrics.rules.all() {
            let rule = sanitized(&counts.rule);
            let mut keys = rule.split('.').map(str::to_owned);
            let path = (counts.domain.clone(), keys.next().unwrap_or_default(), keys.next());
            let sum = sums.entry(path).or_default();
            for (sum, hits) in sum.iter_mut().zip(counts.hits()) {
                *sum += hits;
            }
        }
        for (kind, name) in KIND_NAMES {
            let help = "Hits, under the name of envoyproxy/ratelimit";
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
            for ((domain, key1, key2), hits) in sums.iter().filter(|(_, hits)| hits[kind] > 0) {
                let mut labels = vec![("domain", &**domain), ("key1", &**key1)];
                labels.extend(key2.as_deref().map(|key2| ("key2", key2)));
                family.encode_family(&labels.as_slice())?.encode_gauge(&hits[kind])?;
            }
        }
        Ok(())
    }
}

impl Collector for Reference {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.rules(&mut encoder)?;
        let totals = self.metrics.totals();
        let single: [Single<'_>; 5] = [
            (
                "ratelimit_service_should_rate_limit_error",
                &[("err_type", "redis_error")],
                totals.store_errors,
            ),
            (
                "ratelimit_service_should_rate_limit_error",
                &[("err_type", "service_error")],
                totals.service_errors,
            ),
            ("ratelimit_service_total_requests", &[("grpc_method", METHOD)], totals.requests),
            ("ratelimit_service_config_load_success", &[], totals.config_load_success),
            ("ratelimit_service_config_load_error", &[], totals.config_load_error),
        ];
        let help = "Under the name of envoyproxy/ratelimit";
        for family in single.chunk_by(|(one, ..), (other, ..)| one == other) {
            let name = family[0].0;
            let mut encoder = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
            for (_, labels, value) in family {
                match labels {
                    [] => encoder.encode_gauge(value)?,
                    labels => encoder.encode_family(labels)?.encode_gauge(value)?,
                }
            }
        }
        let name = "ratelimit_service_response_time_seconds";
        // The name stays, as in the reference.
        let per_second = if self.milliseconds { 1e3 } else { 1.0 };
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let labels = [("grpc_method", METHOD)];
        self.metrics.duration.encode_in(family.encode_family(&labels)?, per_second)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reference").finish_non_exhaustive()
    }
}

/// A text as part of a statsd name: what has a meaning on the wire becomes `_`, and so do the
/// dots of IPv4 addresses, as each dot begins a new part.
pub fn sanitized(text: &str) -> String {
    let safe = |c: char| if ":|@#".contains(c) || c.is_control() { '_' } else { c };
    let mut out: String = text.chars().map(safe).collect();
    for (at, len) in ipv4_addresses(text) {
        // Both texts have the same characters, and those of an address are ASCII.
        let from = text[..at].chars().count();
        let joined: String = text[at..at + len].replace('.', "_");
        let from = out.char_indices().nth(from).map_or(out.len(), |(byte, _)| byte);
        out.replace_range(from..from + len, &joined);
    }
    out
}

/// Where four numbers of one to three digits stand, joined by dots and bounded by no word.
fn ipv4_addresses(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let word = |at: usize| bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let starts = bytes[at].is_ascii_digit() && (at == 0 || !word(at - 1));
        match starts.then(|| ipv4_len(&bytes[at..])).flatten() {
            Some(len) if !word(at + len) => {
                found.push((at, len));
                at += len;
            }
            _ => at += 1,
        }
    }
    found
}

fn ipv4_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for part in 0..4 {
        let digits = bytes[at..].iter().take(3).take_while(|b| b.is_ascii_digit()).count();
        at += digits;
        match (digits, part) {
            (0, _) => return None,
            (_, 3) => return Some(at),
            _ if bytes.get(at) != Some(&b'.') => return None,
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::limits::stats::{HitStats, Reason, RuleOutcome};
    use crate::metrics::rules::NamedBy;

    #[test]
    fn names_are_safe_on_the_wire() {
        for (text, expected) in [
            ("tenant_acme.route_/write", "tenant_acme.route_/write"),
            ("a:b|c", "a_b_c"),
            ("x\ny:1|c", "x_y_1_c"),
            ("ip.10.0.0.255", "ip.10_0_0_255"),
            ("ü10.0.0.1|", "ü10_0_0_1_"),
            ("a10.0.0.1", "a10.0.0.1"),
            ("10.0.0.1a", "10.0.0.1a"),
            ("10.0.0.1.2.3.4.5", "10_0_0_1.2_3_4_5"),
            ("1.2.3", "1.2.3"),
            ("1234.1.1.1", "1234.1.1.1"),
            ("", ""),
        ] {
            assert_eq!(sanitized(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_default_mapping() {
        let mut own = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut own));
        let hits = HitStats { total: 5, near_limit: 1, over_limit: 2, ..HitStats::default() };
        for rule in ["a_1", "a_1.b", "a_1.b.c", "a_1.b.d"] {
            let reason = Reason::OverLimit;
            let outcome = RuleOutcome { descriptor: 0, over_limit: true, reason, hits };
            metrics.rules.of("d", rule, NamedBy::Rule).count("ingest", &outcome);
        }
        metrics.duration.observe(Duration::from_micros(300));
        metrics.store_error("timeout");
        let page = |milliseconds| {
            let mut registry = Registry::default();
            let reference = Reference::new(metrics.clone(), milliseconds);
            registry.register_collector(Box::new(reference));
            let mut text = String::new();
            encode(&mut text, &registry).expect("encoded");
            text
        };
        let text = page(false);
        for line in [
            "ratelimit_service_rate_limit_total_hits{domain=\"d\",key1=\"a_1\"} 5",
            "ratelimit_service_rate_limit_total_hits{domain=\"d\",key1=\"a_1\",key2=\"b\"} 15",
            "ratelimit_service_rate_limit_near_limit{domain=\"d\",key1=\"a_1\"} 1",
            "ratelimit_service_rate_limit_over_limit{domain=\"d\",key1=\"a_1\"} 2",
            "ratelimit_service_should_rate_limit_error{err_type=\"redis_error\"} 1",
            "ratelimit_service_should_rate_limit_error{err_type=\"service_error\"} 0",
            "ratelimit_service_total_requests{grpc_method=\"ShouldRateLimit\"} 0",
            "ratelimit_service_config_load_success 0",
            "ratelimit_service_config_load_error 0",
            "ratelimit_service_response_time_seconds_sum{grpc_method=\"ShouldRateLimit\"} 0.0003",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
        }
        assert!(!text.contains("within_limit{") && !text.contains("_total "), "{text}");
        let sum =
            "ratelimit_service_response_time_seconds_sum{grpc_method=\"ShouldRateLimit\"} 0.3";
        assert!(page(true).contains(&format!("\n{sum}\n")));
    }
}
