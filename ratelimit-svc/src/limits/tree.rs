//! The rules of a domain as a tree that is walked entry by entry.
//!
//! ```text
//! [tenant=acme, path=/write]     tenant ─┬─ "acme" ── path ─┬─ "/write"   literal values: hash
//!                                        ├─ "a*"            ├─ "/api/*"   patterns: file order
//!                                        └─ (any)           └─ (any)      the key alone
//! ```
//!
//! Keys and literal values are looked up by hash, so a walk costs the same with ten rules and
//! with ten thousand. Key and value are compared apart: key `a` with value `b_c` and key `a_b`
//! with value `c` are different rules.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::class::PRIORITY_KEY;
use crate::limits::pattern::Pattern;
use crate::limits::rule::Rule;

/// A place in the tree.
#[derive(Debug, Default)]
pub struct Node {
    /// The rule for descriptors that end here.
    pub rule: Option<Arc<Rule>>,
    /// What may follow.
    pub children: Level,
    /// Line and column in its file.
    pub at: Option<(u64, u64)>,
}

/// The alternatives at one depth.
#[derive(Clone, Debug, Default)]
pub struct Level {
    keys: HashMap<Box<str>, Branch>,
    /// Keys that themselves hold a `*`.
    key_patterns: Vec<KeyPattern>,
    inserted: usize,
}

#[derive(Clone, Debug, Default)]
struct Branch {
    literals: HashMap<Box<str>, Arc<Node>>,
    patterns: Vec<(usize, Pattern, Arc<Node>)>,
    any: Option<Arc<Node>>,
}

#[derive(Clone, Debug)]
struct KeyPattern {
    order: usize,
    key: Pattern,
    value: Option<Box<str>>,
    node: Arc<Node>,
}

/// The key and value are already in the level.
#[derive(Debug, PartialEq, Eq)]
pub struct Duplicate;

impl Level {
    /// Adds a node under `key` and, when it is not empty, `value`.
    ///
    /// # Errors
    /// When the same key and value are there.
    pub fn insert(&mut self, key: &str, value: &str, node: Arc<Node>) -> Result<(), Duplicate> {
        let order = self.inserted;
        if let Some(pattern) = Pattern::parse(key) {
            let value = (!value.is_empty()).then(|| value.into());
            if self.key_patterns.iter().any(|old| old.key == pattern && old.value == value) {
                return Err(Duplicate);
            }
            self.key_patterns.push(KeyPattern { order, key: pattern, value, node });
        } else {
            let branch = self.keys.entry(key.into()).or_default();
            if value.is_empty() {
                if branch.any.is_some() {
                    return Err(Duplicate);
                }
                branch.any = Some(node);
            } else if let Some(pattern) = Pattern::parse(value) {
                if branch.patterns.iter().any(|(_, old, _)| *old == pattern) {
                    return Err(Duplicate);
                }
                branch.patterns.push((order, pattern, node));
            } else if branch.literals.contains_key(value) {
                return Err(Duplicate);
            } else {
                branch.literals.insert(value.into(), node);
            }
        }
        self.inserted += 1;
        Ok(())
    }

    /// The node for one entry: a literal value before patterns, patterns in the order of the
    /// files, and the key alone last.
    pub fn step(&self, key: &str, value: &str) -> Option<&Arc<Node>> {
        let branch = self.keys.get(key);
        if let Some(node) = branch.and_then(|branch| branch.literals.get(value)) {
            return Some(node);
        }
        let by_value = branch.and_then(|branch| {
            let mut patterns = branch.patterns.iter();
            patterns.find(|(_, pattern, _)| pattern.matches(value)).map(|(at, _, node)| (*at, node))
        });
        let by_key = self.key_patterns.iter().find(|by_key| by_key.matches(key, value));
        match (by_value, by_key) {
            (Some((order, node)), Some(by_key)) if order < by_key.order => Some(node),
            (_, Some(by_key)) => Some(&by_key.node),
            (Some((_, node)), None) => Some(node),
            (None, None) => branch.and_then(|branch| branch.any.as_ref()),
        }
    }

    /// Walks all entries; the rule must stand exactly where they end.
    pub fn find(&self, entries: &[(&str, &str)]) -> Option<&Arc<Rule>> {
        let mut level = self;
        let mut found = None;
        for (key, value) in entries {
            let node = level.step(key, value)?;
            level = &node.children;
            found = node.rule.as_ref();
        }
        found
    }

    /// Whether a rule anywhere below speaks of the `priority` entry.
    pub fn names_priority(&self) -> bool {
        self.keys.contains_key(PRIORITY_KEY)
            || self.key_patterns.iter().any(|by_key| by_key.key.matches(PRIORITY_KEY))
            || self.nodes().any(|node| node.children.names_priority())
    }

    /// All rules below, sorted by id.
    pub fn rules(&self) -> Vec<Arc<Rule>> {
        let mut rules = Vec::new();
        self.collect(&mut rules);
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        rules
    }

    /// What stands at this depth: key, value as configured (none for the key alone), and node. In
    /// no particular order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Option<&str>, &Arc<Node>)> {
        let branches = self.keys.iter().flat_map(|(key, branch)| {
            let literals = branch.literals.iter().map(|(value, node)| (Some(&**value), node));
            let patterns = branch.patterns.iter().map(|(_, p, node)| (Some(p.as_str()), node));
            let any = branch.any.iter().map(|node| (None, node));
            let all = literals.chain(patterns).chain(any);
            all.map(move |(value, node)| (&**key, value, node))
        });
        let by_key = self.key_patterns.iter();
        branches.chain(by_key.map(|by| (by.key.as_str(), by.value.as_deref(), &by.node)))
    }

    fn collect(&self, rules: &mut Vec<Arc<Rule>>) {
        for node in self.nodes() {
            rules.extend(node.rule.clone());
            node.children.collect(rules);
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let branches = self.keys.values().flat_map(|branch| {
            let patterns = branch.patterns.iter().map(|(_, _, node)| node);
            branch.literals.values().chain(patterns).chain(&branch.any)
        });
        branches.chain(self.key_patterns.iter().map(|by_key| &by_key.node))
    }
}

impl KeyPattern {
    fn matches(&self, key: &str, value: &str) -> bool {
        self.key.matches(key)
            && self.value.as_deref().is_none_or(|expected| match Pattern::parse(expected) {
                Some(pattern) => pattern.matches(value),
                None => expected == value,
            })
    }
}
