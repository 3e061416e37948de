//! Quota files while the service runs: each new state is checked, and what is good is in force
//! at once. Counters are not touched.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chassis::readiness::Condition;
use chassis::reload::{self, ReloadStatus, Snapshot, Source};
use serde_json::json;

use crate::limits::quotas::{Library, Quotas};
use crate::metrics::Metrics;

/// Follows the quota files.
pub struct Reloader {
    source: Source,
    quotas: Arc<ArcSwapOption<Quotas>>,
    state: Mutex<State>,
    condition: Condition,
    metrics: Arc<Metrics>,
}

struct State {
    library: Library,
    status: ReloadStatus,
    errors: Vec<String>,
    seen: Option<u64>,
    /// Whether all files were good at some moment; from then on a bad one costs no readiness.
    was_good: bool,
}

impl Reloader {
    /// A reloader that has read nothing; `condition` is met when all files are good.
    pub fn new(
        source: Source,
        merge_domains: bool,
        quotas: Arc<ArcSwapOption<Quotas>>,
        condition: Condition,
        metrics: Arc<Metrics>,
    ) -> Self {
        let state = State {
            library: Library::new(merge_domains),
            status: ReloadStatus::default(),
            errors: Vec::new(),
            seen: None,
            was_good: false,
        };
        Self { source, quotas, state: Mutex::new(state), condition, metrics }
    }

    /// Reads the files as they are now.
    pub fn load(&self) {
        self.apply(&self.source.read());
    }

    /// Follows the files. Never ends.
    pub async fn follow(&self, period: Duration) {
        reload::follow(self.source.clone(), period, |snapshot| self.apply(&snapshot)).await;
    }

    /// What `/config` tells.
    pub fn describe(&self) -> serde_json::Value {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let quotas = self.quotas.load();
        let quotas = quotas.as_deref();
        let domains = quotas.map(|quotas| {
            let rules = quotas.domains().into_iter();
            let rules = rules.map(|d| (d.name.to_string(), json!(d.root.rules().len())));
            serde_json::Value::Object(rules.collect())
        });
        let classes = quotas.map(|quotas| {
            let ladder = quotas.classes().ladder().iter();
            ladder.map(ToString::to_string).collect::<Vec<_>>()
        });
        json!({
            "quotas": state.status,
            "errors": state.errors,
            "rules_by_domain": domains,
            "priority_classes": classes,
        })
    }

    fn apply(&self, snapshot: &Snapshot) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = reload::hash(snapshot);
        if state.seen.replace(hash) == Some(hash) {
            return;
        }
        if snapshot.is_empty() {
            self.refuse_empty(&mut state);
            return;
        }
        let update = state.library.update(snapshot);
        state.errors = update.errors.iter().map(ToString::to_string).collect();
        for warning in &update.warnings {
            tracing::warn!(warning = %warning, "quota setting without effect");
        }
        if update.library.is_empty() {
            // Nothing of this can be in force.
            self.refuse(&mut state);
            return;
        }
        state.library = update.library;
        self.quotas.store(Some(Arc::new(update.quotas)));
        state.status.loaded(hash);
        if state.errors.is_empty() {
            self.count(&state);
            state.was_good = true;
            self.condition.met();
            let (version, hash) = (state.status.version, state.status.hash.as_str());
            tracing::info!(version, hash, "quotas in force");
        } else {
            self.refuse(&mut state);
        }
    }

    /// Nobody takes all quotas away on purpose by emptying a directory: what is in force stays.
    fn refuse_empty(&self, state: &mut State) {
        let (Source::Directory { path, .. } | Source::File(path)) = &self.source;
        state.errors = vec![format!("{}: holds no quota files", path.display())];
        self.refuse(state);
    }

    fn refuse(&self, state: &mut State) {
        for error in &state.errors {
            tracing::error!(error, "quota file refused");
        }
        let first = state.errors.first().cloned().unwrap_or_default();
        state.status.refused(first.clone());
        self.count(state);
        if !state.was_good {
            self.condition.lost(first);
        }
    }

    fn count(&self, state: &State) {
        let hash = u64::from_str_radix(&state.status.hash, 16).unwrap_or(0);
        self.metrics.config_loaded(&state.status, hash, state.errors.len());
    }
}
