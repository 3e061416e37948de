//! The rules of a domain as a tree that is walked entry by entry.
//!
//! ```text
//! [tenant=acme, path=/write]     tenant ─┬─ "acme" ── path ─┬─ "/write"   literal values: hash
//!                                        ├─ "a*"            ├─ "/api/*"   patterns: file order
//!                                        └─ (any)           └─ (any)      the key alone
//! ```
//!
//! Keys and literal values are looked up by hash, and patterns by hash of what stands before their
//! first `*`, so a walk costs the same with ten rules and with ten thousand; only patterns that
//! begin alike are tried one after the other. Of several that match, the one of the lowest rank
//! counts: the first in the file, or the most specific, as the [`Precedence`] of the file says. Key and value are compared apart: key `a` with value `b_c` and key `a_b`
//! with value `c` are different rules.

use std::collections::HashMap;
use std::sync::Arc;

use crate::keyed_hash::KeyedState;
use crate::limits::pattern::{Pattern, Precedence, Rank};
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
    keys: HashMap<Box<str>, Branch, KeyedState>,
    /// Keys that themselves hold a `*`, by rank.
    key_patterns: Vec<KeyPattern>,
    inserted: usize,
    precedence: Precedence,
}

#[derive(Clone, Debug, Default)]
struct Branch {
    literals: HashMap<Box<str>, Arc<Node>, KeyedState>,
    patterns: Patterns,
    any: Option<Arc<Node>>,
}

/// Patterns by what stands before their first `*`.
#[derive(Clone, Debug, Default)]
struct Patterns {
    by_prefix: HashMap<Box<str>, Vec<ValuePattern>, KeyedState>,
    /// The lengths of all prefixes in bytes, each once.
    prefix_bytes: Vec<usize>,
}

#[derive(Clone, Debug)]
struct ValuePattern {
    rank: Rank,
    pattern: Pattern,
    node: Arc<Node>,
}

#[derive(Clone, Debug)]
struct KeyPattern {
    rank: Rank,
    key: Pattern,
    value: Option<KeyValue>,
    node: Arc<Node>,
}

/// The value beside a key that is a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum KeyValue {
    Literal(Box<str>),
    Pattern(Pattern),
}

/// The key and value are already in the level.
#[derive(Debug, PartialEq, Eq)]
pub struct Duplicate;

impl Level {
    /// A level without alternatives.
    pub fn new(precedence: Precedence) -> Self {
        Self { precedence, ..Self::default() }
    }

    /// Which pattern counts where several match.
    pub fn precedence(&self) -> Precedence {
        self.precedence
    }

    /// Adds a node under `key` and, when it is not empty, `value`.
    ///
    /// # Errors
    /// When the same key and value are there.
    pub fn insert(&mut self, key: &str, value: &str, node: Arc<Node>) -> Result<(), Duplicate> {
        let rank = self.precedence.rank([key, value], self.inserted);
        if let Some(pattern) = Pattern::parse(key) {
            let value = KeyValue::parse(value);
            if self.key_patterns.iter().any(|old| old.key == pattern && old.value == value) {
                return Err(Duplicate);
            }
            let at = self.key_patterns.partition_point(|old| old.rank < rank);
            self.key_patterns.insert(at, KeyPattern { rank, key: pattern, value, node });
        } else {
            let branch = self.keys.entry(key.into()).or_default();
            if value.is_empty() {
                if branch.any.is_some() {
                    return Err(Duplicate);
                }
                branch.any = Some(node);
            } else if let Some(pattern) = Pattern::parse(value) {
                branch.patterns.insert(ValuePattern { rank, pattern, node })?;
            } else if branch.literals.contains_key(value) {
                return Err(Duplicate);
            } else {
                branch.literals.insert(value.into(), node);
            }
        }
        self.inserted += 1;
        Ok(())
    }

    /// The node for one entry: a literal value before patterns, patterns by rank, and the key
    /// alone last.
    pub fn step(&self, key: &str, value: &str) -> Option<&Arc<Node>> {
        let branch = self.keys.get(key);
        if let Some(node) = branch.and_then(|branch| branch.literals.get(value)) {
            return Some(node);
        }
        let by_value = branch.and_then(|branch| branch.patterns.find(value));
        let by_key = self.key_patterns.iter().find(|by_key| by_key.matches(key, value));
        match (by_value, by_key) {
            (Some(by_value), Some(by_key)) if by_value.rank < by_key.rank => Some(&by_value.node),
            (_, Some(by_key)) => Some(&by_key.node),
            (Some(by_value), None) => Some(&by_value.node),
            (None, None) => branch.and_then(|branch| branch.any.as_ref()),
        }
    }

    /// Walks all entries; the rule must stand exactly where they end.
    pub fn find(&self, entries: &[(&str, &str)]) -> Option<&Rule> {
        let mut level = self;
        let mut found = None;
        for (key, value) in entries {
            let node = level.step(key, value)?;
            level = &node.children;
            found = node.rule.as_deref();
        }
        found
    }

    /// Whether a rule anywhere below speaks of entries of that key.
    pub fn names(&self, key: &str) -> bool {
        self.keys.contains_key(key)
            || self.key_patterns.iter().any(|by_key| by_key.key.matches(key))
            || self.nodes().any(|node| node.children.names(key))
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
            let patterns = branch.patterns.all();
            let patterns = patterns.map(|one| (Some(one.pattern.as_str()), &one.node));
            let any = branch.any.iter().map(|node| (None, node));
            let all = literals.chain(patterns).chain(any);
            all.map(move |(value, node)| (&**key, value, node))
        });
        let by_key = self.key_patterns.iter();
        branches.chain(by_key.map(|by| {
            let value = by.value.as_ref().map(KeyValue::as_str);
            (by.key.as_str(), value, &by.node)
        }))
    }

    fn collect(&self, rules: &mut Vec<Arc<Rule>>) {
        for node in self.nodes() {
            rules.extend(node.rule.clone());
            node.children.collect(rules);
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let branches = self.keys.values().flat_map(|branch| {
            let patterns = branch.patterns.all().map(|one| &one.node);
            branch.literals.values().chain(patterns).chain(&branch.any)
        });
        branches.chain(self.key_patterns.iter().map(|by_key| &by_key.node))
    }
}

impl Patterns {
    fn insert(&mut self, new: ValuePattern) -> Result<(), Duplicate> {
        let prefix = new.pattern.prefix();
        if !self.prefix_bytes.contains(&prefix.len()) {
            self.prefix_bytes.push(prefix.len());
        }
        let alike = self.by_prefix.entry(prefix.into()).or_default();
        if alike.iter().any(|old| old.pattern == new.pattern) {
            return Err(Duplicate);
        }
        alike.insert(alike.partition_point(|old| old.rank < new.rank), new);
        Ok(())
    }

    /// The pattern of the lowest rank that matches.
    fn find(&self, value: &str) -> Option<&ValuePattern> {
        let prefixes = self.prefix_bytes.iter().filter_map(|bytes| value.get(..*bytes));
        let alike = prefixes.filter_map(|prefix| self.by_prefix.get(prefix));
        let found = alike.filter_map(|alike| alike.iter().find(|one| one.pattern.matches(value)));
        found.min_by_key(|one| one.rank)
    }

    fn all(&self) -> impl Iterator<Item = &ValuePattern> {
        self.by_prefix.values().flatten()
    }
}

impl KeyPattern {
    fn matches(&self, key: &str, value: &str) -> bool {
        self.key.matches(key)
            && self.value.as_ref().is_none_or(|expected| match expected {
                KeyValue::Literal(literal) => **literal == *value,
                KeyValue::Pattern(pattern) => pattern.matches(value),
            })
    }
}

impl KeyValue {
    fn parse(text: &str) -> Option<Self> {
        let literal = || (!text.is_empty()).then(|| Self::Literal(text.into()));
        Pattern::parse(text).map(Self::Pattern).or_else(literal)
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Literal(literal) => literal,
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }
}

#[cfg(test)]
mod tests;
