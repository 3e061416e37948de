//! The named workloads of ratelimit-svc, and the one quota file that they all are written for.
//!
//! | name | load |
//! |---|---|
//! | `w1` | one tenant far over its limit of 1,000 a second |
//! | `w2` | 10,000 tenants by Zipf's law, all under 5,000 a second |
//! | `w2-hundred` | the same with 100 tenants |
//! | `w2-minute` | the same with 200,000 a minute |
//! | `w2-small` | the same with 100 a second, which the popular ones exceed |
//! | `w3` | four descriptors in one request, all under their limits |
//! | `w3-last-over` | the same with the last one over its limit |
//! | `w4` | a domain that no file has |
//! | `w4-unlimited` | a rule with `unlimited: true` |
//! | `w5` | four classes on one limit, for an outage of Redis |
//! | `w6`, `w6-low`, `w6-surge`, `w6-background` | four classes want 2.3, 2.0, 2.2 and 2.15 times one limit |
//! | `overload` | three classes want 3 times one limit |

use anyhow::Result;

use super::message::{Entries, rate_limit};
use super::traffic::Traffic;

/// The domain of the quota file.
pub const DOMAIN: &str = "bench";
/// The limit of `w1`, a second.
pub const HOT_LIMIT: u64 = 1_000;
/// The limit of each tenant of `w2`, a second.
pub const TENANT_LIMIT: u64 = 5_000;
/// The limit of `w5`, a second.
pub const OUTAGE_LIMIT: u64 = 4_000;
/// The limit of `w6`, a second.
pub const POOL_LIMIT: u64 = 5_000;
/// The limit of `overload`, a second: three times that, counted one by one, is well within what
/// three replicas and a Redis can do on two processors.
pub const OVERLOAD_LIMIT: u64 = 3_000;
/// Tenants of `w2`.
const TENANTS: usize = 10_000;
/// Tenants of `w2-hundred`.
const TENANTS_FEW: usize = 100;

/// The classes, most important first.
pub const CLASSES: [&str; 4] = ["system-node-critical", "platform-core", "ingest", "background"];

/// One named workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)] // The table above says what each is.
pub enum Scenario {
    W1,
    W2,
    W2Hundred,
    W2Minute,
    W2Small,
    W3,
    W3LastOver,
    W4,
    W4Unlimited,
    W5,
    W6,
    W6Low,
    W6Surge,
    W6Background,
    Overload,
}

impl Scenario {
    /// The name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::W1 => "w1",
            Self::W2 => "w2",
            Self::W2Hundred => "w2-hundred",
            Self::W2Minute => "w2-minute",
            Self::W2Small => "w2-small",
            Self::W3 => "w3",
            Self::W3LastOver => "w3-last-over",
            Self::W4 => "w4",
            Self::W4Unlimited => "w4-unlimited",
            Self::W5 => "w5",
            Self::W6 => "w6",
            Self::W6Low => "w6-low",
            Self::W6Surge => "w6-surge",
            Self::W6Background => "w6-background",
            Self::Overload => "overload",
        }
    }

    /// How much each class wants, in multiples of the limit that they share.
    pub fn demand(self) -> Option<[f64; 4]> {
        match self {
            Self::W5 => Some([0.15, 0.3, 0.4, 0.45]),
            Self::W6 => Some([0.3, 0.4, 0.6, 1.0]),
            Self::W6Low => Some([0.0, 0.0, 0.0, 2.0]),
            Self::W6Surge => Some([1.2, 0.0, 0.0, 1.0]),
            Self::W6Background => Some([0.05, 0.1, 0.5, 1.5]),
            Self::Overload => Some([0.0, 0.5, 0.8, 1.7]),
            _ => None,
        }
    }

    /// The limit that one counter of this workload has in a second, where it has one.
    pub fn limit(self) -> Option<u64> {
        match self {
            Self::W1 => Some(HOT_LIMIT),
            Self::W2 | Self::W2Hundred => Some(TENANT_LIMIT),
            Self::W2Small => Some(100),
            Self::W5 => Some(OUTAGE_LIMIT),
            Self::W6 | Self::W6Low | Self::W6Surge | Self::W6Background => Some(POOL_LIMIT),
            Self::Overload => Some(OVERLOAD_LIMIT),
            _ => None,
        }
    }

    /// The traffic of this workload.
    ///
    /// # Errors
    /// None in practice: every message is small.
    pub fn traffic(self) -> Result<Traffic> {
        let one = |key: &str| message(&[routed(key, "tenant-00042")]);
        match self {
            Self::W1 => Ok(Traffic::cycle(vec![one("hotone")?])),
            Self::W2 => tenants("tenant", TENANTS),
            Self::W2Hundred => tenants("tenant", TENANTS_FEW),
            Self::W2Minute => tenants("minute", TENANTS),
            Self::W2Small => tenants("little", TENANTS),
            Self::W3 => Ok(Traffic::cycle(vec![four("fourth")?])),
            Self::W3LastOver => Ok(Traffic::cycle(vec![four("zeroth")?])),
            Self::W4 => {
                let message = rate_limit("other", &[routed("tenant", "tenant-00042")], 0)?;
                Ok(Traffic::cycle(vec![message]))
            }
            Self::W4Unlimited => Ok(Traffic::cycle(vec![one("nolimt")?])),
            Self::W5
            | Self::W6
            | Self::W6Low
            | Self::W6Surge
            | Self::W6Background
            | Self::Overload => self.classes(),
        }
    }

    fn classes(self) -> Result<Traffic> {
        let key = match self {
            Self::W5 => "outage",
            Self::Overload => "triple",
            _ => "pool",
        };
        let demand = self.demand().unwrap_or_default();
        let class = |(class, share): (&str, f64)| {
            let entries = entries(&[(key, self.name()), ("priority", class)]);
            Ok((class.to_owned(), message(&[entries])?, share))
        };
        let classes: Result<Vec<_>> = CLASSES.into_iter().zip(demand).map(class).collect();
        Ok(Traffic::shares(classes?))
    }
}

/// A request of one hit, which is what 0 means and what Envoy leaves out.
fn message(descriptors: &[Entries]) -> Result<Vec<u8>> {
    rate_limit(DOMAIN, descriptors, 0)
}

fn entries(pairs: &[(&str, &str)]) -> Entries {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A descriptor of two entries; the message of one has 63 bytes.
fn routed(key: &str, tenant: &str) -> Entries {
    entries(&[(key, tenant), ("route", "/api/v2/write/lines")])
}

fn tenants(key: &str, count: usize) -> Result<Traffic> {
    let one = |tenant| message(&[routed(key, &format!("tenant-{tenant:05}"))]);
    let messages: Result<Vec<_>> = (0..count).map(one).collect();
    Ok(Traffic::zipf(messages?, 1.0))
}

/// Four descriptors in 199 bytes.
fn four(last: &str) -> Result<Vec<u8>> {
    let descriptor = |key| entries(&[(key, "tenant-00042"), ("route", "/write/lp-1")]);
    message(&["firsts", "second", "thirds", last].map(descriptor))
}

/// The quota file for every workload. `mode` is written into each limit, as `mode: lease`.
pub fn quotas(mode: Option<&str>) -> String {
    let mode = mode.map(|mode| format!(", mode: {mode}")).unwrap_or_default();
    let limit =
        |unit: &str, limit: u64| format!("{{unit: {unit}, requests_per_unit: {limit}{mode}}}");
    let routed = |key: &str, limit: &str| {
        format!(
            "  - key: {key}\n    descriptors:\n      - key: route\n        rate_limit: {limit}\n"
        )
    };
    let plain = |key: &str, limit: &str| format!("  - key: {key}\n    rate_limit: {limit}\n");
    let large = limit("second", u64::from(u32::MAX / 2));
    [
        format!("domain: {DOMAIN}\ndescriptors:\n"),
        routed("hotone", &limit("second", HOT_LIMIT)),
        routed("tenant", &limit("second", TENANT_LIMIT)),
        routed("minute", &limit("minute", 200_000)),
        routed("little", &limit("second", 100)),
        routed("firsts", &large),
        routed("second", &large),
        routed("thirds", &large),
        routed("fourth", &large),
        routed("zeroth", &limit("second", 0)),
        routed("nolimt", "{unlimited: true}"),
        plain("outage", &limit("second", OUTAGE_LIMIT)),
        plain("pool", &limit("second", POOL_LIMIT)),
        plain("triple", &limit("second", OVERLOAD_LIMIT)),
    ]
    .concat()
}

/// A quota file of `rules` literal rules, and the traffic that meets each of them alike.
///
/// # Errors
/// None in practice.
pub fn many_rules(rules: usize) -> Result<(String, Traffic)> {
    let mut file = format!("domain: {DOMAIN}\ndescriptors:\n");
    for rule in 0..rules {
        file += &format!(
            "  - key: tenant\n    value: tenant-{rule:05}\n    descriptors:\n      - key: route\n\
             \x20       rate_limit: {{unit: second, requests_per_unit: 1000000000}}\n"
        );
    }
    let one = |rule| message(&[routed("tenant", &format!("tenant-{rule:05}"))]);
    let messages: Result<Vec<_>> = (0..rules).map(one).collect();
    Ok((file, Traffic::zipf(messages?, 0.0)))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn messages_have_the_sizes_that_peers_were_measured_with() {
        let length = |scenario: Scenario| scenario.traffic().unwrap().request(0).message.len();
        assert_eq!(length(Scenario::W1), 63);
        assert_eq!(length(Scenario::W2), 63);
        assert_eq!(length(Scenario::W3), 199);
        assert_eq!(length(Scenario::W3LastOver), 199);
        for scenario in Scenario::value_variants() {
            let name = scenario.to_possible_value().unwrap();
            assert_eq!(name.get_name(), scenario.name());
            assert!(length(*scenario) > 0);
        }
    }

    #[test]
    fn the_quota_files_are_good() {
        let read = |text: &str| {
            ratelimit_svc::limits::file::parse("q.yaml".as_ref(), text.as_bytes()).unwrap();
        };
        read(&quotas(None));
        read(&many_rules(10).unwrap().0);
    }
}
