//! The last versions of the quotas, what each changed, and what was refused since it came into force.
//! Pure: the time and the counts come from the caller.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::diff::diff;
use crate::limits::quotas::Quotas;

/// Versions that are kept.
pub const VERSIONS_MAX: usize = 20;
/// Changes of a version that are kept in words; of the others only the number.
pub const CHANGES_MAX: usize = 20;

/// The versions.
#[derive(Default)]
pub struct Changes {
    in_force: Option<Arc<Quotas>>,
    versions: VecDeque<Version>,
}

struct Version {
    at_seconds: u64,
    count: usize,
    /// The first of them, in words.
    words: Vec<String>,
    /// Requests refused before it.
    refused_before: u64,
}

impl Changes {
    /// These quotas are in force at `now_seconds`, when `refused` requests were refused so far.
    pub fn observe(&mut self, quotas: &Arc<Quotas>, now_seconds: u64, refused: u64) {
        if self.in_force.as_ref().is_some_and(|known| Arc::ptr_eq(known, quotas)) {
            return;
        }
        let old = self.in_force.replace(quotas.clone());
        let changes = old.map(|old| diff(&old, quotas)).unwrap_or_default();
        let words = changes.iter().take(CHANGES_MAX).map(ToString::to_string).collect();
        let count = changes.len();
        let version = Version { at_seconds: now_seconds, count, words, refused_before: refused };
        self.versions.push_front(version);
        self.versions.truncate(VERSIONS_MAX);
    }

    /// All of them, newest first; `refused` is the number of refused requests now.
    pub fn describe(&self, refused: u64) -> Value {
        let mut until = refused;
        let mut described = Vec::new();
        for version in &self.versions {
            described.push(json!({
                "at": version.at_seconds,
                "changes": version.count,
                "words": version.words,
                "refused": until.saturating_sub(version.refused_before),
            }));
            until = version.refused_before;
        }
        Value::Array(described)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::quotas::Library;

    fn quotas(limit: u32) -> Arc<Quotas> {
        let text = format!(
            "domain: edge\ndescriptors:\n  - key: tenant\n    rate_limit: {{unit: minute, requests_per_unit: {limit}}}\n"
        );
        let files = std::iter::once(("a.yaml".into(), Ok(text.into_bytes()))).collect();
        let update = Library::new(false).update(&files);
        assert!(update.errors.is_empty(), "{:?}", update.errors);
        Arc::new(update.quotas)
    }

    #[test]
    fn each_version_says_what_it_changed_and_what_was_refused_while_it_was_in_force() {
        let mut changes = Changes::default();
        let (first, second) = (quotas(10), quotas(5));
        changes.observe(&first, 100, 0);
        changes.observe(&first, 101, 3);
        changes.observe(&second, 200, 4);
        let shown = changes.describe(11);
        assert_eq!((shown[0]["at"].clone(), shown[0]["refused"].clone()), (json!(200), json!(7)));
        assert_eq!(shown[0]["changes"], 1);
        let words = shown[0]["words"][0].as_str().expect("in words");
        assert!(words.starts_with("lowered edge tenant: 10 per minute -> 5 per minute"), "{words}");
        assert_eq!(
            (shown[1]["changes"].clone(), shown[1]["refused"].clone()),
            (json!(0), json!(4))
        );
        for version in 0..100 {
            changes.observe(&quotas(version + 1), 300, 11);
        }
        assert_eq!(changes.describe(11).as_array().map(Vec::len), Some(VERSIONS_MAX));
    }
}
