//! Where a tenant stands: which limits apply to it, and what the counters say of each. Pure: looks, and
//! counts nothing.
//!
//! ```text
//! tenant, class ─► descriptors that name it ─► plan (0 hits) ─► counters ─► standing
//! ```

use crate::decide::hit::{Count, Hit, Role};
use crate::decide::plan::{Line, Plan};
use crate::decide::request::{Descriptor, Request};
use crate::limits::algorithm::Algorithm;
use crate::limits::class::PRIORITY_KEY;
use crate::limits::quotas::Quotas;
use crate::limits::rule::Limit;
use crate::limits::tree::Node;
use crate::limits::unit::Window;

/// The most limits of a tenant that are shown.
pub const LIMITS_MAX: usize = 50;
/// How far back refusals are remembered, seconds.
const REFUSED_SECONDS: u64 = 3600;

/// What tenants may see of their quotas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewSettings {
    /// The domain.
    pub domain: String,
    /// Keys of entries whose value is the tenant.
    pub keys: Vec<String>,
}

/// Where a tenant stands with one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The entries that lead to the limit, but the class.
    pub entries: Vec<(String, String)>,
    /// Its name, where it has one.
    pub name: String,
    /// The limit in words; none for an unlimited rule.
    pub limit: Option<String>,
    /// The most that can be taken.
    pub capacity: u32,
    /// What is taken of it, by all classes. Replicas claim some of a large limit ahead.
    pub used: u64,
    /// What is left for the class of the tenant's key.
    pub left: u64,
    /// What is left beyond that, and kept for other classes.
    pub reserved: u64,
    /// When the window ends, or a bucket is full again.
    pub resets_in_seconds: u64,
    /// Requests that it refused in the last hour.
    pub refused_last_hour: u64,
}

/// A request without hits that meets every limit of a tenant: one descriptor for each of the keys that the
/// domain has rules for, and for each literal value below.
pub fn look<'a>(
    quotas: &'a Quotas,
    settings: &'a ViewSettings,
    tenant: &'a str,
    class: &'a str,
) -> Request<'a> {
    let mut descriptors = Vec::new();
    if let Some(domain) = quotas.domain(&settings.domain) {
        for key in &settings.keys {
            if let Some(node) = domain.root.step(key, tenant) {
                collect(node, &mut vec![(key, tenant)], class, &mut descriptors);
            }
        }
    }
    Request { domain: &settings.domain, descriptors, hits_addend: 0 }
}

fn collect<'a>(
    node: &'a Node,
    entries: &mut Vec<(&'a str, &'a str)>,
    class: &'a str,
    descriptors: &mut Vec<Descriptor<'a>>,
) {
    if node.rule.is_some() && descriptors.len() < LIMITS_MAX {
        let mut all = entries.clone();
        all.push((PRIORITY_KEY, class));
        let entries = all.as_slice().into();
        descriptors.push(Descriptor { entries, hits_addend: Some(0), ..Descriptor::default() });
    }
    for (key, value, below) in node.children.entries() {
        // Of any other value nobody knows which the tenant means.
        let literal = value.filter(|value| !value.contains('*') && !key.contains('*'));
        if let Some(value) = literal {
            entries.push((key, value));
            collect(below, entries, class, descriptors);
            entries.pop();
        }
    }
}

/// What is to be asked of the counters: each limit, and after it how often it refused.
pub fn hits(plan: &Plan<'_>, now_seconds: u64) -> Vec<Hit> {
    let both = |hit: &Hit| [hit.clone(), refused(&hit.key, 0, now_seconds)];
    plan.hits.iter().flat_map(both).collect()
}

/// The hit that counts refusals by the limit whose counter has this name: a sliding window of an hour that
/// refuses nothing.
///
/// ```text
/// {4:edge6:tenant4:acme}~refused|sliding3600
/// ```
pub fn refused(counter: &[u8], requests: u64, now_seconds: u64) -> Hit {
    let bar = counter.iter().rposition(|byte| *byte == b'|');
    // Names of the reference's kind end with their window.
    let digits = counter.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let named = bar.unwrap_or(counter.len() - digits);
    let key = [&counter[..named], b"~refused|sliding3600"].concat().into();
    let start = now_seconds - now_seconds % REFUSED_SECONDS;
    Hit {
        key,
        amount: requests,
        is_refund: false,
        limit: u32::MAX,
        window: Window { start, seconds: REFUSED_SECONDS },
        algorithm: Algorithm::SlidingWindow,
        role: Role::Observer,
        share: None,
    }
}

/// Where the tenant stands, of the answers to [`hits`].
pub fn standings(
    request: &Request<'_>,
    plan: &Plan<'_>,
    counts: &[Count],
    now_seconds: u64,
) -> Vec<Standing> {
    let lines = plan.lines.iter().zip(&request.descriptors);
    let standing = |(line, descriptor): (&Line<'_>, &Descriptor<'_>)| {
        let named = |(key, _): &&(&str, &str)| *key != PRIORITY_KEY;
        let entries = descriptor.entries.iter().filter(named);
        let open = Standing {
            entries: entries.map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            name: line.rule().map(|rule| rule.name.clone()).unwrap_or_default(),
            limit: None,
            capacity: 0,
            used: 0,
            left: 0,
            reserved: 0,
            resets_in_seconds: 0,
            refused_last_hour: 0,
        };
        let Line::Counted(counted) = line else {
            return matches!(line, Line::Unlimited(_)).then_some(open);
        };
        let hit = &plan.hits[counted.hit];
        let (count, refused) = (counts.get(2 * counted.hit)?, counts.get(2 * counted.hit + 1)?);
        let capacity = counted.capacity(hit);
        let used = count.value.min(capacity.into());
        let unused = u64::from(capacity) - used;
        let reserved = count.withheld.min(unused);
        let resets_in_seconds = match hit.algorithm.burst() {
            Some(_) => count.reset.as_secs_f64().ceil() as u64,
            None => hit.window.remaining(now_seconds),
        };
        Some(Standing {
            // How it is counted is nothing to a tenant.
            limit: Some(Limit { mode: None, ..counted.limit }.to_string()),
            capacity,
            used,
            left: unused - reserved,
            reserved,
            resets_in_seconds,
            refused_last_hour: refused.value,
            ..open
        })
    };
    lines.filter_map(standing).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::decide::hit::Mode;
    use crate::decide::plan::plan;
    use crate::decide::settings::Settings;
    use crate::limits::quotas::Library;
    use crate::store::memory::Memory;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: minute, requests_per_unit: 10, name: requests}
    descriptors:
      - {key: path, value: /slow, rate_limit: {unit: day, requests_per_unit: 3}}
      - {key: path, rate_limit: {unit: day, requests_per_unit: 5}}
  - {key: tenant, value: vip, rate_limit: {unlimited: true}}
  - {key: tenant_points, rate_limit: {unit: day, requests_per_unit: 100, overdraft: true}}
  - {key: pool, rate_limit: {unit: second, requests_per_unit: 9}}
";

    fn standing(memory: &Memory, tenant: &str) -> Vec<Standing> {
        let contents = [(PathBuf::from("f"), Ok(QUOTAS.as_bytes().to_vec()))].into();
        let quotas = Library::default().update(&contents).quotas;
        let keys = ["tenant", "tenant_points", "tenant_bytes"].map(str::to_owned).to_vec();
        let settings = ViewSettings { domain: "edge".to_owned(), keys };
        let request = look(&quotas, &settings, tenant, "ingest");
        let seconds = NOW.as_secs();
        let planned = plan(&request, &quotas, &Settings::default(), seconds).expect("planned");
        let counts = memory.count_now(&hits(&planned, seconds), Mode::CountAll, NOW);
        standings(&request, &planned, &counts, seconds)
    }

    #[test]
    fn each_limit_of_a_tenant_and_of_nobody_else_is_shown() {
        let memory = Memory::default();
        let of = |tenant: &str| -> Vec<(String, u64, u64, u64)> {
            let shown = standing(&memory, tenant);
            let line = |one: &Standing| {
                let keys: Vec<&str> = one.entries.iter().map(|(key, _)| key.as_str()).collect();
                (keys.join("."), one.used, one.left, one.refused_last_hour)
            };
            shown.iter().map(line).collect()
        };
        let fresh = [("tenant", 10), ("tenant.path", 3), ("tenant_points", 100)];
        let fresh = fresh.map(|(keys, left)| (keys.to_owned(), 0, left, 0));
        assert_eq!(of("acme"), fresh);
        // Looking took nothing, and what acme does next is not bolt's.
        let key = b"{4:edge6:tenant4:acme}|m30000000";
        let hit = Hit { key: (*key).into(), amount: 4, ..refused(key, 4, NOW.as_secs()) };
        let window = Window { start: NOW.as_secs(), seconds: 60 };
        let hit = Hit { algorithm: Algorithm::FixedWindow, limit: 10, window, ..hit };
        memory.count_now(&[hit], Mode::CountAll, NOW);
        memory.count_now(&[refused(key, 7, NOW.as_secs())], Mode::CountAll, NOW);
        assert_eq!(of("acme")[0], ("tenant".to_owned(), 4, 6, 7));
        assert_eq!(of("bolt"), fresh);
        let vip = standing(&memory, "vip");
        assert_eq!((vip[0].limit.as_deref(), vip.len()), (None, 2));
    }

    #[test]
    fn a_tenant_with_many_rules_is_shown_some() {
        let below: String = (0..200)
            .map(|n| {
                format!("{{key: p, value: v{n}, rate_limit: {{unit: day, requests_per_unit: 1}}}},")
            })
            .collect();
        let text =
            format!("domain: edge\ndescriptors: [{{key: tenant, descriptors: [{below}]}}]\n");
        let contents = [(PathBuf::from("f"), Ok(text.into_bytes()))].into();
        let quotas = Library::default().update(&contents).quotas;
        let keys = vec!["tenant".to_owned()];
        let settings = ViewSettings { domain: "edge".to_owned(), keys };
        assert_eq!(look(&quotas, &settings, "a", "ingest").descriptors.len(), LIMITS_MAX);
    }

    #[test]
    fn refusals_are_counted_beside_the_counter_in_the_same_place() {
        let name =
            |counter: &[u8]| String::from_utf8_lossy(&refused(counter, 1, 7300).key).into_owned();
        assert_eq!(name(b"{1:d1:t1:a}|m5"), "{1:d1:t1:a}~refused|sliding3600");
        assert_eq!(name(b"d_t_a_1659"), "d_t_a_~refused|sliding3600");
        assert_eq!(refused(b"d_t_a_1659", 1, 7300).window.start, 7200);
    }
}
