//! What Envoy has to report beside requests: only what some rule of the quota files limits, since each
//! costs descriptors in every call, and points and unannounced bytes a second call. Reads no files.

use ratelimit_svc::limits::pattern::Pattern;
use ratelimit_svc::limits::quotas::Quotas;

/// The domain of the edge's descriptors.
const DOMAIN: &str = "edge";

/// The quotas that need more than a hit for each request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// Some rule limits `tenant_bytes`.
    pub bytes: bool,
    /// Some rule limits `tenant_points`.
    pub points: bool,
}

impl Charged {
    /// What these quotas limit.
    pub fn new(quotas: &Quotas) -> Self {
        Self { bytes: limits(quotas, "tenant_bytes"), points: limits(quotas, "tenant_points") }
    }
}

fn limits(quotas: &Quotas, wanted: &str) -> bool {
    let Some(domain) = quotas.domain(DOMAIN) else { return false };
    domain.root.entries().any(|(key, _, _)| {
        key == wanted || Pattern::parse(key).is_some_and(|pattern| pattern.matches(wanted))
    })
}

#[cfg(test)]
mod tests {
    use ratelimit_svc::cli::check;

    use super::*;

    #[test]
    fn a_key_is_charged_when_a_rule_names_it_or_its_pattern_matches() {
        for (key, bytes, points) in [
            ("tenant", false, false),
            ("tenant_bytes", true, false),
            ("tenant_points", false, true),
            ("tenant_*", true, true),
            ("t*s", true, true),
            ("*_bytes", true, false),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            let limit = "{unit: day, requests_per_unit: 3, overdraft: true}";
            let text = format!(
                "domain: edge\ndescriptors:\n  - key: '{key}'\n    value: acme\n    rate_limit: {limit}\n"
            );
            std::fs::write(dir.path().join("q.yaml"), text).expect("written");
            let loaded = check::load(&[dir.path().to_owned()], false);
            assert_eq!(Charged::new(&loaded.quotas), Charged { bytes, points }, "{key}");
        }
    }
}
