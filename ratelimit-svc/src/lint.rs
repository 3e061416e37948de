//! The traps of an Envoy bootstrap that limits or authorises: what each is, where it stands and how
//! to get out. Pure: given the tree of a file, it returns findings.
//!
//! ```text
//! tree of the file ─► bootstrap (listeners, filter chains, clusters) ─► one module per group of rules ─► findings
//! ```
//!
//! Not a validator: what Envoy itself refuses at its start is left to Envoy. Every rule is about a
//! configuration that loads and then does something else than it seems to say. Measured on Envoy 1.40.

mod admission;
mod bootstrap;
mod clusters;
mod connections;
mod descriptors;
mod ext_authz;
mod hits;
mod logs;
mod process;
mod quota;
mod rate_limit;
mod routes;
mod stripped;
mod tree;

use std::fmt;

use crate::document::Node;
use bootstrap::Bootstrap;

/// How bad a trap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Limits, keys or requests are lost.
    Error,
    /// Worth a decision: right for some, a surprise for others.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One kind of trap.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is called: kebab-case, the argument of `--allow`.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What goes wrong.
    pub trap: &'static str,
    /// What to write instead.
    pub cure: &'static str,
}

/// A trap in a file.
#[derive(Debug)]
pub struct Finding {
    /// Which.
    pub rule: &'static Rule,
    /// 1-based line and column; of what an alias stands for, where its anchor is.
    pub at: (u64, u64),
    /// The filter, cluster, header or command that is meant; may be empty.
    pub subject: String,
}

/// What the rules need to know that no bootstrap says.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The most calls in flight at a time that the circuit breakers of a side service must let pass.
    pub in_flight_max: u64,
}

/// All rules, by group.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let groups: [&'static [&'static Rule]; 10] = [
        routes::RULES,
        descriptors::RULES,
        hits::RULES,
        rate_limit::RULES,
        ext_authz::RULES,
        quota::RULES,
        clusters::RULES,
        admission::RULES,
        connections::RULES,
        logs::RULES,
    ];
    groups.into_iter().flatten().chain(process::RULES).copied()
}

/// What was read of a bootstrap, and what is wrong with it, in the order of the file.
#[derive(Debug)]
pub struct Lint {
    /// How many HTTP connection managers the file has.
    pub managers: usize,
    /// The traps.
    pub findings: Vec<Finding>,
}

/// Looks for every trap in a bootstrap, or in what Envoy's `/config_dump` shows.
pub fn lint(root: &Node, load: Load) -> Lint {
    let bootstrap = Bootstrap::new(root);
    let mut found = Findings::default();
    for chain in &bootstrap.chains {
        routes::check(chain, &mut found);
        descriptors::check(chain, &mut found);
        hits::check(chain, &mut found);
        rate_limit::check(chain, &bootstrap, &mut found);
        ext_authz::check(chain, &mut found);
        quota::check(chain, &mut found);
        clusters::check(chain, &bootstrap, load, &mut found);
        admission::check(chain, &mut found);
        connections::check(chain, &mut found);
    }
    logs::check(&bootstrap, &mut found);
    process::check(&bootstrap, &mut found);
    let mut findings = found.0;
    findings.sort_by(|a, b| (a.at, a.rule.name, &a.subject).cmp(&(b.at, b.rule.name, &b.subject)));
    // One fault behind an anchor is one fault, however often it is used.
    findings.dedup_by(|a, b| a.at == b.at && a.rule == b.rule && a.subject == b.subject);
    Lint { managers: bootstrap.chains.len(), findings }
}

/// The findings of a run.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, rule: &'static Rule, node: &Node, subject: impl Into<String>) {
        self.0.push(Finding { rule, at: tree::place(node), subject: subject.into() });
    }
}

#[cfg(test)]
mod tests;
