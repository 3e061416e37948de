//! What was decided, by domain and rule: one set of atomic counts, which `/metrics` shows under
//! our names or the reference's and which statsd sends.
//!
//! ```text
//! domain ─► rule ─► RuleCounts ─┬─ hits[kind]
//!                               └─ classes[slot] ─► decided[reason][refused]
//! ```
//!
//! A rule keeps the way to its counts, so counting looks nothing up, takes no lock and allocates
//! nothing. Where the name depends on the request it is looked up. A new name makes a new map of
//! all of them, which is why there is a cap; beyond it all rules count as one, `other`.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::keyed_hash::KeyedState;
use crate::limits::stats::{KINDS, OTHER, Reason, RuleCounts};

/// How many pairs of domain and rule have counts of their own.
pub const RULES_MAX: usize = 2000;

/// How many of them may have a name that a request made, so that clients leave room for rules.
pub const NAMES_OF_REQUESTS_MAX: usize = RULES_MAX / 2;

/// The most bytes of a rule's name in metrics: one made of a request's values could be any text.
pub const NAME_BYTES_MAX: usize = 512;

type ByName<V> = HashMap<Arc<str>, V, KeyedState>;
type Domains = ByName<Arc<ByName<Arc<RuleCounts>>>>;

/// How many rules have counts.
#[derive(Default)]
struct Known {
    all: usize,
    named_by_requests: usize,
}

/// Who made a rule's name in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// Whoever wrote the rule.
    Rule,
    /// A request, of whose values it is made.
    Request,
}

/// The counts of all rules.
pub struct Rules {
    domains: ArcSwap<Domains>,
    other: Arc<RuleCounts>,
    full: AtomicBool,
    no_more_of_requests: AtomicBool,
    /// Locked by whoever adds one.
    known: Mutex<Known>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            domains: ArcSwap::default(),
            other: Arc::new(RuleCounts::new(OTHER.into(), OTHER.into())),
            full: AtomicBool::new(false),
            no_more_of_requests: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }
}

impl Rules {
    /// The counts of the rule of that name, which may be those of all rules beyond the cap.
    pub fn of(&self, domain: &str, rule: &str, named_by: NamedBy) -> Arc<RuleCounts> {
        let domains = self.domains.load();
        match domains.get(domain).and_then(|rules| rules.get(rule)) {
            Some(counts) => counts.clone(),
            None => self.added(domain, rule, named_by),
        }
    }

    /// All rules with their counts, sorted by domain and rule, `other` last.
    pub fn all(&self) -> Vec<Arc<RuleCounts>> {
        let domains = self.domains.load();
        let mut all: Vec<Arc<RuleCounts>> =
            domains.values().flat_map(|rules| rules.values().cloned()).collect();
        all.sort_by(|a, b| (&a.domain, &a.rule).cmp(&(&b.domain, &b.rule)));
        all.push(self.other.clone());
        all
    }

    fn added(&self, domain: &str, rule: &str, named_by: NamedBy) -> Arc<RuleCounts> {
        let nameless = rule.len() > NAME_BYTES_MAX || (domain, rule) == (OTHER, OTHER);
        let no_more_of_requests =
            named_by == NamedBy::Request && self.no_more_of_requests.load(Ordering::Relaxed);
        if nameless || no_more_of_requests || self.full.load(Ordering::Relaxed) {
            return self.other.clone();
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut domains = Domains::clone(&self.domains.load());
        if let Some(counts) = domains.get(domain).and_then(|rules| rules.get(rule)) {
            return counts.clone();
        }
        let by_request = named_by == NamedBy::Request;
        if known.all >= RULES_MAX {
            self.full.store(true, Ordering::Relaxed);
            return self.other.clone();
        }
        if by_request && known.named_by_requests >= NAMES_OF_REQUESTS_MAX {
            self.no_more_of_requests.store(true, Ordering::Relaxed);
            return self.other.clone();
        }
        known.all += 1;
        known.named_by_requests += usize::from(by_request);
        let counts = Arc::new(RuleCounts::new(domain.into(), rule.into()));
        let rules = Arc::make_mut(domains.entry(counts.domain.clone()).or_default());
        rules.insert(counts.rule.clone(), counts.clone());
        self.domains.store(Arc::new(domains));
        counts
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").finish_non_exhaustive()
    }
}

/// Shows the counts under our own names; what never happened is left out.
impl Collector for Rules {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.all();
        let help = "Descriptors decided by a rule";
        let mut family = encoder.encode_descriptor("decisions", help, None, MetricType::Counter)?;
        for counts in &all {
            for class in counts.classes() {
                for (reason, decided) in Reason::ALL.iter().zip(&class.decided) {
                    for (decision, count) in ["ok", "over_limit"].iter().zip(decided) {
                        let count = count.load(Ordering::Relaxed);
                        if count == 0 {
                            continue;
                        }
                        let labels = [
                            ("domain", &*counts.domain),
                            ("rule", &*counts.rule),
                            ("class", &*class.name),
                            ("decision", *decision),
                            ("reason", reason.name()),
                        ];
                        let mut series = family.encode_family(&labels)?;
                        series.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
                    }
                }
            }
        }
        trials(&mut encoder, &all)?;
        let help = "Hits by what they met, as envoyproxy/ratelimit counts them";
        let mut family = encoder.encode_descriptor("hits", help, None, MetricType::Counter)?;
        for counts in &all {
            for ((kind, _), hits) in KINDS.iter().zip(counts.hits()) {
                if hits > 0 {
                    let labels =
                        [("domain", &*counts.domain), ("rule", &*counts.rule), ("kind", *kind)];
                    let mut series = family.encode_family(&labels)?;
                    series.encode_counter::<NoLabelSet, _, f64>(&hits, None)?;
                }
            }
        }
        Ok(())
    }
}

/// What limits that are tried made of requests; nothing where nothing is tried.
fn trials(encoder: &mut DescriptorEncoder<'_>, all: &[Arc<RuleCounts>]) -> fmt::Result {
    let help = "Requests that a limit that is tried was counted beside, by what was decided and by what \
                the trial would have decided";
    let mut family =
        encoder.encode_descriptor("trial_decisions", help, None, MetricType::Counter)?;
    let names = ["ok", "over_limit"];
    for counts in all {
        for class in counts.classes() {
            for (decision, tried) in names.iter().zip(class.tried.so_far()) {
                for (trial, count) in names.iter().zip(tried).filter(|(_, count)| *count > 0) {
                    let labels = [
                        ("domain", &*counts.domain),
                        ("rule", &*counts.rule),
                        ("class", &*class.name),
                        ("decision", *decision),
                        ("trial", *trial),
                    ];
                    let mut series = family.encode_family(&labels)?;
                    series.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::limits::class::CLASSES_MAX;
    use crate::limits::stats::{HitStats, Reason, RuleOutcome};

    fn outcome(reason: Reason) -> RuleOutcome {
        let hits = HitStats { total: 2, within_limit: 2, ..HitStats::default() };
        RuleOutcome { descriptor: 0, over_limit: false, reason, hits }
    }

    fn page(rules: &Arc<Rules>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(rules.clone()));
        let mut text = String::new();
        encode(&mut text, &registry).expect("encoded");
        text
    }

    /// Resident memory of this process.
    fn resident_bytes() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").expect("a Linux process");
        text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
    }

    #[test]
    fn a_million_values_stay_within_the_cap() {
        let rules = Arc::new(Rules::default());
        let before = resident_bytes();
        for n in 0..1_000_000 {
            rules
                .of("d", &format!("path_{n}"), NamedBy::Rule)
                .count("ingest", &outcome(Reason::WithinLimit));
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 50 << 20, "{grown} bytes");
        assert_eq!(rules.all().len(), RULES_MAX + 1);
        let text = page(&rules);
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(series, (RULES_MAX + 1) * 3);
        let rest = 1_000_000 - RULES_MAX;
        let labels = r#"domain="other",rule="other",class="ingest",decision="ok""#;
        let line = format!("decisions_total{{{labels},reason=\"within_limit\"}} {rest}\n");
        assert!(text.contains(&line), "{line}");
    }

    /// Clients that make names leave room for the rules that are met later.
    #[test]
    fn names_of_requests_leave_room_for_rules() {
        let rules = Rules::default();
        for n in 0..RULES_MAX {
            rules.of("d", &format!("path_{n}"), NamedBy::Request);
        }
        assert_eq!(rules.all().len(), NAMES_OF_REQUESTS_MAX + 1);
        assert_eq!(&*rules.of("d", "tenant", NamedBy::Rule).rule, "tenant");
        assert_eq!(&*rules.of("d", "path_x", NamedBy::Request).rule, OTHER);
        assert_eq!(&*rules.of("d", "path_1", NamedBy::Request).rule, "path_1");
    }

    #[test]
    fn long_names_are_not_kept() {
        let rules = Rules::default();
        for (bytes, known) in [(NAME_BYTES_MAX + 1, 1), (NAME_BYTES_MAX, 2)] {
            rules
                .of("d", &"x".repeat(bytes), NamedBy::Rule)
                .count("a", &outcome(Reason::WithinLimit));
            assert_eq!(rules.all().len(), known);
        }
    }

    #[test]
    fn classes_beyond_the_cap_count_as_one() {
        let rules = Arc::new(Rules::default());
        for class in 0..CLASSES_MAX + 5 {
            rules
                .of("d", "r", NamedBy::Rule)
                .count(&format!("c{class}"), &outcome(Reason::WithinLimit));
        }
        let text = page(&rules);
        assert_eq!(text.matches("class=").count(), CLASSES_MAX + 1);
        let rest = r#"class="other",decision="ok",reason="within_limit"} 5"#;
        assert!(text.contains(rest), "{text}");
    }

    #[test]
    fn threads_agree_on_every_count() {
        let rules = Arc::new(Rules::default());
        let count = || {
            for n in 0..1000 {
                let counts = rules.of("d", &format!("r{}", n % 10), NamedBy::Rule);
                counts.count("a", &outcome(Reason::ShadowMode));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(count);
            }
        });
        let all = rules.all();
        let total: u64 = all.iter().map(|counts| counts.hits()[0]).sum();
        assert_eq!((all.len(), total), (11, 8000));
    }
}
